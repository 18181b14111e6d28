"""Whatever a plugin does in a hook, the call goes on by the hook's default, and other lines do not notice.

``tests/bench/plugin_faults.py`` measures the same beside calls in progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from appliance.errors import ToolError
from appliance.plugins.hook_table import HOOKS, Rule
from appliance.plugins.hooks import Hooks
from tests.plugins.faults import ENDING, HOOKS_OF_CALLS, SURVIVED, ask, call, default_of, source
from tests.plugins.real_host import QUICK, RealHost
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = ("admit", "before_llm", "final_transcript", "before_storing", "answered")
"""A hook of each kind: first, collected, chained, closed, told."""
EXPECTED = {
    "raises": "failed",
    "asleep": "over_budget",
    "wrong_type": "wrong_type",
    "leaked_task": "ok",
    "allocates": "failed",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["plain", "tasks"])
async def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealHost]:
    # These faults hang nothing: only a machine that stands still would look like it.
    real = RealHost(tmp_path_factory.mktemp("host"), module=QUICK, hang_s=10.0)
    real.write("faulty", source(plain=request.param == "plain"))
    async with real.running():
        yield real


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hooks(host: RealHost) -> Hooks:
    return await host.hooks({"faulty": {}}, {fault: {} for fault in SURVIVED})


@pytest.mark.parametrize("fault", SURVIVED)
async def test_a_hook_that_fails_gives_its_default(host: RealHost, hooks: Hooks, fault: str) -> None:
    host.metrics.ran.clear()
    about = call(fault, line=fault, call_id=f"call-{fault}")
    results = await asyncio.gather(*(ask(hooks, hook, about) for hook in HOOKS_OF_CALLS))
    await eventually(lambda: {ran[0] for ran in host.metrics.ran} >= set(HOOKS_OF_CALLS), "hooks that never ended")
    outcomes = {ran[0]: ran[2] for ran in host.metrics.ran}
    for hook, result in zip(HOOKS_OF_CALLS, results, strict=True):
        told = HOOKS[hook].rule is Rule.TOLD
        expected = "ok" if told and fault == "wrong_type" else EXPECTED[fault]
        assert outcomes[hook] == expected, hook
        if expected == "ok":
            continue
        assert result == default_of(hook, "faulty"), hook
    hooks.over(about.call_id)
    assert host.metrics.ended == []


async def test_tasks_that_a_call_leaves_behind_are_cancelled(host: RealHost, hooks: Hooks) -> None:
    about = call("leaked_task", line="leaked_task", call_id="leaker")
    await ask(hooks, "final_transcript", about)
    number = host.link.pong.number
    host.link.liveness.ask()
    await eventually(lambda: host.link.pong.number > number, "no sign of life")
    before = host.link.pong.leaked
    hooks.over(about.call_id)
    if "async def appliance_" in (host.plugins / "faulty.py").read_text():
        await eventually(lambda: host.link.pong.leaked == before + 1, "the task was not cancelled")


@pytest.mark.parametrize("fault", ENDING)
async def test_a_hook_that_takes_the_host_down_gives_its_default(tmp_path: Path, host: RealHost, fault: str) -> None:
    """A host of its own for each fault; every kind of hook, one after the other."""
    plain = "async def appliance_" not in (host.plugins / "faulty.py").read_text()
    real = RealHost(tmp_path, module=QUICK, hang_s=0.4)
    real.write("faulty", source(plain=plain))
    kinds = KINDS if fault == "exits" else KINDS[2:] if plain else KINDS[2:3]
    async with real.running():
        hooks = await real.hooks({"faulty": {}})
        for number, hook in enumerate(kinds, 1):
            await eventually(lambda: real.link.up, "the host did not come back")
            assert await ask(hooks, hook, call(fault)) == default_of(hook, "faulty"), hook
            await eventually(lambda count=number: len(real.metrics.ended) == count, f"{hook} did not end the host")
            assert real.metrics.ended[-1] == ("faulty", "ended" if fault == "exits" else "hung")
            assert not real.link.closed("faulty", hook, "b"), "it is left alone on every line"
        await eventually(lambda: real.link.up, "the host did not come back")
        assert await ask(hooks, "final_transcript", call("nothing")) == "some text"


async def test_a_hook_that_fails_again_and_again_is_left_alone_on_its_line(host: RealHost) -> None:
    hooks = await host.hooks({"faulty": {}}, {"first": {}, "second": {}})
    for _ in range(5):
        await ask(hooks, "final_transcript", call("raises", line="first"))
    host.troubles.clear()
    host.metrics.ran.clear()
    assert await ask(hooks, "final_transcript", call("nothing", line="first", call_id="c6")) == "some text"
    assert [(one[0], one[1], one[2].outcome) for one in host.troubles] == [("c6", "final_transcript", "switched_off")]
    await ask(hooks, "final_transcript", call("nothing", line="second"))
    await ask(hooks, "reply_text", call("nothing", line="first"))
    assert [ran[:3] for ran in host.metrics.ran[1:]] == [
        ("final_transcript", "faulty", "ok"),
        ("reply_text", "faulty", "ok"),
    ]


async def test_what_a_switched_off_plugin_should_have_looked_at_is_withheld(host: RealHost) -> None:
    hooks = await host.hooks({"faulty": {}}, {"stored": {}})
    for _ in range(6):
        kept = await ask(hooks, "before_storing", call("raises", line="stored"))
        assert kept == ["[withheld: faulty failed]"] * 2
    assert not host.link.closed("faulty", "before_storing", "stored")


class Ongoing:
    """A call that nothing is done with."""

    call_id, line, caller, called, idempotency_key = "c1", "a", "raises", "100", "c1-1"

    def say(self, text: str) -> None: ...
    async def ask(self, question: object) -> object: ...
    def note(self, name: str, value: str) -> None: ...
    def press(self, digits: str) -> None: ...
    def hand_on(self, target: str) -> None: ...
    def hang_up(self, reason: str, farewell: str = "") -> None: ...


@pytest.mark.parametrize("fault", ["raises", "wrong_type", "allocates", "exits"])
async def test_a_tool_that_fails_is_an_error_for_the_model(host: RealHost, fault: str) -> None:
    hooks = await host.hooks({"faulty": {}})
    await ask(hooks, "tools", call("nothing", call_id=f"tool-{fault}"))
    with pytest.raises(ToolError, match="the tool"):
        await hooks.run_tool("faulty", "faulty", call(fault, call_id=f"tool-{fault}"), {}, Ongoing())
    await eventually(lambda: host.link.up, "the host did not come back")
