"""Some seconds of damaged input for everything that reads bytes of strangers; ``tests.bench.fuzz`` takes longer."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.mutate import LARGEST, Mutator
from tests.fuzz.run import fuzz
from tests.fuzz.targets import TARGETS

SECONDS = 4.0


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_raises_only_the_named_errors_and_holds_nobody_up(name: str) -> None:
    found = fuzz(TARGETS[name], SECONDS, seed=random.randrange(1 << 32))
    assert found.faults == []
    assert found.inputs > len(TARGETS[name].seeds)


def test_the_same_chance_makes_the_same_inputs() -> None:
    one, other = (Mutator([b"INVITE sip:a@b SIP/2.0\r\n"], random.Random(5)) for _ in range(2))
    made = [one.next() for _ in range(200)]
    assert made == [other.next() for _ in range(200)]
    assert max(map(len, made)) > LARGEST // 2
    assert max(map(len, made)) <= LARGEST
