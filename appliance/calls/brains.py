"""Which brain a line has: its flow, or a language model."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from appliance.calls.builtin_tools import CALLBACK_SLOT, BuiltinTools
from appliance.calls.fallback_brain import FallbackBrain
from appliance.calls.tool_sources import Callbacks, CallInBox, DoNotCall, Offered, ToolSources
from appliance.clock import Clock, SystemClock
from appliance.conversation import brain, manners
from appliance.conversation.clauses import MAX_CHARACTERS, ClauseCutter
from appliance.conversation.hooked import NONE, WITHHELD, HooksOfCall
from appliance.conversation.inputs import PRIVATE
from appliance.conversation.llm_brain import LlmBrain, Persona
from appliance.conversation.memory import CallerMemory
from appliance.conversation.private_numbers import PrivateNumbers
from appliance.conversation.speaker import Voice
from appliance.conversation.thinking import HandOver, Manner, Model
from appliance.conversation.tools import CallFacts
from appliance.dialplan import flow
from appliance.dialplan.callback_time import callback_time
from appliance.dialplan.schema import Line
from appliance.dialplan.steps import ConverseStep, TransferTarget
from appliance.dialplan.text import known_late, normalise, render
from appliance.errors import EngineError, StoreError
from appliance.events import ToolRun
from appliance.signalling.leg import CallInfo
from appliance.store.callers import CallerStore, plain_number

logger = logging.getLogger(__name__)

LEAD: Final = "lead."
"""Begins the dialplan's name of what is known of the one called."""
BUILTIN_TOOLS: Final = ToolSources([("builtin", BuiltinTools())])


@dataclass(frozen=True)
class ModelServices:
    """What a line with a language model uses.

    Attributes:
        llm: the model's workers.
        timeout_s: a whole answer must have come by then.
        callers: what is known of callers, and who is not to be called; None where nothing is kept.
        clock: for the time of day.
        tools: everybody in this process who has tools.
    """

    llm: Model
    timeout_s: float
    clock: Clock
    callers: CallerStore | None = None
    tools: ToolSources = field(default_factory=lambda: BUILTIN_TOOLS)


def make_brain(
    line: Line,
    info: CallInfo,
    services: ModelServices | None,
    hooks: HooksOfCall = NONE,
    of_host: Sequence[Offered] = (),
) -> brain.Brain:
    """The brain of one call on ``line``; ``of_host`` are the tools of plugins in the plugin host.

    Raises:
        EngineError: the line wants a language model and the box has none.
    """
    if line.agent == "flow":
        return FlowBrain(line, info)
    if services is None:
        raise EngineError(f"line {line.name!r} has `agent: llm` but engines.llm.provider is none", retryable=False)
    caller = number_of(info)
    memory = None
    if line.memory.enabled and caller and services.callers is not None:
        notes = _Notes(services.callers, caller, line, hooks)
        memory = CallerMemory(notes, services.llm, info.leg_id, services.clock.monotonic)
    opening = [brain.Say(said.text, said.interruptible) for said in flow.opening(line, values_of(line, info))]
    return model_brain(line, info, services, hooks, of_host, opening=opening, memory=memory, slots={})


def model_brain(
    line: Line,
    info: CallInfo,
    services: ModelServices,
    hooks: HooksOfCall,
    of_host: Sequence[Offered],
    *,
    opening: Sequence[brain.Say],
    memory: CallerMemory | None,
    slots: dict[str, str],
    begins: bool = False,
    private: PrivateNumbers | None = None,
) -> LlmBrain:
    """A language model that has the prompt and the tools of ``line``, and says ``opening`` first.

    ``private`` are numbers that the caller has pressed before, without the model.
    """
    caller = number_of(info)
    values = values_of(line, info)
    hand_overs = hand_overs_of(line, values)
    monotonic = services.clock.monotonic
    zone = ZoneInfo(line.timezone) if line.timezone else None
    return LlmBrain(
        services.llm,
        Persona(
            prompt=line.prompt or "",
            opening=opening,
            no_input_prompts=line.no_input.prompts,
            no_input_retries=line.no_input.retries,
            expectation=brain.Expectation(
                pronunciations=tuple(line.pronunciations.items()),
                no_input_s=line.no_input.after_s,
                hints=line.hints,
            ),
            language=spoken_language(line),
            caller_language=line.language,
            context_tokens=line.context_tokens,
            begins=begins,
            requests=_requests(line),
        ),
        Manner(
            timeout_s=services.timeout_s,
            reply_tokens=line.reply_tokens,
            session=info.leg_id,
            language=line.language,
            filler_after_s=line.filler.after_s,
            fillers=line.filler.texts or manners.fillers(spoken_language(line)),
            transfers=hand_overs,
        ),
        facts=CallFacts(info.leg_id, line.name, caller, info.called),
        tools=services.tools.tools_for(
            call_in_box(line, info, hand_overs, memory, services.callers, services.clock.utc, private), of_host
        ),
        slots=slots,
        about=about_call(info),
        memory=memory,
        now=monotonic,
        local_time=lambda: services.clock.utc().astimezone(zone),
        hooks=hooks,
    )


def call_in_box(
    line: Line,
    info: CallInfo,
    hand_overs: Mapping[str, HandOver],
    memory: CallerMemory | None,
    do_not_call: DoNotCall | None,
    utc: Callable[[], datetime],
    private: PrivateNumbers | None = None,
) -> CallInBox:
    """The call as plugins within this process see it."""
    caller = number_of(info)
    return CallInBox(
        call_id=info.leg_id,
        line=line.name,
        trunk=info.trunk,
        caller=caller,
        called=info.called,
        language=line.language,
        direction="outbound" if info.outbound else "inbound",
        lead=lead_of(info),
        callbacks=Callbacks(zone_of(info, line), utc) if info.outbound else None,
        caller_name=info.calling_name if caller else "",
        plan=line,
        hand_overs=hand_overs,
        memory=memory,
        do_not_call=do_not_call,
        private=private or private_numbers(line),
    )


def private_numbers(line: Line) -> PrivateNumbers:
    """The numbers of a call on ``line`` that only tools are given; none yet."""
    return PrivateNumbers({name: number.tools for name, number in line.private.items()})


def with_fallback(leader: brain.Brain, line: Line, info: CallInfo) -> brain.Brain:
    """``leader``, and the line's other way once its engines fail; ``leader`` itself where the line has none."""
    failure = line.on_engine_failure
    if failure is None:
        return leader
    values, language = values_of(line, info), spoken_language(line)
    onward, enter = None, brain.GoTo(failure.step or "")
    if failure.step:
        onward = leader if line.agent == "flow" else FlowBrain(line, info)
    return FallbackBrain(
        leader,
        after=failure.after,
        say=manners.given_up(language) if failure.say is None else render(failure.say, values),
        onward=onward,
        enter=enter,
        transfer=transfer_to(failure.transfer, values) if failure.transfer else None,
        line=failure.line or "",
        nobody=f"{manners.nobody_there(language)} {manners.call_again(language)}",
    )


def hand_overs_of(line: Line, values: Mapping[str, str]) -> dict[str, HandOver]:
    """Who the model of ``line`` may hand its caller on to, by name."""
    return {
        name: HandOver(transfer_to(choice, values), render(choice.say, values), choice.description)
        for name, choice in line.transfers.items()
    }


def values_of(line: Line, info: CallInfo) -> dict[str, str]:
    """What ``${...}`` stands for where no question has been asked."""
    return {
        **variables(info), "caller.number": info.person, "called.number": info.called, "line.name": line.name
    }  # fmt: skip


def transfer_to(target: TransferTarget, values: Mapping[str, str]) -> brain.Transfer:
    """The step that hands the caller on to ``target``."""
    late = known_late(target.announce)
    announce = target.announce if late else render(target.announce, values)
    attended = target.kind == "attended"
    return brain.Transfer(render(target.to, values), target.trunk or "", attended, target.timeout_s, announce, late)


class _Notes:
    """What is known of one caller on one line."""

    def __init__(self, callers: CallerStore, number: str, line: Line, hooks: HooksOfCall) -> None:
        self._hooks = hooks
        self._callers = callers
        self._number = number
        self._line = line

    async def recall(self) -> str:
        return await self._callers.recall(self._number, self._line.name)

    async def keep(self, notes: str) -> None:
        """As plugins let them be kept; where one fails, what was kept before stays."""
        if notes and self._hooks.wanted("before_storing"):
            (notes,) = await self._hooks.before_storing([notes])
            if notes.startswith(WITHHELD):
                raise StoreError("a plugin that looks at what is stored has failed")
        await self._callers.keep(self._number, self._line.name, notes, days=self._line.memory.days)


def number_of(info: CallInfo) -> str:
    """The number that whoever is at the far end is known by; "" where it is withheld, or there is none."""
    withheld = {"id", "user", "full"} & {value.lower() for value in info.about.privacy}
    return "" if withheld else plain_number(info.person)


def _requests(line: Line) -> frozenset[manners.Request]:
    wanted = {manners.Request.REPEAT} if "repeat" in line.manners else set()
    return frozenset(wanted | ({manners.Request.SLOWER, manners.Request.FASTER} if "pace" in line.manners else set()))


def spoken_language(line: Line) -> str:
    """What the agent of ``line`` speaks."""
    return line.voice.language or line.language


def voice_of(line: Line) -> Voice:
    """How the agent of ``line`` speaks."""
    return Voice(spoken_language(line), line.voice.name, line.voice.rate, line.voice.lexicon)


class FlowBrain:
    """A dialplan's flow as a brain, with the manners of any speaker around it."""

    def __init__(self, line: Line, info: CallInfo) -> None:
        self._line = line
        self._info = info
        self._requests = _requests(line)
        self._phrases = manners.phrases(line.language, self._requests)
        self._said: tuple[brain.Say, ...] = ()
        self._pace = 1.0
        self._flow = flow.Flow(line, caller=info.person, called=info.called, values=variables(info))
        self._slots: dict[str, str] = {}
        self.private_numbers = private_numbers(line)

    @property
    def slots(self) -> Mapping[str, str]:
        return self._slots

    @property
    def tokens(self) -> int:
        return 0

    def report_tools(self, report: Callable[[ToolRun], None]) -> None:
        """A flow uses no tools."""

    def fork(self) -> FlowBrain:
        twin = copy.copy(self)
        twin._flow, twin._slots = self._flow.fork(), dict(self._slots)
        return twin

    async def reply(self, heard: brain.Input, gate: brain.Gate = brain.OPEN) -> AsyncIterator[brain.Step]:
        """The flow's actions; it decides without waiting for anything."""
        listen = self._flow.expectation
        request = self._request(heard, listen) if listen is not None else None
        if request is not None and listen is not None:
            if request is not manners.Request.REPEAT:
                self._pace = manners.changed(self._pace, request)
                yield brain.Pace(self._pace)
            for say in self._said:
                yield say
            yield brain.Listen(self._expectation(listen))
            return
        actions = self._actions(heard)
        if listen is not None and listen.private and self._flow.expectation is None:
            yield brain.Listen(replace(self._expectation(listen), private=False, keys=""))
        for step in self._steps(actions):
            yield step

    @property
    def conversing(self) -> ConverseStep | None:
        """The step that a language model has the caller for."""
        return self._flow.conversing

    @property
    def private(self) -> bool:
        """Whether what the caller says now is nobody's business."""
        return self._flow.expectation is not None and self._flow.expectation.private

    def filled(self, template: str) -> str:
        """``template`` with the values that its variables have now."""
        return self._flow.filled(template)

    def taken_back(self, event: flow.HandedBack | flow.ModelFailed) -> Iterator[brain.Step]:
        """What to do as the language model does not have the caller any more."""
        return self._steps(self._flow.handle(event))

    def _steps(self, actions: Sequence[flow.Action]) -> Iterator[brain.Step]:
        said: list[brain.Say] = []
        for action in actions:
            match action:
                case flow.Say(text, interruptible):
                    for sentence in pieces_of(text):
                        say = brain.Say(sentence, interruptible)
                        said.append(say)
                        self._said = tuple(said)
                        yield say
                case flow.Listen():
                    yield brain.Listen(self._expectation(action))
                case flow.SetSlot(name, value, private):
                    self._slots[name] = PRIVATE if private else value
                    if private and name in self._line.private and value.isdecimal():
                        self.private_numbers.keep(name, value)
                case flow.CallBack(when):
                    self._call_back(when)
                case flow.Transfer(target, late):
                    attended = target.kind == "attended"
                    yield brain.Transfer(
                        target.to, target.trunk or "", attended, target.timeout_s, target.announce, late
                    )
                case flow.Hangup(disposition):
                    self._slots.setdefault("ending", disposition)
                    yield brain.HangUp(disposition)

    def _call_back(self, when: str) -> None:
        try:
            at = callback_time(when, SystemClock().utc(), zone_of(self._info, self._line))
        except ValueError as error:
            logger.warning("line %s: no call back: %s", self._line.name, error)
            return
        self._slots[CALLBACK_SLOT] = at.isoformat()

    def was_said(self, meant: str, said: str) -> None:
        """A flow goes on the same way in whatever words it speaks."""

    def was_heard(self, text: str) -> None:
        """A flow goes on the same way whatever was heard of it."""

    async def close(self) -> None:
        """A flow leaves nothing to be finished."""

    def _request(self, heard: brain.Input, listen: flow.Listen) -> manners.Request | None:
        """What the caller wants of the voice, where it is nothing that the question expects."""
        if not isinstance(heard, brain.Heard) or not heard.accepted or normalise(heard.text) in listen.phrases:
            return None
        request = manners.request_in(heard.text, self._line.language)
        return request if request in self._requests else None

    def _actions(self, heard: brain.Input) -> list[flow.Action]:
        match heard:
            case brain.Opening():
                return self._flow.start()
            case brain.Heard(text, confidence, accepted):
                return self._flow.handle(flow.Heard(text, 1.0 if confidence is None else confidence, accepted))
            case brain.Key(digit):
                return self._flow.handle(flow.Key(digit))
            case brain.KeysEnded():
                return self._flow.handle(flow.DigitTimeout())
            case brain.Silence():
                return self._flow.handle(flow.NoInput())
            case brain.Spoken():
                return self._flow.handle(flow.Said())
            case brain.TransferFailed():
                return self._flow.handle(flow.TransferFailed())
            case brain.GoTo(step):
                return self._flow.enter(step)
            case brain.Detected() | brain.EnginesFailed():
                return []  # nobody has said what is to be done then

    def _expectation(self, listen: flow.Listen) -> brain.Expectation:
        digits = listen.digits
        return brain.Expectation(
            phrases=self._with_requests(listen.phrases),
            pronunciations=tuple(self._line.pronunciations.items()),
            reject=listen.reject,
            no_input_s=listen.no_input_s,
            key_timeout_s=digits.timeout_s if digits is not None else None,
            min_digits=digits.min if digits is not None and digits.by != "key" and not listen.keys else 0,
            keys=brain.ALL_KEYS if digits is not None else "".join(key for key, _ in listen.keys),
            hints=self._line.hints,
            private=listen.private,
        )

    def _with_requests(self, phrases: tuple[str, ...]) -> tuple[str, ...]:
        """A recogniser with a closed list has to know what callers ask of any speaker, too."""
        return tuple(dict.fromkeys((*phrases, *self._phrases))) if phrases else ()


def variables(info: CallInfo) -> dict[str, str]:
    """What ``${...}`` may stand for beside the numbers and the slots: what the network said about the call."""
    about = info.about
    return {
        "caller.asserted": next(iter(about.asserted), ""),
        "caller.asserted_name": about.asserted_name,
        "caller.verstat": about.verstat,
        "caller.privacy": ";".join(about.privacy),
        "diverted.number": about.diversions[0].number if about.diversions else "",
        "call.reason": ", ".join(map(str, about.reasons)),
        "call.user_to_user": about.user_to_user,
        **{f"header.{name}": value for name, value in info.offered.items()},
        **info.known,
    }


def zone_of(info: CallInfo, line: Line) -> tzinfo:
    """Where the far end is, as far as that is known; else where the line is, or the box."""
    for name in (info.zone, line.timezone):
        if name:
            with contextlib.suppress(ValueError, OSError):
                return ZoneInfo(name)
    return SystemClock().utc().astimezone().tzinfo or UTC


def lead_of(info: CallInfo) -> dict[str, str]:
    """What is known of the one whom the box has called, by name."""
    return {name.removeprefix(LEAD): text for name, text in info.known.items() if name.startswith(LEAD)}


def about_call(info: CallInfo) -> dict[str, str]:
    """What a language model is told of the call, name to text: all of it data."""
    if not info.outbound:
        return {"caller's number": info.calling, "caller's name": info.calling_name, "number dialled": info.called}
    return {
        "direction": "you have called this person, on behalf of " + (info.known.get("campaign.owner") or "your firm"),
        "number that you have called": info.called,
        **lead_of(info),
    }


def opening_of(line: Line, info: CallInfo) -> list[str]:
    """What a caller who has just been put through is told, in the pieces that it is said in."""
    if line.agent != "flow":
        return [said.text for said in flow.opening(line, values_of(line, info))]
    actions = flow.Flow(line, caller=info.person, called=info.called, values=variables(info)).start()
    pieces: list[str] = []
    for action in actions:
        if not isinstance(action, flow.Say):
            break
        pieces += pieces_of(action.text)
    return pieces


def pieces_of(text: str) -> list[str]:
    """A fixed text in whole sentences: there is no model to wait for, so the first piece need not be short."""
    cutter = ClauseCutter(first_words=MAX_CHARACTERS, first_max_words=MAX_CHARACTERS)
    return [*cutter.push(text), *cutter.finish()]
