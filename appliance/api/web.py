"""What carriers with an API on the web have in common: addresses in their options, and requests with second tries.

Not part of ``appliance.api`` itself: only the control process has use for it.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator

from appliance.api.streams import printable
from appliance.config.validation import fault
from appliance.errors import CarrierApiError

if TYPE_CHECKING:
    import aiohttp

TRIES: Final = 4
TRY_S: Final = 5.0
"""One request may take this long."""

_BACK_OFF_S: Final = 0.25
_MAX_WAIT_S: Final = 2.0
_MAX_ANSWER: Final = 262_144


def _origin(schemes: tuple[str, str]) -> AfterValidator:
    secure, plain = schemes

    def check(value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value.strip())
            host, _ = parts.hostname, parts.port
        except ValueError:
            parts, host = urlsplit(""), None
        if not host or parts.scheme not in schemes or parts.username is not None:
            raise fault("not an address", f"write one such as {secure}://voice.example.com")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise fault("more than an origin", f"leave the path out: {parts.scheme}://{parts.netloc}")
        if parts.scheme == plain and not _is_loopback(host):
            raise fault(f"{plain}:// is for tests on this machine", f"write {secure}://{parts.netloc}")
        return f"{parts.scheme}://{parts.netloc}"

    return AfterValidator(check)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


HttpOrigin: TypeAlias = Annotated[str, _origin(("https", "http"))]
"""``https://HOST``, without a path; ``http`` on this machine only; "" stays."""

WsOrigin: TypeAlias = Annotated[str, _origin(("wss", "ws"))]
"""The same of a WebSocket."""


def _key(text: str) -> str:
    try:
        if len(base64.b64decode(text, validate=True)) == 32:
            return text
    except ValueError:
        pass
    raise fault("not a public key", "copy the account's from the carrier's portal; it has 44 characters, the last an =")


Ed25519Key: TypeAlias = Annotated[str, AfterValidator(_key)]
"""A public key in base64."""


def media_origin(media_url: str, public_url: str, media_port: int) -> str:
    """Where a carrier opens its streams: ``media_url``, or the host of ``public_url``.

    ``media_port`` counts where there is no proxy before the box, which is so where ``public_url`` is plain http.
    """
    if media_url:
        return media_url
    parts = urlsplit(public_url)
    if parts.scheme == "https":
        return f"wss://{parts.netloc}"
    host = parts.hostname or ""
    return f"ws://{f'[{host}]' if ':' in host else host}:{media_port}"


async def post(
    http: aiohttp.ClientSession, url: str, body: Mapping[str, Any], headers: Mapping[str, str], *, tries: int = TRIES
) -> dict[str, Any]:
    """What the API answers to ``body`` in JSON.

    Asked again, each time after twice the wait, where the API is busy (429), out of order (5xx) or not to be reached:
    ``body`` must hold a key by which the API knows a request that it has had.

    Raises:
        CarrierApiError: it refuses, or the last try has failed too. It is not ``sure`` where some try may have done
            what was asked for: one without an answer, or with a 5xx.
    """
    from aiohttp import ClientConnectorError, ClientError, ClientTimeout

    sure = True
    for attempt in range(tries):
        wait = _BACK_OFF_S * 2**attempt * (0.5 + random.random())
        try:
            async with http.post(
                url, json=body, headers=headers, timeout=ClientTimeout(TRY_S), allow_redirects=False
            ) as response:
                status, text = response.status, b""
                while len(text) < _MAX_ANSWER and (piece := await response.content.read(_MAX_ANSWER)):
                    text += piece
            if 200 <= status < 300:
                return _read(text)
            sure = sure and status < 500
            words = f"HTTP {status}: {printable(text.decode('utf-8', 'replace'))}"
            problem = CarrierApiError(words, status=status, sure=sure)
            if status != 429 and status < 500:
                raise problem
            after = response.headers.get("Retry-After", "")
            wait = max(wait, float(after)) if after.isdecimal() else wait
        except (ClientError, OSError) as error:
            sure = sure and isinstance(error, ClientConnectorError)
            words = f"no answer: {printable(str(error)) or type(error).__name__}"
            problem = CarrierApiError(words, status=0, sure=sure)
        if attempt + 1 < tries:
            await asyncio.sleep(min(wait, _MAX_WAIT_S))
    raise problem


def _read(text: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text or b"{}")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CarrierApiError("the answer is not a JSON object; is api_url right?", status=0, sure=False)
    return found
