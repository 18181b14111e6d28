"""The plugin host at work."""

from __future__ import annotations


def run(settings_fd: int) -> int:
    """Serve hooks until the supervisor says Stop."""
    return 0
