"""Utterances with pauses in them, for measuring when a silence is taken for the end of a turn.

Three kinds, all at 8 kHz and through G.711:

- **sentences**: recorded ones, with 0.4 to 1.5 s of their own background inserted at a gap between words;
- **digits**: spoken digits strung together, with pauses between the groups;
- **fillers**: synthesised sentences that break off in "um", "and" and the like, and then go on.

The voices are divided into two halves, one to tune on and one to report. Everything follows from a seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from appliance.audio import g711
from appliance.engines.espeak_tts import EspeakSynthesiser
from tests.bench.prompts import RATE_HZ, SOUNDS, read_wav

Pcm = npt.NDArray[np.int16]
Half = Literal["tune", "report"]

FRAME: Final = 160
SHORTEST_S, LONGEST_S = 0.4, 1.5
LEAD_S, TAIL_S = 0.8, 4.0
PACKAGES: Final = "apt-get install --no-install-recommends " + " ".join(
    f"asterisk-core-sounds-{language}-wav" for language in ("en", "es", "fr", "it", "ru")
)
SPEAKERS: Final[dict[Half, tuple[str, ...]]] = {
    "tune": ("en_US_f_Allison", "es_MX_f_Allison"),
    "report": ("fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU"),
}
READERS: Final[dict[Half, tuple[str, ...]]] = {
    "tune": ("spk1_*", "libri-*", "weather_*"),
    "report": ("spk2_*", "hello_*"),
}
DIGIT_SPEAKERS: Final[dict[Half, str]] = {"tune": "jackson", "report": "theo"}
FILLER_VOICES: Final[dict[Half, tuple[str, ...]]] = {
    "tune": ("en-us+m3", "en-gb+f2"),
    "report": ("en-us+f4", "en-gb+m1"),
}
PER_SPEAKER: Final[dict[Half, int]] = {"tune": 70, "report": 75}
BROKEN_OFF: Final = (
    ("I would like to book a table for, um", "four people on Friday."),
    ("My name is, uh", "Katherine Miller."),
    ("I need to change my appointment, and", "I also have a question about the bill."),
    ("Could you tell me when the, um", "the next train leaves?"),
    ("I wanted to ask about the", "the order that I placed last week."),
    ("We are coming to the restaurant with, er", "six adults and two children."),
    ("I am calling because", "my internet has been down since yesterday."),
    ("Can I speak to, um", "somebody in the billing department?"),
    ("It started last Tuesday, so", "that is almost a week now."),
    ("The address is, uh", "twenty four Station Road."),
    ("I would prefer the morning, but", "the afternoon is fine too."),
    ("Please cancel my", "my subscription at the end of the month."),
)


@dataclass(frozen=True)
class Paused:
    """One utterance on a line.

    Attributes:
        name: which recording, and which pause.
        kind: sentences, digits or fillers.
        voice: who speaks.
        pcm: int16 at 8 kHz, with background before, and four seconds of it after.
        pauses: [start, end) in samples of each pause.
        begins: first sample of the speech.
        ends: the sample after the last of the speech.
        digits: how many digits are spoken; 0 where it is no digit string.
    """

    name: str
    kind: str
    voice: str
    pcm: Pcm = field(repr=False)
    pauses: tuple[tuple[int, int], ...]
    begins: int
    ends: int
    digits: int = 0


class SpeechMissing(Exception):
    """The recordings are not there; the message says how to get them."""


def paused_speech(half: Half, recordings: Path, seed: int = 5) -> list[Paused]:
    """All utterances of one half.

    Args:
        half: which voices.
        recordings: the folder with ``utterances`` and ``digits``.
        seed: what is chosen, and how long the pauses are.

    Raises:
        SpeechMissing: the recordings are not installed.
    """
    if not (recordings / "utterances").exists():
        raise SpeechMissing(f"{recordings} with its recorded utterances is not there")
    random = Random(f"{seed} {half}")
    found = list(_sentences(half, recordings, random))
    found += _digits(DIGIT_SPEAKERS[half], recordings / "digits", random, 30)
    found += _fillers(FILLER_VOICES[half], random)
    return found


def levels_db(pcm: Pcm) -> npt.NDArray[np.float64]:
    """RMS dBFS of every 10 ms."""
    frames = pcm[: len(pcm) // 80 * 80].astype(np.float64).reshape(-1, 80)
    return np.asarray(20 * np.log10(np.maximum(np.sqrt((frames**2).mean(axis=1)), 0.3) / 32768))


def word_gaps(pcm: Pcm) -> list[tuple[int, int]]:
    """[start, end) in samples of the silences between words, of at least 30 ms, the longest first.

    A silence is 25 dB below the loudest. The first and the last 300 ms of the speech have none.
    """
    level = levels_db(pcm)
    loud = np.flatnonzero(level >= level.max() - 25.0)
    first, last = int(loud[0]), int(loud[-1])
    gaps = [(int(a) + 1, int(b)) for a, b in itertools.pairwise(loud) if b - a > 3]
    inside = [(a, b) for a, b in gaps if a - first >= 30 and last - b >= 30]
    return [(a * 80, b * 80) for a, b in sorted(inside, key=lambda gap: gap[0] - gap[1])]


def bounds(pcm: Pcm) -> tuple[int, int]:
    """Speech start and end in samples: the first and last 10 ms within 30 dB of the loudest (DESIGN §5)."""
    level = levels_db(pcm)
    loud = np.flatnonzero(level >= level.max() - 30.0)
    return int(loud[0]) * 80, (int(loud[-1]) + 1) * 80


def background(pcm: Pcm, samples: int, random: Random) -> Pcm:
    """So many samples of what is heard in the clip where nobody speaks: 40 ms pieces of it, cross-faded."""
    level = levels_db(pcm)
    order = np.argsort(level, kind="stable")
    quiet = sorted(int(i) for i in order[: max(6, len(order) // 25)])
    piece, fade = 320, 80
    starts = [
        i * 80
        for i in quiet
        if (i * 80 + piece + fade <= len(pcm)) and level[i : i + 5].max() <= level[order[len(order) // 8]] + 3
    ]
    if not starts:
        starts = [int(order[0]) * 80 if int(order[0]) * 80 + piece + fade <= len(pcm) else 0]
    out = np.zeros(samples + piece + fade)
    ramp = np.sqrt(np.linspace(0.0, 1.0, fade))
    for at in range(0, samples + piece, piece):
        start = random.choice(starts)
        part = pcm[start : start + piece + fade].astype(np.float64)
        part[:fade] *= ramp[: len(part[:fade])]
        part[piece:] *= ramp[::-1][: len(part[piece:])]
        out[at : at + len(part)] += part[: len(out) - at]
    return np.clip(np.rint(out[:samples]), -32768, 32767).astype(np.int16)


def on_the_line(pcm: Pcm) -> Pcm:
    """Through G.711 mu-law, whole 20 ms frames."""
    return g711.decode(g711.encode(pcm[: len(pcm) // FRAME * FRAME], np.False_), np.False_)


def _length(random: Random) -> int:
    return round(random.uniform(SHORTEST_S, LONGEST_S) * RATE_HZ)


def _sentences(half: Half, recordings: Path, random: Random) -> Iterator[Paused]:
    for speaker in SPEAKERS[half]:
        folder = SOUNDS / speaker
        if not folder.exists():
            raise SpeechMissing(f"{folder} is not there: {PACKAGES}")
        clips = [path for path in sorted(folder.glob("*.wav")) if not path.stem.startswith("tt-")]
        random.shuffle(clips)
        taken = 0
        for path in clips:
            pcm = read_wav(path)
            if not 1.5 <= len(pcm) / RATE_HZ <= 7.0 or taken == PER_SPEAKER[half]:
                continue
            gaps = word_gaps(pcm)
            # What is recorded with pauses of its own is more than one turn.
            if not gaps or gaps[0][1] - gaps[0][0] > 0.3 * RATE_HZ:
                continue
            taken += 1
            yield _with_pause(path.stem, speaker, pcm, random.choice(gaps[:3]), random)
    for pattern in READERS[half]:
        for path in sorted((recordings / "utterances").glob(pattern)):
            pcm = read_wav(path)[: 6 * RATE_HZ]
            for gap in word_gaps(pcm)[:4]:
                if gap[1] - gap[0] <= 0.3 * RATE_HZ:
                    yield _with_pause(path.stem, path.stem.split("_")[0], pcm, gap, random)


def _with_pause(name: str, voice: str, pcm: Pcm, gap: tuple[int, int], random: Random) -> Paused:
    middle = (gap[0] + gap[1]) // 2
    lead = background(pcm, int(LEAD_S * RATE_HZ), random)
    pause = background(pcm, _length(random) - (gap[1] - gap[0]), random)
    tail = background(pcm, int(TAIL_S * RATE_HZ), random)
    first, last = bounds(pcm)
    whole = np.concatenate([lead, pcm[:middle], pause, pcm[middle:last], tail])
    begins = len(lead)
    return Paused(
        f"{name} at {gap[0] / RATE_HZ:.2f} s",
        "sentences",
        voice,
        on_the_line(whole),
        ((begins + gap[0], begins + gap[1] + len(pause)),),
        begins + first,
        begins + last + len(pause),
    )


def _digits(speaker: str, folder: Path, random: Random, strings: int) -> list[Paused]:
    clips = {digit: [read_wav(path) for path in sorted(folder.glob(f"{digit}_{speaker}_*.wav"))] for digit in range(10)}
    found = []
    takes = [clip for of_digit in clips.values() for clip in of_digit]
    quietest = min(takes, key=lambda clip: float(np.sort(levels_db(clip))[:4].mean()))
    for number in range(strings):
        groups = random.choice(((3, 3), (3, 4), (4, 4), (2, 2, 2), (3, 3, 4), (5, 4)))
        spoken = [[random.randrange(10) for _ in range(size)] for size in groups]
        quietest = min(
            (clip for takes in clips.values() for clip in takes), key=lambda clip: np.sort(levels_db(clip))[:4].mean()
        )
        whole: list[Pcm] = [background(quietest, int(LEAD_S * RATE_HZ), random)]
        pauses = []
        begins = len(whole[0])
        at = ends = begins
        for index, group in enumerate(spoken):
            if index:
                silence = background(quietest, _length(random), random)
                pauses.append((ends, at + len(silence)))
                whole.append(silence)
                at += len(silence)
            for place, digit in enumerate(group):
                clip = random.choice(clips[digit])
                first, last = bounds(clip)
                if index and not place:
                    pauses[-1] = (pauses[-1][0], at)
                whole.append(clip[first:last])
                at += last - first
                ends = at
                if place < len(group) - 1:
                    between = background(quietest, round(random.uniform(0.02, 0.09) * RATE_HZ), random)
                    whole.append(between)
                    at += len(between)
        whole.append(background(quietest, int(TAIL_S * RATE_HZ), random))
        name = " ".join("".join(map(str, group)) for group in spoken)
        pcm = on_the_line(np.concatenate(whole))
        found.append(
            Paused(f"{number}: {name}", "digits", speaker, pcm, tuple(pauses), begins, ends, digits=sum(groups))
        )
    return found


def _fillers(voices: tuple[str, ...], random: Random) -> list[Paused]:
    espeak = EspeakSynthesiser()
    found = []
    for voice in voices:
        for before, after in BROKEN_OFF:
            first, second = (np.concatenate(list(espeak.synthesise(text, voice=voice))) for text in (before, after))
            noise = np.random.default_rng(random.randrange(1 << 30)).normal(0, 6, 8 * RATE_HZ).round().astype(np.int16)
            begins = int(LEAD_S * RATE_HZ)
            ends = begins + bounds(first)[1]
            whole = np.concatenate([noise[:begins], first, noise[: ends + _length(random) - begins - len(first)]])
            again = len(whole) + bounds(second)[0]
            over = len(whole) + bounds(second)[1]
            whole = np.concatenate([whole, second, noise[: int(TAIL_S * RATE_HZ)]])
            pcm = on_the_line(whole)
            found.append(Paused(before, "fillers", voice, pcm, ((ends, again),), begins, over))
    return found
