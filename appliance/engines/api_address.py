"""The address of an OpenAI-compatible API, as an operator writes it."""

from __future__ import annotations

from urllib.parse import urlsplit


def api_address(value: str, endpoint: str) -> str:
    """``value`` without a slash at its end.

    Args:
        value: such as ``http://127.0.0.1:8000/v1``.
        endpoint: what is appended to it, ``/chat/completions`` for one.

    Raises:
        ValueError: it is no such address; says what would be right.
    """
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or any(char.isspace() for char in value):
        raise ValueError("is not the address of an API; write it as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a password; set api_key instead")
    if parts.query or parts.fragment:
        raise ValueError("has something behind the path; write it as http://127.0.0.1:8000/v1")
    value = value.rstrip("/")
    if value.endswith(endpoint):
        raise ValueError(f"names the method itself; leave {endpoint} out")
    return value
