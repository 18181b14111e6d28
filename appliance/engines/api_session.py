"""One server with an OpenAI-compatible API: its connections, and what its refusals mean and would help."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import ssl
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec
from pydantic import SecretStr

from appliance.engines.api_address import secrets_in
from appliance.engines.api_options import HttpApiOptions
from appliance.engines.chat_reply import told, words_of_error
from appliance.engines.server_fault import ServerFault
from appliance.errors import EngineError

logger = logging.getLogger(__name__)

_ERROR_BYTES: Final = 16_384
_ERROR_BODY_S: Final = 0.5
_PING_S: Final = 5.0
_DNS_TTL_S: Final = 300
_PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_ABOUT_THE_REQUEST: Final = frozenset({400, 413, 422})
_NO_LIMITS: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


class Access(Protocol):
    """How a server is reached; part of its options."""

    @property
    def base_url(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def api_key(self) -> SecretStr | None: ...
    @property
    def extra_headers(self) -> Mapping[str, SecretStr]: ...
    @property
    def ca_file(self) -> Path | None: ...


def open_session(
    access: Access, where: str, keep_alive_s: float, traces: Iterable[aiohttp.TraceConfig] = ()
) -> aiohttp.ClientSession:
    """Without limits of its own, for every request has deadlines.

    Args:
        access: whose key and headers go with every request.
        where: the dotted key of its settings, for what errors say.
        keep_alive_s: connections that are used so often stay open.
        traces: told of connections.

    Raises:
        EngineError: ``ca_file`` cannot be read.
    """
    headers = {"User-Agent": "appliance", "Accept-Encoding": "identity"}  # what is packed comes late
    headers |= headers_of(access)
    connector = aiohttp.TCPConnector(
        limit=0, ssl=tls_context(access.ca_file, where), ttl_dns_cache=_DNS_TTL_S, keepalive_timeout=3 * keep_alive_s
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=_NO_LIMITS,
        headers=headers,
        trace_configs=list(traces),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def headers_of(access: Access) -> dict[str, str]:
    """What tells the server who asks, in clear."""
    headers = {name: value.get_secret_value() for name, value in access.extra_headers.items()}
    if access.api_key is not None and access.api_key.get_secret_value():
        headers["Authorization"] = f"Bearer {access.api_key.get_secret_value()}"
    return headers


def tls_context(ca_file: Path | None, where: str) -> ssl.SSLContext:
    """One for all connections, for making one takes longer than a whole reply may.

    Raises:
        EngineError: ``ca_file`` cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = f"{where}.ca_file: cannot be read ({error}); name a PEM file"
        raise EngineError(reason, retryable=False) from None


async def touch(session: aiohttp.ClientSession, base_url: str, connections: int, within_s: float = _PING_S) -> bool:
    """Use every connection that is kept once, and open those that are missing; whether the server was reached.

    HEAD, because the list of models of some servers is half a megabyte. What it answers is of no interest.
    """

    async def one() -> None:
        async with session.head(f"{base_url}/models", allow_redirects=False) as response:
            await response.read()

    if not connections:
        return True
    try:
        async with asyncio.timeout(within_s):
            results = await asyncio.gather(*(one() for _ in range(connections)), return_exceptions=True)
    except TimeoutError:
        return False
    return not all(isinstance(result, BaseException) for result in results)


async def read_up_to(content: aiohttp.StreamReader, limit: int) -> bytes:
    """All there is, or its first ``limit`` bytes and a few more."""
    body = bytearray()
    while len(body) < limit and not content.at_eof():
        body += await content.readany()
    return bytes(body)


def redacted(text: str, secrets: Any) -> str:
    """``text`` without any secret that is in ``secrets``."""
    for secret in secrets_in(secrets):
        text = text.replace(secret, "***")
    return text


async def refusal(response: aiohttp.ClientResponse, access: Access, where: str) -> ServerFault:
    """What an answer other than 200 means, and what would help; it may hold secrets."""
    status = response.status
    if 300 <= status < 400:
        target = told(response.headers.get("Location", "elsewhere"))
        return ServerFault(f"answered {status}: it redirects to {target}; set {where}.base_url to where it is")
    body = b""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_ERROR_BODY_S):
            body = await read_up_to(response.content, _ERROR_BYTES)
    words = _words(body) or response.reason or "no reason given"
    if status in (401, 403):
        missing = "the key was refused" if access.api_key else "it wants a key"
        return ServerFault(f"answered {status}: {missing} ({words}); set {where}.api_key")
    if status == 404:
        return ServerFault(f"answered 404: {words}; check {where}.base_url and {where}.model {access.model!r}")
    if status in _PASSING:
        wait_s = _retry_after_s(response.headers.get("Retry-After", ""))
        return ServerFault(f"answered {status}: {words}", again=True, wait_s=wait_s)
    return ServerFault(f"answered {status}: {words}", blame=status not in _ABOUT_THE_REQUEST)


def unreached(error: BaseException, where: str) -> ServerFault:
    """Why there was no answer at all; it may hold secrets."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return ServerFault(f"cannot be trusted ({told(str(error))}); check {where}.base_url and ca_file")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ServerFault(f"has a name that cannot be resolved; check {where}.base_url", again=True)
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return ServerFault(f"refuses connections; start it, or check {where}.base_url", again=True)
    if isinstance(error, TimeoutError):
        return ServerFault(f"does not answer; check {where}.base_url", again=True)
    return ServerFault(f"cannot be reached ({told(str(error) or type(error).__name__)})", again=True)


def _words(body: bytes) -> str:
    try:
        return words_of_error(msgspec.json.decode(body))
    except msgspec.MsgspecError:
        return told(body.decode(errors="replace"))


def _retry_after_s(value: str) -> float | None:
    """Seconds, or a date (RFC 9110 §10.2.3); None where there is neither."""
    if not value:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


class ApiSession:
    """The connections of an engine to its one server, some of them kept open.

    Args:
        options: of the engine.
        where: the dotted key of its settings, for what errors say.
        secrets: options that no message may show, beside the key and the headers.

    Attributes:
        name: what messages call the server.
    """

    def __init__(self, options: HttpApiOptions, where: str, secrets: Any = ()) -> None:
        self.name = f"{options.model} at {urlsplit(options.base_url).netloc}"
        self._options = options
        self._where = where
        self._secrets = [options.api_key, options.extra_headers, secrets]
        self._session: aiohttp.ClientSession | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open connections. A server that cannot be reached now may be later, so that this is only logged.

        Raises:
            EngineError: ``ca_file`` cannot be read.
        """
        self._session = open_session(self._options, self._where, self._options.keep_alive_s)
        if not await self._warm():
            logger.warning("%s cannot be reached; check %s.base_url", self.name, self._where)
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, data: Any, headers: Mapping[str, str] | None = None) -> aiohttp.ClientResponse:
        """The answer to a request, whose status is 200; to be closed or released by the caller.

        Raises:
            ServerFault: another status.
            aiohttp.ClientError, OSError: see :meth:`broken`.
        """
        assert self._session is not None
        url = f"{self._options.base_url}{path}"
        response = await self._session.post(url, data=data, headers=headers, allow_redirects=False)
        if response.status != 200:
            try:
                raise await refusal(response, self._options, self._where)
            finally:
                response.close()
        return response

    def broken(self, error: aiohttp.ClientError | OSError) -> ServerFault:
        """Why there was no answer, or not all of it."""
        if isinstance(error, aiohttp.ClientConnectorError):
            return unreached(error, self._where)
        return ServerFault(f"broke off ({told(str(error)) or type(error).__name__})", again=True)

    def says(self, fault: ServerFault) -> str:
        """The fault in a sentence that holds no secret."""
        return f"{self.name} {redacted(str(fault), self._secrets)}"

    async def _warm(self) -> bool:
        assert self._session is not None
        return await touch(self._session, self._options.base_url, self._options.connections)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._options.keep_alive_s)
            await self._warm()
