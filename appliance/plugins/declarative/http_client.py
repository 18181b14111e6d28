"""HTTP for YAML plugins: allowed addresses only, checked where the socket is made, and nothing without a bound.

The address is checked when it is about to be connected to, whatever it was written as (a name, a number, an IPv6
address that holds an IPv4 one) and whatever the name's server answers the second time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from appliance.config.egress import Hosts, refusal
from appliance.plugins.declarative.response import MAX_BODY

logger = logging.getLogger(__name__)

_CONNECTIONS: Final = 20
_KEEP_ALIVE_S: Final = 15.0
_REDIRECTS: Final = 3
_RESOLVERS: Final = 4
_REDIRECT_STATUS: Final = (301, 302, 303, 307, 308)

_asked: ContextVar[_Asked] = ContextVar("asked")


@dataclass
class _Asked:
    """The request that a socket is made for. Connections are raced in tasks of their own, which share it."""

    host: str
    refused: str = ""


class HttpFailure(Exception):
    """There is no answer.

    Attributes:
        passing: another attempt may succeed.
    """

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True)
class HttpAnswer:
    """Status, body (at most 256 KB), its charset, and for how many seconds the server wants to be left alone."""

    status: int
    body: bytes
    charset: str = "utf-8"
    retry_after_s: float | None = None


class HttpClient:
    """The connections of one plugin: another one's may have been made under other rules.

    Args:
        allowed: private hosts that it may speak to.
        egress: hosts that the box may speak to; None for any.
        authority: PEM text that certificates are held against, beside what the system knows.
        resolver: looks names up; by default the system's, in threads of its own.
    """

    def __init__(
        self,
        allowed: Hosts,
        egress: Hosts | None,
        authority: str = "",
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        self._allowed = allowed
        self._egress = egress
        self._tls: ssl.SSLContext | bool = True
        if authority:
            self._tls = ssl.create_default_context()
            self._tls.load_verify_locations(cadata=authority)
        self._make_resolver = resolver or SystemResolver
        self._resolver: AbstractResolver | None = None
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._busy = 0
        self._retired = False

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float,
    ) -> HttpAnswer:
        """Ask once, and follow redirects of a GET on its own server.

        Raises:
            HttpFailure: the address is not allowed, nobody answers in time, or the answer is none; says which.
        """
        self._busy += 1
        try:
            async with asyncio.timeout(timeout_s):
                target = URL(url, encoded=True)
                for _ in range(_REDIRECTS + 1):
                    asked = _Asked(target.raw_host or "")  # xn--..., as lists of hosts hold it
                    token = _asked.set(asked)
                    try:
                        answer, onward = await self._once(method, target, headers, body)
                    except aiohttp.ClientConnectorError as error:
                        if asked.refused:
                            raise HttpFailure(asked.refused, passing=False) from error
                        raise HttpFailure(f"cannot be reached: {_words(error)}", passing=True) from error
                    finally:
                        _asked.reset(token)
                    if onward is None:
                        return answer
                    target = _same_server(method, target, onward)
                raise HttpFailure("redirects again and again", passing=False)
        except TimeoutError as error:
            raise HttpFailure(f"no answer within {timeout_s:g} s", passing=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise HttpFailure(f"broke off: {_words(error)}", passing=True) from error
        except ValueError as error:  # aiohttp and yarl, of a URL or a header that is none
            raise HttpFailure(f"cannot be asked: {error}", passing=False) from error
        finally:
            self._busy -= 1
            if self._retired and not self._busy:
                await self.close()

    async def _once(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[HttpAnswer, str | None]:
        async with self._session(method).request(
            method, url, headers={**headers, "Accept-Encoding": "identity"}, data=body, allow_redirects=False
        ) as response:
            where = response.headers.get("Location")
            if response.status in _REDIRECT_STATUS and where is not None:
                return HttpAnswer(response.status, b""), where
            if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
                raise HttpFailure("sends a compressed answer unasked", passing=False)
            data = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                data += chunk
                if len(data) > MAX_BODY:
                    raise HttpFailure(f"sends more than {MAX_BODY // 1024} KB", passing=False)
            wait_s = _seconds(response.headers.get("Retry-After", ""))
            return HttpAnswer(response.status, bytes(data), response.charset or "utf-8", wait_s), None

    def _session(self, method: str) -> aiohttp.ClientSession:
        # A connection that was kept may be closing: what must not be sent twice goes out on a new one.
        keep = method == "GET"
        if self._resolver is None:
            self._resolver = self._make_resolver()
        if keep not in self._sessions:
            how: dict[str, Any] = {"keepalive_timeout": _KEEP_ALIVE_S} if keep else {"force_close": True}
            connector = aiohttp.TCPConnector(
                limit=_CONNECTIONS, ssl=self._tls, resolver=self._resolver, socket_factory=self._socket, **how
            )
            session = self._sessions[keep] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
                skip_auto_headers=("User-Agent",),
                headers={"User-Agent": "appliance"},
            )
            # aiohttp would send PUT and DELETE again where a connection breaks; how often is the tool's to say.
            session._retry_connection = False
        return self._sessions[keep]

    def _socket(self, info: Any) -> socket.socket:
        """The socket for an address, if it may be connected to."""
        family, kind, protocol, _, where = info
        asked = _asked.get()
        problem = refusal(asked.host, ipaddress.ip_address(where[0].partition("%")[0]), self._allowed, self._egress)
        if problem:
            asked.refused = problem
            raise PermissionError(problem)
        return socket.socket(family, kind, protocol)

    async def retire(self) -> None:
        """No connection is kept any more; who still has the client can use it all the same."""
        self._retired = True
        if not self._busy:
            await self.close()

    async def close(self) -> None:
        """Close all connections."""
        sessions, self._sessions = list(self._sessions.values()), {}
        resolver, self._resolver = self._resolver, None
        for session in sessions:
            await session.close()
        if resolver is not None:
            await resolver.close()


def _same_server(method: str, before: URL, location: str) -> URL:
    try:
        target = before.join(URL(location, encoded=True))
        same = target.origin() == before.origin()
    except ValueError as error:
        raise HttpFailure("redirects to what is no address", passing=False) from error
    if method != "GET" or not same:
        raise HttpFailure("redirects to another server, or what is no GET: not followed", passing=False)
    return target


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None


def _words(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or error
    return (getattr(inner, "strerror", "") or str(inner) or type(inner).__name__)[:200].lower()


class SystemResolver(AbstractResolver):
    """The system's resolver in a few threads of its own: a name server that hangs holds up no other part of the box."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="plugin-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
