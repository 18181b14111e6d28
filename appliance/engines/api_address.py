"""The address of an OpenAI-compatible API and the headers that it wants, as an operator writes them."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

_SOCKETS: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def _for_a_header(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if not text.isascii() or not text.isprintable():
        raise ValueError("holds characters that no HTTP header may have; is it the right one?")
    return SecretStr(text)


HeaderText: TypeAlias = Annotated[SecretStr, AfterValidator(_for_a_header)]
HeaderName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]


def api_address(value: str, endpoint: str, example: str = "http://127.0.0.1:8000/v1") -> str:
    """``value`` without a slash at its end.

    Args:
        value: such as ``http://127.0.0.1:8000/v1``.
        endpoint: what is appended to it, ``/chat/completions`` for one.
        example: a right one.

    Raises:
        ValueError: it is no such address; says what would be right.
    """
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or any(char.isspace() for char in value):
        raise ValueError(f"is not the address of an API; write it as {example}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a password; set api_key instead")
    if parts.query or parts.fragment:
        raise ValueError(f"has something behind the path; write it as {example}")
    value = value.rstrip("/")
    if value.endswith(endpoint):
        raise ValueError(f"names the method itself; leave {endpoint} out")
    return value


def socket_address(value: str) -> str:
    """The same for a WebSocket: the address begins with ws:// or wss://, also where it was written as http:// or https://.

    Raises:
        ValueError: it is no such address; says what would be right.
    """
    scheme, separator, rest = value.partition("://")
    if scheme not in _SOCKETS:
        raise ValueError("is not the address of an API; write it as wss://api.openai.com/v1")
    address = api_address(f"http{separator}{rest}", "/realtime", "wss://api.openai.com/v1")
    return _SOCKETS[scheme] + address.removeprefix("http")


def secrets_in(value: Any) -> list[str]:
    """Every secret text anywhere in ``value``, in clear."""
    if isinstance(value, SecretStr):
        return [value.get_secret_value()] if value.get_secret_value() else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [secret for item in items for secret in secrets_in(item)]
