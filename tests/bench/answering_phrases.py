"""How readily each phrase of a greeting may be spotted: thresholds for ``appliance/engines/greetings.py``.

``python -m tests.bench.answering_phrases`` prints how high the exponent of each phrase may be: the highest at which it
is heard where it was not said in at most three of a thousand pieces of speech: what people of the tuning half say,
prompts of its speakers in other languages, each clean and with noise, and the noise alone. The table ``SPOTTED`` holds
what is left of that when all phrases together may be heard in one piece in a hundred, and greetings of machines of the
tuning half are to be heard as often as possible.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

import numpy as np

from appliance.audio import g711
from appliance.engines.adapters import LEAD_SAMPLES, without_noise
from appliance.engines.greetings import SPOTTED
from appliance.engines.pocketsphinx_asr import AFTER_GREETING, PocketSphinxRecogniser
from tests.bench.answering_clips import (
    NOISES,
    RECORDINGS,
    SPEAKERS,
    Pcm,
    Sound,
    SpeechMissing,
    answered,
    levelled,
    noise_of,
)
from tests.bench.prompts import RATE_HZ, SOUNDS, read_wav

EXPONENTS: Final = (5, 10, 15, 20, 25, 30, 40, 50)
MOST_FALSE: Final = 0.003
_PROMPTS: Final = 130
_NOISES: Final = 40


def noisy(pcm: Pcm, noises: Sequence[Sound], random: Random) -> Pcm:
    """With one of the noises, 6 to 18 dB below the speech, taken off again as the box does it."""
    loud = np.concatenate((np.zeros(LEAD_SAMPLES), levelled(pcm.astype(np.float64))))
    mixed = loud + noise_of(random.choice(noises), len(loud), random) * 10 ** (-random.uniform(6, 18) / 20)
    line = g711.encode(np.clip(np.rint(mixed), -32768, 32767).astype(np.int16), np.False_)
    return without_noise(g711.decode(line, np.False_), LEAD_SAMPLES)


def without_phrases(noises: Sequence[Sound], random: Random) -> Iterator[Pcm]:
    """Speech and noise that hold none of the phrases."""
    for clip in answered("tune"):
        if clip.human:
            pcm = clip.pcm[max(0, round((clip.starts_s - 0.3) * RATE_HZ)) : round((clip.ends_s + 0.1) * RATE_HZ)]
            yield pcm
            yield noisy(pcm, noises, random)
    for speaker in SPEAKERS["tune"]:
        paths = sorted((SOUNDS / speaker).glob("*.wav"))
        for path in random.sample(paths, _PROMPTS):
            pcm = read_wav(path)[: 5 * RATE_HZ]
            if len(pcm) > RATE_HZ // 2:
                yield noisy(pcm, noises, random) if random.random() < 0.6 else pcm
    for _ in range(_NOISES):
        noise = np.rint(noise_of(random.choice(noises), 4 * RATE_HZ, random)).astype(np.int16)
        yield without_noise(noise, LEAD_SAMPLES)


def main() -> int:
    random = Random(3)
    try:
        noises = [levelled(read_wav(RECORDINGS / "noise" / f"{one}.wav").astype(np.float64)) for one in NOISES["tune"]]
        pieces = list(without_phrases(noises, random))
    except SpeechMissing as error:
        print(f"skipped: {error}")
        return 77
    recogniser = PocketSphinxRecogniser()
    cepstra = [recogniser.cepstra(np.concatenate((pcm, AFTER_GREETING))) for pcm in pieces]
    chosen = dict.fromkeys((phrase for phrase, _ in SPOTTED), 0)
    for exponent in EXPONENTS:
        false: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "phrases"
            path.write_text("".join(f"{phrase} /1e-{exponent}/\n" for phrase in chosen))
            recogniser.add_phrases(f"at {exponent}", path)
            for one in cepstra:
                false.update(set(recogniser.phrases_in(f"at {exponent}", one)))
        for phrase in chosen:
            if false[phrase] <= math.floor(MOST_FALSE * len(pieces)):
                chosen[phrase] = exponent
    print(f"# {len(pieces)} pieces")
    for phrase, exponent in chosen.items():
        print(f'    ("{phrase}", {exponent}),')
    return 0


if __name__ == "__main__":
    sys.exit(main())
