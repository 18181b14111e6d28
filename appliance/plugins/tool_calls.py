"""Control's end of a tool that runs in the plugin host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.errors import ToolError
from appliance.ipc.hook_messages import CallUsed, ForgetRun, HookCall, RunTool, ToolDone, UseCall
from appliance.ipc.messages import AnyMessage
from appliance.tool_types import OngoingCall, Question

logger = logging.getLogger(__name__)

NOT_AVAILABLE: Final = "the tool is not available now"
_MAX_RUNS: Final = 2000
_MAX_TEXT: Final = 4000


@dataclass(eq=False)
class _Run:
    ongoing: OngoingCall
    done: asyncio.Future[ToolDone]
    refused: str = ""
    asking: asyncio.Task[None] | None = None


class _Say(msgspec.Struct):
    text: str


class _Ask(msgspec.Struct):
    question: Question


class _Note(msgspec.Struct):
    name: str
    value: str


class _Press(msgspec.Struct):
    digits: str


class _HandOn(msgspec.Struct):
    target: str


class _HangUp(msgspec.Struct):
    reason: str
    farewell: str


_VERBS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "say": _Say, "ask": _Ask, "note": _Note, "press": _Press, "hand_on": _HandOn, "hang_up": _HangUp,
}  # fmt: skip


class ToolCalls:
    """Tools at work in the plugin host. What a tool cannot do with its call makes it fail, once it is done.

    Args:
        send: to the host; False where it is not there.
    """

    def __init__(self, send: Callable[[AnyMessage], bool]) -> None:
        self._send = send
        self._runs: dict[int, _Run] = {}

    def __len__(self) -> int:
        return len(self._runs)

    async def run(
        self,
        number: int,
        plan: int,
        plugin: str,
        tool: str,
        call: HookCall,
        arguments: Mapping[str, Any],
        ongoing: OngoingCall,
    ) -> Any:
        """What the tool returns.

        Raises:
            ToolError: what it raised, or that it is not there.
        """
        key = ongoing.idempotency_key
        try:
            data = msgspec.msgpack.encode(dict(arguments))
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise ToolError(f"the arguments cannot be told: {error}") from error
        message = RunTool(number, plan, plugin, tool, call, data, key)
        run = _Run(ongoing, asyncio.get_running_loop().create_future())
        try:
            if len(self._runs) >= _MAX_RUNS or not self._send(message):
                raise ToolError(NOT_AVAILABLE)
        except ValueError as error:
            raise ToolError("the arguments are too long") from error
        self._runs[number] = run
        try:
            done = await run.done
        except asyncio.CancelledError:
            self._send(ForgetRun(number))
            raise
        finally:
            del self._runs[number]
            if run.asking is not None:
                run.asking.cancel()
        if done.error or run.refused:
            raise ToolError(done.error or run.refused)
        return msgspec.msgpack.decode(done.result)

    def done(self, message: ToolDone) -> None:
        run = self._runs.get(message.number)
        if run is not None and not run.done.done():
            run.done.set_result(message)

    def use(self, message: UseCall) -> None:
        """Do with the call what its tool asks for."""
        run = self._runs.get(message.number)
        kind = _VERBS.get(message.verb)
        if run is None or kind is None:
            return
        try:
            wish: Any = msgspec.msgpack.decode(message.arguments, type=kind)
        except (msgspec.MsgspecError, ValueError) as error:
            run.refused = run.refused or f"{message.verb}: {error}"
            return
        if isinstance(wish, _Ask):
            if run.asking is not None and not run.asking.done():
                self._answer(message, error="one question at a time")
            else:
                run.asking = asyncio.get_running_loop().create_task(self._ask(message, run.ongoing, wish.question))
            return
        given = {name: getattr(wish, name)[:_MAX_TEXT] for name in wish.__struct_fields__}
        try:
            getattr(run.ongoing, message.verb)(**given)
        except ToolError as error:
            run.refused = run.refused or str(error)
        except Exception:
            logger.exception("a plugin's tool could not %s", message.verb)
            run.refused = run.refused or f"{message.verb} failed"

    def lost(self) -> None:
        """The host is gone."""
        for run in self._runs.values():
            if not run.done.done():
                run.done.set_result(ToolDone(0, b"", NOT_AVAILABLE))

    async def _ask(self, message: UseCall, ongoing: OngoingCall, question: Question) -> None:
        try:
            answer = await ongoing.ask(question)
        except ToolError as error:
            self._answer(message, error=str(error) or "the question failed")
        else:
            self._answer(message, value=msgspec.msgpack.encode(answer))

    def _answer(self, message: UseCall, *, value: bytes = b"", error: str = "") -> None:
        self._send(CallUsed(message.number, message.step, value, error))
