"""Recognition by a service with OpenAI's ``POST /v1/audio/transcriptions``: its own, Speaches, vLLM, LocalAI, Groq."""

from __future__ import annotations

import asyncio
import io
import logging
import math
import random
import time
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from appliance.api import EngineContext, Pcm, RecogniseRequest
from appliance.engines.api_session import ApiSession, read_up_to
from appliance.engines.asr_options import OpenAiAsrOptions
from appliance.engines.chat_reply import told
from appliance.engines.heard import MAX_CHARACTERS, answer_final, answer_partial, likely_words
from appliance.engines.hypotheses import Utterance, Utterances, Word, without_repeats
from appliance.engines.server_fault import ServerFault
from appliance.errors import EngineError

logger = logging.getLogger(__name__)

RATE_HZ: Final = 8000

_CONCURRENCY: Final = 512
_MARGIN_S: Final = 0.05
"""So much before its deadline a request is given up: the one who asked is told why."""
_FIRST_WAIT_S: Final = 0.1
_ANSWER_BYTES: Final = 1 << 20
_SURE_LOG_PROBABILITY: Final = -1.0


@dataclass(frozen=True)
class _Transcript:
    words: list[Word]
    timed: bool
    confidence: float


class OpenAiAsr:
    """An engine of kind asr.

    Args:
        options: validated.
        now: CLOCK_MONOTONIC, the clock of the requests' deadlines.
        jitter: 0 to 1, at random.
    """

    kind = "asr"
    max_batch = 1
    max_wait_s = 0.0
    concurrency = _CONCURRENCY
    cpu_bound = False

    def __init__(
        self,
        options: OpenAiAsrOptions,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._api = ApiSession(options, "engines.asr")
        self.name = self._api.name
        self._options = options
        self._now = now
        self._jitter = jitter
        self._utterances = Utterances()

    async def load(self) -> None:
        """Open connections.

        Raises:
            EngineError: ``ca_file`` cannot be read.
        """
        await self._api.open()

    async def close(self) -> None:
        await self._api.close()

    async def run(self, batch: Sequence[RecogniseRequest], context: EngineContext) -> None:
        """Raises EngineError where the service could not, for all attempts; StaleSlot where the call is over."""
        for request in batch:
            utterance = self._utterances.find(
                request.slot, request.generation, request.utterance, request.start, self._now()
            )
            if request.final:
                transcript = await self._transcribe(request, context)
                answer_final(request, transcript.words, transcript.confidence, context, timed=transcript.timed)
            else:
                await self._so_far(request, utterance, context)

    async def _so_far(self, request: RecogniseRequest, utterance: Utterance, context: EngineContext) -> None:
        """Ask again once enough has been said since the last time; else what is known from then."""
        every = self._options.partials_every_s * RATE_HZ
        known = utterance.known
        if not every or request.end - max(utterance.asked_to, request.start) < every:
            answer_partial(request, known, len(utterance.stable), 1.0, context, timed=_timed(known))
            return
        utterance.asked_to = request.end
        transcript = await self._transcribe(request, context)
        utterance.take(transcript.words, request.end)
        stable = len(utterance.stable)
        answer_partial(request, utterance.known, stable, transcript.confidence, context, timed=transcript.timed)

    # --- one request ----------------------------------------------------------------------------------------------

    async def _transcribe(self, request: RecogniseRequest, context: EngineContext) -> _Transcript:
        body = wav(context.caller_audio(request))
        deadline = request.deadline - _MARGIN_S
        wait_s = _FIRST_WAIT_S
        attempts = 1 + self._options.retries
        for attempt in range(1, attempts + 1):
            try:
                return await self._attempt(request, body, deadline)
            except ServerFault as fault:
                reason = self._api.says(fault)
                pause_s = max(wait_s * (0.5 + self._jitter()), fault.wait_s or 0.0)
                if not fault.again or attempt == attempts or self._now() + pause_s >= deadline:
                    raise EngineError(reason, retryable=False) from None
                logger.info("%s; it is asked again", reason)
                await asyncio.sleep(pause_s)
                wait_s *= 2
        raise AssertionError("unreachable")

    async def _attempt(self, request: RecogniseRequest, body: bytes, deadline: float) -> _Transcript:
        left_s = min(self._options.attempt_s, deadline - self._now())
        try:
            async with asyncio.timeout(max(left_s, 0.0)):
                response = await self._api.post("/audio/transcriptions", self._form(request, body))
                async with response:
                    content = await read_up_to(response.content, _ANSWER_BYTES)
        except TimeoutError:
            raise ServerFault(f"gave no transcript within {left_s:.1f} s", again=True) from None
        except ServerFault as fault:
            if "response_format" not in str(fault):
                raise
            raise ServerFault(f"{fault}; set engines.asr.response_format to json") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._api.broken(error) from None
        try:
            answer = msgspec.json.decode(content)
            return self._read_answer(answer, request)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServerFault(f"sent no transcript ({told(repr(error))}); is engines.asr.base_url right?") from None

    def _form(self, request: RecogniseRequest, body: bytes) -> aiohttp.FormData:
        options = self._options
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", body, filename="speech.wav", content_type="audio/wav")
        form.add_field("model", options.model)
        form.add_field("response_format", options.response_format)
        form.add_field("temperature", "0")
        language = request.language.partition("-")[0].lower()
        if language:
            form.add_field("language", language)
        prompt = likely_words(request) if options.prompt else ""
        if prompt:
            form.add_field("prompt", prompt)
        if options.response_format == "verbose_json":
            form.add_field("timestamp_granularities[]", "segment")
            if options.word_times:
                form.add_field("timestamp_granularities[]", "word")
        return form

    def _read_answer(self, answer: Any, request: RecogniseRequest) -> _Transcript:
        """Raises what a wrong shape raises."""
        text = str(answer["text"]).strip()
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"{len(text)} characters")
        sure, no_speech = _certainty(answer)
        if sure < _SURE_LOG_PROBABILITY and no_speech >= self._options.no_speech:
            return _Transcript([], False, 0.0)
        said = text.split()
        timed = [
            Word(str(word["word"]).strip(), (), *(_sample(request, word[edge]) for edge in _EDGES))
            for word in answer.get("words") or ()
        ]
        # Some services leave punctuation out of words; then the text says how they are written.
        if len(timed) == len(said):
            words = [Word(text, (), word.start, word.end) for text, word in zip(said, timed, strict=True)]
            return _Transcript(without_repeats(words), True, math.exp(min(sure, 0.0)))
        return _Transcript(without_repeats([Word(one) for one in said]), False, math.exp(min(sure, 0.0)))


_EDGES: Final = ("start", "end")


def _sample(request: RecogniseRequest, at_s: float) -> int:
    """Of the leg, within what was sent."""
    return request.start + round(min(max(at_s * RATE_HZ, 0.0), request.end - request.start))


def wav(pcm: Pcm) -> bytes:
    """``pcm`` (8 kHz) as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes(pcm.astype("<i2").tobytes())
    return file.getvalue()


def _certainty(answer: Any) -> tuple[float, float]:
    """(mean log probability, probability of no speech) out of the segments, or the tokens; (0, 0) where neither is."""
    segments = answer.get("segments") or ()
    lengths = [max(float(one.get("end", 0)) - float(one.get("start", 0)), 0.01) for one in segments]
    if segments and all("avg_logprob" in one for one in segments):
        total = sum(lengths)
        sure = sum(float(one["avg_logprob"]) * length for one, length in zip(segments, lengths, strict=True)) / total
        none = [float(one.get("no_speech_prob", 0.0)) for one in segments]
        return sure, sum(one * length for one, length in zip(none, lengths, strict=True)) / total
    tokens = [float(one["logprob"]) for one in answer.get("logprobs") or ()]
    return (sum(tokens) / len(tokens) if tokens else 0.0), 0.0


def _timed(words: Sequence[Word]) -> bool:
    return any(word.end for word in words)
