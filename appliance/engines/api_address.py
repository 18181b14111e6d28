"""The address of an OpenAI-compatible API and the headers that it wants, as an operator writes them."""

from __future__ import annotations

from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr


def _for_a_header(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if not text.isascii() or not text.isprintable():
        raise ValueError("holds characters that no HTTP header may have; is it the right one?")
    return SecretStr(text)


HeaderText: TypeAlias = Annotated[SecretStr, AfterValidator(_for_a_header)]
HeaderName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]


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
