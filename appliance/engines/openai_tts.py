"""Speech from a server with OpenAI's ``POST /v1/audio/speech``, streamed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec
import numpy as np

from appliance.api import EngineContext, Pcm, SynthesiseRequest
from appliance.engines.api_session import ApiSession
from appliance.engines.audio_reply import AudioReply
from appliance.engines.openai_tts_options import OpenAiSpeechOptions
from appliance.engines.server_fault import ServerFault
from appliance.errors import EngineError

logger = logging.getLogger(__name__)

_FIRST_SAMPLES: Final = 400
_BLOCK_SAMPLES: Final = 1600
"""8 kHz samples that are handed on at a time: little at first, then a fifth of a second."""
_SLOWEST: Final = 0.25
_FASTEST: Final = 4.0


class OpenAiSpeech:
    """Asks one server; an attempt that fails before its first audio is made again."""

    kind = "tts"
    max_batch = 1
    max_wait_s = 0.0
    cpu_bound = False

    def __init__(self, options: OpenAiSpeechOptions) -> None:
        self._options = options
        self.concurrency = options.concurrency
        self._api = ApiSession(options, "engines.tts", options.extra_body)
        self.name = self._api.name

    async def load(self) -> None:
        """Open connections.

        Raises:
            EngineError: ``ca_file`` cannot be read.
        """
        await self._api.open()

    async def close(self) -> None:
        await self._api.close()

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
                    raise EngineError(self._api.says(fault), retryable=fault.again) from None
                logger.info("%s; it is asked again", self._api.says(fault))

    async def _attempt(self, speech: _Speech) -> None:
        """Ask once. Whatever ends it before the end of the speech closes the connection."""
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
        except ServerFault:
            raise
        except EngineError as error:
            raise ServerFault(str(error)) from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._api.broken(error) from None
        finally:
            if response is not None:
                response.close()

    async def _post(self, request: SynthesiseRequest) -> aiohttp.ClientResponse:
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
        headers = {"Content-Type": "application/json"}
        return await self._api.post("/audio/speech", msgspec.json.encode(body), headers)

    def _voice_for(self, language: str) -> str:
        voices = {name.lower(): voice for name, voice in self._options.voices.items()}
        tag = language.lower()
        return voices.get(tag) or voices.get(tag.partition("-")[0]) or self._options.voice


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
