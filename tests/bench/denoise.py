"""Bar 4.6: what noise does to turns and words, with noise suppression and without, and what suppression costs.

    python -m tests.bench.denoise                  # all of it
    python -m tests.bench.denoise turns            # one part: turns, phrases, quality, cost

Telephone lines (``tests/bench/noisy_lines.py``) go through the media process's own voice detection and the turn
machine of the box, in virtual time. A *false start* is a turn that begins where nobody on the line has spoken; the end
of a turn is late where the noise is taken for the caller going on. The turn model is a constant here, so that only the
ears differ. One voice that talks on and on (a television) is shown beside the others and not counted. Intervals are of
95 %, by the bootstrap over the lines.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from appliance.api.noise import Suppression, Suppressor
from appliance.conversation.endpointing import FRAME_S, TurnConfig
from appliance.conversation.turn_actions import AskTurnModel, SpeechStarted, TurnCommitted
from appliance.conversation.turns import TurnMachine
from appliance.engines.adapters import LEAD_SAMPLES, without_noise
from appliance.engines.builtin import provider_registry
from appliance.errors import EngineError
from appliance.ipc.rings import FRAME_SAMPLES
from appliance.media.denoise import CallerVoice, LineDenoise
from appliance.media.vad import BatchVad
from appliance.models.catalogue import SILERO_VAD
from appliance.models.store import ModelStore, model_directory
from tests.bench import noisy_lines, prompts
from tests.bench.noisy_lines import Line, Lines, Pcm
from tests.bench.report import Bar

SNRS_DB = (20.0, 10.0, 5.0, 0.0)
BAR_SNR_DB = 5.0
SEEDS = 2
FIRST_SEED = 300
BAR_SEEDS = 5
"""So many times as many lines at the level of the bar: false starts are rare."""
RESAMPLES = 4000
SECONDS = 90.0
RNNOISE_SECONDS = 40.0
VERDICT = 0.8
VERDICT_TICKS = 2
NEAR_S = 0.3
"""A turn that begins so close to speech has begun with it."""
TELEVISION = "television"
"""One voice that talks on is no noise: shown beside the others, not counted with them."""
PARTS = ("turns", "phrases", "quality", "cost")


def suppressions() -> dict[str, Suppression]:
    """Those that can run here, by name."""
    registry = provider_registry()
    found = {}
    for name in ("webrtc", "rnnoise"):
        options = {"lines": 64} if name == "rnnoise" else {}
        try:
            found[name] = registry.create("denoise", name, options, None)
        except EngineError as error:
            print(f"  {name} is left out: {error}")
    return found


# --- turns --------------------------------------------------------------------------------------------------------


@dataclass
class Turns:
    """What the turn machine made of some lines."""

    minutes: float = 0.0
    silent_s: float = 0.0
    false_starts: int = 0
    false_turns: int = 0
    false_s: float = 0.0
    said: int = 0
    heard: int = 0
    late_s: list[float] = field(default_factory=list)

    def add(self, other: Turns) -> None:
        self.minutes += other.minutes
        self.silent_s += other.silent_s
        self.false_starts += other.false_starts
        self.false_turns += other.false_turns
        self.false_s += other.false_s
        self.said += other.said
        self.heard += other.heard
        self.late_s += other.late_s

    @property
    def starts_a_minute(self) -> float:
        return self.false_starts / max(self.minutes, 1e-9)

    def __str__(self) -> str:
        text = f"{self.starts_a_minute:6.2f} {100 * self.false_s / max(self.silent_s, 1e-9):7.1f} %"
        if self.said:
            text += (
                f" {self.heard:4}/{self.said:<4} {np.median(self.late_s):6.2f} {np.percentile(self.late_s, 90):6.2f}"
            )
        return text


def listen(lines: Sequence[Line], offered: Mapping[str, Suppression], choice: str) -> list[Turns]:
    """Every line through the media process's ears and a turn machine."""
    ticks = min(len(line.pcm) for line in lines) // FRAME_SAMPLES
    audio = np.stack([line.pcm[: ticks * FRAME_SAMPLES] for line in lines]).reshape(len(lines), ticks, FRAME_SAMPLES)
    rows = np.arange(len(lines))
    vad = BatchVad(ModelStore(model_directory()).read(SILERO_VAD.name), len(lines))
    voice = CallerVoice(len(lines), vad, LineDenoise(len(lines), offered, "none"))
    machines = [Ears(line) for line in lines]
    for slot in range(len(lines)):
        voice.begin(slot, choice)
    for tick in range(ticks):
        levels, speech = voice.tick(rows, audio[:, tick])
        for ears, level_dbfs, probability in zip(machines, levels.tolist(), speech.tolist(), strict=True):
            ears.step(tick, level_dbfs, probability)
    return [ears.finish(ticks) for ears in machines]


class Ears:
    """The turn machine of one line, and what it does."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._machine = TurnMachine(TurnConfig())
        self._asked: list[tuple[int, int]] = []
        self._starts: list[float] = []
        self._turns: list[tuple[float, float, float]] = []

    def step(self, tick: int, level_dbfs: float, speech: float) -> None:
        actions = list(self._machine.step(tick, level_dbfs, speech))
        while self._asked and self._asked[0][0] <= tick:
            actions += self._machine.verdict(self._asked.pop(0)[1], VERDICT)
        for action in actions:
            if isinstance(action, SpeechStarted):
                self._starts.append(action.start * FRAME_S)
            elif isinstance(action, AskTurnModel):
                self._asked.append((tick + VERDICT_TICKS, action.ask))
            elif isinstance(action, TurnCommitted):
                begun, ended = action.speech_start * FRAME_S, action.speech_end * FRAME_S
                self._turns.append((begun, ended, (tick + 1) * FRAME_S))

    def finish(self, ticks: int) -> Turns:
        said, length_s = self._line.said, ticks * FRAME_S
        turns = list(self._turns)
        if len(self._starts) > len(turns):
            turns.append((self._starts[-1], length_s, length_s))
        spoken = np.zeros(ticks, np.bool_)
        for start, end in said:
            spoken[int((start - NEAR_S) / FRAME_S) : int((end + 3 * NEAR_S) / FRAME_S)] = True
        busy = np.zeros(ticks, np.bool_)
        for start, _, committed in turns:
            busy[int(start / FRAME_S) : int(committed / FRAME_S)] = True
        late = [min((at - end for _, _, at in turns if at > end - NEAR_S), default=length_s - end) for _, end in said]
        return Turns(
            minutes=length_s / 60,
            silent_s=float((~spoken).sum()) * FRAME_S,
            false_starts=sum(not _within(at, said) for at in self._starts),
            false_turns=sum(not any(s < end and e > begun for s, e in said) for begun, end, _ in turns),
            false_s=float((busy & ~spoken).sum()) * FRAME_S,
            said=len(said),
            heard=sum(any(begun < e and end > s for begun, end, _ in turns) for s, e in said),
            late_s=late,
        )


def _within(at: float, said: Iterable[tuple[float, float]]) -> bool:
    return any(start - NEAR_S <= at <= end + NEAR_S for start, end in said)


def interval(results: Sequence[Turns], against: Sequence[Turns] | None = None) -> tuple[float, float]:
    """95 % interval of the false starts a minute, or of their ratio to those ``against`` on the same lines.

    By the bootstrap over whole lines: what starts one turn in a line may well start another.
    """
    drawn = np.random.default_rng(1).integers(0, len(results), (RESAMPLES, len(results)))
    starts = np.array([one.false_starts for one in results])[drawn].sum(axis=1)
    if against is None:
        rates = starts / np.array([one.minutes for one in results])[drawn].sum(axis=1)
    else:
        rates = starts / np.maximum(np.array([one.false_starts for one in against])[drawn].sum(axis=1), 1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def together(results: Iterable[Turns]) -> Turns:
    """All of them as one."""
    every = Turns()
    for one in results:
        every.add(one)
    return every


def turns(bar: Bar, offered: Mapping[str, Suppression], seconds: float, seeds: int, snrs_db: Sequence[float]) -> None:
    """False starts, missed speech and late ends, by noise and by its level, on both sets of lines."""
    for which in Lines:
        if not noisy_lines.callers(which):
            bar.note(f"no lines that are {which.value}: {noisy_lines.PROMPTS_PACKAGES}")
            continue
        noises = noisy_lines.noises(which=which)
        if not any(name.startswith("music") for name in noises):
            bar.note(f"no music: {noisy_lines.MUSIC_PACKAGE}")
        print(f"\n  lines that are {which.value}")
        print("  SNR  noise         with     false starts  time in   heard     end of turn late by")
        print("                              per minute   them                 p50 / p90 s")
        for snr_db in snrs_db:
            count = seeds if snr_db != BAR_SNR_DB else BAR_SEEDS * seeds
            found = {
                choice: at_level(which, noises, offered, choice, snr_db, seconds, count) for choice in ("off", *offered)
            }
            if snr_db == BAR_SNR_DB:
                tell(bar, which, found["off"], found["webrtc"])
    if BAR_SNR_DB in snrs_db:
        soft(offered, ["off", *offered], noisy_lines.noises())


def at_level(
    which: Lines,
    noises: Mapping[str, NDArray[np.float64]],
    offered: Mapping[str, Suppression],
    choice: str,
    snr_db: float,
    seconds: float,
    count: int,
) -> list[Turns]:
    """What became of every line but the televisions', with one suppressor; tells it noise by noise."""
    if choice == "rnnoise":
        seconds, count = min(seconds, RNNOISE_SECONDS), 1
    lines = [
        noisy_lines.line(name, noise, snr_db, seconds, FIRST_SEED + seed, which)
        for name, noise in noises.items()
        for seed in range(count)
    ]
    results = list(zip(lines, listen(lines, offered, choice), strict=True))
    for name in noises:
        one = together(result for line, result in results if line.noise == name)
        if snr_db == BAR_SNR_DB or one.starts_a_minute >= 0.5:
            print(f"  {snr_db:3.0f}  {name:13} {choice:8} {one}", flush=True)
    counted = [result for line, result in results if line.noise != TELEVISION]
    print(f"  {snr_db:3.0f}  all but that  {choice:8} {together(counted)}", flush=True)
    return counted


def tell(bar: Bar, which: Lines, plain: Sequence[Turns], suppressed: Sequence[Turns]) -> None:
    """The bar: a quarter of the false starts."""
    without, with_it = together(plain), together(suppressed)
    ratio = with_it.false_starts / max(without.false_starts, 1)
    text = "{:.2f} ({:.2f} to {:.2f})"
    bar.figure(
        f"{which.value}: false starts a minute at {BAR_SNR_DB:.0f} dB "
        f"{text.format(without.starts_a_minute, *interval(plain))} without, "
        f"{text.format(with_it.starts_a_minute, *interval(suppressed))} with, "
        f"ratio {text.format(ratio, *interval(suppressed, plain))}, over {without.minutes:.0f} minutes"
    )
    bar.require(ratio <= 0.25, f"{which.value}: a quarter of the false starts")


def soft(offered: Mapping[str, Suppression], choices: Sequence[str], noises: Mapping[str, NDArray[np.float64]]) -> None:
    """Soft words of callers at every level."""
    print("\n  words of up to 12 dB below the level of the caller, heard")
    for level_dbfs in (-6.0, -24.0, -35.0, -45.0):
        for name, snr_db in (("noise3", 30.0), ("noise1", 20.0), ("noise3", 10.0)):
            lines = [noisy_lines.soft_line(noises[name], snr_db, 60.0, 50 + n, level_dbfs) for n in range(4)]
            text = ""
            for choice in choices:
                if choice == "rnnoise":
                    continue
                both = Turns()
                for result in listen(lines, offered, choice):
                    both.add(result)
                text += f"   {choice} {both.heard}/{both.said}, {both.false_starts} false starts"
            print(f"  {level_dbfs:4.0f} dBFS, {name} at {snr_db:.0f} dB {text}", flush=True)


# --- words --------------------------------------------------------------------------------------------------------


def phrases(bar: Bar, count: int) -> None:
    """Expected phrases understood by the embedded recogniser, which takes noise off, and by the same without that."""
    from appliance.engines.pocketsphinx_asr import PocketSphinxRecogniser

    try:
        expected, _ = prompts.select()
    except prompts.PromptsMissing as missing:
        bar.note(f"phrases are left out: {missing}")
        return
    expected = expected[:count]
    texts = tuple(dict.fromkeys(prompt.text for prompt in expected))
    noises = list(noisy_lines.noises(60.0).values())
    recogniser = PocketSphinxRecogniser()
    lead = LEAD_SAMPLES
    print("\n  SNR   phrases understood of those expected: as it comes / without noise")
    for snr_db in (*SNRS_DB, None):
        right = {"as it comes": 0, "without noise": 0}
        for number, prompt in enumerate(expected):
            pcm = noisy_lines.at_level(prompt.pcm(), noisy_lines.SPEECH_DBFS)
            padded = np.concatenate([np.zeros(lead + 2400), pcm, np.zeros(1600)])
            noise = noises[number % len(noises)]
            heard = noisy_lines.under(padded, noise, 90.0 if snr_db is None else snr_db, number)
            for name, samples in (("as it comes", heard[lead:]), ("without noise", without_noise(heard, lead))):
                result = recogniser.recognise(samples, texts, reject=False)
                right[name] += result.text == prompt.text
        share = {name: 100 * number / len(expected) for name, number in right.items()}
        label = "clean" if snr_db is None else f"{snr_db:3.0f}"
        print(f"  {label:5} {share['as it comes']:6.1f} % / {share['without noise']:5.1f} %", flush=True)
        if snr_db in (BAR_SNR_DB, None):
            bar.figure(
                f"phrases {'clean' if snr_db is None else f'at {snr_db:.0f} dB'} {share['as it comes']:.0f} % without, "
                f"{share['without noise']:.0f} % with"
            )
        if snr_db == BAR_SNR_DB:
            bar.require(share["without noise"] >= share["as it comes"], "phrases not worse")


def quality(bar: Bar, offered: Mapping[str, Suppression]) -> None:
    """PESQ (narrow band) and STOI of every third utterance, against the clean one."""
    try:
        from pesq import pesq
        from pystoi import stoi
    except ImportError as missing:
        bar.note(f"quality is left out: {missing.name} is not installed (pip install '.[bench]')")
        return
    clips = list(noisy_lines.utterances().values())[::3]
    lead, tail = 2 * prompts.RATE_HZ, 2000
    print("\n  SNR   PESQ / STOI " + "".join(f"{name:>16}" for name in ("off", *offered)))
    for snr_db in SNRS_DB:
        for name, noise in noisy_lines.noises(30.0).items():
            if name not in ("noise1", "noise2", "noise3", "crowd of 5", "music 1", "street"):
                continue
            text = ""
            for choice in ("off", *offered):
                scores = []
                for number, clip in enumerate(clips):
                    clean = noisy_lines.at_level(clip, noisy_lines.SPEECH_DBFS)
                    padded = np.concatenate([np.zeros(lead), clean, np.zeros(tail)])
                    heard = noisy_lines.under(padded, noise, snr_db, number)
                    delay = 0
                    if choice != "off":
                        suppressor = offered[choice].open()
                        heard, delay = _through(suppressor, heard), getattr(suppressor, "delay_samples", 0)
                    part = heard[lead + delay :][: len(clean)]
                    same = noisy_lines.as_int16(clean)[: len(part)]
                    scores.append((pesq(8000, same, part, "nb"), stoi(same, part, 8000)))
                text += "   {:5.2f} / {:5.3f}".format(*np.mean(scores, axis=0))
            print(f"  {snr_db:3.0f}   {name:12}{text}", flush=True)


def _through(suppressor: Suppressor, pcm: Pcm) -> Pcm:
    frames = pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return np.concatenate([suppressor.process(frame) for frame in frames])


# --- cost ---------------------------------------------------------------------------------------------------------


def cost(bar: Bar, offered: Mapping[str, Suppression]) -> None:
    """Of one call and 20 ms, the quietest of several rounds: other work only ever adds to it."""
    model = ModelStore(model_directory()).read(SILERO_VAD.name)
    print("\n  calls    us a call and tick, voice detection included: off" + "".join(f"{name:>10}" for name in offered))
    for calls in (1, 20, 200):
        text = ""
        for choice in ("off", *offered):
            if choice == "rnnoise" and calls > 20:
                text += "         -"
                continue
            voice = CallerVoice(calls, BatchVad(model, calls), LineDenoise(calls, offered, "none"))
            for slot in range(calls):
                voice.begin(slot, choice)
            rows = np.arange(calls)
            audio = (np.random.default_rng(0).normal(0, 0.1, (16, calls, FRAME_SAMPLES)) * 32767).astype(np.int16)
            best = min(_seconds(voice, rows, audio) for _ in range(5))
            text += f"{best / calls * 1e6:10.1f}"
            if calls == 200:
                bar.figure(f"{best / calls * 1e6:.0f} us a call and tick {choice} at {calls} calls")
        print(f"  {calls:5}                                                {text}", flush=True)


def _seconds(voice: CallerVoice, rows: NDArray[np.int64], audio: NDArray[np.int16]) -> float:
    began = time.thread_time()
    for frames in audio:
        voice.tick(rows, frames)
    return (time.thread_time() - began) / len(audio)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each line")
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help=f"lines of each noise, times {BAR_SEEDS} at {BAR_SNR_DB:.0f} dB"
    )
    parser.add_argument("--phrases", type=int, default=100, help="phrases asked for")
    parser.add_argument("--snr", type=float, nargs="*", help="levels for the turns, in dB")
    parser.add_argument("--without-rnnoise", action="store_true", help="leave out the costly one")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    offered = suppressions()
    if arguments.without_rnnoise:
        offered.pop("rnnoise", None)
    bar = Bar("4.6", "noise suppression")
    if "turns" in arguments.parts:
        turns(bar, offered, arguments.seconds, arguments.seeds, arguments.snr or SNRS_DB)
    if "phrases" in arguments.parts:
        phrases(bar, arguments.phrases)
    if "quality" in arguments.parts:
        quality(bar, offered)
    if "cost" in arguments.parts:
        cost(bar, offered)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
