"""Tools of plugins at work: each run has a task of its own, and reaches the call through control."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

import msgspec

from appliance.api import Answer, OngoingCall, Question, Tool, ToolError
from appliance.ipc.channel import MAX_MESSAGE_BYTES
from appliance.ipc.hook_messages import CallUsed, HookCall, RunTool, ToolDone, UseCall
from appliance.ipc.messages import AnyMessage
from appliance.plugins.host.calls import CallState
from appliance.plugins.host.context import CURRENT, Marked
from appliance.plugins.host.results import MAX_RESULT_BYTES
from appliance.plugins.host.runs import HookRuns, in_thread, within

logger = logging.getLogger(__name__)

_ASK_S: Final = 600.0
_MAX_RUNS: Final = 1000
_MAX_USE_BYTES: Final = MAX_MESSAGE_BYTES - 4096
"""Of what a tool says of its call at once: it has to fit a message, with what stands around it."""
_NOT_NOW: Final = "the tool is not available now"


class ToolRuns:
    """Runs tools that plugins offered.

    Args:
        runs: where hooks run; shares its threads.
        send: to control.
    """

    def __init__(self, runs: HookRuns, send: Callable[[AnyMessage], object]) -> None:
        self._runs = runs
        self._send = send
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._calls: dict[int, _Ongoing] = {}

    def run(self, message: RunTool) -> None:
        """Begin; ToolDone follows."""
        plan = self._runs.plugins.plans.get(message.plan)
        state = self._runs.calls.known(message.call.call_id)
        tool = state.tools.get((message.plugin, message.tool)) if state is not None else None
        if tool is None and plan is not None:
            state = self._runs.calls.get(message.call.call_id, plan)
        if state is None or len(self._tasks) >= _MAX_RUNS:
            self._send(ToolDone(message.number, b"", _NOT_NOW))
            return
        state.at_work += 1
        task = self._runs.loop.create_task(self._run(message, state, tool))
        self._tasks[message.number] = task
        task.add_done_callback(lambda _: self._ended(message.number, state))

    def used(self, message: CallUsed) -> None:
        """Control answers what a tool asked."""
        call = self._calls.get(message.number)
        if call is not None:
            call.answered(message)

    def forget(self, number: int) -> None:
        """Nobody waits for the tool any more: cancel it."""
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    def clear(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()

    def _ended(self, number: int, state: CallState) -> None:
        self._tasks.pop(number, None)
        self._calls.pop(number, None)
        state.at_work -= 1
        self._runs.calls.settle(state)

    async def _run(self, message: RunTool, state: CallState, tool: Tool | None) -> None:
        try:
            if tool is None:
                tool = await self._offered_again(message, state)
            call = self._calls[message.number] = _Ongoing(message, self._runs.loop, self._send)
            result = await self._result(message, state, tool, call)
            data = msgspec.msgpack.encode(result)
            if len(data) > MAX_RESULT_BYTES:
                raise ToolError(f"its result has {len(data)} bytes; at most {MAX_RESULT_BYTES} can be told")
        except ToolError as error:
            self._send(ToolDone(message.number, b"", str(error) or "the tool failed"))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._runs.failures.say(message.plugin, f"tools: {message.tool}", error)
            self._send(ToolDone(message.number, b"", "the tool failed"))
        else:
            self._send(ToolDone(message.number, data))

    async def _offered_again(self, message: RunTool, state: CallState) -> Tool:
        """The host was restarted within the call: the plugin is asked for its tools once more."""
        plugin = state.plan.plugins.get(message.plugin)
        implementation = plugin.hooks.get("tools") if plugin is not None else None
        if implementation is None:
            raise ToolError(_NOT_NOW)
        call = state.of(message.plugin, message.call)
        given = [call for _ in implementation.arguments]
        running = state.running(message.plugin, "tools", message.call.line)
        try:
            if implementation.is_async:
                offered = await within(self._runs.loop.create_task(implementation.function(*given)), 1.0)
            else:
                offered = await in_thread(self._runs, running, lambda: implementation.function(*given), 1.0)
        except Exception as error:
            self._runs.failures.say(message.plugin, "tools", error)
            raise ToolError(_NOT_NOW) from error
        for tool in offered or ():
            if isinstance(tool, Tool):
                state.tools[(message.plugin, tool.name)] = tool
        found = state.tools.get((message.plugin, message.tool))
        if found is None:
            raise ToolError(_NOT_NOW)
        return found

    async def _result(self, message: RunTool, state: CallState, tool: Tool, call: OngoingCall) -> Any:
        arguments = msgspec.msgpack.decode(message.arguments)
        running = state.running(message.plugin, f"tool {message.tool}", message.call.line)
        run: Callable[..., Any] = tool.run
        if not inspect.iscoroutinefunction(run) and not inspect.iscoroutinefunction(type(run).__call__):
            result = await in_thread(self._runs, running, lambda: run(arguments, call), tool.timeout_s)
            if not inspect.isawaitable(result):
                return result
            inner = _awaited(result)
        else:
            inner = run(arguments, call)
        context = copy_context()
        context.run(CURRENT.set, running)
        task = self._runs.loop.create_task(Marked(inner, self._runs.slot, running.text), context=context)
        return await _or_cancelled(task)


async def _awaited(result: Any) -> Any:
    return await result


async def _or_cancelled(task: asyncio.Task[Any]) -> Any:
    """The task's result; cancelled together with who waits for it, without waiting for what it does about that."""
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.cancelled():
        raise ToolError("the tool was cancelled")
    return task.result()


class _Ongoing:
    """The call as a tool in the host sees it: every verb is a message to control."""

    def __init__(self, message: RunTool, loop: asyncio.AbstractEventLoop, send: Callable[[AnyMessage], object]) -> None:
        facts: HookCall = message.call
        self.call_id, self.line = facts.call_id, facts.line
        self.caller, self.called = facts.caller, facts.called
        self.idempotency_key = message.key
        self._number = message.number
        self._loop = loop
        self._send = send
        self._step = 0
        self._asked: dict[int, asyncio.Future[Answer]] = {}

    def say(self, text: str) -> None:
        self._use("say", text=str(text))

    async def ask(self, question: Question) -> Answer:
        if not isinstance(question, Question):
            raise TypeError(f"ask takes an appliance.api.Question, not {type(question).__name__}")
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._asked[self._use("ask", question=question)] = answer
        async with asyncio.timeout(_ASK_S):
            return await answer

    def note(self, name: str, value: str) -> None:
        self._use("note", name=str(name), value=str(value))

    def press(self, digits: str) -> None:
        self._use("press", digits=str(digits))

    def hand_on(self, target: str) -> None:
        self._use("hand_on", target=str(target))

    def hang_up(self, reason: str, farewell: str = "") -> None:
        self._use("hang_up", reason=str(reason), farewell=str(farewell))

    def answered(self, message: CallUsed) -> None:
        future = self._asked.pop(message.step, None)
        if future is None or future.done():
            return
        if message.error:
            future.set_exception(ToolError(message.error))
        else:
            future.set_result(msgspec.msgpack.decode(message.value, type=Answer))

    def _use(self, verb: str, **arguments: Any) -> int:
        """From any thread."""
        data = msgspec.msgpack.encode(arguments)
        if len(data) > _MAX_USE_BYTES:
            raise ToolError(f"{verb} was given {len(data):,} bytes; give it {_MAX_USE_BYTES:,} at most")
        self._step += 1
        message = UseCall(self._number, self._step, verb, data)
        self._loop.call_soon_threadsafe(self._send, message)
        return self._step
