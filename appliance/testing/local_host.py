"""The plugin host without a process of its own: plugins run as they do in the box, in the process of the test.

What runs hooks, tools and threads is what runs them in the box. Left out is what a process is needed for: limits of
memory, and being killed. Time is virtual, so that no plugin is over its budget because the machine is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from appliance.errors import PluginError, ToolError
from appliance.ipc.hook_messages import (
    TOLD,
    CallUsed,
    ForgetRun,
    HookCall,
    HookDone,
    HookOutcome,
    RunHook,
    RunTool,
    ToolDone,
    UseCall,
)
from appliance.ipc.messages import AnyMessage
from appliance.plugins.hooks import Hooks, make_table
from appliance.plugins.host.calls import Calls
from appliance.plugins.host.context import Running, keep_tasks
from appliance.plugins.host.installed import Plugins
from appliance.plugins.host.runs import HookRuns, in_thread, invoked
from appliance.plugins.host.threads import Job, Worker
from appliance.plugins.host.tools import ToolRuns
from appliance.plugins.host.watch import Watch
from appliance.plugins.plan import PluginPlan
from appliance.plugins.tool_calls import ToolCalls
from appliance.testing.virtual_time import VirtualLoop
from appliance.tool_types import OngoingCall

VERSION = "testing"
PLAN = 1


class _NoSlot:
    """Nobody looks who runs."""

    def set(self, text: bytes) -> None: ...
    def clear(self) -> None: ...
    def runs(self, text: bytes) -> bool:
        return False


class _Threads:
    """Threads that end with the test; time stands still while one works."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(8, thread_name_prefix="plugins")

    def submit(self, job: Job) -> None:
        loop = self._loop
        if isinstance(loop, VirtualLoop):
            loop.thread_began()
        self._executor.submit(self._work, job)

    def close(self) -> None:
        self._executor.shutdown()

    def _work(self, job: Job) -> None:
        slot: Any = _NoSlot()
        try:
            job(Worker(slot))
        finally:
            if isinstance(self._loop, VirtualLoop):
                self._loop.thread_ended()


class LocalHost:
    """Where hooks run; takes the place of the link to the plugin host.

    Args:
        state_dir: where plugins have their folders.

    Attributes:
        troubles: (hook, how a plugin did) of everything that was no success.
    """

    def __init__(self, state_dir: Path) -> None:
        loop = asyncio.get_running_loop()
        slot: Any = _NoSlot()
        threads: Any = _Threads(loop)
        keep_tasks(loop, slot)
        self.troubles: list[tuple[str, HookOutcome]] = []
        self._loop = loop
        self._threads = threads
        self._calls = Calls()
        self._plugins = Plugins(
            lambda hook, plugin, line, arguments, budget_s: invoked(runs, hook, plugin, line, arguments, budget_s),
            lambda plugin, what, function, budget_s: in_thread(runs, Running(plugin, what, ""), function, budget_s),
            VERSION,
            state_dir.absolute(),
        )
        watch = Watch(float("inf"), lambda blamed: None)
        runs = self._runs = HookRuns(loop, self._plugins, self._calls, threads, slot, watch, now=loop.time)
        self._tool_runs = ToolRuns(runs, self._from_host)
        self._tool_calls = ToolCalls(self._to_host)
        self._number = TOLD
        self._waiting: dict[int, asyncio.Future[HookDone]] = {}
        self._told: deque[contextlib.ExitStack] = deque()

    async def set_up(self, plan: PluginPlan) -> Hooks:
        """Import, configure and start the plugins.

        Raises:
            PluginError: one of them cannot be used; says why.
        """
        manifest = await self._plugins.set_up(PLAN, plan)
        wrong = [info.problem for info in manifest.plugins if info.problem]
        wrong += [entry.why for entry in manifest.unusable if entry.why not in wrong]
        if wrong:
            raise PluginError("\n".join(wrong))
        return Hooks(self, make_table(plan, manifest), PLAN)

    async def close(self) -> None:
        """Tell the plugins that the box stops, and end what they left behind."""
        await self._plugins.stop()
        self._tool_runs.clear()
        self._calls.clear()
        self._loop.set_task_factory(None)
        self._threads.close()

    async def idle(self) -> None:
        """Return when plugins have heard all that they were told."""
        while len(self._calls):
            await asyncio.sleep(0.02)

    # --- what hooks ask ---------------------------------------------------------------------------------------------

    async def run(
        self, plan: int, hook: str, plugins: tuple[str, ...], call: HookCall | None, arguments: bytes
    ) -> HookDone | None:
        self._number += 1
        number = self._number
        done: asyncio.Future[HookDone] = self._loop.create_future()
        self._waiting[number] = done
        try:
            with _real_time(self._loop):
                self._runs.run(RunHook(number, plan, hook, plugins, call, arguments), self._answered)
                return await done
        finally:
            del self._waiting[number]
            self._runs.forget(number)

    def tell(self, plan: int, hook: str, plugins: tuple[str, ...], call: HookCall | None, arguments: bytes) -> None:
        stack = contextlib.ExitStack()
        stack.enter_context(_real_time(self._loop))
        self._told.append(stack)
        self._runs.run(RunHook(TOLD, plan, hook, plugins, call, arguments), self._answered)

    def closed(self, plugin: str, hook: str, line: str) -> bool:
        return True

    def trouble(self, call_id: str, hook: str, outcome: HookOutcome) -> None:
        self.troubles.append((hook, outcome))

    async def run_tool(
        self, plan: int, plugin: str, tool: str, call: HookCall, arguments: Mapping[str, Any], ongoing: OngoingCall
    ) -> Any:
        self._number += 1
        number = self._number
        with _real_time(self._loop):
            try:
                return await self._tool_calls.run(number, plan, plugin, tool, call, arguments, ongoing)
            except ToolError as error:
                if str(error) == "the tool failed":
                    self.troubles.append(
                        ("tools", HookOutcome(plugin, "failed", 0.0, f"tool {tool} raised; see the log"))
                    )
                raise

    def module(self, name: str) -> Any:
        """The plugin's module, as it was imported."""
        found = self._plugins.latest(name)
        if found is None:
            raise KeyError(name)
        return found.module

    def over(self, call_id: str) -> None:
        self._calls.over(call_id)

    # --- messages, handed over ----------------------------------------------------------------------------------------

    def _answered(self, done: HookDone) -> None:
        self.troubles += [(done.hook, outcome) for outcome in done.outcomes if outcome.outcome != "ok"]
        if done.number == TOLD:
            self._told.popleft().close()
        waiting = self._waiting.get(done.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(done)

    def _to_host(self, message: AnyMessage) -> bool:
        match message:
            case RunTool():
                self._tool_runs.run(message)
            case CallUsed():
                self._tool_runs.used(message)
            case ForgetRun():
                self._tool_runs.forget(message.number)
            case _:
                raise AssertionError(type(message).__name__)
        return True

    def _from_host(self, message: AnyMessage) -> None:
        match message:
            case ToolDone():
                self._tool_calls.done(message)
            case UseCall():
                self._tool_calls.use(message)
            case _:
                raise AssertionError(type(message).__name__)


def _real_time(loop: asyncio.AbstractEventLoop) -> contextlib.AbstractContextManager[None]:
    """What a plugin asks a server is answered in the time that this takes."""
    return loop.in_real_time() if isinstance(loop, VirtualLoop) else contextlib.nullcontext()
