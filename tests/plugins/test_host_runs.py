"""What the plugin host does with plugins that misbehave in less common ways, and with callers that are gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from appliance.api import ModelRequest, Tool
from appliance.errors import ToolError
from appliance.ipc.hook_messages import HookCall, HookDone, RunHook, RunTool
from appliance.plugins.hook_table import HOOKS
from appliance.plugins.host.calls import Calls
from appliance.plugins.host.context import Running
from appliance.plugins.host.installed import Installed, Plugins
from appliance.plugins.host.results import MAX_RESULT_BYTES
from appliance.plugins.host.runs import HookRuns, in_thread
from appliance.plugins.host.threads import MAX_THREADS, Leave, Threads, Worker
from appliance.plugins.host.tools import _MAX_USE_BYTES, _Ongoing
from appliance.plugins.host.watch import Watch
from appliance.plugins.loading import Implementation
from appliance.plugins.marker import MarkerPage
from tests.plugins.real_host import call
from tests.waiting import eventually

REQUEST = ModelRequest("hello")


class Bench:
    """Hooks of plugins that are made on the spot, run in this process. Budgets do not end: time stands still."""

    def __init__(self, directory: Path) -> None:
        page = MarkerPage(directory)
        self.by_name: dict[str, Any] = {}
        self.plans = {1: Installed(plugins=self.by_name)}
        self.calls = Calls()
        plugins = cast(Plugins, SimpleNamespace(plans=self.plans, latest=self.by_name.get))
        self.blamed: list[object] = []
        self.threads = Threads(page)
        self.watch = Watch(60.0, self.blamed.append)
        self.runs = HookRuns(
            asyncio.get_running_loop(), plugins, self.calls, self.threads, page.slot(), self.watch, now=lambda: 0.0
        )
        self.answers: list[HookDone] = []

    def has(self, plugin: str, hook: str, function: Callable[..., Any], *arguments: str) -> None:
        is_async = asyncio.iscoroutinefunction(function)
        self.by_name[plugin] = SimpleNamespace(hooks={hook: Implementation(function, arguments, is_async)})

    def begin(self, hook: str, number: int = 1, **arguments: Any) -> None:
        data = msgspec.msgpack.encode(arguments)
        self.runs.run(RunHook(number, 1, hook, tuple(self.by_name), call(), data), self.answers.append)

    async def ask(self, hook: str, **arguments: Any) -> HookDone:
        self.begin(hook, **arguments)
        await eventually(lambda: self.answers)
        return self.answers.pop()


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    for hook, rule in HOOKS.items():
        monkeypatch.setitem(HOOKS, hook, replace(rule, budget_s=30.0))
    made = Bench(tmp_path)
    yield made
    for _ in range(MAX_THREADS):  # at least one for each
        made.threads.submit(leave)
    await eventually(lambda: not [one for one in threading.enumerate() if one.name.startswith("hooks-")])


def leave(worker: Worker) -> None:
    raise Leave


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


async def nothing(arguments: Any, call: Any) -> None:
    pass


async def test_a_generator_that_fails_takes_no_thread_with_it(bench: Bench) -> None:
    def offers(call: Any) -> Iterator[Tool]:
        yield Tool(name="one", description="One.", parameters={}, run=nothing)
        raise KeyError("two")

    bench.has("p", "tools", offers, "call")
    for _ in range(MAX_THREADS + 2):
        done = await bench.ask("tools")
        assert [(one.outcome, one.text) for one in done.outcomes] == [("failed", "KeyError: 'two'")]
    assert bench.threads.count < MAX_THREADS


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_exception_that_cannot_be_written_is_one_like_any_other(bench: Bench, is_async: bool) -> None:
    async def later(call: Any) -> None:
        raise Unspeakable

    def now(call: Any) -> None:
        raise Unspeakable

    bench.has("p", "before_llm", later if is_async else now, "call")
    bench.has("q", "before_llm", lambda call: ["more"], "call")
    done = await bench.ask("before_llm", request=REQUEST)
    assert [one.text for one in done.outcomes] == ["Unspeakable", ""]
    assert msgspec.msgpack.decode(done.value) == [["q", ["more"]]]


async def test_what_all_plugins_together_add_fits_a_message(bench: Bench) -> None:
    much = ["x" * 4000] * (MAX_RESULT_BYTES // 4100)
    for plugin in "pqr":
        bench.has(plugin, "before_llm", lambda call: much if call else [], "call")
    done = await bench.ask("before_llm", request=REQUEST)
    assert [one.outcome for one in done.outcomes] == ["ok", "failed", "failed"]
    assert "of all plugins" in done.outcomes[1].text
    assert len(done.value) < MAX_RESULT_BYTES + 1000


async def test_what_ran_for_a_control_that_is_gone_is_not_answered_to_the_next(bench: Bench) -> None:
    go = asyncio.Event()
    ran: list[str] = []

    async def slow(call: Any, text: str) -> None:
        ran.append("slow")
        await go.wait()

    bench.has("p", "final_transcript", slow, "call", "text")
    bench.has("q", "final_transcript", lambda text: ran.append("q"), "text")
    bench.begin("final_transcript", number=7, text="old")
    await eventually(lambda: ran)
    bench.runs.clear()
    bench.calls.clear()
    go.set()
    bench.by_name.pop("p")
    bench.begin("final_transcript", number=7, text="new")
    await eventually(lambda: bench.answers)
    assert [one.plugin for one in bench.answers[0].outcomes] == ["q"]
    assert (len(bench.answers), ran) == (1, ["slow", "q"])


async def test_a_tool_that_got_no_thread_in_time_does_not_run_after_all(bench: Bench) -> None:
    go = threading.Event()
    ran: list[str] = []
    running = Running("p", "tool t", "a")
    held = [asyncio.ensure_future(in_thread(bench.runs, running, go.wait, 30.0)) for _ in range(MAX_THREADS)]
    await asyncio.sleep(0)
    try:
        with pytest.raises(TimeoutError):
            await in_thread(bench.runs, running, lambda: ran.append("late"), 0.01)
    finally:
        go.set()
    await asyncio.gather(*held)
    await in_thread(bench.runs, running, lambda: ran.append("next"), 30.0)
    assert ran == ["next"]


async def test_the_thread_of_a_cancelled_tool_is_watched(bench: Bench) -> None:
    go, began = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go.wait()

    task = asyncio.ensure_future(in_thread(bench.runs, Running("p", "tool t", "a"), work, 30.0))
    await eventually(began.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.watch.waiting == 1
    go.set()
    await eventually(lambda: not bench.watch.waiting)


async def test_what_a_tool_says_of_its_call_and_is_too_long_for_a_message_is_refused_in_words() -> None:
    sent: list[Any] = []
    run = RunTool(1, 1, "notes", "book", HookCall("p"), b"", "p-1")
    ongoing = _Ongoing(run, asyncio.get_running_loop(), sent.append)
    with pytest.raises(ToolError, match=rf"note was given 3\d\d,\d\d\d bytes; give it {_MAX_USE_BYTES:,} at most"):
        ongoing.note("all", "x" * 300_000)
    ongoing.note("all", "x" * 190_000)
    await eventually(lambda: len(sent) == 1)
