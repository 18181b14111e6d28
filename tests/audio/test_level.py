from __future__ import annotations

import numpy as np
import pytest

from appliance.audio import level, tones


def test_levels_are_relative_to_full_scale() -> None:
    frames = np.zeros((4, 160), np.int16)
    frames[1] = tones.sine(1000.0, 160, -3.02)
    frames[2] = tones.sine(400.0, 160, -40.0)
    frames[3] = -32768
    levels = level.rms_dbfs(frames)
    assert levels.dtype == np.float32
    assert levels == pytest.approx([-96.0, -3.02, -40.0, 0.0], abs=0.02)


def test_the_quietest_sample_is_above_the_floor() -> None:
    assert level.rms_dbfs_one(np.ones(160, np.int16)) == pytest.approx(-90.31, abs=0.01)


def test_no_samples_and_no_calls() -> None:
    assert level.rms_dbfs(np.zeros((2, 0), np.int16)).tolist() == [-96.0, -96.0]
    assert level.rms_dbfs(np.zeros((0, 160), np.int16)).shape == (0,)
