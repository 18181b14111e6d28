from __future__ import annotations

import numpy as np
import pytest

from appliance.audio.level import rms_dbfs_one
from appliance.audio.resample import Resampler, resample
from appliance.audio.tones import sine

from .heard import level_dbfs


@pytest.mark.parametrize(("rate_in", "rate_out"), [(22050, 8000), (24000, 8000), (16000, 8000), (8000, 16000)])
def test_a_click_stays_where_it_is(rate_in: int, rate_out: int) -> None:
    click = np.zeros(rate_in, np.int16)
    click[rate_in // 2] = 20000
    output = resample(click, rate_in, rate_out)
    assert len(output) == rate_out
    assert abs(int(np.argmax(np.abs(output.astype(np.int32)))) - rate_out // 2) <= 1


def test_pieces_give_what_the_whole_gives() -> None:
    tone = sine(1000.0, 22050, -10.0, rate_hz=22050)
    stream = Resampler(22050, 8000)
    pieces = [stream.push(tone[start : start + 441]) for start in range(0, 22050, 441)]
    np.testing.assert_allclose(np.concatenate([*pieces, stream.finish()]), resample(tone, 22050, 8000), atol=2)


def test_what_lies_above_the_new_band_is_removed() -> None:
    output = resample(sine(6000.0, 16000, -10.0, rate_hz=16000), 16000, 8000)
    assert rms_dbfs_one(output[400:-400]) < -70.0
    kept = resample(sine(1000.0, 16000, -10.0, rate_hz=16000), 16000, 8000)
    assert level_dbfs(kept[400:-400], 1000.0) == pytest.approx(-10.0, abs=0.1)


@pytest.mark.parametrize(
    ("rate_in", "rate_out", "quality", "most_s"),
    [(22050, 8000, "LQ", 0.05), (22050, 8000, "HQ", 0.1), (8000, 16000, "LQ", 0.07), (8000, 16000, "HQ", 0.13)],
)
def test_a_stream_holds_back_no_more_than_stated(rate_in: int, rate_out: int, quality: str, most_s: float) -> None:
    stream = Resampler(rate_in, rate_out, quality)  # type: ignore[arg-type]
    held = []
    for _ in range(50):
        stream.push(np.zeros(rate_in // 50, np.int16))
        held.append(stream.held_s)
    assert max(held) <= most_s
    assert len(stream.finish()) > 0
    assert stream.held_s == 0.0


def test_a_finished_stream_can_be_used_again() -> None:
    stream = Resampler(16000, 8000)
    tone = sine(500.0, 3200, -10.0, rate_hz=16000)
    first = np.concatenate((stream.push(tone), stream.finish()))
    again = np.concatenate((stream.push(tone), stream.finish()))
    np.testing.assert_array_equal(first, again)


def test_the_same_rate_passes_through() -> None:
    tone = sine(500.0, 160)
    stream = Resampler(8000, 8000)
    np.testing.assert_array_equal(stream.push(tone), tone)
    assert len(stream.finish()) == 0


def test_rates_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        Resampler(0, 8000)
