"""What the embedded recogniser understands, measured on the engine itself (docs/engines-asr.md).

Every recording goes through G.711 µ-law with silence before and after, as the endpointer hands it over. The bars are
those of the whole box (``asr_wire.py``): what is missed here cannot be made good there.

    python -m tests.bench.asr_accuracy
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.engines.lexicon import DIGITS, Lexicon, normalise
from appliance.engines.pocketsphinx_asr import PocketSphinxRecogniser
from tests.bench import prompts as recorded
from tests.bench.prompts import RATE_HZ, Prompt, PromptsMissing, read_wav

Pcm = npt.NDArray[np.int16]

AUDIO = Path(__file__).parents[2] / "../shared/audio"
SNR_DB = 15.0
EXACT_BAR, EXACT_WITH_REJECTION_BAR, STRANGERS_BAR = 93.0, 88.0, 30.0


@dataclass(frozen=True)
class Clip:
    """Audio and what is said in it ("" for what is no speech)."""

    pcm: Pcm
    text: str


@dataclass(frozen=True)
class Result:
    clip: Clip
    text: str
    accepted: bool
    confidence: float
    seconds: float

    @property
    def right(self) -> bool:
        return self.text == self.clip.text


def through_mulaw(pcm: Pcm) -> Pcm:
    """Encoded to G.711 µ-law and back."""
    magnitude = np.minimum(np.abs(pcm.astype(np.int32)), 32635) + 132
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    decoded = (((mantissa << 3) + 132) << exponent) - 132
    decoded = np.where(pcm < 0, -decoded, decoded)
    return np.asarray(decoded, dtype=np.int16)


def as_heard(pcm: Pcm, *, lead_s: float = 0.3, tail_s: float = 0.2) -> Pcm:
    """The clip with silence around it, over the telephone."""
    silence = [np.zeros(int(seconds * RATE_HZ), np.int16) for seconds in (lead_s, tail_s)]
    return through_mulaw(np.concatenate([silence[0], pcm, silence[1]]))


def with_noise(clip: Clip, noises: Sequence[Pcm], seed: int) -> Clip:
    """The clip with background noise, 15 dB below the mean level of its speech."""
    noise = noises[seed % len(noises)].astype(np.float64)
    start = int(np.random.default_rng(seed).integers(len(noise)))
    noise = np.resize(np.roll(noise, -start), len(clip.pcm))
    frames = clip.pcm[: len(clip.pcm) // 160 * 160].astype(np.float64).reshape(-1, 160)
    power = (frames**2).mean(1)
    speech = power[power > power.max() * 1e-3].mean()
    gain = np.sqrt(speech / (noise**2).mean() / 10 ** (SNR_DB / 10))
    return Clip(through_mulaw(np.clip(clip.pcm + gain * noise, -32768, 32767).astype(np.int16)), clip.text)


def of_prompts(found: Iterable[Prompt]) -> list[Clip]:
    return [Clip(as_heard(prompt.pcm()), prompt.text) for prompt in found]


def single_words() -> list[Clip]:
    """Prompts of one spoken word (numbers, months, letters, spelling words)."""
    lexicon, where = Lexicon(), recorded.folder()
    out = []
    for name, text in recorded.texts().items():
        path, words = where / f"{name}.wav", normalise(text)
        plain = "[" not in text and "(" not in text and bool(words)
        if name.split("/")[0] in ("digits", "letters", "phonetic") and plain and path.exists():
            out += [Clip(as_heard(read_wav(path)), words)] if not lexicon.missing(words) else []
    return out


def human_clips(kind: str) -> list[Clip]:
    """Clips of other speakers: ``digits``, ``backchannels``, ``utterances`` or ``bursts``."""
    said = {}
    for line in (AUDIO / "transcripts.tsv").read_text().splitlines():
        name, _, text = line.partition("\t")
        said[name] = normalise(text)
    out = []
    for path in sorted((AUDIO / kind).glob("*.wav")):
        if kind == "digits":
            text = DIGITS[int(path.name[0])]
        elif kind == "backchannels":
            text = path.stem.rpartition("_")[0].replace("_", " ")
        else:
            text = said.get(f"{kind}/{path.name}", "")
        if text or kind == "bursts":
            out.append(Clip(as_heard(read_wav(path)), text))
    return out


def not_speech() -> list[Clip]:
    """Silence, line noise, room noise, knocks, keys and beeps."""
    source = np.random.default_rng(1)
    seconds = np.arange(RATE_HZ // 5) / RATE_HZ
    keys = [
        as_heard((6000 * (np.sin(2 * np.pi * low * seconds) + np.sin(2 * np.pi * high * seconds))).astype(np.int16))
        for low in (697, 770, 852, 941)
        for high in (1209, 1336, 1477)
    ]
    hiss = [source.normal(0, level, 12_000).astype(np.int16) for level in (3, 8, 30, 100, 300, 1000)]
    clips = [np.zeros(12_000, np.int16), *hiss, *keys]
    clips += [as_heard(read_wav(recorded.folder() / f"{name}.wav")) for name in ("beep", "beeperr", "tt-monkeys")]
    for path in sorted((AUDIO / "noise").glob("*.wav")):
        noise = read_wav(path)
        clips += [through_mulaw(noise[start : start + 12_000]) for start in range(0, len(noise) - 12_000, 12_000)]
    return [Clip(pcm, "") for pcm in clips] + (human_clips("bursts") if AUDIO.exists() else [])


def recognise(
    recogniser: PocketSphinxRecogniser, phrases: Iterable[str], clips: Iterable[Clip], reject: bool
) -> list[Result]:
    expected = tuple(dict.fromkeys(phrases))
    recogniser.prepare(expected)
    results = []
    for clip in clips:
        began = time.perf_counter()
        heard = recogniser.recognise(clip.pcm, expected, reject=reject)
        took = time.perf_counter() - began
        results.append(Result(clip, heard.text, heard.accepted, heard.confidence, took))
    return results


def percent(flags: Iterable[bool]) -> float:
    values = list(flags)
    return 100.0 * sum(values) / max(len(values), 1)


def bars(recogniser: PocketSphinxRecogniser) -> bool:
    """The three bars, clean and with noise; whether the clean ones are met."""
    expected, strangers = recorded.select()
    texts = [prompt.text for prompt in expected]
    clean = of_prompts(expected), of_prompts(strangers)
    conditions = [("clean", clean)]
    if AUDIO.exists():
        noises = [read_wav(path) for path in sorted((AUDIO / "noise").glob("*.wav"))]
        noisy = [[with_noise(clip, noises, seed) for seed, clip in enumerate(clips)] for clips in clean]
        conditions.append((f"noise at {SNR_DB:.0f} dB", (noisy[0], noisy[1])))
    else:
        print(f"no noise: {AUDIO} is not there")
    print(f"\n{len(texts)} prompts, {len(set(texts))} expected texts, {len(strangers)} strangers")
    print(
        "condition         exact, rejection off   exact and accepted   strangers accepted   p95 s off / on  x real time"
    )
    met = True
    for label, (known, unknown) in conditions:
        off = recognise(recogniser, texts, known, reject=False)
        on = recognise(recogniser, texts, known, reject=True)
        others = recognise(recogniser, texts, unknown, reject=True)
        figures = (
            percent(result.right and result.accepted for result in off),
            percent(result.right and result.accepted for result in on),
            percent(result.accepted for result in others),
        )
        short = [index for index, clip in enumerate(known) if 2.0 <= len(clip.pcm) / RATE_HZ <= 4.0]
        p95 = [np.percentile([results[index].seconds for index in short], 95) for results in (off, on)]
        spoken = sum(len(clip.pcm) for clip in known) / RATE_HZ
        cost = [sum(result.seconds for result in results) / spoken for results in (off, on)]
        print(
            f"{label:17} {figures[0]:18.1f} %  {figures[1]:17.1f} %  {figures[2]:17.1f} %   "
            f"{p95[0]:.2f} / {p95[1]:.2f}      {cost[0]:.3f} / {cost[1]:.3f}"
        )
        if label == "clean":
            met = figures[0] >= EXACT_BAR and figures[1] >= EXACT_WITH_REJECTION_BAR and figures[2] <= STRANGERS_BAR
    print(
        f"bars: {EXACT_BAR} %, {EXACT_WITH_REJECTION_BAR} %, at most {STRANGERS_BAR} %: {'met' if met else 'NOT MET'}"
    )
    return met


def small_grammars(recogniser: PocketSphinxRecogniser) -> None:
    """What a dialplan asks: a few short phrases, other speakers, everything else in place of them."""
    months = "january february march april may june july august september october november december".split()  # noqa: SIM905
    days = "sunday monday tuesday wednesday thursday friday saturday today tomorrow yesterday".split()  # noqa: SIM905
    spelling = [normalise(text) for name, text in recorded.texts().items() if name.startswith("phonetic/")]
    spelling = [word for word in spelling if not Lexicon().missing(word)]
    words = single_words()
    groups: list[tuple[str, list[str], list[Clip]]] = [
        ("months", months, words),
        ("days", days, words),
        ("spelling words", spelling, words),
    ]
    if AUDIO.exists():
        small_talk = human_clips("backchannels")
        everything = human_clips("digits") + words + small_talk + human_clips("utterances")
        yes_no = ["yes", "no", "book a table", "speak to an agent", "repeat that please"]
        groups += [
            ("digits", list(DIGITS), everything),
            ("yeah, okay, ...", ["yeah", "okay", "right", "i see", "no", "yes"], everything),
            ("yes, no, ...", yes_no, everything),
        ]
    print("\nexpected           phrases  clips   exact   exact and accepted   others   accepted   noises accepted")
    noises = not_speech()
    for label, phrases, clips in groups:
        known = [clip for clip in clips if clip.text in phrases]
        # Agreement said another way is not what the grammar lists, but is no stranger to it either.
        others = [clip for clip in clips if clip.text not in phrases and clip.text not in ("yeah", "uh huh", "mm hm")]
        on = recognise(recogniser, phrases, known, reject=True)
        wrong = recognise(recogniser, phrases, others, reject=True)
        junk = recognise(recogniser, phrases, noises, reject=True)
        print(
            f"{label:18} {len(phrases):6} {len(known):6} {percent(r.right for r in on):6.1f} % "
            f"{percent(r.right and r.accepted for r in on):14.1f} % {len(others):11} "
            f"{percent(r.accepted for r in wrong):8.1f} % {percent(r.accepted for r in junk):13.1f} %"
        )


def digit_strings(recogniser: PocketSphinxRecogniser) -> None:
    """Four digits in a row, put together from single ones with short pauses."""
    if not AUDIO.exists():
        return
    single: dict[tuple[str, str], list[Pcm]] = {}
    for path in sorted((AUDIO / "digits").glob("*.wav")):
        digit, speaker, _ = path.stem.split("_")
        single.setdefault((speaker, DIGITS[int(digit)]), []).append(read_wav(path))
    source = np.random.default_rng(0)
    clips = []
    for speaker in sorted({speaker for speaker, _ in single}):
        for _ in range(30):
            said = [DIGITS[int(digit)] for digit in source.integers(0, 10, 4)]
            parts = []
            for word in said:
                takes = single[speaker, word]
                pause = np.zeros(int(source.integers(200, 1600)), np.int16)
                parts += [takes[int(source.integers(len(takes)))], pause]
            clips.append(Clip(as_heard(np.concatenate(parts)), " ".join(said)))
    print("\ndigit string       all four right")
    for phrases in (("<digits 4 4>",), ("<digits 3 6>", "cancel"), ("<digits>",)):
        on = recognise(recogniser, phrases, clips, reject=False)
        print(f"{phrases[0]:18} {percent(result.right for result in on):6.1f} %")


def cost(recogniser: PocketSphinxRecogniser, loaded_s: float) -> None:
    texts = tuple(dict.fromkeys(prompt.text for prompt in recorded.qualifying()))[:150]
    began = time.perf_counter()
    recogniser.prepare(texts)
    compiled_s = time.perf_counter() - began
    before_kb = _resident_kb()
    for number in range(1000):
        recogniser.prepare((*texts, f"number {number}"))
    grown_mb = (_resident_kb() - before_kb) / 1024
    print(f"\nloaded and warm in {loaded_s:.2f} s; {len(texts)} phrases compile in {1000 * compiled_s:.0f} ms")
    print(
        f"resident {_resident_kb() / 1024:.0f} MB, {grown_mb:+.1f} MB of it after 1000 further grammars of {len(texts)}"
    )


def _resident_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars-only", action="store_true", help="leave out small grammars, digits and cost")
    only = parser.parse_args().bars_only
    began = time.perf_counter()
    recogniser = PocketSphinxRecogniser()
    recogniser.recognise(np.zeros(RATE_HZ // 2, np.int16), ("yes", "no"), reject=True)
    loaded_s = time.perf_counter() - began
    try:
        if not only:
            cost(recogniser, loaded_s)
        met = bars(recogniser)
        if not only:
            small_grammars(recogniser)
            digit_strings(recogniser)
    except PromptsMissing as missing:
        print(f"skipped: {missing}")
        return 0
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
