"""The record of every call, in SQL and WAV."""
