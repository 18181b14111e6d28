"""Recognition by Whisper: the requests of all calls in batches, while the caller speaks and when the turn is over.

A batch is computed beside the event loop, in as many parts as the model has replicas, and each part in three steps
(encoder, transcript, word times); what nobody wants any more is left out of the next step. What comes meanwhile waits
and makes the next batch, so that batches grow with the load and a lone request waits for nobody.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from appliance.api import EngineContext, Pcm, RecogniseRequest
from appliance.engines.asr_options import WhisperOptions
from appliance.engines.heard import answer_final, answer_partial
from appliance.engines.hypotheses import Utterance, Utterances, Word, without_repeats
from appliance.engines.whisper_features import FRAMES_PER_S, LONGEST_S, TELEPHONE_HZ, to_model_rate, window_frames
from appliance.engines.whisper_model import Asked, Encoded, WhisperModel, Written
from appliance.errors import EngineError, StaleSlot

logger = logging.getLogger(__name__)

T = TypeVar("T")

_QUIET_RMS: Final = 30.0
"""-61 dBFS: no 20 ms of what a caller says are this quiet throughout."""
_SURE_LOG_PROBABILITY: Final = -1.0
"""A transcript as likely as this stands, whatever the model thinks of there being speech."""
_HINT_TOKENS: Final = 96
_BEFORE_TOKENS: Final = 64
_SENTENCE_S: Final = 10.0
_ANY_WORD_S: Final = 16.0
_SPLIT_S: Final = 6.0
_FRAME: Final = 160
_REPLICAS: Final = 2
_WARM_S: Final = (2, 5)


@dataclass
class _Work:
    """One request, and what has been found out about it.

    ``audio`` is that of ``utterance`` from ``start`` on, at 16 kHz.
    """

    request: RecogniseRequest
    utterance: Utterance
    start: int
    audio: NDArray[np.float32]
    language: str
    asked: Asked
    written: Written | None = None
    words: list[Word] = field(default_factory=list)


class WhisperAsr:
    """The engine.

    Args:
        make: loads the model; called in :meth:`load`.
        options: of ``engines.asr``.
        now: any clock that never steps, in seconds; for forgetting utterances.
    """

    kind = "asr"
    concurrency = 1
    cpu_bound = True

    def __init__(
        self, make: Callable[[], WhisperModel], options: WhisperOptions, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.options = options
        self.max_batch = options.max_batch
        self.max_wait_s = options.max_wait_ms / 1000
        self.model: WhisperModel
        self._make = make
        self._now = now
        self._utterances = Utterances()
        self._threads = ThreadPoolExecutor(_REPLICAS, "whisper")
        self._hint_tokens = lru_cache(maxsize=256)(self._encode_hints)

    async def load(self) -> None:
        try:
            self.model = await self._compute(self._make)
            for seconds in _WARM_S:
                await self._compute(self._warm_up, seconds)
        except BaseException:
            await self.close()
            raise
        logger.info("%s", self.model.description)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def shape(self, request: RecogniseRequest) -> Hashable:
        """Requests whose audio fills one window share a batch, in whatever language."""
        held = self._utterances.peek(request.slot, request.generation, request.utterance, request.start)
        return window_frames(request.end - (held.start if held is not None else request.start))

    async def run(self, batch: Sequence[RecogniseRequest], context: EngineContext) -> None:
        await context.checkpoint()
        works = [work for request in batch if (work := await self._begin(request, batch, context)) is not None]
        parts = [part for at in range(self.model.parallel) if (part := works[at :: self.model.parallel])]
        done = await asyncio.gather(*(self._run_part(part, context) for part in parts), return_exceptions=True)
        for problem in done:
            if problem is not None:
                raise problem

    async def _run_part(self, works: list[_Work], context: EngineContext) -> None:
        """The share of a batch that one of the model's replicas takes."""
        frames = max(window_frames(_samples(work)) for work in works)
        encoded = await self._compute(self.model.encode, [work.audio for work in works], frames)
        await self._detect_languages(works, encoded)
        if not await _wanted(works, context):
            return
        transcripts = await self._compute(self.model.write, encoded, [work.asked for work in works])
        for work, transcript in zip(works, transcripts, strict=True):
            work.written = transcript
            pieces = self.model.vocabulary.words(transcript.tokens, work.language)
            work.words = without_repeats([Word(piece.text, piece.tokens, work.start) for piece in pieces])
        if not await _wanted(works, context):
            return
        await self._time_words(works, encoded, context)
        for work in works:
            if not context.cancelled(work.request):
                self._answer(work, context)

    # --- before ---------------------------------------------------------------------------------------------------

    async def _begin(
        self, request: RecogniseRequest, batch: Sequence[RecogniseRequest], context: EngineContext
    ) -> _Work | None:
        """What there is to do for one request; None where it could be answered at once."""
        if context.cancelled(request):
            return None
        try:
            self.model.vocabulary.beginning(request.language)
        except EngineError as error:
            context.failed(request, str(error), retryable=error.retryable)
            return None
        now = self._now()
        utterance = self._utterances.find(request.slot, request.generation, request.utterance, request.start, now)
        if not request.final and any(_goes_further(other, request) for other in batch):
            known = [*utterance.before, *utterance.stable]
            answer_partial(request, known, len(known), 0.5, context, timed=True)
            return None
        try:
            pcm = context.caller_audio(request, utterance.start)
        except StaleSlot as error:
            context.failed(request, str(error), retryable=False)
            return None
        if _is_quiet(pcm):
            known = [*utterance.before, *utterance.stable]
            answer_final(request, known, 0.5 if known else 0.0, context, timed=True)
            return None
        while len(pcm) > LONGEST_S * TELEPHONE_HZ:
            pcm = await self._shorten(request, utterance, pcm)
        return _Work(
            request,
            utterance,
            utterance.start,
            to_model_rate(pcm),
            request.language,
            self._asked(request, utterance, request.language, len(pcm)),
        )

    def _asked(self, request: RecogniseRequest, utterance: Utterance, language: str, samples: int) -> Asked:
        before = [token for word in utterance.before for token in word.tokens][-_BEFORE_TOKENS:]
        return Asked(
            (*self._hint_tokens(request.hints, request.phrases), *before),
            self.model.vocabulary.beginning(language),
            utterance.prefix,
            math.ceil(samples * FRAMES_PER_S / TELEPHONE_HZ),
        )

    async def _shorten(self, request: RecogniseRequest, utterance: Utterance, pcm: Pcm) -> Pcm:
        """Write down the first half minute of what is too long for a window, up to a quiet place; the rest of it."""
        cut = _quiet_place(pcm, int((LONGEST_S - _SPLIT_S) * TELEPHONE_HZ), int(LONGEST_S * TELEPHONE_HZ))
        audio, asked = to_model_rate(pcm[:cut]), self._asked(request, utterance, request.language, cut)
        encoded = await self._compute(self.model.encode, [audio], window_frames(cut))
        (transcript,) = await self._compute(self.model.write, encoded, [asked])
        pieces = self.model.vocabulary.words(transcript.tokens, request.language)
        start, utterance.start = utterance.start, utterance.start + cut
        utterance.before += without_repeats([Word(piece.text, piece.tokens, start, start + cut) for piece in pieces])
        utterance.stable.clear()
        return pcm[cut:]

    async def _detect_languages(self, works: Sequence[_Work], encoded: Encoded) -> None:
        for row, work in enumerate(works):
            if not work.language:
                work.language = await self._compute(self.model.detect_language, encoded, row)
                work.asked = self._asked(work.request, work.utterance, work.language, _samples(work))

    def _encode_hints(self, hints: tuple[str, ...], phrases: tuple[str, ...]) -> tuple[int, ...]:
        """A list of what is likely, as if it had been said before."""
        tokens: list[int] = []
        for likely in dict.fromkeys([*hints, *(phrase for phrase in phrases if not phrase.startswith("<"))]):
            more = self.model.vocabulary.encode(f" {likely.strip()},")
            if len(tokens) + len(more) > _HINT_TOKENS:
                break
            tokens += more
        return tuple(tokens)

    # --- after ----------------------------------------------------------------------------------------------------

    async def _time_words(self, works: Sequence[_Work], encoded: Encoded, context: EngineContext) -> None:
        """Find out when each word was said, where somebody wants to know."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, work in enumerate(works):
            wanted = not work.request.final or self.options.final_word_times
            if wanted and work.words and not context.cancelled(work.request):
                groups.setdefault(work.asked.beginning, []).append(row)
        for beginning, rows in groups.items():
            texts = [[token for word in works[row].words for token in word.tokens] for row in rows]
            frames = [works[row].asked.frames for row in rows]
            spans = await self._compute(self.model.align, encoded, rows, beginning, texts, frames)
            for row, of_tokens in zip(rows, spans, strict=True):
                works[row].words = _timed(works[row], of_tokens)

    def _answer(self, work: _Work, context: EngineContext) -> None:
        request, utterance, transcript = work.request, work.utterance, work.written
        assert transcript is not None
        doubtful = transcript.log_probability < _SURE_LOG_PROBABILITY
        if doubtful and transcript.no_speech >= self.options.no_speech:
            work.words = list(utterance.stable)
        confidence = math.exp(min(transcript.log_probability, 0.0))
        if transcript.cut:
            confidence *= 0.5
        words = [*utterance.before, *work.words]
        if request.final:
            timed = self.options.final_word_times
            answer_final(request, words, confidence, context, language=work.language, timed=timed)
            return
        stable = len(utterance.before)
        if work.words:
            utterance.take(work.words, request.end)
            stable += len(utterance.stable)
            utterance.cut(request.end, sentence_s=_SENTENCE_S, any_word_s=_ANY_WORD_S)
        answer_partial(request, words, stable, confidence, context, language=work.language, timed=True)

    # --- computing ------------------------------------------------------------------------------------------------

    async def _compute(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def _warm_up(self, seconds: int) -> None:
        frames = seconds * FRAMES_PER_S
        beginning = self.model.vocabulary.beginning("")
        noise = np.random.default_rng(0).standard_normal(seconds * TELEPHONE_HZ).astype(np.float32) * 0.01
        encoded = self.model.encode([noise], frames)
        (transcript,) = self.model.write(encoded, [Asked((), beginning, (), FRAMES_PER_S)])
        if transcript.tokens:
            self.model.align(encoded, [0], beginning, [transcript.tokens], [frames])


async def _wanted(works: Sequence[_Work], context: EngineContext) -> bool:
    await context.checkpoint()
    return any(not context.cancelled(work.request) for work in works)


def _samples(work: _Work) -> int:
    return len(work.audio) * TELEPHONE_HZ // 16000


def _goes_further(other: RecogniseRequest, request: RecogniseRequest) -> bool:
    """Whether ``other`` is about the same utterance and makes a partial result of ``request`` worthless."""
    of_one = ("slot", "generation", "utterance", "start")
    same = bool(request.utterance) and all(getattr(other, name) == getattr(request, name) for name in of_one)
    return same and other is not request and (other.final, other.end, other.request) > (False, request.end, 0)


def _is_quiet(pcm: Pcm) -> bool:
    frames = pcm[: len(pcm) // _FRAME * _FRAME].astype(np.float32).reshape(-1, _FRAME)
    return float(np.square(frames).mean(axis=1).max(initial=0.0)) < _QUIET_RMS**2


def _quiet_place(pcm: Pcm, earliest: int, latest: int) -> int:
    """The middle of the quietest 200 ms between the two samples."""
    width = TELEPHONE_HZ // 5
    power = np.square(pcm[earliest:latest].astype(np.float64)).cumsum()
    quietest = int(np.argmin(power[width:] - power[:-width]))
    return earliest + quietest + width // 2


def _timed(work: _Work, spans: Sequence[tuple[float, float]]) -> list[Word]:
    words, at = [], 0
    for word in work.words:
        first, last = spans[at], spans[at + len(word.tokens) - 1]
        at += len(word.tokens)
        start, end = (work.start + round(seconds * TELEPHONE_HZ) for seconds in (first[0], last[1]))
        words.append(Word(word.text, word.tokens, start, max(end, start)))
    return words
