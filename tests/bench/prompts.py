"""Which recorded prompts are played to the recogniser, and what they say.

Debian's ``asterisk-core-sounds-en-wav`` carries the recordings and ``asterisk-core-sounds-en`` their texts. A prompt
qualifies when its text is three or more plain words, every one of them in PocketSphinx's dictionary. Texts with
digits, brackets (descriptions of sounds) or symbols do not: they do not spell what is spoken.
"""

from __future__ import annotations

import gzip
import re
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from appliance.engines.lexicon import Lexicon, normalise

EXPECTED = 150
STRANGERS = 40
RATE_HZ = 8000

SOUNDS = Path("/usr/share/asterisk/sounds")
TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
PACKAGES = "apt-get install --no-install-recommends asterisk-core-sounds-en-wav asterisk-core-sounds-en"

_PLAIN = re.compile(r"[A-Za-z' .,;:!?-]+")


class PromptsMissing(Exception):
    """The Debian packages with the prompts are not installed; the message says how to."""


@dataclass(frozen=True)
class Prompt:
    """One recording: its name in the package, where it lies, and its words as ``normalise`` writes them."""

    name: str
    path: Path
    text: str

    def pcm(self) -> npt.NDArray[np.int16]:
        """The recording, int16 mono at 8 kHz."""
        return read_wav(self.path)


def read_wav(path: Path) -> npt.NDArray[np.int16]:
    """The first channel of a 16-bit WAV file, as int16 at 8 kHz."""
    with wave.open(str(path)) as file:
        rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
        data = file.readframes(file.getnframes())
    if width != 2:
        raise ValueError(f"{path}: {8 * width}-bit samples; only 16-bit WAV files are read")
    pcm = np.frombuffer(data, dtype="<i2")[::channels]
    if rate == RATE_HZ:
        return pcm.astype(np.int16)
    resampled = soxr.resample(pcm.astype(np.float32), rate, RATE_HZ)
    return np.asarray(np.clip(np.rint(resampled), -32768, 32767), dtype=np.int16)


def folder() -> Path:
    """Where the English prompts are installed.

    Raises:
        PromptsMissing: if they, or their texts, are not.
    """
    found = sorted(path.parent for path in SOUNDS.glob("en_US*/agent-alreadyon.wav"))
    if not found or not TEXTS.exists():
        raise PromptsMissing(f"the prompts or their texts are not installed: {PACKAGES}")
    return found[0]


def texts() -> dict[str, str]:
    """Prompt name to its text as printed in the package, in file order."""
    with gzip.open(TEXTS, "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith(";")]
    return {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}


def qualifying() -> list[Prompt]:
    """Every prompt that passes the filter, by name (code point order)."""
    where, lexicon = folder(), Lexicon()
    out = []
    for name, text in sorted(texts().items()):
        path = where / f"{name}.wav"
        words = normalise(text)
        if _PLAIN.fullmatch(text) and len(words.split()) >= 3 and not lexicon.missing(words) and path.exists():
            out.append(Prompt(name, path, words))
    return out


def select() -> tuple[list[Prompt], list[Prompt]]:
    """The prompts whose texts the question expects, and those of strangers to it.

    Returns:
        The first 150 qualifying prompts by name, and the 40 next ones whose text is none of theirs.
    """
    prompts = qualifying()
    expected = prompts[:EXPECTED]
    known = {prompt.text for prompt in expected}
    strangers = [prompt for prompt in prompts[EXPECTED:] if prompt.text not in known]
    return expected, strangers[:STRANGERS]
