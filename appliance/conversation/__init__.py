"""Turn taking, what to say next, and saying it."""
