"""Benches for the tests of one leg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.media.leg_bench import Bench, Made


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
