"""What a trunk of the kind ``twilio`` is told. Imports nothing of Twilio's: ``appliance check`` needs none of it."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from appliance.api import ProviderOptions
from appliance.config.validation import fault, short_form

API_URL: Final = "https://api.twilio.com"
_ACCOUNT: Final = re.compile(r"AC[0-9a-fA-F]{32}")


def _account(value: str) -> str:
    if _ACCOUNT.fullmatch(value):
        return value
    meant = " (what begins with SK is an API key)" if value.startswith("SK") else ""
    hint = "write AC and the 32 characters that follow it on the console's first page"
    raise fault(f"{value[:40]!r} is not an Account SID{meant}", hint)


def _token(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise fault("is empty", "write `!secret NAME`, and the account's Auth Token as NAME in secrets.yaml")
    return value


def _origin(value: str, schemes: tuple[str, str], example: str) -> str:
    """An address without a path, else as it is written, since signatures are over it.

    ``schemes`` are the safe one and the plain one, which is taken for this machine alone.
    """
    try:
        parts = urlsplit(value.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in schemes:
        raise fault(f"{value[:80]!r} is not of the form {schemes[0]}://HOST", f"write an address such as {example}")
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise fault("is more than scheme and host", f"write an address such as {example}, with nothing behind it")
    if parts.scheme == schemes[1] and not _is_loopback(host):
        raise fault(
            f"{schemes[1]}:// is for this machine alone", f"write {schemes[0]}://, and end TLS in a reverse proxy"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _public(value: str) -> str:
    return _origin(value, ("https", "http"), "https://voice.example.com")


def _api(value: str) -> str:
    return _origin(value, ("https", "http"), API_URL)


def _websocket(value: str) -> str:
    return _origin(value, ("wss", "ws"), "wss://voice.example.com") if value else ""


@short_form({"type": "boolean"})
def _switch(value: Any) -> Any:
    """``off`` and ``on`` are booleans in YAML."""
    if isinstance(value, bool):
        return "enable" if value else "off"
    return value


class TwilioOptions(ProviderOptions):
    """What a trunk of the kind ``twilio`` has beside the keys of every trunk."""

    account_sid: Annotated[str, AfterValidator(_account)] = Field(
        description="The account, `AC` and 32 characters. Webhooks of any other are refused."
    )
    auth_token: Annotated[SecretStr, AfterValidator(_token)] = Field(
        description="Its Auth Token, `!secret NAME`: it signs Twilio's webhooks, and opens its API to the box."
    )
    public_url: Annotated[str, AfterValidator(_public)] = Field(
        description="The https origin under which Twilio reaches `listen.http`, as its numbers' webhooks write it."
    )
    media_url: Annotated[str, AfterValidator(_websocket)] = Field(
        default="",
        description="The wss origin under which it reaches `listen.media`; empty: the host of `public_url`.",
    )
    api_url: Annotated[str, AfterValidator(_api)] = Field(
        default=API_URL,
        description="The API, where it is that of another region (`https://api.dublin.ie1.twilio.com`) or a proxy.",
    )
    machine_detection: Annotated[Literal["off", "enable", "detect_message_end"], BeforeValidator(_switch)] = Field(
        default="off",
        description="Of placed calls. enable: is it a person? detect_message_end: and when may a machine be spoken to? "
        "It runs beside the conversation and delays nothing.",
    )
    machine_detection_timeout_s: Annotated[int, Field(ge=3, le=59)] = Field(
        default=30, description="How long that may take."
    )

    def media_origin(self, media_port: int) -> str:
        """Where Twilio opens its streams. ``media_port`` counts where there is no proxy: with a plain http origin."""
        if self.media_url:
            return self.media_url
        parts = urlsplit(self.public_url)
        if parts.scheme == "https":
            return f"wss://{parts.netloc}"
        host = parts.hostname or ""
        return f"ws://{f'[{host}]' if ':' in host else host}:{media_port}"
