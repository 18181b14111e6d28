"""Bar 6.4: who has answered, a person or a machine, on speakers and sentences that nothing was tuned on.

Every clip of the reporting half goes through the detection as a call does: a level and Silero's probability per 20 ms,
samples in pieces of 100 ms, the agent's greeting beside it, and PocketSphinx where the detection asks for words
(English alone; its answer comes 0.2 s later). Time is that of the audio: a run says the same on every machine.

A clip is *right* if the verdict that stands when it is over is its class, and a person besides only if no other verdict
came first: a machine that was taken for a person until it beeped is right, a person who was taken for a machine for a
moment is not. Beside it: what the length of the first utterance alone would say, with the threshold that is best on the
tuning half.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, get_args

import numpy as np

from appliance.conversation.answering import AnsweringMachine, Beep, Event, HearWords, LeaveMessage, Verdict
from appliance.conversation.answering_cadence import FRAME_S, Cadence
from appliance.engines.adapters import LEAD_SAMPLES, without_noise
from appliance.engines.pocketsphinx_asr import PocketSphinxRecogniser
from tests.bench.answering_calls import first_sounds
from tests.bench.answering_clips import PACKAGES, RECORDINGS, VOICES, Answered, SpeechMissing, answered, installed
from tests.bench.answering_heard import FRAME, Heard, hear
from tests.bench.answering_texts import Half
from tests.bench.endpointing import wilson
from tests.bench.prompts import RATE_HZ
from tests.bench.report import Bar

PIECE_FRAMES: Final = 5
WORDS_AFTER_S: Final = 0.2
AGENT_S: Final = (0.1, 6.0)
"""When the agent's greeting begins and ends."""
BAR_SHARE: Final = 0.93
BAR_SHORT_S: Final = 1.5
MOST_DELAY_MS: Final = 40
"""Two packets: what a median of ten calls moves by from one run to the next."""


@dataclass
class Outcome:
    """What the detection made of one clip."""

    clip: Answered
    verdicts: list[Verdict] = field(default_factory=list)
    beep: Beep | None = None
    message: LeaveMessage | None = None
    asks: int = 0

    @property
    def last(self) -> str:
        return self.verdicts[-1].kind if self.verdicts else "none"

    @property
    def right(self) -> bool:
        kinds = [verdict.kind for verdict in self.verdicts]
        if self.clip.kind == "screening":
            return self.last == "screening"
        return kinds == ["human"] if self.clip.human else self.last == "machine"

    @property
    def delay_s(self) -> float:
        """From the start of speech to the verdict that stands."""
        return self.verdicts[-1].at_s - self.clip.starts_s


class Recogniser:
    """PocketSphinx, which spots phrases in English."""

    def __init__(self) -> None:
        self._recogniser = PocketSphinxRecogniser()

    def words(self, clip: Answered, ask: HearWords) -> str:
        start, end = round(ask.start_s * RATE_HZ), round(ask.end_s * RATE_HZ)
        before = max(0, start - LEAD_SAMPLES)
        return self._recogniser.spot(without_noise(clip.pcm[before:end], start - before))


def detect(heard: Heard, recogniser: Recogniser | None) -> Outcome:
    """One call."""
    machine, outcome = AnsweringMachine(), Outcome(heard.clip)
    texts: list[tuple[float, str, bool]] = []

    def take(events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Verdict():
                    outcome.verdicts.append(event)
                case Beep():
                    outcome.beep = outcome.beep or event
                case LeaveMessage():
                    outcome.message = event
                case HearWords():
                    outcome.asks += 1
                    if recogniser is not None and heard.clip.english:
                        words = recogniser.words(heard.clip, event)
                        texts.append((event.end_s + WORDS_AFTER_S, words, event.final))

    for frame, (level, speech) in enumerate(heard.frames):
        t = (frame + 1) * FRAME_S
        for speaking, at in ((True, AGENT_S[0]), (False, AGENT_S[1])):
            if abs(t - at) < FRAME_S / 2:
                take(machine.on_agent(t, speaking))
        take(machine.on_tick(t, level, speech))
        if (frame + 1) % PIECE_FRAMES == 0:
            start = frame + 1 - PIECE_FRAMES
            take(machine.on_audio(start * FRAME_S, heard.clip.pcm[start * FRAME : (frame + 1) * FRAME]))
        for text in [text for text in texts if text[0] <= t]:
            texts.remove(text)
            take(machine.on_text(t, text[1], text[2]))
        due = machine.get_timer()
        if due is not None and t >= due:
            take(machine.handle_timer(t))
    return outcome


def first_utterances(heard: Sequence[Heard]) -> list[tuple[bool, float]]:
    """(human, length of the first utterance in seconds) of every clip but those of assistants."""
    found = []
    for one in heard:
        cadence = Cadence()
        for frame, (level, speech) in enumerate(one.frames):
            cadence.tick((frame + 1) * FRAME_S, level, speech)
            if cadence.silence_s((frame + 1) * FRAME_S) >= 0.5:
                break
        if one.clip.kind != "screening":
            found.append((one.clip.human, cadence.first_s))
    return found


def shares(lengths: Sequence[tuple[bool, float]], threshold_s: float) -> tuple[float, float]:
    """The shares of (people, machines) that a threshold on the length gets right."""
    people = [length for human, length in lengths if human]
    machines = [length for human, length in lengths if not human]
    return (
        sum(length < threshold_s for length in people) / len(people),
        sum(length >= threshold_s for length in machines) / len(machines),
    )


def best_threshold(lengths: Sequence[tuple[bool, float]]) -> float:
    """The length that divides the classes best: the higher of the two shares' lower one."""
    return max((one / 100 for one in range(30, 800, 5)), key=lambda value: min(shares(lengths, value)))


def share(outcomes: Sequence[Outcome]) -> str:
    right = sum(one.right for one in outcomes)
    low, high = wilson(right, len(outcomes))
    return (
        f"{right} of {len(outcomes)} = {100 * right / len(outcomes):.1f} % (95 %: {100 * low:.0f} to {100 * high:.0f})"
    )


def table(outcomes: Sequence[Outcome]) -> None:
    """A line for every kind."""
    print("| kind | right | no beep | with noise | first verdict right | delay p50 s | p95 s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in ("human short", "human long", "machine short", "machine long", "screening"):
        these = [one for one in outcomes if one.clip.kind == kind]
        quiet = [one for one in these if one.clip.beep_s is None]
        noisy = [one for one in these if one.clip.noise_db < 40]
        wanted = kind.split()[0]
        first = sum(bool(one.verdicts) and one.verdicts[0].kind == wanted for one in these)
        delays = [one.delay_s for one in these if one.right]
        cells = [f"{sum(one.right for one in some)} of {len(some)}" for some in (these, quiet, noisy)]
        cells += [f"{first} of {len(these)}", *(f"{np.percentile(delays, p):.2f}" if delays else "-" for p in (50, 95))]
        print(f"| {kind} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=get_args(Half), default="report", help="which speakers and sentences")
    parser.add_argument("--seed", type=int, default=7, help="lengths of silence, noise, beeps and rates of speech")
    parser.add_argument("--recordings", type=Path, default=RECORDINGS, help="a folder with utterances and noise")
    parser.add_argument("--without-words", action="store_true", help="rhythm and tones alone")
    parser.add_argument("--calls", type=int, default=10, help="calls to people over SIP, with detection and without")
    parser.add_argument("--wrong", action="store_true", help="name every clip that is not right")
    args = parser.parse_args()
    bar = Bar("6.4", "answering machines")
    half: Half = args.half
    try:
        clips = answered(half, args.recordings, args.seed)
        tuning = answered("tune", args.recordings, args.seed)
    except SpeechMissing as error:
        print(f"skipped: {error}")
        return 77
    if missing := [voice for voice in VOICES[half] if not installed(voice)]:
        bar.note(f"without {', '.join(missing)} ({PACKAGES})")
    heard = hear(clips)
    recogniser = None if args.without_words else Recogniser()
    outcomes = [detect(one, recogniser) for one in heard]
    judge(bar, outcomes, heard, hear(tuning), wrong=args.wrong)
    if args.calls:
        place_calls(bar, args.calls)
    return bar.finish()


def place_calls(bar: Bar, calls: int) -> None:
    """The greeting is not delayed: how soon callees hear something, with detection and without."""
    detecting, plain, verdicts = first_sounds(calls)
    medians = [1e3 * float(np.median(some)) for some in (detecting, plain)]
    right = sum(verdict == "human" for verdict in verdicts)
    bar.figure(f"200 to greeting p50 {medians[0]:.0f} ms with detection, {medians[1]:.0f} ms without")
    bar.note(f"{right} of {len(verdicts)} people called over SIP taken for people")
    bar.require(medians[0] <= medians[1] + MOST_DELAY_MS, f"the greeting is delayed by more than {MOST_DELAY_MS} ms")


def judge(
    bar: Bar, outcomes: Sequence[Outcome], heard: Sequence[Heard], tuning: Sequence[Heard], *, wrong: bool
) -> None:
    """Print the figures, and hold them to the bar."""
    table(outcomes)
    if wrong:
        for one in outcomes:
            if not one.right:
                said = "; ".join(f"{v.kind} {v.at_s - one.clip.starts_s:.2f} s ({v.why})" for v in one.verdicts)
                print(f"  {one.clip.kind}: {one.clip.name[:70]}, first {one.clip.first_s:.2f} s: {said}")
    people = [one for one in outcomes if one.clip.human]
    machines = [one for one in outcomes if one.clip.kind.startswith("machine")]
    assistants = [one for one in outcomes if one.clip.kind == "screening"]
    short = [one.delay_s for one in people if one.clip.kind == "human short" and one.right]
    p95 = float(np.percentile(short, 95))
    bar.note(f"{len(outcomes)} clips of {len({one.clip.voice for one in outcomes})} voices")
    bar.figure(f"people {share(people)}")
    bar.figure(f"machines {share(machines)}")
    bar.figure(f"assistants {share(assistants)}")
    bar.figure(f"verdict on a short human p50 {np.percentile(short, 50):.2f} s, p95 {p95:.2f} s after speech starts")
    beeps = [one for one in outcomes if one.clip.beep_s is not None]
    found = sum(one.beep is not None for one in beeps)
    false = sum(one.beep is not None for one in outcomes if one.clip.beep_s is None)
    bar.figure(f"beeps {found} of {len(beeps)}, {false} where there was none")
    threshold = best_threshold(first_utterances(tuning))
    by_people, by_machines = shares(first_utterances(heard), threshold)
    bar.figure(f"length alone ({threshold:.2f} s): people {100 * by_people:.1f} %, machines {100 * by_machines:.1f} %")
    enough = len(people) + len(machines)
    bar.require(enough + len(tuning) >= 200, "fewer than 200 clips")
    for name, these in (("people", people), ("machines", machines)):
        right = sum(one.right for one in these) / len(these)
        bar.require(right >= BAR_SHARE, f"{name}: {100 * right:.1f} % right, and 93 % are required")
    bar.require(p95 <= BAR_SHORT_S, f"p95 verdict on a short human {p95:.2f} s, and 1.5 s are required")


if __name__ == "__main__":
    sys.exit(main())
