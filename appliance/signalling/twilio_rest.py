"""Twilio's API, as far as calls need it: by its own package's asynchronous client, with time-outs and second tries."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import aiohttp
from twilio.base.exceptions import TwilioException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client

from appliance.api.streams import printable
from appliance.errors import DialError
from appliance.signalling.twilio_status import UNSURE, refusal

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 4
TRY_S: Final = 5.0
"""One request may take this long."""

_QUIET: Final = logging.getLogger(f"{__name__}.http")
_QUIET.setLevel(logging.WARNING)
T = TypeVar("T")


class TryAgain(Exception):
    """The API could not do it now. ``sure``: it has not done it either; ``wait_s`` what it asks for, 0 for nothing."""

    def __init__(self, status: int, wait_s: float) -> None:
        self.status = status
        self.sure = status == 429
        self.wait_s = wait_s
        super().__init__(f"HTTP status {status}")


class _Http:
    """The package's client on the box's own session. It takes a class with these two names for an HTTP client."""

    is_async = True

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._client = AsyncTwilioHttpClient(pool_connections=False, logger=_QUIET)
        self._client.session = session

    async def request(
        self, method: str, uri: str, *, headers: Mapping[str, str], auth: tuple[str, str], **rest: Any
    ) -> Any:
        """Raises: TryAgain where a later request may do better."""
        basic = base64.b64encode(":".join(auth).encode()).decode("ascii")
        with_auth = {**headers, "Authorization": f"Basic {basic}"}
        response = await self._client.request(method, uri, headers=with_auth, **rest)
        status = int(response.status_code)
        if status == 429 or status >= 500:
            raise TryAgain(status, _seconds(response.headers.get("Retry-After", "")))
        return response


class TwilioApi:
    """The calls of one account.

    Args:
        session: for the requests; not closed here.
        backoff_s: the first wait before a second try; each is twice the one before, less up to half by chance.
    """

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        api_url: str,
        session: aiohttp.ClientSession,
        *,
        backoff_s: float = 0.5,
        try_s: float = TRY_S,
        chance: Callable[[], float] = random.random,
    ) -> None:
        # An environment of its own: TWILIO_EDGE and TWILIO_REGION would change the host behind api_url's back.
        self._client = Client(account_sid, auth_token, http_client=_Http(session), environment={"TWILIO_EDGE": ""})
        self._client.api.base_url = api_url
        self._backoff_s = backoff_s
        self._try_s = try_s
        self._chance = chance

    async def create(self, known: asyncio.Event, limit_s: float, **parameters: object) -> str | None:
        """Place a call; its name, or None where ``known`` was set while we were about to ask again.

        Raises:
            DialError: refused; or, with UNSURE as its cause, it is not known whether there is a call now.
        """

        async def send() -> str:
            call = await self._client.calls.create_async(**parameters)
            return str(call.sid)

        try:
            return await self._repeat("the call", send, limit_s, known)
        except DialError as error:
            if error.cause != "gone":
                raise
            raise DialError(
                "Twilio knows no such account at api_url (20404); check account_sid, and where it is of another region "
                "api_url",
                status=503,
                cause="auth",
            ) from error

    async def direct(self, call_id: str, twiml: str, limit_s: float = 8.0) -> None:
        """Give a call another document.

        Raises:
            DialError: as :meth:`create`.
        """

        async def send() -> None:
            await self._client.calls(call_id).update_async(twiml=twiml)

        await self._repeat("the change", send, limit_s)

    async def talks(self, call_id: str, limit_s: float = 1.2) -> bool | None:
        """Whether the one whom a call's document has called is up; None where the API does not say in time."""
        try:
            async with asyncio.timeout(limit_s):
                found = await self._client.calls.list_async(parent_call_sid=call_id, status="in-progress", limit=1)
        except (
            TryAgain,
            TwilioException,
            aiohttp.ClientError,
            OSError,
            TimeoutError,
            ValueError,
            LookupError,
        ) as error:
            logger.info("Twilio's API: whom call %s talks to: %s", call_id, type(error).__name__)
            return None
        return bool(found)

    async def end(self, call_id: str, limit_s: float = 16.0) -> None:
        """End a call, answered or not; one that has ended is well.

        Raises:
            DialError: as :meth:`create`.
        """

        async def send() -> None:
            await self._client.calls(call_id).update_async(status="completed")

        try:
            await self._repeat("the hang-up", send, limit_s)
        except DialError as error:
            if error.cause != "gone":
                raise

    async def _repeat(
        self, what: str, send: Callable[[], Awaitable[T]], limit_s: float, known: asyncio.Event | None = None
    ) -> T | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + limit_s
        delay, sure, last = self._backoff_s, True, ""
        for attempt in range(ATTEMPTS):
            wait_s = 0.0
            try:
                async with asyncio.timeout(min(self._try_s, max(until - loop.time(), 0.0))):
                    return await send()
            except TryAgain as error:
                sure, last, wait_s = sure and error.sure, str(error), error.wait_s
            except TwilioException as error:
                raise _in_words(error) from None
            except aiohttp.ClientConnectorError as error:
                last = f"{type(error).__name__}: {printable(str(error))}"
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                sure, last = False, f"{type(error).__name__}: {printable(str(error))}".rstrip(": ")
            wait_s = max(wait_s, delay * (1 - self._chance() / 2))
            delay *= 2
            if attempt + 1 == ATTEMPTS or loop.time() + wait_s >= until:
                break
            logger.info("Twilio's API: %s: %s; trying again in %.1f s", what, last, wait_s)
            if await _told_within(known, wait_s):
                return None
        if sure and "429" in last:
            raise refusal(20429, 429, last)
        raise DialError(
            f"Twilio's API does not answer ({what}: {last}); see that the box reaches api_url, and "
            "https://status.twilio.com",
            status=503,
            cause="failed" if sure else UNSURE,
        )


async def _told_within(known: asyncio.Event | None, seconds: float) -> bool:
    if known is None:
        await asyncio.sleep(seconds)
        return False
    try:
        async with asyncio.timeout(seconds):
            await known.wait()
    except TimeoutError:
        return False
    return True


def _in_words(error: TwilioException) -> DialError:
    status = getattr(error, "status", 0) or 0
    code = getattr(error, "code", 0) or 0
    text = getattr(error, "msg", "") or getattr(error, "title", "") or type(error).__name__
    return refusal(int(code), int(status), printable(str(text)))


def _seconds(text: str) -> float:
    """Of a Retry-After; dates are not taken."""
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0.0
