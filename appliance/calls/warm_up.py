"""Phrases that are synthesised before anybody waits for them.

When the box has started, everything that its lines say in fixed words goes into the synthesisers' caches, what the box
itself says first: these phrases are there when the synthesiser has failed, too. While a call rings, so does what it
will be greeted with, whatever stands in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from appliance.calls.brains import pieces_of, spoken_language, voice_of
from appliance.calls.consent_brain import opening_of
from appliance.conversation import manners
from appliance.conversation.speaker import Voice
from appliance.dialplan.checks import Draft, texts
from appliance.dialplan.closing import while_closed
from appliance.dialplan.schema import Line
from appliance.dialplan.text import render, variables_in
from appliance.engines.client import EnginePool
from appliance.errors import EngineError
from appliance.ipc.messages import Synthesise
from appliance.ipc.rings import RING_SAMPLES
from appliance.signalling.leg import CallInfo

logger = logging.getLogger(__name__)

MAX_CHARACTERS: Final = 50_000
"""So much is prepared at most when the box starts: an hour of speech, which a service may want money for."""
GREETING_WAIT_S: Final = 1.0
"""A call is answered this much later at most, so that the caller who is put through is greeted at once."""

_PHRASE_TIMEOUT_S: Final = 60.0
_AGAIN_AFTER_S: Final = 30.0
_A_PHRASE: Final = 50
"""Characters; with less room than this no line is looked at any more."""
_Key: TypeAlias = tuple[str, str, str, float]
_Phrase: TypeAlias = tuple[str, Voice]
_NOBODY: Final = CallInfo("", "", "", "", "", "", "", "", {})


class WarmUp:
    """Keeps the caches of the synthesis workers warm.

    Args:
        tts: the workers; each has a cache of its own.
        lines: of the dialplan; none where there are no caches. They are gone through one by one, with room for others
            in between.
        engine: name of the synthesiser; what lines say that name another is left to that.
    """

    def __init__(self, tts: EnginePool, lines: Sequence[Line], engine: str = "") -> None:
        self._tts = tts
        self._lines = lines
        self._engine = engine
        self._caches = len(lines) > 0
        self._prepared: dict[int, set[_Key]] = {}
        """What the cache of each worker has had put into it."""
        self._cold = asyncio.Queue[int]()
        self._tasks: set[asyncio.Task[None]] = set()
        self.prepared = 0
        """Phrases put into caches by :meth:`run`."""
        for worker in range(tts.workers):
            self._cold.put_nowait(worker)
        tts.on_worker_back = self._worker_back

    def take_over(self, lines: Sequence[Line]) -> None:
        """From now on these are the lines: what is new in them is prepared while :meth:`run` runs."""
        if self._caches:
            self._lines = lines
            for worker in range(self._tts.workers):
                self._cold.put_nowait(worker)

    def _worker_back(self, worker: int) -> None:
        self._prepared.pop(worker, None)
        self._cold.put_nowait(worker)

    async def run(self) -> None:
        """Prepare every worker's cache, and again that of a worker which was started again; until cancelled."""
        phrases: dict[_Key, _Phrase] = {}
        of_lines: Sequence[Line] | None = None
        preparing: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                worker = await self._cold.get()
                if of_lines is not self._lines:
                    of_lines = self._lines
                    phrases = await _phrases(of_lines, self._engine)
                if worker in preparing:
                    preparing[worker].cancel()
                preparing[worker] = asyncio.create_task(self._prepare(worker, phrases))
        finally:
            for task in preparing.values():
                task.cancel()
            await asyncio.gather(*preparing.values(), return_exceptions=True)

    async def opening(self, line: Line, info: CallInfo, slot: int) -> None:
        """Have what the call in ``slot`` will be greeted with synthesised.

        Returns when the first piece is ready, or ``GREETING_WAIT_S`` later; the rest follows.
        """
        pieces = opening_of(line, info) if self._caches else []
        if not pieces:
            return
        worker, voice = slot % self._tts.workers, voice_of(line)
        first, *_ = [self._start(piece, voice, worker, urgent=not place) for place, piece in enumerate(pieces)]
        done, _ = await asyncio.wait({first}, timeout=GREETING_WAIT_S)
        if not done:  # it goes on, and the call joins it
            logger.info("the greeting of line %s is not ready after %g s", line.name, GREETING_WAIT_S)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- phrases --------------------------------------------------------------------------------------------------

    async def _prepare(self, worker: int, phrases: Mapping[_Key, _Phrase]) -> None:
        """One phrase after the other; those that fail again later, unless they always will."""
        known = self._prepared.setdefault(worker, set())
        known.intersection_update(phrases)
        left = {key: phrase for key, phrase in phrases.items() if key not in known}
        while left:
            failed: dict[_Key, _Phrase] = {}
            for key, (text, voice) in left.items():
                try:
                    async with asyncio.timeout(_PHRASE_TIMEOUT_S):
                        await self._one(text, voice, worker, urgent=False, keep=True)
                    self.prepared += 1
                    known.add(key)
                except (EngineError, TimeoutError) as error:
                    if not failed:
                        logger.warning("%r cannot be synthesised in advance: %s", text[:40], error or "no answer")
                    if not isinstance(error, EngineError) or error.retryable:
                        failed[key] = (text, voice)
            left = failed
            if left:
                await asyncio.sleep(_AGAIN_AFTER_S)

    async def _one(self, text: str, voice: Voice, worker: int, *, urgent: bool, keep: bool = False) -> None:
        """Raises EngineError where it cannot be synthesised."""
        await self._tts.synthesise_ahead(
            Synthesise(
                self._tts.number(),
                worker - self._tts.workers,
                0,
                voice.spoken_form(text).text,
                voice.language,
                voice.name,
                voice.rate,
                0,
                RING_SAMPLES,
                urgent=urgent,
                keep=keep,
            )
        )

    def _start(self, text: str, voice: Voice, worker: int, *, urgent: bool) -> asyncio.Task[None]:
        """Prepare it in the background; if that fails, the call finds out."""

        async def prepare() -> None:
            with contextlib.suppress(EngineError, TimeoutError):
                async with asyncio.timeout(_PHRASE_TIMEOUT_S):
                    await self._one(text, voice, worker, urgent=urgent)

        task = asyncio.create_task(prepare())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _phrases(lines: Iterable[Line], engine: str) -> dict[_Key, _Phrase]:
    """All that ``engine`` says in fixed words, the most urgent first, each once."""
    found: tuple[dict[_Key, _Phrase], ...] = ({}, {}, {})
    characters = 0
    for line in _in_all_hours(lines):
        await asyncio.sleep(0)
        if line.engines.tts != engine:
            continue
        voice = voice_of(line)
        fixed = not _has_variables(line.disclosure, line.greeting.text if line.greeting else None)
        said = (box_phrases(line), opening_of(line, _NOBODY) if fixed else (), _fixed_pieces(line))
        for chosen, texts_of_line in zip(found, said, strict=True):
            for text in texts_of_line:
                key = (voice.spoken_form(text).text, voice.name, voice.language, voice.rate)
                if key not in chosen and characters + len(text) <= MAX_CHARACTERS:
                    characters += len(text)
                    chosen[key] = (text, voice)
        if characters > MAX_CHARACTERS - _A_PHRASE:
            break
    first, second, third = found
    return first | {key: one for key, one in (second | third).items() if key not in first}


def _in_all_hours(lines: Iterable[Line]) -> Iterator[Line]:
    """Each line, and what it is while it is closed."""
    for line in lines:
        yield line
        if (closed := while_closed(line)) is not line:
            yield closed


def box_phrases(line: Line) -> tuple[str, ...]:
    """What the box itself says on ``line``: when something fails, and when something takes long."""
    language = spoken_language(line)
    fillers = line.filler.texts or manners.fillers(language)
    return (manners.apology(language), manners.farewell(language), manners.time_is_up(language), *fillers)


def _fixed_pieces(line: Line) -> Iterator[str]:
    """What the line says in words that no call changes, in the pieces that it is said in."""
    for path, text in texts(Draft(line, tuple(line.flow))):
        if text and path[-1] != "to" and not variables_in(text):
            yield from pieces_of(render(text, {})) if "flow" in (line.agent, path[0]) else [text]


def _has_variables(*templates: str | None) -> bool:
    return any(variables_in(template) for template in templates if template)
