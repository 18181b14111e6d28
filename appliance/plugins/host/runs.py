"""Running one hook of all its plugins: in order, each within its budget, whatever the others do.

Plain functions that follow one another run in one thread, one after the other; ``async`` ones on the event loop. What
is over its budget is given up, and the rest goes on without it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.api import Tool
from appliance.ipc.hook_messages import TOLD, HookDone, HookOutcome, RunHook
from appliance.plugins.hook_table import HOOKS, Rule
from appliance.plugins.host.calls import MAX_TOLD, Calls, CallState
from appliance.plugins.host.context import CURRENT, Marked, Running
from appliance.plugins.host.installed import Installed, Plugins
from appliance.plugins.host.results import ENDS_CHAIN, MAX_RESULT_BYTES, MUTABLE, arguments_of, checked
from appliance.plugins.host.threads import Threads, Worker
from appliance.plugins.host.watch import Watch
from appliance.plugins.loading import Implementation, Plugin
from appliance.plugins.marker import Slot

logger = logging.getLogger(__name__)

_MAX_TEXT: Final = 300
_LOG_AGAIN_S: Final = 10.0

Answer = Callable[[HookDone], None]


@dataclass(eq=False)
class _Step:
    """One plugin's part in a run."""

    plugin: str
    implementation: Implementation
    running: Running
    call: Any


class Failures:
    """Says in the log what went wrong in a plugin, with its traceback, but not over and over."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}

    def say(self, plugin: str, hook: str, error: BaseException) -> None:
        now = time.monotonic()
        key = (plugin, hook)
        if now - self._last.get(key, -_LOG_AGAIN_S) >= _LOG_AGAIN_S:
            self._last[key] = now
            trace = error.__traceback__
            while trace is not None and "/appliance/plugins/" in trace.tb_frame.f_code.co_filename:
                trace = trace.tb_next
            logger.warning("plugin %s: appliance_%s failed", plugin, hook, exc_info=(type(error), error, trace))


class HookRuns:
    """Runs hooks for control.

    Args:
        loop: of the host.
        plugins: that there are.
        calls: what is kept of each call.
        threads: for plain functions.
        slot: the loop's place on the marker page.
        watch: is told of threads that are left behind.
        now: the clock that budgets are held by, in seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plugins: Plugins,
        calls: Calls,
        threads: Threads,
        slot: Slot,
        watch: Watch,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = loop
        self.plugins = plugins
        self.calls = calls
        self.threads = threads
        self.slot = slot
        self.watch = watch
        self.now = now
        self.failures = Failures()
        self._box = CallState("", Installed())
        self._at_work: dict[int, _Run] = {}

    def run(self, message: RunHook, answer: Answer) -> None:
        """Do what control asks, and answer with what came of it."""
        plan = self.plugins.plans.get(message.plan)
        if plan is None:
            answer(self._nothing(message, "the plan is not known"))
            return
        if message.call is None:
            _Run(self, message, CallState("", plan), answer).begin()
            return
        state = self.calls.get(message.call.call_id, plan)
        if message.number != TOLD:
            self._at_work[message.number] = run = _Run(self, message, state, answer)
            run.begin()
        elif len(state.told) >= MAX_TOLD:
            answer(self._nothing(message, f"{MAX_TOLD} others of the call wait before it"))
        else:
            state.told.append(message)
            if not state.telling:
                self._tell_next(state, answer)

    def forget(self, number: int) -> None:
        """Nobody waits any more: do not go on with the plugins that have not run."""
        run = self._at_work.pop(number, None)
        if run is not None:
            run.stop()

    def clear(self) -> None:
        """Control is gone: what runs for it is answered to nobody, least of all to the next one."""
        for run in self._at_work.values():
            run.answer = lambda done: None
            run.stop()
        self._at_work.clear()

    def ended(self, run: _Run) -> None:
        """A run is done: forget it, or tell the call's plugins the next thing."""
        state = run.state
        state.at_work -= 1
        if self._at_work.get(run.message.number) is run:
            del self._at_work[run.message.number]
        if run.message.number == TOLD:
            self._tell_next(state, run.answer)
        self.calls.settle(state)

    def _tell_next(self, state: CallState, answer: Answer) -> None:
        state.telling = bool(state.told)
        if state.told:
            _Run(self, state.told.popleft(), state, answer).begin()

    def _nothing(self, message: RunHook, why: str) -> HookDone:
        call = message.call
        outcomes = tuple(HookOutcome(plugin, "failed", 0.0, why) for plugin in message.plugins)
        call_id, line = (call.call_id, call.line) if call is not None else ("", "")
        return HookDone(message.number, message.hook, call_id, line, msgspec.msgpack.encode(None), outcomes)


class _Run:
    """One hook of one call, from the first plugin to the last."""

    def __init__(self, host: HookRuns, message: RunHook, state: CallState, answer: Answer) -> None:
        self.host = host
        self.message = message
        self.state = state
        self.answer = answer
        self.rule = HOOKS[message.hook]
        self.outcomes: list[HookOutcome] = []
        self.results: list[tuple[str, Any]] = []
        self.value: Any = None
        self._given: dict[str, Any] | None = None
        self._next = 0
        self._steps: Sequence[_Step] = ()
        self._over = False

    def begin(self) -> None:
        self.state.at_work += 1
        try:
            self._given = arguments_of(self.message.hook, self.message.arguments)
        except (msgspec.MsgspecError, KeyError, TypeError):
            logger.exception("the arguments of %s cannot be read", self.message.hook)
            self._given = {}
        self._steps = [step for name in self.message.plugins if (step := self._step(name)) is not None]
        if self.rule.value:
            self.value = self._given.get(self.rule.value)
        self.go_on()

    def go_on(self) -> None:
        """The next plugins, or the end."""
        if self._next >= len(self._steps) or self._over:
            self._finish()
        elif self._steps[self._next].implementation.is_async:
            step = self._steps[self._next]
            self._next += 1
            self._alone(step)
        else:
            end = self._next
            while end < len(self._steps) and not self._steps[end].implementation.is_async:
                end += 1
            segment = _Segment(self, self._steps[self._next : end])
            self._next = end
            segment.begin()

    def back_to(self, count: int) -> None:
        """The last ``count`` steps have not run."""
        self._next -= count

    def stop(self) -> None:
        """Run no further plugin."""
        self._over = True

    def call(self, step: _Step) -> Sequence[Any]:
        """The arguments of one plugin."""
        given = self._given or {}
        if self.message.hook in MUTABLE and len(self._steps) > 1:
            given = arguments_of(self.message.hook, self.message.arguments)
        if self.rule.value:
            mutable = self.message.hook in MUTABLE and self.value is not None
            value = msgspec.msgpack.decode(msgspec.msgpack.encode(self.value)) if mutable else self.value
            given = {**given, self.rule.value: value}
        return [step.call if name == "call" else given.get(name) for name in step.implementation.arguments]

    def take(self, step: _Step, result: Any, seconds: float) -> bool:
        """What a plugin returned; False where no other is to run."""
        hook = self.message.hook
        try:
            made = checked(hook, self.rule, result, self.value)
        except TypeError as error:
            return self.fail(step, "wrong_type", seconds, f"appliance_{hook} {error}")
        except Exception as error:  # a generator's own, or that of a class of the plugin's
            return self.raised(step, error, seconds)
        self.outcomes.append(HookOutcome(step.plugin, "ok", seconds))
        if made is None:
            return True
        if hook == "tools":
            self.state.tools |= {(step.plugin, tool.name): tool for tool in result if isinstance(tool, Tool)}
        if self.rule.rule is Rule.CHAINED:
            self.value = made
            self.results = [(step.plugin, made)]
            return not isinstance(made, ENDS_CHAIN)
        self.results.append((step.plugin, made))
        return self.rule.rule is not Rule.FIRST

    def fail(self, step: _Step, outcome: str, seconds: float, text: str) -> bool:
        """A plugin did not do it; False where no other is to run."""
        self.outcomes.append(HookOutcome(step.plugin, outcome, seconds, text[:_MAX_TEXT]))
        return not self.rule.closed

    def raised(self, step: _Step, error: BaseException, seconds: float) -> bool:
        try:
            self.host.failures.say(step.plugin, self.message.hook, error)
            text = f"{type(error).__name__}: {error}"
        except Exception:  # an exception of the plugin's that cannot be written
            text = type(error).__name__
        return self.fail(step, "failed", seconds, text)

    def over_budget(self, step: _Step, seconds: float) -> bool:
        return self.fail(step, "over_budget", seconds, f"not back within {self.rule.budget_s * 1000:g} ms")

    def _step(self, name: str) -> _Step | None:
        plugin = self.state.plan.plugins.get(name) or self.host.plugins.latest(name)
        implementation = plugin.hooks.get(self.message.hook) if plugin is not None else None
        if implementation is None:
            self.outcomes.append(HookOutcome(name, "failed", 0.0, "the plugin has no such hook"))
            return None
        call = self.message.call
        line = call.line if call is not None else ""
        running = self.state.running(name, self.message.hook, line)
        return _Step(name, implementation, running, self.state.of(name, call) if call is not None else None)

    def _alone(self, step: _Step) -> None:
        """One ``async`` plugin."""
        host = self.host
        began = host.now()
        context = copy_context()
        context.run(CURRENT.set, step.running)
        try:
            inner = step.implementation.function(*self.call(step))
        except Exception as error:
            self._went_on(self.raised(step, error, host.now() - began))
            return
        task = host.loop.create_task(Marked(inner, host.slot, step.running.text), context=context)
        step.running.tasks.add(task)

        def late() -> None:
            task.remove_done_callback(returned)
            task.add_done_callback(_look_away)
            task.cancel()
            self._went_on(self.over_budget(step, host.now() - began))

        def returned(task: asyncio.Task[Any]) -> None:
            timer.cancel()
            step.running.tasks.discard(task)
            seconds = host.now() - began
            if task.cancelled():
                self._went_on(self.raised(step, asyncio.CancelledError("it cancelled itself"), seconds))
            elif (error := task.exception()) is not None:
                self._went_on(self.raised(step, error, seconds))
            else:
                self._went_on(self.take(step, task.result(), seconds))

        timer = host.loop.call_later(self.rule.budget_s, late)
        task.add_done_callback(returned)

    def _went_on(self, goes_on: bool) -> None:
        self._over = self._over or not goes_on
        self.go_on()

    def _finish(self) -> None:
        message = self.message
        if self.rule.rule is Rule.COLLECTED:
            data = self._collected()
        else:
            data = msgspec.msgpack.encode(self.results[-1][1] if self.results else None)
        call = message.call
        call_id, line = (call.call_id, call.line) if call is not None else ("", "")
        self.answer(HookDone(message.number, message.hook, call_id, line, data, tuple(self.outcomes)))
        self.host.ended(self)

    def _collected(self) -> bytes:
        """The results, as many as one message holds: what is too much is left out, and its plugin has failed."""
        size = 0
        kept: list[tuple[str, Any]] = []
        for plugin, made in self.results:
            try:
                more = len(msgspec.msgpack.encode(made))
            except (ValueError, msgspec.MsgspecError) as error:
                why = f"returns something that is not JSON: {error}"
            else:
                if size + more <= MAX_RESULT_BYTES:
                    size += more
                    kept.append((plugin, made))
                    continue
                why = f"{more} bytes beside {size} of others; at most {MAX_RESULT_BYTES} are taken of all plugins"
            self.outcomes = [
                HookOutcome(plugin, "failed", one.seconds, why) if one.plugin == plugin else one
                for one in self.outcomes
            ]
        return msgspec.msgpack.encode(kept)


def _look_away(task: asyncio.Task[Any]) -> None:
    """What becomes of a task that was given up is of no interest."""
    if not task.cancelled():
        task.exception()


class _Segment:
    """Plain functions in one thread. ``lock`` guards the step that runs against being given up as it ends."""

    def __init__(self, run: _Run, steps: Sequence[_Step]) -> None:
        self._run = run
        self._steps = steps
        self._lock = threading.Lock()
        self._index = -1
        self._began = 0.0
        self._worker: Worker | None = None
        self._given_up = False
        self._goes_on = True
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        host = self._run.host
        self._began = host.now()
        self._timer = host.loop.call_later(self._run.rule.budget_s, self._check)
        host.threads.submit(self._work)

    def _work(self, worker: Worker) -> None:
        """In the thread."""
        run = self._run
        for index, step in enumerate(self._steps):
            with self._lock:
                if self._given_up:
                    return
                self._index, self._worker, self._began = index, worker, run.host.now()
            CURRENT.set(step.running)
            worker.slot.set(step.running.text)
            error: BaseException | None = None
            result: Any = None
            try:
                result = step.implementation.function(*run.call(step))
            except BaseException as raised:
                error = raised
            worker.slot.clear()
            with self._lock:
                if self._given_up:
                    return
                seconds = run.host.now() - self._began
                if error is not None:
                    self._goes_on = run.raised(step, error, seconds)
                elif seconds > run.rule.budget_s:
                    self._goes_on = run.over_budget(step, seconds)
                else:
                    self._goes_on = run.take(step, result, seconds)
                if not self._goes_on:
                    break
        with self._lock:
            if self._given_up:
                return
            self._index = len(self._steps)
        run.host.loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._goes_on:
            self._run.stop()
        self._run.go_on()

    def _check(self) -> None:
        """On the loop: is the step that runs over its budget?"""
        run = self._run
        with self._lock:
            if self._index >= len(self._steps):
                return
            left_s = self._began + run.rule.budget_s - run.host.now()
            if left_s > 0:
                self._timer = run.host.loop.call_later(left_s, self._check)
                return
            self._given_up = True
            goes_on = True
            if self._index < 0:
                for step in self._steps:
                    goes_on = run.fail(step, "unavailable", 0.0, "no thread of the plugin host was free in time")
            else:
                step = self._steps[self._index]
                goes_on = run.over_budget(step, run.host.now() - self._began)
                if self._worker is not None:
                    run.host.watch.left(step.running, self._worker)
                run.back_to(len(self._steps) - self._index - 1)
        if not goes_on:
            run.stop()
        run.go_on()


def invoked(
    runs: HookRuns, hook: str, plugin: Plugin, line: str, arguments: Mapping[str, Any], budget_s: float
) -> asyncio.Future[Any]:
    """Call one hook of one plugin outside of any call. The future raises what it raises, or TimeoutError."""
    implementation = plugin.hooks[hook]
    given = [arguments.get(name) for name in implementation.arguments]
    running = Running(plugin.name, hook, line)
    if not implementation.is_async:
        return asyncio.ensure_future(in_thread(runs, running, lambda: implementation.function(*given), budget_s))

    context = copy_context()
    context.run(CURRENT.set, running)
    task = runs.loop.create_task(Marked(implementation.function(*given), runs.slot, running.text), context=context)
    return asyncio.ensure_future(within(task, budget_s))


async def within(task: asyncio.Task[Any], budget_s: float) -> Any:
    """The task's result. One that does not end when it is cancelled is not waited for.

    Raises:
        TimeoutError: it is not done in time.
        Exception: what it raises.
    """
    done, _ = await asyncio.wait({task}, timeout=budget_s)
    if not done:
        task.cancel()
        raise TimeoutError
    return task.result()


async def in_thread(runs: HookRuns, running: Running, function: Callable[[], Any], budget_s: float) -> Any:
    """Call a plugin's function in a thread.

    Raises:
        TimeoutError: it is not back in time.
        Exception: what it raises.
    """
    done: asyncio.Future[Any] = runs.loop.create_future()
    workers: list[Worker] = []
    lock = threading.Lock()
    given_up = False

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            done.set_exception(error)
        else:
            done.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))

    def work(worker: Worker) -> None:
        with lock:
            if given_up:
                return
            workers.append(worker)
        CURRENT.set(running)
        worker.slot.set(running.text)
        result: Any = None
        error: BaseException | None = None
        try:
            result = function()
        except BaseException as raised:
            error = raised
        worker.slot.clear()
        runs.loop.call_soon_threadsafe(settle, result, error)

    runs.threads.submit(work)
    try:
        async with asyncio.timeout(budget_s):
            return await done
    except (TimeoutError, asyncio.CancelledError):
        with lock:
            given_up = True
        if workers:
            runs.watch.left(running, workers[0])
        raise
