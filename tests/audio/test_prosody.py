from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from appliance.audio.prosody import RATE_HZ, ending, is_held
from tests.conversation.turn_lines import read_wav


def voice(seconds: float, hz: tuple[float, float], amplitude: tuple[float, float]) -> np.ndarray:
    """Pulses like a voice's, their pitch and loudness moving from one value to the other."""
    samples = int(seconds * RATE_HZ)
    pitch, size = np.linspace(*hz, samples), np.linspace(*amplitude, samples)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    return sum(np.cos(k * phase) / k for k in range(1, 9)) * size


def clip(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([*parts, np.zeros(800)]).clip(-32768, 32767).astype(np.int16)


LEVEL = voice(1.2, (200, 200), (4000, 4000))


def test_a_voice_that_stays_where_it_was():
    found = ending(clip(LEVEL, voice(0.3, (200, 200), (4000, 4000))))
    assert found
    assert abs(found.pitch) < 0.5
    assert abs(found.loudness) < 1.0


def test_a_voice_that_falls():
    found = ending(clip(LEVEL, voice(0.3, (190, 130), (3000, 700))))
    assert found
    assert -8.0 < found.pitch < -4.0
    assert found.loudness < -2.0
    assert found.fall < -5.0


def test_a_voice_that_rises_in_a_question():
    found = ending(clip(LEVEL, voice(0.3, (200, 300), (4000, 4000))))
    assert found
    assert found.pitch > 4.0


def test_silence_noise_and_single_words_say_nothing():
    assert ending(np.zeros(16000, np.int16)) is None
    assert ending(np.random.default_rng(1).normal(0, 2000, 16000).astype(np.int16)) is None
    assert ending(clip(voice(0.25, (200, 200), (4000, 4000)))) is None
    assert ending(np.zeros(0, np.int16)) is None


def test_a_hum_is_held_and_a_sentence_is_not(shared_audio: Path):
    hum = voice(0.6, (150, 140), (4000, 3000)).astype(np.int16)
    assert is_held(hum)
    assert not is_held(hum[:2000])
    assert not is_held(np.zeros(5000, np.int16))
    with (shared_audio / "labels.tsv").open() as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row[0].startswith("utterances/spk")]
    for name, start, _ in rows:
        first = int(float(start) * RATE_HZ)
        assert not is_held(read_wav(shared_audio / name)[first : first + 5280]), name


def test_recorded_sentences_end_lower_and_softer_than_they_go_on(shared_audio: Path):
    with (shared_audio / "labels.tsv").open() as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row[0].startswith("utterances/spk")]
    softer = 0
    for name, _, end in rows:
        pcm = read_wav(shared_audio / name)
        whole = ending(pcm[: int((float(end) + 0.1) * RATE_HZ)])
        assert whole, name
        softer += whole.loudness < -3.0
    assert softer >= 0.8 * len(rows)
