from __future__ import annotations

import numpy as np
import pytest

from appliance.audio import g711, tones

from .heard import key_in, keys_in, level_dbfs


def test_a_sine_reads_its_level_at_its_frequency_only() -> None:
    tone = tones.sine(440.0, 800, -20.0)
    assert level_dbfs(tone, 440.0) == pytest.approx(-20.0, abs=0.1)
    assert level_dbfs(tone, 1000.0) < -50.0
    assert level_dbfs(np.zeros(160, np.int16), 440.0) == -96.0


def test_pieces_of_a_sine_join() -> None:
    whole = tones.sine(313.0, 480)
    pieces = np.concatenate([tones.sine(313.0, 160, start=start) for start in (0, 160, 320)])
    np.testing.assert_array_equal(whole, pieces)


@pytest.mark.parametrize("key", "".join(tones.PAD))
@pytest.mark.parametrize("alaw", [False, True])
def test_every_key_is_recognised_through_the_codec(key: str, alaw: bool) -> None:
    tone = g711.decode(g711.encode(tones.key_tone(key, 160), alaw), alaw)
    assert key_in(tone) == key


def test_keys_are_found_where_they_are() -> None:
    pause = np.random.default_rng(1).normal(0.0, 20.0, 800).astype(np.int16)
    line = np.concatenate((pause, tones.key_tone("5", 800), pause, tones.key_tone("5", 800), tones.key_tone("#", 800)))
    found = keys_in(line)
    assert [key for key, _, _ in found] == ["5", "5", "#"]
    for (_, start, end), expected in zip(found, (800, 2400, 3200), strict=True):
        assert abs(start - expected) <= 160
        assert abs(end - expected - 800) <= 160


def test_a_voice_and_noise_are_not_keys() -> None:
    generator = np.random.default_rng(2)
    noise = generator.normal(0.0, 3000.0, 16000).astype(np.int16)
    buzz = sum(tones.sine(131.0 * n, 16000, -30.0).astype(np.int32) for n in range(1, 12))
    assert keys_in(noise) == []
    assert keys_in(np.asarray(buzz, np.int16)) == []
    assert key_in(tones.sine(697.0, 160)) is None
    assert key_in(np.zeros(10, np.int16)) is None


def test_there_are_sixteen_keys() -> None:
    with pytest.raises(ValueError, match="'E' is not a key"):
        tones.key_tone("E", 160)
    with pytest.raises(ValueError, match="not a key"):
        tones.key_tone("", 160)
