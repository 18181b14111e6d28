"""Benches for the tests of one leg, and the model that hears voices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from appliance.models.catalogue import SILERO_VAD
from appliance.models.store import ModelStore, model_directory
from tests.media.leg_bench import Bench, Made


@pytest.fixture(scope="session")
def model() -> bytes:
    """The file of Silero VAD; without it no call can be held, and the error says how to get it."""
    return ModelStore(model_directory()).read(SILERO_VAD.name)


@pytest.fixture
def made() -> Iterator[Made]:
    """Makes benches; those that share the clock of another name it."""
    benches: list[Bench] = []

    def make(**agreed: Any) -> Bench:
        benches.append(Bench(**agreed))
        return benches[-1]

    yield make
    for bench in reversed(benches):
        bench.close() if hasattr(bench, "messages") else bench.close_second()
