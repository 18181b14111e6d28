"""The tools of one call: which there are, whether what the model wrote fits them, and running them.

A tool that has side effects waits for the gate: until the caller has certainly finished speaking, nothing happens that
anybody could notice. When its reply is given up, it is cancelled only where that does no harm; else it is finished in
the background, and its result is told to the model with the next turn.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator

from appliance.api.tools import Answer, OngoingCall, Question, Tool
from appliance.conversation import tool_schemas
from appliance.conversation.brain import Gate
from appliance.conversation.hooked import NONE, HooksOfCall
from appliance.conversation.private_numbers import NOTHING_PRIVATE, PrivateNumbers
from appliance.conversation.tool_schemas import validator_of
from appliance.errors import ToolError
from appliance.events import Confirmed, ToolRun
from appliance.hook_types import Denied
from appliance.ipc.messages import ToolCall, ToolSpec

logger = logging.getLogger(__name__)

MAX_ARGUMENTS: Final = 8000
MAX_RESULT: Final = 4000
_MAX_OPEN: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNSAFE: Final = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


BUILTIN: Final = "builtin"
"""The source of the tools that every box has."""


class ToolSet:
    """The tools of a line, in the order in which the model sees them.

    Args:
        tools: what there is.
        sources: name of a tool to the plugin that it is from, where that is another than ``builtin``.
        private: numbers of the call that some of them are given.

    Raises:
        ValueError: a tool cannot be offered as it is; says which, and why.
    """

    def __init__(
        self,
        tools: Iterable[Tool] = (),
        sources: Mapping[str, str] | None = None,
        private: PrivateNumbers = NOTHING_PRIVATE,
    ) -> None:
        self.private = private
        self._sources = dict(sources or {})
        self._tools: dict[str, Tool] = {}
        self._validators: dict[str, Validator] = {}
        specs: list[ToolSpec] = []
        for tool in tools:
            if not _NAME.fullmatch(tool.name):
                raise ValueError(f"tool {tool.name!r}: a name has letters, digits, _ and -, and at most 64 of them")
            if tool.name in self._tools:
                raise ValueError(f"tool {tool.name!r}: there are two of this name; rename one")
            if tool.parameters.get("type") != "object":
                raise ValueError(f"tool {tool.name!r}: its parameters must be a JSON schema of type object")
            schema = msgspec.json.encode(dict(tool.parameters))
            try:
                self._validators[tool.name] = validator_of(schema)
            except SchemaError as error:
                raise ValueError(f"tool {tool.name!r}: its parameters are no JSON schema: {error.message}") from error
            self._tools[tool.name] = tool
            specs.append(ToolSpec(tool.name, tool.description, schema.decode()))
        self.specs = tuple(specs)

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    @property
    def characters(self) -> int:
        """How much the model is told about them."""
        return sum(len(spec.name) + len(spec.description) + len(spec.parameters) for spec in self.specs)

    def read(self, call: ToolCall) -> tuple[Tool, Mapping[str, Any]]:
        """The tool and the arguments that the model means.

        Raises:
            ToolError: there is no such tool, or the arguments do not fit it; the message tells the model what would.
        """
        tool = self._tools.get(call.name)
        if tool is None:
            raise ToolError(f"there is no tool {call.name[:64]!r}; there are: {', '.join(self._tools) or 'none'}")
        if len(call.arguments) > MAX_ARGUMENTS:
            raise ToolError(f"the arguments are longer than {MAX_ARGUMENTS} characters")
        try:
            arguments = msgspec.json.decode(call.arguments or "{}")
        except (msgspec.DecodeError, RecursionError) as error:
            raise ToolError(f"the arguments are not JSON: {error}") from error
        self.check(tool.name, arguments)
        return tool, arguments

    def source(self, name: str) -> str:
        """The plugin that the tool called ``name`` is from; "" where there is none of that name."""
        return self._sources.get(name, BUILTIN) if name in self._tools else ""

    def check(self, name: str, arguments: object) -> None:
        """Find out whether ``arguments`` fit the tool called ``name``.

        Raises:
            ToolError: they do not; says what would.
        """
        if not isinstance(arguments, dict):
            raise ToolError("the arguments must be a JSON object")
        tool_schemas.check(self._validators[name], dict(self.private.revealed(name, arguments)))


def is_object(arguments: str) -> bool:
    """Whether they are what every server takes back as arguments of a tool: a JSON object."""
    try:
        return isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def as_json(value: object) -> str:
    """What a tool returned, as text for the model: JSON without angle brackets, cut where it is too long.

    Raises:
        ToolError: it is nothing that JSON can say.
    """
    text = _as_text(value).translate(_UNSAFE)
    return text if len(text) <= MAX_RESULT else f"{text[:MAX_RESULT]} ... (cut: {len(text)} characters)"


def _as_text(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ToolError(f"its result is not JSON: {error}") from error


class Reply(Protocol):
    """The reply that tools are used in: where their words and questions go."""

    def say_for_tool(self, text: str) -> None: ...
    async def ask_for_tool(self, question: Question) -> Answer: ...
    async def agrees(self, question: str) -> bool: ...
    def press(self, digits: str) -> None: ...
    def hand_on(self, target: str) -> None: ...
    def hang_up(self, reason: str, farewell: str) -> None: ...


@dataclass(frozen=True)
class CallFacts:
    """Which call it is. ``caller`` is "" where the number is withheld."""

    call_id: str = ""
    line: str = ""
    caller: str = ""
    called: str = ""


class _Call:
    """The call as one running tool sees it."""

    def __init__(self, run: Running, facts: CallFacts) -> None:
        self._run = run
        self.call_id, self.line = facts.call_id, facts.line
        self.caller, self.called = facts.caller, facts.called

    @property
    def idempotency_key(self) -> str:
        return self._run.key

    def say(self, text: str) -> None:
        if self._run.reply is not None and text:
            self._run.reply.say_for_tool(self._run.hidden(text))

    async def ask(self, question: Question) -> Answer:
        reply = self._reply()
        async with self._run.untimed():
            return await reply.ask_for_tool(question)

    def note(self, name: str, value: str) -> None:
        self._effect()
        self._run.note(name, self._run.hidden(value))

    def press(self, digits: str) -> None:
        self._reply().press(digits)

    def hand_on(self, target: str) -> None:
        self._reply().hand_on(target)

    def hang_up(self, reason: str, farewell: str = "") -> None:
        self._reply().hang_up(reason, farewell)

    def _effect(self) -> None:
        if not self._run.tool.side_effects:
            raise ToolError(f"tool {self._run.tool.name!r} declares no side effects, so it may have none")

    def _reply(self) -> Reply:
        self._effect()
        if self._run.reply is None:
            raise ToolError("the caller has gone on to something else")
        return self._run.reply


class Running:
    """One use of a tool. ``result`` is JSON for the model once the task is done; ``problem`` says what went wrong.

    Args:
        tools: where the tool is from.
        keys: gives the run its number.
        hooks: of the call.
        note: keeps a slot in the call's record.
    """

    def __init__(
        self,
        tool: Tool,
        call: ToolCall,
        reply: Reply,
        *,
        tools: ToolSet,
        keys: _Keys,
        hooks: HooksOfCall,
        note: Callable[[str, str], None],
    ) -> None:
        self.tool = tool
        self.call = call
        self.reply: Reply | None = reply
        self.note = note
        self.begun = False
        self.start_at = self.end_at = 0.0
        self.result = self.problem = self.key = ""
        self.confirmed = Confirmed.NOT_NEEDED
        self.task: asyncio.Task[None] | None = None
        self._tools = tools
        self._keys = keys
        self._hooks = hooks
        self._arguments = call.arguments
        self._timeout: asyncio.Timeout | None = None

    @property
    def may_be_cancelled(self) -> bool:
        """Whether stopping it now leaves nothing half done."""
        return not self.begun or self.tool.cancellable or not self.tool.side_effects

    @property
    def record(self) -> ToolRun:
        return ToolRun(
            self.tool.name,
            self._arguments,
            self.result,
            self.start_at,
            self.end_at,
            problem=self.problem,
            source=self._tools.source(self.tool.name),
            confirmed=self.confirmed,
            key=self.key,
        )

    async def run(self, arguments: Mapping[str, Any], call: OngoingCall, gate: Gate, now: Callable[[], float]) -> None:
        """Run it to its end; raises nothing but CancelledError."""
        tool = self.tool
        if tool.side_effects or tool.confirm or self._hooks.wanted("before_tool"):
            await gate.passed()
        self.start_at = now()
        try:
            arguments = await self._allowed(arguments)
            self.key = self._keys.begin(tool.name, arguments)
            self.begun = True
            if tool.confirm:
                await self._confirm(arguments)
            async with asyncio.timeout(tool.timeout_s) as self._timeout:
                result = await tool.run(self._tools.private.revealed(tool.name, arguments), call)
            self.result = self.hidden(as_json(await self._seen(arguments, result)))
        except TimeoutError:
            self.problem = f"no result within {tool.timeout_s:g} s"
        except ToolError as error:
            self.problem = self.hidden(str(error))
        except Exception:
            logger.exception("tool %s failed", tool.name)
            self.problem = "the tool failed"
        except asyncio.CancelledError:
            self.problem = "cancelled"
            raise
        finally:
            self.end_at = now()
            self._timeout = None
            if self.problem:
                self.result = as_json({"error": self.problem})
            elif self.key:
                self._keys.done(self.key)

    async def _allowed(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments as plugins want them.

        Raises:
            ToolError: they do not want it to run, or want something that does not fit it.
        """
        if not self._hooks.wanted("before_tool"):
            return arguments
        allowed = await self._hooks.before_tool(self.tool.name, arguments)
        if isinstance(allowed, Denied):
            raise ToolError(f"this is not allowed: {allowed.reason}")
        if allowed != arguments:
            allowed = dict(allowed)
            self._arguments = _as_text(allowed)
            self._tools.check(self.tool.name, allowed)
        return allowed

    async def _seen(self, arguments: Mapping[str, Any], result: Any) -> Any:
        """The result as plugins want the model to see it."""
        if not self._hooks.wanted("after_tool"):
            return result
        shown = msgspec.json.decode(self.hidden(_as_text(result)))
        return await self._hooks.after_tool(self.tool.name, arguments, shown)

    def hidden(self, text: str) -> str:
        """``text`` of the tool without what the caller has given in private."""
        return self._tools.private.hidden(text)

    async def _confirm(self, arguments: Mapping[str, Any]) -> None:
        question = re.sub(r"\{(\w+)\}", lambda match: str(arguments.get(match[1], "")), self.tool.confirm)
        self.confirmed = Confirmed.NOBODY
        assert self.reply is not None
        if not await self.reply.agrees(question):
            raise ToolError("the caller did not say yes, so it has not been done")
        self.confirmed = Confirmed.CALLER

    def untimed(self) -> _Untimed:
        """A stretch that does not count towards the tool's time-out: the caller is thinking."""
        return _Untimed(self._timeout)


class _Keys:
    """Numbers what is done in one call, for systems that must not do it twice.

    What did not succeed and is asked for again, with the same arguments, is the same thing: it may have been done.
    """

    def __init__(self, call_id: str) -> None:
        self._call_id = call_id
        self._count = 0
        self._open: dict[tuple[str, str], str] = {}

    def begin(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """The key of a use of ``tool`` that begins now."""
        what = (tool, json.dumps(arguments, sort_keys=True, default=str))
        key = self._open.get(what)
        if key is None:
            self._count += 1
            key = self._open[what] = f"{self._call_id}-{self._count}"
            if len(self._open) > _MAX_OPEN:
                del self._open[next(iter(self._open))]
        return key

    def done(self, key: str) -> None:
        """It has succeeded: the next of the kind is another."""
        self._open = {what: other for what, other in self._open.items() if other != key}


class _Untimed:
    def __init__(self, timeout: asyncio.Timeout | None) -> None:
        self._timeout = timeout
        self._left_s: float | None = None

    async def __aenter__(self) -> None:
        if self._timeout is not None and (when := self._timeout.when()) is not None:
            self._left_s = when - asyncio.get_running_loop().time()
            self._timeout.reschedule(None)

    async def __aexit__(self, *error: object) -> None:
        if self._timeout is not None and self._left_s is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._left_s)


class ToolRuns:
    """Every tool at work in one call, whichever reply began it; shared by a brain and its forks.

    Args:
        facts: which call it is.
        note: keeps a slot in the call's record.
        now: CLOCK_MONOTONIC.
        hooks: asked before and after each run.

    Attributes:
        on_run: called with the record of each that has run, to its end or not.
    """

    def __init__(
        self,
        facts: CallFacts,
        note: Callable[[str, str], None],
        now: Callable[[], float],
        hooks: HooksOfCall = NONE,
    ) -> None:
        self._facts = facts
        self._note = note
        self._now = now
        self._hooks = hooks
        self._keys = _Keys(facts.call_id)
        self._left: set[Running] = set()
        self.late: list[Running] = []
        """Those that were finished after their reply had been given up, in order."""
        self.on_run: Callable[[ToolRun], None] = lambda run: None

    def start(
        self, tools: ToolSet, tool: Tool, call: ToolCall, arguments: Mapping[str, Any], reply: Reply, gate: Gate
    ) -> Running:
        """Begin it, or have it begin as soon as the gate opens."""
        run = Running(tool, call, reply, tools=tools, keys=self._keys, hooks=self._hooks, note=self._note)
        work = run.run(arguments, _Call(run, self._facts), gate, self._now)
        run.task = asyncio.get_running_loop().create_task(work, name=f"tool {tool.name}")
        run.task.add_done_callback(lambda _: self.on_run(run.record) if run.begun else None)
        return run

    def give_up(self, run: Running) -> bool:
        """Its reply is given up: whether it goes on all the same, and will be in :attr:`late`."""
        run.reply = None
        assert run.task is not None
        if run.may_be_cancelled:
            run.task.cancel()
            return False
        self._left.add(run)
        run.task.add_done_callback(lambda _: self._finished_late(run))
        return True

    def _finished_late(self, run: Running) -> None:
        self._left.discard(run)
        self.late.append(run)

    async def close(self, timeout_s: float) -> None:
        """The call is over: wait for what has to be finished, but not for ever."""
        tasks = {run.task for run in self._left if run.task is not None}
        if not tasks:
            return
        _, unfinished = await asyncio.wait(tasks, timeout=timeout_s)
        for task in unfinished:
            logger.error("%s was not finished %g s after its call's end; it is cancelled", task.get_name(), timeout_s)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
