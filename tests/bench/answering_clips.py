"""Calls that a person, a machine or a screening assistant has answered, as the box hears them.

Each clip is what comes after the answer: silence or a room, what is said, perhaps a beep, and then a person who listens
or a machine that records. Everything goes through G.711 mu-law. Speakers are those of Debian's Asterisk prompts, the
readers of the shared recordings, and synthetic voices of espeak-ng, flite and festival (the last two where installed).

Nothing leaks from the half that is tuned on into the half that is reported: no speaker, no synthetic voice, no sentence
and no recording of noise is in both. Both classes have the same speakers, the same kinds of noise and the same silence
before, so that none of these says who has answered. Everything follows from a seed.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
import numpy.typing as npt

from appliance.audio import g711
from appliance.engines.espeak_tts import EspeakSynthesiser
from tests.bench.answering_texts import ENGLISH, FOREIGN, PROMPTS, Half, Kind
from tests.bench.prompts import RATE_HZ, SOUNDS, read_wav

Pcm = npt.NDArray[np.int16]
Sound = npt.NDArray[np.float64]

RECORDINGS: Final = Path(__file__).parents[2] / "../shared/audio"
LENGTH_S: Final = 10.0
"""Every clip goes on for at least so long after the answer, and four seconds after the last sound."""
PACKAGES: Final = (
    "apt-get install --no-install-recommends flite festival festvox-kdlpc16k festvox-itapc16k festvox-italp16k"
)

SPEAKERS: Final[dict[Half, tuple[str, ...]]] = {
    "tune": ("fr_CA_f_June", "it_IT_f_Menardi", "it_IT_m_Carlo"),
    "report": ("en_US_f_Allison", "es_MX_f_Allison", "ru_RU_f_IvrvoiceRU"),
}
VOICES: Final[dict[Half, tuple[str, ...]]] = {
    "tune": (
        "espeak en-us+m3",
        "espeak en-gb+f2",
        "espeak en-gb-scotland+m7",
        "espeak en-us+linda",
        "flite kal",
        "flite slt",
    ),
    "report": (
        "espeak en-us+f4",
        "espeak en-gb+m1",
        "espeak en-gb-x-rp+f5",
        "espeak en-us+Andy",
        "flite awb",
        "flite rms",
        "festival ked_diphone",
    ),
}
FOREIGN_VOICES: Final[dict[Half, dict[str, tuple[str, ...]]]] = {
    "tune": {"es": ("espeak es+f1", "espeak es+m2"), "de": ("espeak de+m4", "espeak de+f3")},
    "report": {"fr": ("espeak fr+m6", "espeak fr+Annie"), "it": ("espeak it+Mario", "festival lp_diphone")},
}
READERS: Final[dict[Half, tuple[str, ...]]] = {"tune": ("spk1_*", "weather_*"), "report": ("spk2_*", "hello_*")}
DIGITS: Final[dict[Half, str]] = {"tune": "jackson", "report": "theo"}
BACKCHANNELS: Final[dict[Half, tuple[str, ...]]] = {"tune": ("kal", "slt"), "report": ("awb", "rms")}
NOISES: Final[dict[Half, tuple[str, ...]]] = {"tune": ("noise1", "noise2"), "report": ("noise3",)}

PER_VOICE: Final[dict[Kind, int]] = {
    "human short": 7,
    "human long": 6,
    "machine short": 6,
    "machine long": 6,
    "screening": 2,
}
PER_SPEAKER: Final[dict[Kind, int]] = {
    "human short": 7,
    "human long": 6,
    "machine short": 4,
    "machine long": 6,
    "screening": 1,
}
_BEEPS: Final[dict[Kind, float]] = {"machine short": 0.7, "machine long": 0.75}
_NOISY: Final = 0.4
_AGAIN: Final = 0.15
"""The share of people who say it again when nobody speaks to them at once."""


@dataclass(frozen=True)
class Answered:
    """What is heard after one answer.

    Attributes:
        name: who says what.
        kind: of the texts.
        human: whether a person has answered.
        voice: who speaks.
        text: what is said, "" where nobody has written it down.
        pcm: int16 at 8 kHz from the answer on.
        starts_s: when speech starts.
        first_s: how long the first utterance is, to its first pause of half a second.
        ends_s: when the speech has ended.
        beep_s: when the beep has ended; None without one.
        noise_db: speech over background, dB; infinite where there is nothing but the codec's own.
    """

    name: str
    kind: Kind
    voice: str
    text: str
    pcm: Pcm = field(repr=False)
    starts_s: float
    first_s: float
    ends_s: float
    beep_s: float | None
    noise_db: float

    @property
    def human(self) -> bool:
        return self.kind.startswith("human")

    @property
    def english(self) -> bool:
        """Whether it is in the language of the embedded recogniser."""
        foreign = ("es_", "fr_", "it_", "ru_", "espeak es", "espeak fr", "espeak it", "espeak de", "festival lp")
        return not self.voice.startswith(foreign)


class SpeechMissing(Exception):
    """The recordings are not there; the message says how to get them."""


def installed(voice: str) -> bool:
    """Whether the synthesiser of ``voice`` is there."""
    kind, _, name = voice.partition(" ")
    match kind:
        case "flite":
            return shutil.which("flite") is not None
        case "festival":
            return shutil.which("text2wave") is not None and any(Path("/usr/share/festival").rglob(name))
        case _:
            return True


def answered(half: Half, recordings: Path = RECORDINGS, seed: int = 7) -> list[Answered]:
    """All clips of one half.

    Raises:
        SpeechMissing: the recordings are not installed.
    """
    if not (recordings / "utterances").exists():
        raise SpeechMissing(f"{recordings} with its recorded utterances is not there")
    if missing := [one for one in SPEAKERS[half] if not (SOUNDS / one).exists()]:
        raise SpeechMissing(f"{SOUNDS} has no {', '.join(missing)}: install asterisk-core-sounds-*-wav")
    random = Random(f"{seed} {half}")
    noises = [levelled(read_wav(recordings / "noise" / f"{one}.wav").astype(np.float64)) for one in NOISES[half]]
    with tempfile.TemporaryDirectory() as folder:
        spoken = [*_recorded(half, random), *_read(half, recordings), *_synthetic(half, random, Path(folder))]
    return [_clip(one, noises, random) for one in spoken]


@dataclass(frozen=True)
class _Spoken:
    voice: str
    kind: Kind
    text: str
    sound: Sound


def _recorded(half: Half, random: Random) -> Iterator[_Spoken]:
    for speaker in SPEAKERS[half]:
        folder = SOUNDS / speaker
        for kind, wanted in PER_SPEAKER.items():
            possible = [
                names
                for names in PROMPTS[kind]
                if all(name == "#" or (folder / f"{name}.wav").exists() for name in names)
            ]
            random.shuffle(possible)
            for number in range(wanted if any("#" in names for names in possible) else min(wanted, len(possible))):
                names = possible[number % len(possible)]
                if number >= len(possible) and "#" not in names:
                    continue
                yield _Spoken(speaker, kind, " ".join(names), _prompts(folder, names, random))


def _prompts(folder: Path, names: tuple[str, ...], random: Random) -> Sound:
    pieces: list[Sound] = []
    for name in names:
        files = [folder / f"{name}.wav"]
        if name == "#":
            files = [folder / "digits" / f"{random.randrange(1, 10)}.wav" for _ in range(random.choice((3, 4)))]
        for file in files:
            pieces += [_cut(read_wav(file).astype(np.float64)), np.zeros(round(random.uniform(0.05, 0.25) * RATE_HZ))]
    return np.concatenate(pieces[:-1])


def _read(half: Half, recordings: Path) -> Iterator[_Spoken]:
    for pattern in READERS[half]:
        for path in sorted((recordings / "utterances").glob(pattern)):
            yield _Spoken(path.stem.split("_")[0], "human long", "", _cut(read_wav(path).astype(np.float64)))
    for digit in range(0, 10, 2):
        path = sorted((recordings / "digits").glob(f"{digit}_{DIGITS[half]}_*.wav"))[0]
        yield _Spoken(DIGITS[half], "human short", "", _cut(read_wav(path).astype(np.float64)))
    for voice in BACKCHANNELS[half]:
        for word in ("yeah", "okay"):
            sound = read_wav(recordings / "backchannels" / f"{word}_{voice}.wav").astype(np.float64)
            yield _Spoken(f"flite {voice}", "human short", word, _cut(sound))


def _synthetic(half: Half, random: Random, folder: Path) -> Iterator[_Spoken]:
    espeak = EspeakSynthesiser()
    for voice in VOICES[half]:
        if installed(voice):
            for kind, wanted in PER_VOICE.items():
                texts = ENGLISH[half][kind]
                for text in random.sample(texts, min(wanted, len(texts))):
                    yield _Spoken(voice, kind, text, _say(espeak, voice, text, random.uniform(0.85, 1.25), folder))
    for language, voices in FOREIGN_VOICES[half].items():
        for voice in filter(installed, voices):
            for kind, texts in FOREIGN[half][language].items():
                text = random.choice(texts)
                yield _Spoken(voice, kind, text, _say(espeak, voice, text, random.uniform(0.85, 1.25), folder))


def _say(espeak: EspeakSynthesiser, voice: str, text: str, rate: float, folder: Path) -> Sound:
    kind, _, name = voice.partition(" ")
    wav = folder / "said.wav"
    if kind == "espeak":
        return _cut(np.concatenate(list(espeak.synthesise(text, voice=name, rate=rate))).astype(np.float64))
    if kind == "flite":
        stretch = f"duration_stretch={1 / rate:.3f}"
        subprocess.run(["flite", "-voice", name, "--setf", stretch, "-t", text, "-o", wav], check=True, timeout=60)
    else:
        plain = text.encode("latin-1", "ignore")
        command = [
            "text2wave",
            "-eval",
            f"(voice_{name})",
            "-eval",
            f"(Parameter.set 'Duration_Stretch {1 / rate:.3f})",
        ]
        subprocess.run([*command, "-o", wav], input=plain, check=True, timeout=60, capture_output=True)
    return _cut(read_wav(wav).astype(np.float64))


def _clip(spoken: _Spoken, noises: list[Sound], random: Random) -> Answered:
    sound = levelled(spoken.sound) * 10 ** (random.uniform(-6, 3) / 20)
    lead = random.uniform(0.1, 1.2) if random.random() < 0.6 else random.uniform(1.2, 3.0)
    starts = round(lead * RATE_HZ)
    pieces = [np.zeros(starts), sound]
    if spoken.kind == "human short" and random.random() < _AGAIN:
        pieces += [np.zeros(round(random.uniform(1.2, 2.5) * RATE_HZ)), sound]
    ends_s = sum(map(len, pieces)) / RATE_HZ
    beep_s = None
    if random.random() < _BEEPS.get(spoken.kind, 0.0):
        pieces += [np.zeros(round(random.uniform(0.15, 1.0) * RATE_HZ)), _beep(random)]
        beep_s = sum(map(len, pieces)) / RATE_HZ
    length = max(LENGTH_S, (beep_s or ends_s) + 4.0)
    whole = np.concatenate(pieces)
    whole = np.concatenate([whole, np.zeros(max(0, round(length * RATE_HZ) - len(whole)))])
    noise_db = math.inf
    if random.random() < _NOISY:
        noise_db = random.uniform(10.0, 25.0)
        whole += noise_of(random.choice(noises), len(whole), random) * 10 ** (-noise_db / 20)
    whole += np.random.default_rng(random.randrange(1 << 30)).normal(0, random.uniform(1, 12), len(whole))
    pcm = np.clip(np.rint(whole), -32768, 32767).astype(np.int16)
    pcm = pcm[: len(pcm) // 160 * 160]
    name = f"{spoken.voice}: {spoken.text or spoken.kind}"
    on_line = g711.decode(g711.encode(pcm, np.False_), np.False_)
    first_s = _first(sound)
    return Answered(
        name, spoken.kind, spoken.voice, spoken.text, on_line, starts / RATE_HZ, first_s, ends_s, beep_s, noise_db
    )


def _beep(random: Random) -> Sound:
    """A tone as answering machines have them."""
    hz, length = random.choice((440, 620, 700, 833, 1000, 1000, 1400, 1850)), random.uniform(0.16, 1.0)
    at = np.arange(round(length * RATE_HZ)) / RATE_HZ
    edge = np.minimum(1.0, np.minimum(at, at[::-1]) / 0.005)
    return 10 ** (random.uniform(-24, -12) / 20) * 32768 * edge * np.sin(2 * np.pi * hz * at)


def noise_of(noise: Sound, samples: int, random: Random) -> Sound:
    """So many samples of a recording that is repeated, from anywhere in it."""
    turned = np.roll(noise, random.randrange(len(noise)))
    return np.resize(turned, samples)


def _levels(sound: Sound) -> npt.NDArray[np.float64]:
    frames = sound[: len(sound) // 80 * 80].reshape(-1, 80)
    return np.asarray(20 * np.log10(np.maximum(np.sqrt((frames**2).mean(axis=1)), 0.3) / 32768))


def _cut(sound: Sound) -> Sound:
    """Its speech alone: from the first to the last 10 ms within 30 dB of the loudest (DESIGN §5)."""
    level = _levels(sound)
    loud = np.flatnonzero(level >= level.max() - 30.0)
    return sound[int(loud[0]) * 80 : (int(loud[-1]) + 1) * 80]


def levelled(sound: Sound, dbfs: float = -22.0) -> Sound:
    """As loud as ``dbfs`` where it is loud."""
    level = _levels(sound)
    active = level[level >= level.max() - 25.0]
    return sound * 10 ** ((dbfs - 10 * math.log10(float((10 ** (active / 10)).mean()))) / 20)


def _first(sound: Sound) -> float:
    """How long the sound is up to its first pause of half a second."""
    level = _levels(sound)
    loud = np.flatnonzero(level >= level.max() - 30.0)
    gaps = np.flatnonzero(np.diff(loud) > 50)
    return float(loud[int(gaps[0])] if len(gaps) else loud[-1]) / 100 + 0.01
