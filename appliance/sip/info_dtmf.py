"""Keys in INFO requests: two bodies that come from practice, not from an RFC.

``application/dtmf-relay`` has the lines ``Signal=5`` and ``Duration=100`` (ms); ``application/dtmf`` is the
key alone. Both are read; the first is written, because whoever reads any reads that one.
"""

from __future__ import annotations

from typing import Final

from appliance.errors import LocalSipError

CONTENT_TYPE: Final = "application/dtmf-relay"
KEYS: Final = "0123456789*#ABCD"

_MAX_BODY: Final = 256
_BY_EVENT_NUMBER: Final = {"10": "*", "11": "#"}


def dtmf_from_info(content_type: str, body: bytes) -> str:
    """The key in an INFO body of ``application/dtmf-relay`` or ``application/dtmf``; "" where there is none."""
    media_type = content_type.partition(";")[0].strip().lower()
    text = body[:_MAX_BODY].decode("ascii", "replace")
    key = ""
    if media_type == CONTENT_TYPE:
        for line in text.splitlines():
            name, equals, value = line.partition("=")
            if equals and name.strip().lower() == "signal":
                key = value.strip().upper()
    elif media_type == "application/dtmf":
        key = text.strip().upper()
    key = _BY_EVENT_NUMBER.get(key, key)
    return key if len(key) == 1 and key in KEYS else ""


def dtmf_to_info(key: str, duration_ms: int = 100) -> bytes:
    """The body, of ``CONTENT_TYPE``, that tells of one key.

    Raises:
        LocalSipError: if there is no such key.
    """
    if len(key) != 1 or key.upper() not in KEYS:
        raise LocalSipError(f"{key!r} is not a key; use one of {KEYS}")
    return f"Signal={key.upper()}\r\nDuration={duration_ms}\r\n".encode()
