"""The caller's speech comes from another process."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.cli.say import speak
from appliance.errors import ApplianceError


async def test_each_text_is_spoken() -> None:
    one, two = await speak(["hello", "I would like to book a table for four"])
    assert 0.2 < len(one) / 8000 < 1.5
    assert len(two) > 2 * len(one)
    assert np.abs(two).max() > 3000


async def test_an_unknown_voice_is_explained() -> None:
    with pytest.raises(ApplianceError, match="cannot be spoken"):
        await speak(["hello"], voice="xx-martian")
