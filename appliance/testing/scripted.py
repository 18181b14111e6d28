"""A call that a test writes down: what the caller says, what the model answers, and what has to come of it.

Everything of the box that decides is real: the session, the turns, the dialogue, the flow or the model's rounds of
words and tools, the hooks. What stands around it is played: the sound, the engines, the network, and time.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import wave
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from pydantic import SecretStr

from appliance.calls.builtin_tools import BuiltinTools
from appliance.calls.declarative_tools import DeclarativeTools
from appliance.calls.hook_calls import hook_call
from appliance.calls.tool_sources import CallInBox, Offered, ToolSources
from appliance.config.shipped import shipped_dir
from appliance.conversation.brain import Transfer
from appliance.dialplan.loader import load_dialplans
from appliance.dialplan.schema import Line
from appliance.dialplan.surroundings import Surroundings
from appliance.errors import ApplianceError
from appliance.events import Doing, RecordingStarted, TurnAmended, TurnFinished, TurnProgress
from appliance.hook_types import Refusal
from appliance.hookspecs import hookimpl
from appliance.ipc.messages import Generate, RecordingStopped, Token, ToolCall
from appliance.plugins.declarative.loader import load_declarative
from appliance.plugins.declarative.source import Declarative
from appliance.plugins.discovery import find_sources
from appliance.plugins.plan import make_plan
from appliance.signalling.leg import CallInfo
from appliance.testing.local_host import LocalHost
from appliance.testing.virtual_call import VirtualCall
from appliance.testing.virtual_time import VirtualLoop
from appliance.tool_types import Arguments, OngoingCall, Tool

_SECONDS_A_CHARACTER: Final = 0.06
_SHORTEST_SPEECH_S: Final = 0.5
_ANSWER_S: Final = 120.0
_QUIET_S: Final = 2.5
_ADDRESS: Final = "127.0.0.1:5062"
_DESK: Final[Mapping[str, Any]] = {"name": "test", "agent": "llm", "prompt": "Help the caller.", "greeting": "Hello."}


class ScriptError(ApplianceError):
    """The script does not fit the call; says what happened instead."""


@dataclass(frozen=True)
class Uses:
    """The model uses a tool. Made by :func:`uses`."""

    tool: str
    arguments: Mapping[str, Any]


Step = str | Uses | Sequence["str | Uses"]
"""One answer of the model: words, a tool, or several of these at once."""
Script = Mapping[str, Step | Sequence[Step]]
"""What the caller says, or a part of it, to the model's answers to that: the first, the one once the tools of the first
have run, and so on."""


def uses(tool: str, **arguments: Any) -> Uses:
    """The model uses ``tool`` with ``arguments``: a step of a ``model`` script."""
    return Uses(tool, arguments)


@dataclass(frozen=True)
class ToolUse:
    """A tool that was used.

    Attributes:
        name: of the tool.
        source: of which plugin.
        arguments: what it was run with.
        result: what the model was told, a JSON value; None where it failed.
        problem: why it failed, in words; "" where it did not.
        confirmed: who gave leave for it.
    """

    name: str
    source: str
    arguments: Any
    result: Any = None
    problem: str = ""
    confirmed: str = ""


@dataclass
class _Desk:
    """Who hands callers on."""

    reached: bool = True
    asked: list[Transfer] = field(default_factory=list)

    async def hand_on(self, leg: Any, media: Any, transfer: Transfer, *more: Any) -> str | None:
        self.asked.append(transfer)
        await asyncio.sleep(1.0)
        return "answered" if self.reached else None


class _Recorder:
    """Writes a second of silence for each recording."""

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}

    def active(self, recording: str) -> bool:
        return recording in self._paths

    def frame(self, media: Any) -> int:
        return int(media.frame)

    def start(
        self, recording: str, slot: int, generation: int, path: Path, start_frame: int, silent: tuple[Any, ...] = ()
    ) -> None:
        self._paths[recording] = path

    def silence(self, recording: str, silent: tuple[Any, ...]) -> None:
        """All of it is silence."""

    async def stop(self, recording: str, media: Any) -> RecordingStopped:
        path = self._paths.pop(recording)
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(4 * 8000))
        return RecordingStopped(recording, str(path), 50, "")


class _Records:
    """The call's record, as far as it can be known here."""

    def __init__(self) -> None:
        self.call: ScriptedCall | None = None

    async def stored(self, call_id: str) -> Mapping[str, Any] | None:
        return None if self.call is None else self.call.record


class _Timely:
    """The tools of YAML plugins, which may ask real servers."""

    def __init__(self, inner: DeclarativeTools) -> None:
        self._inner = inner

    @hookimpl
    def appliance_tools(self, call: CallInBox) -> list[Offered]:
        return [Offered(offered.plugin, _timely(offered.tool)) for offered in self._inner.appliance_tools(call)]


def _timely(tool: Tool) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            return await tool.run(arguments, call)
        with loop.in_real_time():
            return await tool.run(arguments, call)

    return replace(tool, run=run)


class ScriptedCall:
    """One call. Made by :func:`scripted_call`; an asynchronous context manager, unless a fixture closes it.

    Attributes:
        refusal: what ``appliance_admit`` turned the call away with; None where it was taken.
        routed: the name of the line that ``appliance_route`` chose; None where it chose none.
        expects_trouble: a plugin is meant to fail; else :meth:`close` raises ScriptError where one did.
    """

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.routed: str | None = None
        self.expects_trouble = False
        self._stack = AsyncExitStack()
        self._desk = _Desk()
        self._script: dict[str, list[Step]] = {}
        self._unscripted: list[str] = []
        self._line: Line
        self._host: LocalHost
        self._call: VirtualCall | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *more: object) -> None:
        if kind is not None:
            self.expects_trouble = True
        await self.close()

    # --- what the caller does -----------------------------------------------------------------------------------------

    async def says(self, text: str, *, seconds: float = 0.0, understood: bool = True) -> None:
        """The caller says ``text``, once the agent has finished, and listens to the reply.

        Args:
            text: what the recogniser makes of it.
            seconds: how long it takes; by default as long as such a text does.
            understood: in a flow, whether the recogniser finds it among what is expected.
        """
        call = self._going_on()
        await self._quiet()
        since = len(call.log.events)
        call.speaks(seconds or max(_SHORTEST_SPEECH_S, len(text) * _SECONDS_A_CHARACTER), text, understood)
        await call.until(lambda: call.task.done() or not call.media.caller, _ANSWER_S)
        await self._answered(since)

    async def presses(self, keys: str) -> None:
        """The caller presses keys, once the agent has finished, and listens to the reply."""
        call = self._going_on()
        await self._quiet()
        since = len(call.log.events)
        for key in keys:
            call.session.on_digit(key, 0)
            await asyncio.sleep(0.3)
        await self._answered(since)

    async def waits(self, seconds: float) -> None:
        """The caller says nothing for a while."""
        await asyncio.wait({self._going_on().task}, timeout=seconds)

    async def hangs_up(self) -> None:
        """The caller hangs up, once the agent has finished; returns when the call is over and plugins know."""
        call = self._going_on()
        await self._quiet()
        if not call.task.done():
            call.hangs_up()
        await self.ends()

    async def ends(self) -> None:
        """Wait until the agent has ended the call, and plugins know.

        Raises:
            ScriptError: it goes on.
        """
        if self._call is None:
            return
        try:
            await self._call.over(_ANSWER_S)
        except TimeoutError:
            raise ScriptError(f"the call goes on; the agent said last: {self.said[-1:]}") from None
        async with asyncio.timeout(_ANSWER_S):
            await self._host.idle()

    # --- what came of it ----------------------------------------------------------------------------------------------

    @property
    def said(self) -> list[str]:
        """What the agent said, reply by reply, as far as the caller heard it."""
        return [turn.heard_text for turn in self._turns() if turn.heard_text]

    def heard(self, text: str) -> bool:
        """Whether the caller has heard the agent say ``text``, in whatever letters."""
        return text.casefold() in " ".join(self.said).casefold()

    @property
    def tools(self) -> list[ToolUse]:
        """The tools that were used, in order."""
        return [used for turn in self._turns() for used in _uses_of(turn)]

    def tool(self, name: str) -> ToolUse:
        """The last use of a tool.

        Raises:
            ScriptError: it was not used.
        """
        found = [used for used in self.tools if used.name == name]
        if not found:
            raise ScriptError(f"{name} was not used; used were: {[used.name for used in self.tools]}")
        return found[-1]

    @property
    def transfers(self) -> list[Transfer]:
        """Whom the caller was to be handed on to (``to``, ``attended``, ``announce``), after plugins were asked."""
        return self._desk.asked

    @property
    def slots(self) -> dict[str, Any]:
        """What was noted, once the call is over."""
        return dict(self._going_on().log.ended.slots)

    @property
    def record(self) -> dict[str, Any]:
        """The call as it would be stored: a part of what ``appliance calls show --json`` prints."""
        call = self._going_on()
        ended = call.log.ended
        turns = [
            {
                "number": turn.number,
                "by": turn.by.value,
                "caller_text": turn.caller_text,
                "agent_text": turn.agent_text,
                "heard_text": turn.heard_text,
                "problem": turn.problem,
                "tools": [
                    {"name": one.name, "arguments": one.arguments, "result": one.result} for one in _uses_of(turn)
                ],
            }
            for turn in self._turns()
        ]
        info = call.leg.info
        recordings = [event.path for event in call.log.events if isinstance(event, RecordingStarted)]
        return {
            "id": ended.call_id,
            "line": self._line.name,
            "calling": info.calling,
            "called": info.called,
            "disposition": ended.disposition.value,
            "hangup_by": ended.hangup_by.value,
            "hangup_text": ended.hangup_text,
            "slots": dict(ended.slots),
            "recording_path": recordings[-1] if recordings else None,
            "turns": turns,
        }

    @property
    def prompts(self) -> list[str]:
        """All that the model was shown, request by request, as text."""
        shown = self._going_on().engines.prompts
        return ["\n".join(f"{message.role}: {message.content}" for message in one.messages) for one in shown]

    @property
    def offered(self) -> list[str]:
        """Names of the tools that the model had when it was last asked."""
        shown = self._going_on().engines.prompts
        return [tool.name for tool in shown[-1].tools] if shown else []

    @property
    def troubles(self) -> list[str]:
        """What plugins failed at, in words."""
        return [f"plugin {one.plugin}: {hook} {one.outcome}: {one.text}" for hook, one in self._host.troubles]

    def plugin(self, name: str) -> Any:
        """A plugin's module, as it runs in this call."""
        return self._host.module(name)

    def nobody_answers(self) -> None:
        """From now on nobody can be reached to hand the caller on to."""
        self._desk.reached = False

    async def close(self) -> None:
        """End what still goes on.

        Raises:
            ScriptError: a plugin failed, or the model was asked what the script has no answer for.
        """
        if self._call is not None and not self._call.task.done():
            self._call.hangs_up()
            await self._call.over(_ANSWER_S)
        await self._stack.aclose()
        wrong = [] if self.expects_trouble else [*self.troubles, *self._unscripted]
        self.expects_trouble = True
        if wrong:
            raise ScriptError("\n".join(wrong))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _going_on(self) -> VirtualCall:
        if self._call is None:
            raise ScriptError(f"the call was refused: {self.refusal}")
        return self._call

    def _turns(self) -> list[TurnFinished]:
        """Each turn as it was last told of, the one under way included."""
        found: dict[int, TurnFinished] = {}
        for event in self._call.log.events if self._call is not None else ():
            if isinstance(event, TurnFinished):
                found[event.number] = event
            elif isinstance(event, TurnAmended) or (
                isinstance(event, TurnProgress) and self._call is not None and not self._call.task.done()
            ):
                found[event.turn.number] = event.turn
        return list(found.values())

    async def _quiet(self) -> None:
        call = self._going_on()
        await asyncio.sleep(0.2)
        await call.until(lambda: call.task.done() or not call.media.playout, _ANSWER_S)
        await asyncio.sleep(0.1)

    async def _answered(self, since: int) -> None:
        """Return when the reply is over, or the agent waits for an answer in the middle of it.

        Args:
            since: how many events there were before the caller did something.
        """
        call = self._going_on()
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        spoke = False

        def over() -> bool:
            nonlocal quiet_since, spoke
            if call.media.playout or not spoke:
                spoke = spoke or bool(call.media.playout)
                quiet_since = loop.time()
            did = [event.doing for event in call.log.events[since:] if isinstance(event, TurnProgress)]
            replied = Doing.THINKING in did or Doing.AGENT_SPEAKS in did
            listens = replied and did[-1] is Doing.LISTENING
            return call.task.done() or listens or loop.time() - quiet_since > _QUIET_S

        try:
            await call.until(over, _ANSWER_S)
        except TimeoutError:
            raise ScriptError(f"the agent does not answer; it said last: {self.said[-1:]}") from None
        if not call.task.done():
            await self._quiet()

    async def _generate(self, request: Generate) -> AsyncIterator[Token]:
        self._going_on().engines.prompts.append(request)
        await asyncio.sleep(0.15)
        calls: list[ToolCall] = []
        for part in self._steps(request):
            if isinstance(part, Uses):
                calls.append(ToolCall(f"call-{len(calls)}", part.tool, json.dumps(part.arguments)))
                continue
            for word in part.split():
                await asyncio.sleep(0.01)
                yield Token(request.request, word + " ", False)
        yield Token(request.request, "", True, tuple(calls), "script")

    def _steps(self, request: Generate) -> Sequence[str | Uses]:
        asked = [index for index, one in enumerate(request.messages) if one.role == "user" and "<caller" in one.content]
        words = request.messages[asked[-1]].content if asked else ""
        spoken = words.rpartition("<caller")[2].partition("</caller>")[0].casefold()
        since = request.messages[asked[-1] + 1 :] if asked else ()
        rounds = sum(1 for message in since if message.role == "assistant")
        for text, steps in self._script.items():
            if text.casefold() in spoken:
                if rounds < len(steps):
                    step = steps[rounds]
                    return (step,) if isinstance(step, str | Uses) else step
                return ("Is there anything else?",)
        self._unscripted.append(f"the model script has no answer to: {words or request.messages[-1].content}")
        return ("I do not know what to say.",)


def _uses_of(turn: TurnFinished) -> Iterator[ToolUse]:
    for run in turn.tools:
        yield ToolUse(
            run.name, run.source, _parsed(run.arguments), _parsed(run.result), run.problem, run.confirmed.value
        )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


async def scripted_call(
    line: Mapping[str, Any] | Line | str | Path | None = None,
    plugins: Mapping[str, Mapping[str, Any]] | Sequence[str] = (),
    *,
    paths: Collection[Path | str] = (),
    model: Script | None = None,
    name: str = "",
    caller: str = "+15551234567",
    called: str = "100",
    caller_name: str = "",
    headers: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    state_dir: Path | None = None,
) -> ScriptedCall:
    """Place a call, have it answered, and hear the greeting.

    Args:
        line: keys of a dialplan's line, laid over those of a line with a language model; or a dialplan's file.
        plugins: that are enabled, by name, each with its values.
        paths: folders and files of plugins; those that come with the appliance are found besides.
        model: what the language model answers; see :data:`Script`.
        name: of the line, where the file has several.
        caller, called, caller_name: who calls whom; a caller "" is withheld.
        headers: what the trunk lets through of the call's SIP headers.
        secrets: what ``!secret NAME`` stands for in YAML plugins.
        state_dir: where plugins and recordings have their folders; by default one that goes with the call.

    Raises:
        PluginError, ConfigError: a plugin or its values, or the line's file, are wrong; says how.
    """
    made = ScriptedCall()
    try:
        info = CallInfo("call-1", "sip", "local", called, caller, caller_name, _ADDRESS, "cid", dict(headers or {}))
        await _begin(made, line, plugins, paths, name, secrets or {}, state_dir, model or {}, info)
    except BaseException:
        made.expects_trouble = True
        await made.close()
        raise
    return made


async def _begin(
    made: ScriptedCall,
    line: Mapping[str, Any] | Line | str | Path | None,
    plugins: Mapping[str, Mapping[str, Any]] | Sequence[str],
    paths: Collection[Path | str],
    name: str,
    secrets: Mapping[str, str],
    state_dir: Path | None,
    model: Script,
    info: CallInfo,
) -> None:
    chosen = {plugin: {} for plugin in plugins} if not isinstance(plugins, Mapping) else dict(plugins)
    line = made._line = _line(line, name)
    for text, steps in model.items():
        made._script[text] = [steps] if isinstance(steps, str | Uses) else list(steps)
    folder = state_dir or Path(made._stack.enter_context(tempfile.TemporaryDirectory(prefix="call-")))
    where = [Path(path) for path in paths]
    sources = find_sources(where)
    host = made._host = LocalHost(folder)
    made._stack.push_async_callback(host.close)
    hooks = await host.set_up(make_plan(sources, chosen, [(line.name, line.plugins)]))
    files = [Path(sources[one].where) for one in (*chosen, *line.plugins) if one in sources and not sources[one].python]
    missing = [one for one in (*chosen, *line.plugins) if one not in sources]
    if missing:
        raise ScriptError(
            f"there is no plugin {missing[0]!r} in {', '.join(map(str, [*where, shipped_dir('plugins')]))}"
        )
    known = {key: SecretStr(value) for key, value in secrets.items()}
    declarative = Declarative(
        load_declarative(files, lambda key: known.get(key, f"name it in `secrets` of scripted_call: {key}")),
        allow_hosts=("127.0.0.1", "localhost"),
    )
    made._stack.push_async_callback(declarative.close)
    about = hook_call(info, info.calling)
    if hooks.wanted("admit"):
        made.refusal = await hooks.first("admit", about)
        if made.refusal is not None:
            return
    if hooks.wanted("route"):
        made.routed = await hooks.first("route", about)
    records = _Records()
    records.call = made
    yaml = DeclarativeTools(declarative, chosen)
    call = made._call = VirtualCall(
        line,
        llm=True,
        transfers=made._desk,
        hooks=hooks,
        records=records,
        recorder=_Recorder(),
        recordings=folder / "recordings",
        tools=ToolSources([("builtin", BuiltinTools()), ("declarative", _Timely(yaml))]),
        info=info,
    )
    call.engines.generate = made._generate  # type: ignore[method-assign]
    await made._quiet()


def _line(line: Mapping[str, Any] | Line | str | Path | None, name: str) -> Line:
    if isinstance(line, Line):
        return line
    if isinstance(line, str | Path):
        everything = Surroundings(tools=lambda _: None)
        lines = load_dialplans([Path(line)], everything).lines
        found = [one for one in lines if not name or one.name == name]
        if len(found) != 1:
            raise ScriptError(f"{line} has the lines {[one.name for one in lines]}; name one of them by `name`")
        return found[0]
    keys = dict(line or {})
    usual = {} if "flow" in keys and keys.get("agent", "flow") == "flow" else _DESK
    return Line.model_validate({"name": "test", **usual, **keys})
