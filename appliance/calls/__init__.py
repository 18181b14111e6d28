"""One call's life, and all calls together."""
