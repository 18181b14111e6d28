"""Speech from a server with OpenAI's ``POST /v1/audio/speech``, streamed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
import numpy as np

from appliance.api import EngineContext, Pcm, SynthesiseRequest
from appliance.engines.audio_reply import AudioReply
from appliance.engines.chat_reply import told, words_of_error
from appliance.engines.openai_tts_options import OpenAiSpeechOptions
from appliance.engines.server_fault import ServerFault
from appliance.errors import EngineError

logger = logging.getLogger(__name__)

_FIRST_SAMPLES: Final = 400
_BLOCK_SAMPLES: Final = 1600
"""8 kHz samples that are handed on at a time: little at first, then a fifth of a second."""
_ERROR_BYTES: Final = 16_384
_ERROR_BODY_S: Final = 0.5
_PING_S: Final = 5.0
_SLOWEST: Final = 0.25
_FASTEST: Final = 4.0
_PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_NO_LIMITS: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


class OpenAiSpeech:
    """Asks one server; an attempt that fails before its first audio is made again."""

    kind = "tts"
    max_batch = 1
    max_wait_s = 0.0
    cpu_bound = False

    def __init__(self, options: OpenAiSpeechOptions) -> None:
        self._options = options
        self.concurrency = options.concurrency
        self.name = f"{options.model} at {urlsplit(options.base_url).netloc}"
        self._session: aiohttp.ClientSession | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Open connections. A server that cannot be reached now may be later, so that this is only logged.

        Raises:
            EngineError: ``ca_file`` cannot be read.
        """
        options = self._options
        headers = {name: value.get_secret_value() for name, value in options.extra_headers.items()}
        if options.api_key is not None:
            headers["Authorization"] = f"Bearer {options.api_key.get_secret_value()}"
        try:
            tls = ssl.create_default_context(cafile=options.ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = f"engines.tts.ca_file: cannot be read ({error}); name a PEM file"
            raise EngineError(reason, retryable=False) from None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=3 * options.keep_alive_s),
            timeout=_NO_LIMITS,
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        if not await self._warm():
            logger.warning("%s cannot be reached; check engines.tts.base_url", self.name)
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def run(self, batch: Sequence[SynthesiseRequest], context: EngineContext) -> None:
        for request in batch:
            try:
                async with asyncio.timeout(self._options.total_s):
                    await self._speak(request, context)
            except TimeoutError:
                reason = f"{self.name} took longer than {self._options.total_s:g} s"
                raise EngineError(reason, retryable=False) from None

    async def _speak(self, request: SynthesiseRequest, context: EngineContext) -> None:
        """Raises EngineError where the server could not, for all attempts."""
        attempts = 1 + self._options.retries
        for attempt in range(1, attempts + 1):
            speech = _Speech(request, context)
            try:
                await self._attempt(speech)
                return
            except ServerFault as fault:
                if speech.begun or not fault.again or attempt == attempts:
                    raise EngineError(f"{self.name} {self._redacted(str(fault))}", retryable=fault.again) from None
                logger.info("%s %s; it is asked again", self.name, self._redacted(str(fault)))

    async def _attempt(self, speech: _Speech) -> None:
        """Ask once. Whatever ends it before the end of the speech closes the connection."""
        assert self._session is not None
        loop, options = asyncio.get_running_loop(), self._options
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(options.first_audio_s) as limit:
                response = await self._post(speech.request)
                reply = AudioReply(response.headers.get("Content-Type", ""), options.rate_hz)
                while data := await response.content.readany():
                    if not speech.take(reply.feed(data)):
                        return
                    if speech.begun:
                        limit.reschedule(loop.time() + options.stall_s)
                if not speech.take(reply.finish(), last=True):
                    return
            response.release()
            response = None
        except TimeoutError:
            if speech.begun:
                raise ServerFault(f"paused for more than {options.stall_s:g} s in its speech", again=True) from None
            raise ServerFault(f"gave no audio within {options.first_audio_s:g} s", again=True) from None
        except aiohttp.ClientConnectorError as error:
            reason = f"cannot be reached ({told(str(error))}); check engines.tts.base_url"
            raise ServerFault(reason, again=True) from None
        except ServerFault:
            raise
        except EngineError as error:
            raise ServerFault(str(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            what = told(str(error)) or type(error).__name__
            raise ServerFault(f"broke off ({what})", again=True) from None
        finally:
            if response is not None:
                response.close()

    async def _post(self, request: SynthesiseRequest) -> aiohttp.ClientResponse:
        assert self._session is not None
        options = self._options
        body: dict[str, Any] = {
            **options.extra_body,
            "model": options.model,
            "input": request.text,
            "voice": request.voice or self._voice_for(request.language),
            "response_format": options.format,
        }
        if request.rate != 1.0:
            body["speed"] = min(max(request.rate, _SLOWEST), _FASTEST)
        response = await self._session.post(
            f"{options.base_url}/audio/speech",
            data=msgspec.json.encode(body),
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
        )
        if response.status != 200:
            try:
                raise await self._fault_of(response)
            finally:
                response.close()
        return response

    def _voice_for(self, language: str) -> str:
        voices = {name.lower(): voice for name, voice in self._options.voices.items()}
        tag = language.lower()
        return voices.get(tag) or voices.get(tag.partition("-")[0]) or self._options.voice

    async def _fault_of(self, response: aiohttp.ClientResponse) -> ServerFault:
        status, options = response.status, self._options
        if 300 <= status < 400:
            target = told(response.headers.get("Location", "elsewhere"))
            return ServerFault(f"answered {status}: it redirects to {target}; set engines.tts.base_url to where it is")
        body = bytearray()
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(_ERROR_BODY_S):
                while len(body) < _ERROR_BYTES and (more := await response.content.readany()):
                    body += more
        try:
            words = words_of_error(msgspec.json.decode(bytes(body)))
        except msgspec.MsgspecError:
            words = told(body.decode(errors="replace")) or response.reason or "no reason given"
        if status in (401, 403):
            missing = "the key was refused" if options.api_key else "it wants a key"
            return ServerFault(f"answered {status}: {missing} ({words}); set engines.tts.api_key")
        if status == 404:
            hint = f"check engines.tts.base_url and engines.tts.model {options.model!r}"
            return ServerFault(f"answered 404: {words}; {hint}")
        return ServerFault(f"answered {status}: {words}", again=status in _PASSING)

    def _redacted(self, text: str) -> str:
        for secret in (self._options.api_key, *self._options.extra_headers.values()):
            if secret is not None and secret.get_secret_value():
                text = text.replace(secret.get_secret_value(), "***")
        return text

    # --- connections ----------------------------------------------------------------------------------------------

    async def _warm(self) -> bool:
        """Use every connection that is kept once, and open those that are missing; whether the server was reached."""
        assert self._session is not None
        session = self._session

        async def touch() -> None:
            url = f"{self._options.base_url}/models"
            async with session.head(url, allow_redirects=False) as response:
                await response.read()

        if not self._options.connections:
            return True
        try:
            async with asyncio.timeout(_PING_S):
                touched = await asyncio.gather(
                    *(touch() for _ in range(self._options.connections)), return_exceptions=True
                )
        except TimeoutError:
            return False
        return not all(isinstance(one, BaseException) for one in touched)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._options.keep_alive_s)
            await self._warm()


class _Speech:
    """The samples of one attempt, on their way on in blocks of a fixed length."""

    def __init__(self, request: SynthesiseRequest, context: EngineContext) -> None:
        self.request = request
        self.begun = False
        self._context = context
        self._held: Pcm = np.zeros(0, np.int16)

    def take(self, pcm: Pcm, *, last: bool = False) -> bool:
        """The next samples; False where nobody wants more.

        Raises:
            ServerFault: this is the end, and there was no audio.
        """
        self._held = np.concatenate([self._held, pcm])
        size = _BLOCK_SAMPLES if self.begun else _FIRST_SAMPLES
        while len(self._held) >= size:
            block, self._held = self._held[:size], self._held[size:]
            self.begun = True
            if not self._context.speak(self.request, block):
                return False
            size = _BLOCK_SAMPLES
        if not last:
            return True
        if not self.begun and not self._held.any():
            raise ServerFault("answered without any audio", again=True)
        return self._context.speak(self.request, self._held, last=True)
