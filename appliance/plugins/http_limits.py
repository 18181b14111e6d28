"""How much and how long a request to a plugin's HTTP route may be. Both sides of the border keep to it."""

from __future__ import annotations

from typing import Final

MAX_BODY: Final = 1_000_000
HANDLER_S: Final = 10.0
_PART: Final = 128 * 1024


def parts(body: bytes) -> list[bytes]:
    """The body in parts that fit into a message; at least one."""
    return [body[start : start + _PART] for start in range(0, len(body), _PART)] or [b""]
