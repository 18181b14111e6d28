"""The last dialplan that was in order outlives the process that has read it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.config import load_settings
from appliance.dialplan.matcher import Arrival
from appliance.server.compiling import Plan, compiled
from appliance.server.kept import KeptPlan

pytestmark = pytest.mark.usefixtures("in_tmp_path")

TEXT = "lines:\n- {name: a, match: {called: 1}, flow: {a: {hang_up: Bye.}}}\n- {name: b, flow: {a: {hang_up: Bye.}}}\n"


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("kept")
    yield fd
    os.close(fd)


def box() -> Any:
    return load_settings(None, ["dialplans.paths=[plans]"])


async def read(text: str) -> Plan:
    Path("plans").mkdir(exist_ok=True)
    Path("plans/plan.yaml").write_text(text)
    return await compiled(box())


async def test_what_was_kept_last_is_there_again(fd: int) -> None:
    assert KeptPlan(fd).last(box()) is None
    for text in (TEXT + "# much longer\n" * 100, TEXT.replace("name: a", "name: other")):
        plan = await read(text)
        KeptPlan(fd).keep(plan)
        again = KeptPlan(fd).last(box())
        assert again is not None
        assert tuple(again.lines) == tuple(plan.lines)
        assert (again.files, again.plugins, list(again.yaml)) == (plan.files, plan.plugins, list(plan.yaml))
        line = again.routing.decide(Arrival("local", "1", "5", datetime(2026, 3, 2, tzinfo=UTC)))
        assert line == plan.lines[0]


async def test_what_was_not_kept_as_a_whole_is_not_used(fd: int) -> None:
    KeptPlan(fd).keep(await read(TEXT))
    size = os.fstat(fd).st_size
    whole = os.pread(fd, size, 0)
    for damaged in (whole[:20], whole[: size - 1], bytes(40) + whole[40:], whole[:60] + b"?" + whole[61:]):
        os.ftruncate(fd, 0)
        os.pwrite(fd, damaged, 0)
        assert KeptPlan(fd).last(box()) is None
    os.ftruncate(fd, 0)
    os.pwrite(fd, whole, 0)
    assert KeptPlan(fd).last(box()) is not None
