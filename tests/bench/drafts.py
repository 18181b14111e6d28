"""What beginning replies in advance throws away and buys, counted in the time of the audio.

The real ears of a call (voice detection, turn model, turn machine,
:class:`~appliance.conversation.listening.Listening`) hear every clip at eight positions in the frames. Only the time of
engines is made up, and it does not pass: a run says the same on every machine, however busy.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from appliance.audio import g711, level
from appliance.audio.prosody import ending
from appliance.conversation.budget import VerdictBudget
from appliance.conversation.endpointing import FRAME_S
from appliance.conversation.listening import HeardTurn, Listening
from appliance.conversation.speculation import Lead
from appliance.conversation.turns import TurnMachine
from appliance.engines.smart_turn import SmartTurn
from appliance.ipc.messages import JudgeTurn, Recognise, Recognised, TurnVerdict
from appliance.ipc.rings import FRAME_SAMPLES, RATE_HZ
from appliance.media.vad import BatchVad
from appliance.models.store import ModelStore, model_directory
from tests.bench.voices import Clip
from tests.engines.virtual_time import run_virtual

Pcm = NDArray[np.int16]

RECOGNITION_S: Final = 0.1
VERDICT_S: Final = 0.032
SHIFTS: Final = tuple(range(0, FRAME_SAMPLES, FRAME_SAMPLES // 8))
_LEAD_IN_S, _TAIL_S = 1.0, 4.0
_WINDOW: Final = 8 * RATE_HZ


@dataclass
class Heard:
    """A clip as the box hears it: (level dBFS, speech probability) of every frame."""

    pcm: Pcm
    frames: list[tuple[float, float]]
    verdicts: dict[tuple[int, int], tuple[float, tuple[float, ...]]] = field(default_factory=dict)


@dataclass
class Count:
    """What became of the turns.

    Attributes:
        turns: those that were committed.
        thrown: those for which a reply was begun in vain.
        saved_s: how much earlier each reply was to be heard than one begun with the commit.
    """

    turns: int = 0
    thrown: int = 0
    saved_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        saved = 1e3 * np.asarray(self.saved_s)
        return (
            f"thrown away in {self.thrown} of {self.turns} turns ({self.thrown / max(self.turns, 1):.0%}), "
            f"bought {np.median(saved):.0f} ms in the median, {saved.mean():.0f} ms in the mean"
        )


def hear(clips: Sequence[Clip]) -> list[Heard]:
    """Every clip through G.711 and the voice detector, at each of the positions."""
    model = ModelStore(model_directory()).read("silero_vad")
    return [heard for clip in clips for heard in _hear(clip, model)]


def _hear(clip: Clip, model: bytes) -> Iterator[Heard]:
    lead, tail = int(_LEAD_IN_S * RATE_HZ), int(_TAIL_S * RATE_HZ)
    length = (lead + len(clip.pcm) + tail) // FRAME_SAMPLES * FRAME_SAMPLES
    audio = np.zeros((len(SHIFTS), length), np.int16)
    for row, shift in enumerate(SHIFTS):
        audio[row, lead + shift :][: len(clip.pcm)] = clip.pcm[: length - lead - shift]
    audio = g711.decode(g711.encode(audio, False), False)
    ticks = audio.reshape(len(SHIFTS), -1, FRAME_SAMPLES)
    vad, rows = BatchVad(model, len(SHIFTS)), np.arange(len(SHIFTS))
    frames: list[list[tuple[float, float]]] = [[] for _ in SHIFTS]
    for tick in range(ticks.shape[1]):
        vad.tick(rows, ticks[:, tick])
        for row, loud in enumerate(level.rms_dbfs(ticks[:, tick]).tolist()):
            frames[row].append((loud, float(vad.speech[row])))
    for row in range(len(SHIFTS)):
        yield Heard(audio[row], frames[row])


class _Engines:
    """A recogniser that has words of no meaning for the turn, and the turn model."""

    partials = False

    def __init__(self, heard: Heard, model: SmartTurn) -> None:
        self._heard = heard
        self._model = model
        self._number = 0

    def number(self) -> int:
        self._number += 1
        return self._number

    async def recognise(self, request: Recognise) -> Recognised:
        await asyncio.sleep(RECOGNITION_S)
        return Recognised(request.request, "something was said", 1.0, True, 0.0, RECOGNITION_S)

    async def judge_turn(self, request: JudgeTurn) -> TurnVerdict:
        await asyncio.sleep(VERDICT_S)
        heard, key = self._heard, (request.speech_start, request.end)
        if key not in heard.verdicts:
            said = heard.pcm[max(0, request.end - _WINDOW) : request.end]
            sounds = ending(heard.pcm[request.speech_start : request.end]) or ()
            heard.verdicts[key] = self._model.probability(said, rate_hz=RATE_HZ), tuple(sounds)
        probability, sounds = heard.verdicts[key]
        return TurnVerdict(request.request, probability, 0.0, VERDICT_S, sounds)


class _Ears:
    """Begins a reply when it is told to, and counts what becomes of it."""

    def __init__(self, count: Count, lead: Lead, took_s: float) -> None:
        self._count = count
        self._lead = lead
        self._took_s = took_s
        self._begun_at: float | None = None
        self._thrown = False

    def may_have_finished(self, turn: HeardTurn) -> None:
        self._begun_at = asyncio.get_running_loop().time()

    def goes_on(self) -> None:
        self._thrown |= self._begun_at is not None
        self._begun_at = None

    def heard(self, turn: HeardTurn) -> None:
        now, count = asyncio.get_running_loop().time(), self._count
        count.turns += 1
        count.thrown += self._thrown
        count.saved_s.append(min(now - self._begun_at, self._took_s) if self._begun_at is not None else 0.0)
        self._lead.took(self._took_s)
        self._begun_at, self._thrown = None, False

    def __getattr__(self, name: str) -> Any:
        return lambda *values: None


def count(heard: Sequence[Heard], took_s: float, *, at_once: bool) -> Count:
    """Listen to all of it, with replies whose first sound takes ``took_s`` from when they are begun.

    Args:
        at_once: begin every reply as soon as there are words.
    """
    found, lead = Count(), Lead()
    model = SmartTurn(ModelStore(model_directory()).read("smart_turn"))

    async def listen(one: Heard) -> None:
        engines: Any = _Engines(one, model)
        ears: Any = _Ears(found, lead, took_s)
        listening = Listening(
            0, 1, TurnMachine(), engines, engines, VerdictBudget(), language="en", asr_timeout_s=2.0,
            delay_s=lambda: 0.0, ears=ears, audio=lambda start, end: one.pcm[start:end],
            lead_s=lambda: math.inf if at_once else lead.seconds,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        began = loop.time()
        for frame, (loud, speech) in enumerate(one.frames):
            await asyncio.sleep(began + (frame + 1) * FRAME_S - loop.time())
            listening.on_tick(loop.time(), frame, loud, speech, -96.0)
        await listening.close()

    async def every() -> None:
        for one in heard:
            await listen(one)

    run_virtual(every())
    return found
