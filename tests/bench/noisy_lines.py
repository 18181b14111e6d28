"""Telephone lines with something else than the caller on them, for ``tests.bench.denoise``.

Every line has utterances of people at irregular times and levels, and under all of it one kind of noise, whose mean
power lies so many dB below that of normal speech: noise of a room, a crowd made of the same people's utterances, a
television (one of them, all the time), hold music, a street with bangs. All of it goes through G.711.

There are two sets of lines. What is tuned is tuned on the first. The second has other people, as callers and in the
crowds, other stretches of music and other bangs; the three rooms are the same recordings in both, begun elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench import voices
from tests.bench.asr_accuracy import AUDIO, through_mulaw
from tests.bench.prompts import RATE_HZ, read_wav

Pcm = NDArray[np.int16]
Samples = NDArray[np.float64]

SPEECH_DBFS = -24.0
"""Mean level of an utterance while it lasts."""
SPREAD_DB = 4.0
"""Utterances are up to this much louder or softer."""
MUSIC = Path("/usr/share/asterisk/moh")
PROMPTS_PACKAGES = "apt-get install --no-install-recommends " + " ".join(
    f"asterisk-core-sounds-{language}-wav" for language in ("en", "es", "fr", "it", "ru")
)
MUSIC_PACKAGE = "apt-get install --no-install-recommends asterisk-moh-opsound-wav"


class Lines(enum.Enum):
    """Which set of lines."""

    TUNED_ON = "tuned on"
    HELD_OUT = "held out"


@dataclass(frozen=True)
class Clip:
    """An utterance; speech is between ``start`` and ``end`` (s)."""

    pcm: Pcm
    start: float
    end: float


_PROMPTS_EACH = 12
_LEAST_MUSIC_S = 30
_MUSIC_FROM_S = {Lines.TUNED_ON: 10, Lines.HELD_OUT: 110}
_SEEDS = {Lines.TUNED_ON: 1, Lines.HELD_OUT: 2}


@dataclass(frozen=True)
class Line:
    """What comes from a caller: samples, and when (s) the caller speaks."""

    noise: str
    pcm: Pcm
    said: tuple[tuple[float, float], ...]

    @property
    def minutes(self) -> float:
        return len(self.pcm) / RATE_HZ / 60


def labels() -> dict[str, tuple[float, float]]:
    """Speech start and end (s) of each clip by its name."""
    rows = (line.split("\t") for line in (AUDIO / "labels.tsv").read_text().splitlines())
    return {row[0]: (float(row[1]), float(row[2])) for row in rows}


def active_power(pcm: NDArray[np.generic]) -> float:
    """Mean power of the frames within 30 dB of the loudest."""
    frames = pcm[: len(pcm) // 160 * 160].astype(np.float64).reshape(-1, 160)
    power = (frames**2).mean(1)
    return float(power[power > power.max() * 1e-3].mean())


def at_level(pcm: NDArray[np.generic], dbfs: float) -> Samples:
    """The clip with its speech at this level."""
    return pcm.astype(np.float64) * (10 ** (dbfs / 20) * 32768 / np.sqrt(active_power(pcm)))


def as_int16(samples: Samples) -> Pcm:
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def utterances() -> dict[str, Pcm]:
    """Short utterances by name."""
    found = sorted((AUDIO / "utterances").glob("*.wav"))
    return {path.name: read_wav(path) for path in found if not path.name.startswith("libri")}


@cache
def callers(which: Lines) -> Mapping[str, Clip]:
    """What the callers of a set of lines say, by name; empty for the second one where no prompts are installed."""
    if which is Lines.TUNED_ON:
        where = labels()
        return {name: Clip(pcm, *where[f"utterances/{name}"]) for name, pcm in sorted(utterances().items())}
    found = voices.prompt_speakers(_PROMPTS_EACH, _SEEDS[which])
    return {one.name: Clip(one.pcm, one.start / RATE_HZ, one.end / RATE_HZ) for one in found}


def crowd(seconds: float, talkers: int, which: Lines = Lines.TUNED_ON) -> Samples:
    """So many people who talk on and on, each with pauses under a second."""
    chance = np.random.default_rng([_SEEDS[which], talkers])
    out = np.zeros(int(seconds * RATE_HZ))
    if which is Lines.TUNED_ON:
        spoken = [read_wav(path) for path in sorted((AUDIO / "utterances").glob("*.wav"))]
    else:
        spoken = [clip.pcm for clip in callers(which).values()]
    clips = [at_level(pcm, -26.0) for pcm in spoken]
    for _ in range(talkers):
        at = int(chance.integers(0, RATE_HZ))
        while at < len(out):
            clip = clips[int(chance.integers(len(clips)))][: len(out) - at]
            out[at : at + len(clip)] += clip
            at += len(clip) + int(chance.integers(800, 6000))
    return out


def street(seconds: float, room: Pcm, seed: int) -> Samples:
    """Steady noise, and every two seconds or so something that bangs."""
    chance = np.random.default_rng(seed)
    out = np.resize(room.astype(np.float64), int(seconds * RATE_HZ)) * 0.3
    loud = np.sqrt((room.astype(np.float64) ** 2).mean()) * 4
    bangs = [read_wav(path).astype(np.float64) for path in sorted((AUDIO / "bursts").glob("*.wav"))]
    at = int(chance.exponential(2.0) * RATE_HZ)
    while at < len(out):
        bang = bangs[int(chance.integers(len(bangs)))][: len(out) - at]
        out[at : at + len(bang)] += bang * (loud * chance.uniform(0.3, 1.0) / np.sqrt((bang**2).mean()))
        at += int(chance.exponential(2.0) * RATE_HZ)
    return out


def noises(seconds: float = 100.0, which: Lines = Lines.TUNED_ON) -> dict[str, Samples]:
    """Every kind of noise by name; music where the Debian package with it is installed."""
    rooms = {path.stem: read_wav(path) for path in sorted((AUDIO / "noise").glob("*.wav"))}
    found: dict[str, Samples] = {name: pcm.astype(np.float64) for name, pcm in rooms.items()}
    for talkers in (8, 5, 3):
        found[f"crowd of {talkers}"] = crowd(seconds, talkers, which)
    begin_s = _MUSIC_FROM_S[which]
    for number, path in enumerate(sorted(MUSIC.glob("*.wav")), 1):
        part = read_wav(path)[begin_s * RATE_HZ : int((begin_s + seconds) * RATE_HZ)]
        if len(part) >= _LEAST_MUSIC_S * RATE_HZ:
            found[f"music {number}"] = part.astype(np.float64)
    found["street"] = street(seconds, rooms["noise1"], _SEEDS[which])
    found["television"] = crowd(seconds, 1, which)
    return found


def under(speech: Samples, noise: Samples, snr_db: float, seed: int) -> Pcm:
    """The samples with noise so far below normal speech, through G.711."""
    start = int(np.random.default_rng(seed).integers(len(noise)))
    noise = np.resize(np.roll(noise, -start), len(speech))
    power = (10 ** (SPEECH_DBFS / 20) * 32768) ** 2
    return through_mulaw(as_int16(speech + noise * np.sqrt(power / (noise**2).mean() / 10 ** (snr_db / 10))))


def line(name: str, noise: Samples, snr_db: float, seconds: float, seed: int, which: Lines = Lines.TUNED_ON) -> Line:
    """A line of this length."""
    chance = np.random.default_rng(seed)
    speech = np.zeros(int(seconds * RATE_HZ))
    clips = list(callers(which).values())
    said = []
    at = int(RATE_HZ * chance.uniform(4, 7))
    while True:
        clip = clips[int(chance.integers(len(clips)))]
        pcm = clip.pcm
        if at + len(pcm) + RATE_HZ > len(speech):
            break
        speech[at : at + len(pcm)] += at_level(pcm, SPEECH_DBFS + chance.uniform(-SPREAD_DB, SPREAD_DB))
        said.append((at / RATE_HZ + clip.start, at / RATE_HZ + clip.end))
        at += len(pcm) + int(RATE_HZ * chance.uniform(4, 8))
    return Line(name, under(speech, noise, snr_db, seed), tuple(said))


def soft_line(noise: Samples, snr_db: float, seconds: float, seed: int, level_dbfs: float = SPEECH_DBFS) -> Line:
    """A caller whose words are short and long, and up to 12 dB below ``level_dbfs``."""
    chance = np.random.default_rng(seed)
    speech = np.zeros(int(seconds * RATE_HZ))
    where = labels()
    clips = [path for kind in ("digits", "backchannels", "utterances") for path in sorted((AUDIO / kind).glob("*.wav"))]
    clips = [path for path in clips if not path.name.startswith("libri")]
    said = []
    at = int(RATE_HZ * chance.uniform(3, 5))
    while True:
        path = clips[int(chance.integers(len(clips)))]
        pcm = read_wav(path)
        if at + len(pcm) + RATE_HZ > len(speech):
            break
        speech[at : at + len(pcm)] += at_level(pcm, SPEECH_DBFS - chance.uniform(0, 12))
        start, end = where[f"{path.parent.name}/{path.name}"]
        said.append((at / RATE_HZ + start, at / RATE_HZ + end))
        at += len(pcm) + int(RATE_HZ * chance.uniform(1.5, 5))
    start = int(chance.integers(len(noise)))
    noise = np.resize(np.roll(noise, -start), len(speech))
    power = (10 ** (SPEECH_DBFS / 20) * 32768) ** 2
    mixed = speech + noise * np.sqrt(power / (noise**2).mean() / 10 ** (snr_db / 10))
    return Line("soft", through_mulaw(as_int16(mixed * 10 ** ((level_dbfs - SPEECH_DBFS) / 20))), tuple(said))
