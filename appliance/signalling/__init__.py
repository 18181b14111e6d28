"""Legs: how a call arrives and is controlled, whatever the protocol."""
