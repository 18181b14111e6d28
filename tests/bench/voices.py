"""What callers of the benchmarks say: recorded people, backchannels and bangs, at 8 kHz and a stated loudness."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from appliance.cli.carrier_caller import FRAME_SAMPLES, Speech
from appliance.cli.playout import Codec, Pcm
from appliance.cli.rtp_stream import RATE_HZ, speech_bounds
from appliance.cli.softphone import read_wav, write_wav
from tests.bench import lines, prompts

NORMAL_DBFS = -23.0
"""RMS of speech between its bounds."""
_PEAK = 0.98 * 32767
_MAX_CLIP_S = 8.0
PAUSES_S = (0.4, 1.5)
_LEAST_FOR_PAUSE_S = 1.2
_STEP = RATE_HZ // 100
_AUDIO = lines.NOISE.parent
_PROMPT_VOICES = ("es_MX_f_Allison", "fr_CA_f_June", "it_IT_m_Carlo", "ru_RU_f_IvrvoiceRU", "en_US_f_Allison")


@dataclass(frozen=True)
class Clip:
    """Something to say. Speech is in the samples [start, end); ``pauses`` are the silences put into it."""

    name: str
    pcm: Pcm
    start: int
    end: int
    pauses: tuple[tuple[int, int], ...] = ()

    @property
    def start_frame(self) -> int:
        """The packet of 20 ms in which speech begins."""
        return self.start // FRAME_SAMPLES

    def speech(self, codec: Codec) -> Speech:
        """For a caller to say; its end is the label's."""
        made = Speech.of(self.pcm, codec)
        return replace(made, last=min(max(0, -(-self.end // FRAME_SAMPLES) - 1), len(made.frames) - 1))

    def at_level(self, dbfs: float) -> Clip:
        """As loud as ``dbfs`` (RMS over the speech), unless that would clip."""
        spoken = self.pcm[self.start : self.end].astype(np.float64)
        rms = float(np.sqrt(np.mean(spoken**2))) if len(spoken) else 0.0
        if rms == 0.0:
            return self
        gain = min(10 ** (dbfs / 20) * 32768 / rms, _PEAK / float(np.abs(self.pcm.astype(np.int32)).max()))
        return replace(self, pcm=np.rint(self.pcm * gain).astype(np.int16))

    def louder(self, db: float) -> Clip:
        """By so much, with what goes beyond full scale cut off."""
        return replace(self, pcm=np.clip(np.rint(self.pcm * 10 ** (db / 20)), -32767, 32767).astype(np.int16))


def labels() -> dict[str, tuple[float, float]]:
    """File below the collection to (start, end) of its speech, in seconds; empty without the collection."""
    path = _AUDIO / "labels.tsv"
    if not path.exists():
        return {}
    rows = (line.split("\t") for line in path.read_text().splitlines())
    return {name: (float(start), float(end)) for name, start, end in rows}


def clip(path: Path, bounds: tuple[float, float] | None = None) -> Clip:
    """A recording; where no label knows its ``bounds`` in seconds, they are found by level."""
    pcm = read_wav(path)
    start, end = speech_bounds(pcm, RATE_HZ) if bounds is None else (round(at * RATE_HZ) for at in bounds)
    return Clip(path.stem, pcm, min(start, len(pcm) - 1), min(end, len(pcm)))


def people(folder: Path) -> list[Clip]:
    """Recorded questions and sentences of several people, equally loud; synthetic ones where there are none."""
    known = labels()
    names = sorted(name for name, (_, end) in known.items() if name.startswith("utterances/") and end < _MAX_CLIP_S)
    found = [clip(_AUDIO / name, known[name]) for name in names]
    return [one.at_level(NORMAL_DBFS) for one in found or [clip(path) for path in lines.human_speech(folder)]]


def prompt_speakers(each: int, seed: int) -> list[Clip]:
    """Sentences of one to four seconds by the speakers of Debian's Asterisk prompts, as far as they are installed."""
    chance = random.Random(seed)
    found: list[Clip] = []
    for voice in _PROMPT_VOICES:
        paths = sorted((prompts.SOUNDS / voice).glob("*.wav"))
        chance.shuffle(paths)
        taken = 0
        for path in paths:
            one = clip(path)
            if taken < each and 1.0 <= (one.end - one.start) / RATE_HZ <= 4.0:
                found.append(replace(one.at_level(NORMAL_DBFS), name=f"{voice[:2]} {path.stem}"))
                taken += 1
    return found


def backchannels() -> list[Clip]:
    """ "mm hm", "uh huh", "yeah" and their like, equally loud; empty without the collection."""
    known = labels()
    names = sorted(name for name in known if name.startswith("backchannels/"))
    return [clip(_AUDIO / name, known[name]).at_level(NORMAL_DBFS) for name in names]


def bursts() -> list[Clip]:
    """Doors and knocks, as loud as they are; empty without the collection."""
    return [clip(path) for path in sorted((_AUDIO / "bursts").glob("*.wav"))]


def with_pause(one: Clip, seconds: float, chance: random.Random) -> Clip:
    """The same with a silence at a gap between words, filled with the recording's own background.

    The gap is the quietest place at least 0.4 s away from either end of the speech.
    """
    power = np.square(one.pcm[: len(one.pcm) // _STEP * _STEP].reshape(-1, _STEP).astype(np.float64)).mean(axis=1)
    smooth = np.convolve(power, np.ones(5) / 5, "same")
    first, last = one.start // _STEP + 40, one.end // _STEP - 40
    if last <= first:
        raise ValueError(f"{one.name} is too short for a pause")
    at = (first + int(np.argmin(smooth[first:last]))) * _STEP
    quietest = int(np.argmin(np.convolve(power, np.ones(6) / 6, "valid"))) * _STEP
    background = one.pcm[quietest : quietest + 6 * _STEP]
    length = round(seconds * RATE_HZ)
    turned = [background if chance.random() < 0.5 else background[::-1] for _ in range(length // len(background) + 1)]
    silence = np.concatenate(turned)[:length]
    pcm = np.concatenate([one.pcm[:at], silence, one.pcm[at:]])
    return Clip(f"{one.name} +{seconds:.1f}s", pcm, one.start, one.end + length, ((at, at + length),))


def questions(folder: Path, paused: float, seed: int) -> list[Clip]:
    """What is asked, in a random order: every recorded sentence, a share of them with a pause of 0.4 to 1.5 s."""
    chance = random.Random(seed)
    plain = people(folder)
    long = [one for one in plain if (one.end - one.start) / RATE_HZ >= _LEAST_FOR_PAUSE_S]
    wanted = round(len(plain) * paused / (1 - paused)) if paused < 1 else len(long)
    broken = [with_pause(chance.choice(long), chance.uniform(*PAUSES_S), chance) for _ in range(wanted)]
    every = plain + broken
    chance.shuffle(every)
    return every


def write(clips: Sequence[Clip], folder: Path) -> list[Path]:
    """As WAVs for callers in another process."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.wav" for number in range(len(clips))]
    for path, one in zip(paths, clips, strict=True):
        write_wav(path, one.pcm)
    return paths
