"""What a trunk of the kind ``browser`` is told, without importing what serves pages: ``appliance check`` reads it."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, field_validator

from appliance.api import ProviderOptions

HOST: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
"""What stands in a Host header: a name or an address, and a port."""


class BrowserOptions(ProviderOptions):
    """What a trunk of kind ``browser`` has beside the keys of every trunk."""

    hosts: tuple[str, ...] = Field(
        default=(),
        description="Names under which the page is opened, such as `voice.example.com`; addresses and `localhost` are "
        "taken without.",
    )
    media_url: str = Field(
        default="",
        description="Where browsers reach `listen.media`, such as `wss://voice.example.com`; without it, the host "
        "that the page was opened under, at the port of `listen.media`.",
    )

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            found = HOST.fullmatch(host)
            if found is None or found["port"]:
                raise ValueError(f"{host!r} is not the name of a host; write voice.example.com, without a port")
        return tuple(host.lower() for host in hosts)

    @field_validator("media_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        if not url:
            return url
        scheme, colon, rest = url.rstrip("/").partition("://")
        host, _, path = rest.partition("/")
        well_formed = colon and HOST.fullmatch(host) and re.fullmatch(r"[A-Za-z0-9._~/-]*", path)
        if scheme not in ("ws", "wss") or not well_formed:
            raise ValueError(f"{url!r} is not the address of a WebSocket; write wss://voice.example.com")
        return url.rstrip("/")
