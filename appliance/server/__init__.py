"""Composition: the supervisor, the control process, and which process runs where."""
