"""Bar 3: how often a pause is taken for the end of a turn, against how long the end is waited for.

Every utterance of ``paused_speech`` is heard by the real Silero, and where a rule asks for it by the real Smart Turn,
whose answer comes as late as it takes to compute. Time is that of the audio, so that a run says the same on every
machine. Compared are:

- **fixed silence** of 200, 500 and 800 ms after Silero's last frame of speech;
- **asked once**, as Pipecat does by default: 200 ms after Silero's last frame of speech Smart Turn is asked; above 0.5
  the turn is over, and otherwise after 3 s of silence;
- **ours**: the turn machine, at several settings of ``patience``, with what was heard and without.

A *false cut-off* is a pause in which the turn was committed; *latency* is the time from the utterance's true end to its
commit. Intervals are of 95 %: Wilson's for shares, the bootstrap for percentiles.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, get_args

import numpy as np

from appliance.audio.prosody import Ending, ending
from appliance.conversation.cues import Cues, cues_of
from appliance.conversation.endpointing import FRAME_S, TurnConfig
from appliance.conversation.turn_actions import Actions, AskTurnModel, FirstSilence, TurnCommitted
from appliance.conversation.turns import TurnMachine
from appliance.engines.pocketsphinx_asr import PocketSphinxRecogniser
from appliance.engines.smart_turn import SmartTurn
from appliance.media.vad import BatchVad
from appliance.models.store import ModelStore, model_directory
from tests.bench.paused_speech import FRAME, Half, Paused, SpeechMissing, paused_speech
from tests.bench.report import Bar

RECORDINGS: Final = Path(__file__).parents[2] / "../shared/audio"
VERDICT_FRAMES: Final = 2
"""32 ms to compute one."""
PIPECAT_CONFIDENCE: Final = 0.7
PIPECAT_START_S, PIPECAT_STOP_S, PIPECAT_PATIENCE_S = 0.2, 0.2, 3.0
FIXED_S: Final = (0.2, 0.5, 0.8)
PATIENCE: Final = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Settings of ours on the curve; 1 is the default."""
RESAMPLES: Final = 2000


@dataclass
class Heard:
    """An utterance as the box hears it: (level dBFS, speech probability) of every frame, and verdicts on demand."""

    item: Paused
    frames: list[tuple[float, float]]
    model: SmartTurn | None = None
    asked: dict[int, float] = field(default_factory=dict)
    endings: dict[tuple[int, int], Ending | tuple[()]] = field(default_factory=dict)

    def verdict(self, frame: int) -> float:
        if frame not in self.asked:
            assert self.model is not None
            end = (frame + 1) * FRAME
            start = max(0, end - 8 * 8000)
            self.asked[frame] = self.model.probability(self.item.pcm[start:end], rate_hz=8000)
        return self.asked[frame]

    def ending(self, begins: int, frame: int) -> Ending | tuple[()]:
        """How what was said from frame ``begins`` sounds at its end."""
        if (begins, frame) not in self.endings:
            self.endings[begins, frame] = ending(self.item.pcm[begins * FRAME : (frame + 1) * FRAME]) or ()
        return self.endings[begins, frame]


TEXT_FRAMES: Final = 5
"""A recognition takes 100 ms."""


@dataclass(frozen=True)
class Outcome:
    """What a rule made of one utterance.

    Attributes:
        cut: for every pause, whether the turn was committed in it.
        elsewhere: commits before the end outside the pauses.
        latency_s: from the true end to the commit.
    """

    kind: str
    cut: tuple[bool, ...]
    elsewhere: int
    latency_s: float


Rule = Callable[[Heard], list[int]]
"""The frames at whose end an utterance is committed."""


def hear(items: Sequence[Paused], store: ModelStore) -> list[Heard]:
    """Run the voice activity detection over every utterance."""
    model = store.read("silero_vad")
    turn = SmartTurn(store.read("smart_turn"))
    heard = []
    slot = np.zeros(1, np.int64)
    for item in items:
        vad = BatchVad(model, 1)
        rows = []
        for frame in item.pcm.reshape(-1, FRAME):
            vad.tick(slot, frame[None])
            rms = float(np.sqrt(np.mean(frame.astype(np.float64) ** 2))) / 32768
            rows.append((20 * math.log10(max(rms, 1e-5)), float(vad.speech[0])))
        heard.append(Heard(item, rows, turn))
    return heard


def judge(heard: Heard, commits: Sequence[int]) -> Outcome:
    """Which pauses the commits fall into."""
    item = heard.item
    at = [(frame + 1) * FRAME for frame in commits]
    cut = tuple(any(a <= t < b for t in at) for a, b in item.pauses)
    early = sum(t < item.ends for t in at) - sum(sum(a <= t < b for t in at) for a, b in item.pauses)
    last = next((t for t in at if t >= item.ends), len(item.pcm))
    return Outcome(item.kind, cut, early, (last - item.ends) / 8000)


def fixed_silence(seconds: float) -> Rule:
    """Commit when Silero has heard no speech for so long."""
    needed = math.ceil(seconds / FRAME_S - 1e-9)

    def rule(heard: Heard) -> list[int]:
        commits: list[int] = []
        last = None
        for frame, (_, speech) in enumerate(heard.frames):
            if speech >= 0.5:
                last = frame
            elif last is not None and frame - last >= needed:
                commits.append(frame)
                last = None
        return commits

    return rule


def asked_once(threshold: float = 0.5) -> Rule:
    """Pipecat's default: one verdict after 200 ms of silence, and 3 s where it says no."""
    start = math.ceil(PIPECAT_START_S / FRAME_S)
    stop = math.ceil(PIPECAT_STOP_S / FRAME_S)
    patience = math.ceil(PIPECAT_PATIENCE_S / FRAME_S)

    def rule(heard: Heard) -> list[int]:
        commits: list[int] = []
        run, quiet = 0, 0
        speaking = pending = False
        for frame, (_, speech) in enumerate(heard.frames):
            if speech >= PIPECAT_CONFIDENCE:
                run, quiet = run + 1, 0
                if run >= start or speaking:
                    speaking = pending = True
                continue
            run, quiet = 0, quiet + 1
            if speaking and quiet >= stop:
                speaking = False
                if heard.verdict(frame) > threshold:
                    commits.append(frame + VERDICT_FRAMES)
                    pending = False
            elif pending and not speaking and quiet >= patience:
                commits.append(frame)
                pending = False
        return commits

    return rule


Words = Callable[[Heard, int, int], Cues]
"""What a recogniser's text of the frames [begin, end) shows."""


def ours(config: TurnConfig, words: Words | None = None) -> Rule:
    """The turn machine, with or without a recogniser."""

    def rule(heard: Heard) -> list[int]:
        machine = TurnMachine(config)
        listens = words if heard.item.digits else None
        machine.awaits_text = listens is not None
        commits: list[int] = []
        answers: list[tuple[int, Callable[[], Actions]]] = []

        def do(actions: Actions, now: int) -> None:
            for action in actions:
                match action:
                    case TurnCommitted():
                        commits.append(now)
                    case AskTurnModel(at, ask, begins):
                        verdict = partial(machine.verdict, ask, heard.verdict(at), heard.ending(begins, at))
                        answers.append((now + VERDICT_FRAMES, verdict))
                    case FirstSilence(_, attempt, begins, ends) if listens is not None:
                        answers.append(
                            (now + TEXT_FRAMES, partial(machine.partial, attempt, listens(heard, begins, ends)))
                        )

        for frame, (level, speech) in enumerate(heard.frames):
            do(machine.step(frame, level, speech), frame)
            for answer in [answer for answer in answers if answer[0] <= frame]:
                answers.remove(answer)
                do(answer[1](), frame)
        return commits

    return rule


def spoken_digits() -> Words:
    """PocketSphinx, which knows how many digits are expected: what a dialplan's question for a number does."""
    recogniser = PocketSphinxRecogniser()
    known: dict[tuple[str, int, int], Cues] = {}

    def words(heard: Heard, begins: int, ends: int) -> Cues:
        item = heard.item
        key = (item.name, begins, ends)
        if key not in known:
            phrases = (f"<digits {item.digits} {item.digits}>",)
            pcm = item.pcm[max(0, begins * FRAME - 2400) : ends * FRAME + 800]
            found = recogniser.recognise(pcm, phrases, reject=True)
            known[key] = cues_of(found.text, accepted=found.accepted, phrases=phrases, min_digits=item.digits)
        return known[key]

    return words


def wilson(hits: int, of: int) -> tuple[float, float]:
    """95 % interval of a share."""
    if not of:
        return 0.0, 1.0
    z, p = 1.96, hits / of
    centre = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(values: Sequence[float], percentile: float, seed: int = 1) -> tuple[float, float]:
    """95 % interval of a percentile, by the bootstrap."""
    drawn = np.random.default_rng(seed).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.percentile(drawn, percentile, axis=1), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Point:
    """One rule on the curve."""

    name: str
    outcomes: list[Outcome]

    def cut(self, kind: str = "") -> tuple[int, int]:
        """(pauses cut, pauses)."""
        flags = [cut for outcome in self.outcomes if kind in ("", outcome.kind) for cut in outcome.cut]
        return sum(flags), len(flags)

    @property
    def share(self) -> float:
        hits, of = self.cut()
        return hits / of

    def latencies(self, kind: str = "") -> list[float]:
        return [outcome.latency_s for outcome in self.outcomes if kind in ("", outcome.kind)]

    def row(self) -> str:
        """One line of the table in Markdown."""
        hits, of = self.cut()
        low, high = wilson(hits, of)
        cells = [self.name, f"{100 * hits / of:.1f} % ({100 * low:.1f} to {100 * high:.1f})"]
        for kind in KINDS:
            some, all_ = self.cut(kind)
            cells.append(f"{100 * some / all_:.0f} %")
        values = self.latencies()
        for percentile in (50, 90):
            low, high = interval(values, percentile)
            middle = float(np.percentile(values, percentile))
            cells.append(f"{1e3 * middle:.0f} ({1e3 * low:.0f} to {1e3 * high:.0f})")
        cells.append(f"{1e3 * float(np.percentile(self.latencies(KINDS[0]), 50)):.0f}")
        return f"| {' | '.join(cells)} |"


KINDS: Final = ("sentences", "digits", "fillers")
HEADER: Final = (
    "| rule | pauses cut (95 %) | sentences | digits | fillers "
    "| latency p50 ms (95 %) | p90 ms (95 %) | sentences p50 ms |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def curve(heard: Sequence[Heard]) -> list[Point]:
    """Every rule over every utterance."""
    rules: list[tuple[str, Rule]] = [(f"{1e3 * s:.0f} ms of silence", fixed_silence(s)) for s in FIXED_S]
    rules.append((ASKED_ONCE, asked_once()))
    words = spoken_digits()
    for listens, suffix in ((None, ""), (words, ", digits recognised")):
        rules += [
            (f"ours, patience {factor:g}{suffix}", ours(TurnConfig(patience=factor), listens)) for factor in PATIENCE
        ]
    points = []
    for name, rule in rules:
        points.append(Point(name, [judge(one, rule(one)) for one in heard]))
        print(points[-1].row(), flush=True)
    return points


ASKED_ONCE: Final = "Smart Turn asked once (Pipecat)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=get_args(Half), default="report", help="which voices")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--recordings", type=Path, default=RECORDINGS, help="a folder with utterances and digits")
    args = parser.parse_args()
    bar = Bar(3, "false cut-offs against latency")
    try:
        items = paused_speech(args.half, args.recordings, args.seed)
    except SpeechMissing as error:
        print(f"skipped: {error}")
        return 77
    pauses = sum(len(item.pauses) for item in items)
    bar.note(f"{len(items)} utterances of {len({item.voice for item in items})} voices with {pauses} pauses")
    print(HEADER)
    points = {point.name: point for point in curve(hear(items, ModelStore(model_directory())))}
    pipecat, half_second = points[ASKED_ONCE], points["500 ms of silence"]
    bar.require(pauses >= 300, f"{pauses} pauses, and at least 300 were to be heard")
    for name in ("ours, patience 1", "ours, patience 1, digits recognised"):
        own = points[name]
        bar.figure(
            f"{name}: {100 * own.share:.1f} % cut, {own.share / pipecat.share:.2f} x asked once, "
            f"{own.share / half_second.share:.2f} x 500 ms"
        )
        bar.require(own.share <= pipecat.share / 2, f"{name} cuts more than half of what one verdict does")
        bar.require(own.share <= half_second.share / 3, f"{name} cuts more than a third of what 500 ms do")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
