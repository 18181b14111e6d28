"""What carriers with webhooks and an API on the web share. A carrier may be built on it; none has to be.

Not part of ``appliance.api`` itself: only the control process has use for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar, Final, TypeVar

import msgspec
from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from appliance.api.carriers import CarrierBox, StreamOffer
from appliance.api.streams import printable
from appliance.api.web import media_origin
from appliance.errors import CarrierApiError, CarrierError

logger = logging.getLogger(__name__)

MAX_CALLS: Final = 10_000
MAX_BODY: Final = 65_536
"""Bytes of a webhook's body, unpacked."""
_READ_S: Final = 5.0
_BROKEN: Final = (web.RequestPayloadError, HttpProcessingError, ClientError, zlib.error, OSError, EOFError, ValueError)
Form = TypeVar("Form")


async def read_body(request: web.Request, limit_s: float = _READ_S) -> bytes:
    """The body of a webhook.

    Raises:
        web.HTTPRequestEntityTooLarge: it has more than MAX_BODY bytes.
        web.HTTPRequestTimeout: it has not come within ``limit_s``.
        web.HTTPBadRequest: it breaks off, or is not packed as its Content-Encoding says.
    """
    if (request.content_length or 0) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
    body = bytearray()
    try:
        async with asyncio.timeout(limit_s):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    raise web.HTTPRequestEntityTooLarge(MAX_BODY, len(body))
    except TimeoutError:
        raise _closing(web.HTTPRequestTimeout(text="the body took too long")) from None
    except _BROKEN:
        request.content.feed_eof()  # else the server reads on to the end, and logs the fault as its own
        text = "the body breaks off, or is not as its Content-Encoding says"
        raise _closing(web.HTTPBadRequest(text=text)) from None
    return bytes(body)


def _closing(answer: web.HTTPException) -> web.HTTPException:
    """The connection is good for nothing more."""
    answer.force_close()
    return answer


class Sparing:
    """Lets so many lines about strangers into the log in a while, since anybody may knock."""

    def __init__(self, lines: int = 20, within_s: float = 20.0) -> None:
        self._lines, self._within_s = lines, within_s
        self._since, self._said = -within_s, 0

    def warn(self, logger: logging.Logger, words: str, *values: object) -> None:
        now = time.monotonic()
        if now - self._since >= self._within_s:
            self._since, self._said = now, 0
        self._said += 1
        if self._said <= self._lines:
            logger.warning(words, *values)


class WebCarrier(ABC):
    """The part of ``appliance.api.Carrier`` that does not depend on the carrier.

    Args:
        box: of the trunk.
        public_url, media_url: its options of that name; see :func:`appliance.api.web.media_origin`.
    """

    kind: ClassVar[str]
    signature_header: ClassVar[str] = ""
    """Without this header nothing of a webhook is read; "" where the signature stands elsewhere."""

    def __init__(self, box: CarrierBox, public_url: str, media_url: str) -> None:
        self.box = box
        self._media_origin = media_origin(media_url, public_url, box.media_port)
        self._sparing = Sparing()
        self._seen: dict[str, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raises: CarrierError where a webhook is not signed as it should be; says what may be wrong."""

    async def start(self) -> None:
        """Nothing has to be done before calls come."""
        return

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def offered(self, offer: StreamOffer) -> None:
        self.box.refuse(offer, f"streams of {self.kind} come with a token of ours")

    def stream_url(self, token: str) -> str:
        """The token is the last part of the path; a carrier that tells it otherwise has its own."""
        return f"{self._media_origin}/{self.kind}/media/{token}"

    async def read(self, request: web.Request, form: type[Form]) -> Form:
        """What a webhook says, once its signature is known to be good.

        Raises:
            web.HTTPForbidden: it is not; that is logged.
            web.HTTPBadRequest: it is none of ``form``.
            HTTPRequestEntityTooLarge, HTTPRequestTimeout: see :func:`read_body`.
        """
        try:
            if self.signature_header and self.signature_header not in request.headers:
                raise CarrierError(f"it is not signed: it has no {self.signature_header}")
            body = await read_body(request)
            self.verify(request.headers, body)
        except CarrierError as error:
            source = printable(self.box.client_of(request))
            self._sparing.warn(logger, "%s: a webhook from %s was refused: %s", self.box.trunk, source, error)
            raise web.HTTPForbidden(text=str(error)) from None
        try:
            return msgspec.json.decode(body, type=form)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise web.HTTPBadRequest(text=f"not an event of {self.kind}: {printable(str(error))}") from None

    def is_new(self, call_id: str) -> bool:
        """Whether a call has come for the first time: carriers tell some things twice, and late."""
        if not call_id or call_id in self._seen:
            return False
        self._seen[call_id] = None
        if len(self._seen) > 2 * MAX_CALLS:
            del self._seen[next(iter(self._seen))]
        return True

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what nobody waits for; a refusal of the API is logged."""

        async def run() -> None:
            try:
                await work
            except CarrierApiError as error:
                logger.warning("%s: %s", self.box.trunk, error)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # it may have been cancelled before it began
