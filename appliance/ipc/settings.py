"""Settings on their way from the supervisor to its children: JSON in an anonymous file, never on disk."""

from __future__ import annotations

import os

from appliance.config import Settings


def share_settings(settings: Settings) -> int:
    """A descriptor that children inherit; it holds secrets, so no other process can open it by name."""
    fd = os.memfd_create("appliance-settings", 0)
    data = settings.dump_json()
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
    return fd


def read_settings(fd: int) -> Settings:
    """What the supervisor passed on; can be read again after a restart."""
    size = os.fstat(fd).st_size
    return Settings.model_validate_json(os.pread(fd, size, 0))
