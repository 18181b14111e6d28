from __future__ import annotations

import pytest

from appliance.errors import ModelFileError
from appliance.models.store import ModelStore, model_directory


@pytest.fixture(scope="module")
def silero() -> bytes:
    try:
        return ModelStore(model_directory()).read("silero_vad")
    except ModelFileError as error:
        pytest.skip(str(error))
