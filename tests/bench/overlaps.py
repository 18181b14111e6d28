"""What the turn machine makes of recorded people, backchannels and bangs over an agent; time is that of the audio.

The bar of :mod:`tests.bench.barge_in` is measured on calls, with everything between two sockets in it. Here is what the
machine itself decides, frame by frame and the same on every machine: how long after the beginning of a voice the agent
is paused, and whether it goes on. Sounds are heard as the media process hears them (mu-law, Silero every 32 ms, in each
of the eight phases that frames of 20 ms can have to it), and the words come from PocketSphinx, 100 ms after they were
asked for. The voices are divided into two halves, one to tune on and one to report.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from appliance.audio.level import rms_dbfs
from appliance.audio.prosody import is_held
from appliance.conversation.barge_in import RIVALS, Agent
from appliance.conversation.endpointing import FRAME_S, TurnConfig
from appliance.conversation.listening import SURE_OF_HALF
from appliance.conversation.turn_actions import (
    Actions,
    FirstSilence,
    HearSound,
    JudgeSound,
    PauseAgent,
    ResumeAgent,
    StopAgent,
)
from appliance.conversation.turns import TurnMachine
from appliance.engines.pocketsphinx_asr import PocketSphinxRecogniser
from appliance.media.vad import BatchVad
from appliance.models.store import ModelStore, model_directory
from tests.bench import barge_in, voices
from tests.bench.paused_speech import on_the_line
from tests.bench.report import Bar, percentiles
from tests.bench.voices import Clip

Half = Literal["tune", "report"]
Pcm = npt.NDArray[np.int16]
Kind = Literal["interruption", "backchannel", "burst"]

FRAME: Final = 160
PHASES: Final = 8
LEAD_FRAMES: Final = 100
TAIL_FRAMES: Final = 75
TEXT_FRAMES: Final = 5
"""A recognition takes 100 ms."""
REACTION_FRAMES: Final = 2
"""From a decision to what is sent."""
PRE_ROLL, POST_ROLL = 2400, 800
AGENT_DBFS: Final = -17.0
LINE_NOISE: Final = 6.0
"""Standard deviation of the noise of every other line; the rest is digital silence."""
DELAY_S: Final = 0.25
"""What is left of the bar's 350 ms for sockets, jitter buffer and the grids of both sides."""
PAUSE_S: Final = 0.56
"""What is left of 600 ms: a pause is 20 ms longer at the receiver."""
TUNED_ON: Final = ("spk1", "weather", "libri", "en ", "es ")
TUNED_ON_VOICES: Final = ("awb", "kal")


@dataclass(frozen=True)
class Overlap:
    """A sound over the agent as the box hears it.

    Attributes:
        kind: what it is meant as.
        name: which clip, how loud.
        pcm: int16 at 8 kHz, from the first frame of the call on.
        begins, ends: the frames [begins, ends) of the sound.
        frames: (level dBFS, speech probability) of every frame.
    """

    kind: Kind
    name: str
    pcm: Pcm
    begins: int
    ends: int
    frames: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Verdict:
    """What became of the agent.

    Attributes:
        delays_s: from the beginning of the sound to each pause.
        pauses_s: how long each pause lasted that ended with the agent going on.
        stopped: whether the agent was stopped.
        stopped_s: from the beginning of the sound to that.
    """

    overlap: Overlap
    delays_s: tuple[float, ...]
    pauses_s: tuple[float, ...]
    stopped: bool
    stopped_s: float


@dataclass(frozen=True)
class Said:
    """What the recogniser makes of a sound."""

    text: str
    confidence: float
    accepted: bool
    expected: bool


Words = Callable[[Pcm], Said]


def tuned_on(one: Clip) -> bool:
    """Whether a clip belongs to the half to tune on."""
    name = one.name
    if name.startswith("burst"):
        return int(name[5:7]) % 2 == 0
    return name.startswith(TUNED_ON) or name.rpartition("_")[2] in TUNED_ON_VOICES


def clips(half: Half, each: int, seed: int) -> dict[Kind, list[Clip]]:
    """What one half says, ``each`` sentences of every speaker of prompts among it."""
    with tempfile.TemporaryDirectory(prefix="overlaps-") as folder:
        people = [*voices.people(Path(folder)), *voices.prompt_speakers(each, seed)]
    every: dict[Kind, list[Clip]] = {
        "interruption": people,
        "backchannel": voices.backchannels(),
        "burst": voices.bursts(),
    }
    return {kind: [one for one in some if tuned_on(one) == (half == "tune")] for kind, some in every.items()}


def at_levels(kind: Kind, some: Sequence[Clip]) -> Iterator[tuple[Kind, Clip]]:
    """Each of them as loud as callers may be."""
    for one in some:
        if kind == "burst":
            yield from ((kind, replace(one.louder(db), name=f"{one.name} {db:+.0f} dB")) for db in barge_in.BURSTS_DB)
        else:
            for dbfs in barge_in.LEVELS_DBFS:
                yield kind, replace(one.at_level(dbfs), name=f"{one.name} at {dbfs:.0f} dBFS")


def hear(kind: Kind, clip: Clip, silero: bytes, noise: float, seed: int = 0) -> list[Overlap]:
    """A clip after two seconds of a line with ``noise``, in every phase of the voice detector."""
    whole = np.concatenate([np.zeros(LEAD_FRAMES * FRAME), clip.pcm, np.zeros(TAIL_FRAMES * FRAME)])
    if noise:
        whole = whole + np.random.default_rng(seed).normal(0, noise, len(whole))
    pcm = on_the_line(np.clip(np.rint(whole), -32768, 32767).astype(np.int16))
    vad = BatchVad(silero, PHASES)
    slots = np.arange(PHASES)
    cut = pcm.reshape(-1, FRAME)
    levels = rms_dbfs(cut).tolist()
    speech = []
    for frame in cut:
        vad.tick(slots, np.broadcast_to(frame, (PHASES, FRAME)))
        speech.append(vad.speech.tolist())
    begins, ends = LEAD_FRAMES + clip.start // FRAME, LEAD_FRAMES - (-clip.end // FRAME)
    return [
        Overlap(kind, clip.name, pcm, begins, ends, list(zip(levels, of_phase, strict=True)))
        for of_phase in zip(*speech, strict=True)
    ]


def judge(overlap: Overlap, words: Words | None = None, config: TurnConfig | None = None) -> Verdict:
    """Let the machine hear it over an agent that talks for as long as it is allowed to."""
    machine = TurnMachine(config)
    machine.awaits_text = words is not None
    machine.agent_speaking(True)
    delays: list[float] = []
    pauses: list[float] = []
    stops: list[float] = []
    answers: list[tuple[int, Callable[[], Actions]]] = []
    paused_at = 0
    loud = [True] * REACTION_FRAMES
    pcm = overlap.pcm

    def since(frame: int) -> float:
        return (frame + 1 - overlap.begins) * FRAME_S

    def do(actions: Actions, now: int) -> None:
        nonlocal paused_at
        for action in actions:
            match action:
                case PauseAgent():
                    paused_at = now
                    delays.append(since(now))
                case ResumeAgent():
                    pauses.append((now - paused_at) * FRAME_S)
                case StopAgent():
                    stops.append(since(now))
                case JudgeSound(at, start):
                    do(machine.sounded(is_held(pcm[start * FRAME : (at + 1) * FRAME])), now)
                case HearSound(at, start) if words is not None:
                    heard = pcm[max(0, start * FRAME - PRE_ROLL) : (at + 1) * FRAME]
                    answers.append((now + TEXT_FRAMES, partial(_answer, machine, 0, words, heard)))
                case FirstSilence(_, attempt, begins, ends) if words is not None:
                    heard = pcm[max(0, begins * FRAME - PRE_ROLL) : ends * FRAME + POST_ROLL]
                    answers.append((now + TEXT_FRAMES, partial(_answer, machine, attempt, words, heard)))

    for frame, (level, speech) in enumerate(overlap.frames):
        do(machine.step(frame, level, speech, AGENT_DBFS if loud.pop(0) else -90.0), frame)
        for answer in [answer for answer in answers if answer[0] <= frame]:
            answers.remove(answer)
            do(answer[1](), frame)
        loud.append(machine.floor.agent is Agent.TALKING)
        if stops:
            break
    return Verdict(overlap, tuple(delays), tuple(pauses), bool(stops), stops[0] if stops else 0.0)


def _answer(machine: TurnMachine, attempt: int, words: Words, heard: Pcm) -> Actions:
    if not machine.paused:
        return ()
    said = words(heard)
    if attempt:
        then = machine.heard_over_agent(attempt, said.text, accepted=said.accepted, expected=said.expected)
        return then + machine.partial(attempt)
    if said.confidence < SURE_OF_HALF:
        return ()
    return machine.heard_over_agent(0, said.text, accepted=said.accepted, final=False, expected=said.expected)


def recogniser() -> Words:
    """PocketSphinx with the phrases of the bar's line and the backchannels it is offered beside them."""
    engine = PocketSphinxRecogniser()
    expected = tuple(barge_in.phrases())
    rivals = tuple(rival for rival in RIVALS if rival not in expected)
    known: dict[bytes, Said] = {}

    def words(pcm: Pcm) -> Said:
        key = pcm.tobytes()
        if key not in known:
            found = engine.recognise(pcm, expected + rivals, reject=True)
            known[key] = Said(found.text, found.confidence, found.accepted, found.accepted and found.text not in rivals)
        return known[key]

    return words


def tell(bar: Bar, verdicts: Sequence[Verdict]) -> None:
    """What became of every kind of sound."""
    meant = [one for one in verdicts if one.overlap.kind == "interruption"]
    delays = [one.delays_s[0] for one in meant if one.delays_s]
    stopped = sum(one.stopped for one in meant)
    blips = sum(bool(one.pauses_s) for one in meant)
    bar.figure(f"{len(meant)} interruptions: paused after {percentiles(delays)}, {stopped} stopped")
    bar.note(f"{blips} were taken for nothing at first")
    for one in sorted(meant, key=lambda one: one.delays_s[:1] or (9.0,))[-5:]:
        bar.note(
            f"  {one.overlap.name}: {one.delays_s[0] * 1e3:.0f} ms" if one.delays_s else f"  {one.overlap.name}: -"
        )
    bar.require(stopped >= barge_in.STOPPED * len(meant), f"{stopped} of {len(meant)} interruptions stopped the agent")
    slowest = barge_in.percentiles_of(delays, "p95")
    bar.require(slowest <= DELAY_S, f"paused after p95 {slowest * 1e3:.0f} ms; held to {DELAY_S * 1e3:.0f}")
    slight = [one for one in verdicts if one.overlap.kind != "interruption"]
    for kind in ("backchannel", "burst"):
        some = [one for one in slight if one.overlap.kind == kind]
        names = sorted({one.overlap.name for one in some if one.stopped})
        went_on, paused = sum(not one.stopped for one in some), sum(bool(one.delays_s) for one in some)
        bar.figure(f"{went_on} of {len(some)} {kind}s went on, {paused} paused")
        bar.note(f"  stopped by {', '.join(names)}" if names else "  stopped by none")
    went_on = sum(not one.stopped for one in slight)
    bar.require(went_on >= barge_in.WENT_ON * len(slight), f"the agent went on after {went_on} of {len(slight)}")
    longest = max((pause for one in slight for pause in one.pauses_s), default=0.0)
    bar.figure(f"the longest pause that was none {longest * 1e3:.0f} ms")
    bar.require(longest <= PAUSE_S, f"a pause of {longest * 1e3:.0f} ms; held to {PAUSE_S * 1e3:.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=get_args(Half), default="report", help="which voices")
    parser.add_argument("--each", type=int, default=20, help="sentences of every speaker of prompts")
    parser.add_argument("--phases", type=int, default=2, help="of the eight that the voice detector may be in")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deaf", action="store_true", help="without a recogniser")
    args = parser.parse_args()
    bar = Bar("4.4", f"sounds over the agent, the {args.half} half")
    silero = ModelStore(model_directory()).read("silero_vad")
    words = None if args.deaf else recogniser()
    found: list[Verdict] = []
    number = 0
    for kind, some in clips(args.half, args.each, args.seed).items():
        if not some:
            print("skipped: the recorded voices are not beside the clone")
            return 77
        for _, clip in at_levels(kind, some):
            number += 1
            every = hear(kind, clip, silero, LINE_NOISE * (number % 2), number)
            found += [judge(one, words) for one in every[:: PHASES // args.phases]]
    tell(bar, found)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
