"""Which brain a line has: its flow, or a language model."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping

from appliance.calls.fallback_brain import FallbackBrain
from appliance.conversation import brain
from appliance.conversation.clauses import MAX_CHARACTERS, ClauseCutter
from appliance.conversation.llm_brain import LlmBrain
from appliance.conversation.speaker import Voice
from appliance.dialplan import flow
from appliance.dialplan.schema import Fallback, Line, TransferTarget
from appliance.dialplan.text import render
from appliance.engines.client import EnginePool
from appliance.errors import EngineError
from appliance.signalling.leg import CallInfo


def make_brain(
    line: Line, info: CallInfo, llm: EnginePool | None, llm_timeout_s: float, now: Callable[[], float]
) -> brain.Brain:
    """The brain of one call on ``line``.

    Raises:
        EngineError: the line wants a language model and the box has none.
    """
    if line.agent == "flow":
        return FlowBrain(line, info)
    if llm is None:
        raise EngineError(f"line {line.name!r} has `agent: llm` but engines.llm.provider is none", retryable=False)
    greeting = line.greeting
    opening = [text for text in (line.disclosure, greeting.text if greeting else None) if text]
    model = LlmBrain(
        llm,
        prompt=line.prompt or "",
        greeting=" ".join(opening),
        greeting_interruptible=line.disclosure is None and (greeting is None or greeting.interruptible),
        no_input_prompts=line.no_input.prompts,
        expectation=brain.Expectation(no_input_s=line.no_input.after_s),
        timeout_s=llm_timeout_s,
        now=now,
    )
    return model if line.fallback is None else _with_fallback(model, line, line.fallback, info)


def _with_fallback(model: brain.Brain, line: Line, fallback: Fallback, info: CallInfo) -> brain.Brain:
    values = {
        **variables(info),
        "caller.number": info.calling,
        "called.number": info.called,
        "line.name": line.name,
    }
    target = fallback.transfer
    return FallbackBrain(
        model,
        after=fallback.after,
        say=render(fallback.say, values),
        onward=FlowBrain(line, info, enter_at=fallback.step) if fallback.step else None,
        transfer=_transfer(target, render(target.to, values), render(target.announce, values)) if target else None,
    )


def _transfer(target: TransferTarget, to: str, announce: str) -> brain.Transfer:
    return brain.Transfer(to, target.trunk or "", target.kind == "attended", target.timeout_s, announce)


def voice_of(line: Line) -> Voice:
    """How the agent of ``line`` speaks."""
    return Voice(line.voice.language or line.language, line.voice.name, line.voice.rate, line.voice.lexicon)


class FlowBrain:
    """A dialplan's flow as a brain. It answers the call, or takes it over at the step ``enter_at``."""

    def __init__(self, line: Line, info: CallInfo, enter_at: str = "") -> None:
        self._line = line
        self._enter_at = enter_at
        self._flow = flow.Flow(line, caller=info.calling, called=info.called, values=variables(info))
        self._slots: dict[str, str] = {}

    @property
    def slots(self) -> Mapping[str, str]:
        return self._slots

    @property
    def tokens(self) -> int:
        return 0

    def fork(self) -> FlowBrain:
        twin = copy.copy(self)
        twin._flow, twin._slots = self._flow.fork(), dict(self._slots)
        return twin

    async def reply(self, heard: brain.Input, gate: brain.Gate = brain.OPEN) -> AsyncIterator[brain.Step]:
        """The flow's actions; it decides without waiting for anything."""
        for action in self._actions(heard):
            match action:
                case flow.Say(text, interruptible):
                    for sentence in _sentences(text):
                        yield brain.Say(sentence, interruptible)
                case flow.Listen():
                    yield brain.Listen(self._expectation(action))
                case flow.SetSlot(name, value):
                    self._slots[name] = value
                case flow.Transfer(target):
                    yield _transfer(target, target.to, target.announce)
                case flow.Hangup(disposition):
                    self._slots.setdefault("ending", disposition)
                    yield brain.HangUp(disposition)

    def was_heard(self, text: str) -> None:
        """A flow goes on the same way whatever was heard of it."""

    async def close(self) -> None:
        """A flow leaves nothing to be finished."""

    def _actions(self, heard: brain.Input) -> list[flow.Action]:
        match heard:
            case brain.Opening():
                return self._flow.enter(self._enter_at) if self._enter_at else self._flow.start()
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

    def _expectation(self, listen: flow.Listen) -> brain.Expectation:
        digits = listen.digits
        return brain.Expectation(
            phrases=listen.phrases,
            pronunciations=tuple(self._line.pronunciations.items()),
            reject=listen.reject,
            no_input_s=listen.no_input_s,
            key_timeout_s=digits.timeout_s if digits is not None else None,
            min_digits=digits.min if digits is not None and digits.by != "key" and not listen.keys else 0,
        )


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
    }


def _sentences(text: str) -> list[str]:
    """A fixed text in whole sentences: there is no model to wait for, so the first piece need not be short."""
    cutter = ClauseCutter(first_words=MAX_CHARACTERS, first_max_words=MAX_CHARACTERS)
    return [*cutter.push(text), *cutter.finish()]
