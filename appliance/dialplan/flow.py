"""A line's flow at run time: what was heard goes in, what to say and listen for comes out. PURE.

The flow knows no time and no audio. Whoever runs it (the call's session)

- says every :class:`Say` in order, and tells :class:`Said` once nothing that was to be said is left, be it spoken,
  cut short by the caller or failed;
- listens as the latest :class:`Listen` says, from the moment it comes (a caller may answer during the question), counts
  ``no_input_s`` of silence from the end of the speech and then tells :class:`NoInput`;
- after a :class:`Key` while digits are collected, tells :class:`DigitTimeout` when ``digits.timeout_s`` passes without
  another;
- hangs up at once on :class:`Hangup`: farewells have been spoken by then.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from appliance.dialplan.schema import Line
from appliance.dialplan.steps import (
    DEFAULT_RETRIES,
    AskStep,
    BranchStep,
    CallbackStep,
    ConverseStep,
    DigitSpec,
    GotoStep,
    HangUpStep,
    SayStep,
    TransferStep,
    TransferTarget,
)
from appliance.dialplan.steps import NoInput as NoInputPolicy
from appliance.dialplan.steps import NoMatch as NoMatchPolicy
from appliance.dialplan.text import DIGITS_PHRASE, SUMMARY, normalise, render, spoken_digits, variables_in

# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """A turn of the caller's. ``accepted`` false: speech, but nothing that was expected; ``text`` is a guess."""

    text: str
    confidence: float = 1.0
    accepted: bool = True


@dataclass(frozen=True)
class Key:
    """The caller pressed a key."""

    digit: str


@dataclass(frozen=True)
class NoInput:
    """The caller has said and pressed nothing for ``no_input_s``."""


@dataclass(frozen=True)
class Said:
    """Nothing that was to be said is left."""


@dataclass(frozen=True)
class DigitTimeout:
    """No further key has come."""


@dataclass(frozen=True)
class TransferFailed:
    """The caller could not be handed on."""


@dataclass(frozen=True)
class HandedBack:
    """The language model has done what it was told: with this ``outcome``, "" for the only one, and these slots."""

    outcome: str
    slots: Mapping[str, str]


@dataclass(frozen=True)
class ModelFailed:
    """The language model cannot go on with the caller."""


Event: TypeAlias = HandedBack | ModelFailed | Heard | Key | NoInput | Said | DigitTimeout | TransferFailed

# --- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """Speak, after what is being spoken."""

    text: str
    interruptible: bool = True


@dataclass(frozen=True)
class Listen:
    """What is expected from now on.

    ``phrases`` are normalised and without duplicates; ``<digits MIN MAX>`` among them stands for that many digits
    spoken one by one. ``digits`` is set where keys make up a number, ``keys`` (key, choice) where one key is an
    answer. ``reject``: the recogniser is to say so when nothing of it was said. ``private``: the answer is nobody's
    business.
    """

    phrases: tuple[str, ...]
    digits: DigitSpec | None
    keys: tuple[tuple[str, str], ...]
    no_input_s: float
    reject: bool
    private: bool = False


@dataclass(frozen=True)
class SetSlot:
    """The caller's answer, for the record; what is ``private`` is not."""

    name: str
    value: str
    private: bool = False


@dataclass(frozen=True)
class CallBack:
    """Call again at a time that was agreed on; ``when`` as :mod:`appliance.dialplan.callback_time` reads it."""

    when: str


@dataclass(frozen=True)
class Hangup:
    """End the call. ``disposition`` is ``no_input``, ``no_match`` or as the step says."""

    disposition: str


@dataclass(frozen=True)
class Transfer:
    """Hand the caller on, once everything has been said. Nothing comes after it but :class:`TransferFailed`.

    The texts of ``target`` have their variables filled in; ``late``: not its announcement, which is about the call.
    """

    target: TransferTarget
    late: bool = False


Action: TypeAlias = Say | Listen | SetSlot | CallBack | Hangup | Transfer


class State(enum.Enum):
    """Where a flow is."""

    NEW = "new"
    ASKING = "asking"
    TRANSFERRING = "transferring"
    CONVERSING = "conversing"
    """A language model has the caller."""
    CLOSING = "closing"
    ENDED = "ended"


_NO_INPUT, _NO_MATCH = "no_input", "no_match"


class Flow:
    """One call's way through its line.

    Args:
        line: with steps, as the loader returned it.
        caller: the caller's number, for ``${caller.number}``.
        called: the number dialled, for ``${called.number}``.
        values: further variables: ``header.NAME``, and what the network says of the call.
    """

    def __init__(
        self, line: Line, *, caller: str = "", called: str = "", values: Mapping[str, str] | None = None
    ) -> None:
        self.line = line
        self.state = State.NEW
        self.step = ""
        self._order = tuple(line.flow)
        self._slots: dict[str, str] = {}
        self._fixed = {
            **(values or {}), "caller.number": caller, "called.number": called, "line.name": line.name
        }  # fmt: skip
        self._listen: Listen | None = None
        self._speaking = False
        self._pressed = ""
        self._missed = {_NO_INPUT: 0, _NO_MATCH: 0}
        self._disposition = ""

    def fork(self) -> Flow:
        """A copy that goes its own way from here."""
        twin = copy.copy(self)
        twin._slots, twin._missed = dict(self._slots), dict(self._missed)
        return twin

    @property
    def slots(self) -> Mapping[str, str]:
        """What the caller has answered so far."""
        return MappingProxyType(self._slots)

    @property
    def expectation(self) -> Listen | None:
        """What is expected now; None before the first question and after the last answer."""
        return self._listen

    @property
    def pressed(self) -> str:
        """The keys of the number being collected."""
        return self._pressed

    def start(self) -> list[Action]:
        """What to do as the call is answered."""
        actions: list[Action] = list(opening(self.line, self._fixed))
        self._speaking = bool(actions)
        return actions + self._enter(self._order[0])

    def enter(self, step: str) -> list[Action]:
        """What to do as the flow takes over a call that somebody else has answered, at this step."""
        return self._enter(step)

    def handle(self, event: Event) -> list[Action]:
        """What to do now that ``event`` has happened. Events that mean nothing in this state are passed over."""
        if isinstance(event, Said):
            self._speaking = False
        handler = TRANSITIONS.get((self.state, type(event)))
        return handler(self, event) if handler else []

    # --- steps --------------------------------------------------------------------------------------------------------

    def _enter(self, name: str) -> list[Action]:
        """Walk from step ``name`` to the next question or the end. The loader has seen to it that there is one."""
        actions: list[Action] = []
        self._listen = None
        while True:
            self.step = name
            step = self.line.flow[name]
            if isinstance(step, SayStep):
                actions += self._say(step.say, step.interruptible)
                name = step.next or self._below(name)
            elif isinstance(step, BranchStep):
                name = step.when.get(self._slots.get(step.branch, ""), step.default)
            elif isinstance(step, GotoStep):
                name = step.goto
            elif isinstance(step, CallbackStep):
                actions += [CallBack(self._filled(step.callback)), *self._say(step.say, None)]
                name = step.next or self._below(name)
            elif isinstance(step, HangUpStep):
                actions += self._say(step.hang_up or "", None)
                return actions + self._close(step.disposition)
            elif isinstance(step, TransferStep):
                self.state = State.TRANSFERRING
                announce = step.transfer.announce
                late = any(name == SUMMARY for name, _ in variables_in(announce))
                texts = {"to": self._filled(step.transfer.to)} | ({} if late else {"announce": self._filled(announce)})
                target = step.transfer.model_copy(update=texts)
                return [*actions, *self._say(step.say, False), Transfer(target, late)]
            elif isinstance(step, ConverseStep):
                self.state = State.CONVERSING
                return actions
            else:
                self.state = State.ASKING
                self._pressed = ""
                self._missed = {_NO_INPUT: 0, _NO_MATCH: 0}
                self._listen = expectation(self.line, step)
                return [*actions, *self._say(step.ask, step.interruptible), self._listen]

    def _below(self, name: str) -> str:
        return self._order[self._order.index(name) + 1]

    def _filled(self, template: str) -> str:
        return render(template, {**self._fixed, **{f"slots.{name}": value for name, value in self._slots.items()}})

    def _say(self, template: str, interruptible: bool | None) -> list[Action]:
        text = self._filled(template)
        if not text:
            return []
        self._speaking = True
        return [Say(text, self.line.barge_in if interruptible is None else interruptible)]

    def _close(self, disposition: str) -> list[Action]:
        """Hang up, once everything has been said."""
        self._listen = None
        self._disposition = disposition
        if self._speaking:
            self.state = State.CLOSING
            return []
        self.state = State.ENDED
        return [Hangup(disposition)]

    # --- events -------------------------------------------------------------------------------------------------------

    @property
    def _asking(self) -> AskStep:
        step = self.line.flow[self.step]
        assert isinstance(step, AskStep)
        return step

    def _heard(self, event: Event) -> list[Action]:
        assert isinstance(event, Heard)
        self._pressed = ""
        step = self._asking
        if event.accepted or not self.line.reject_unexpected:
            text = normalise(event.text)
            choice = _choice(step, text)
            if choice is not None:
                return self._answered(choice)
            if step.digits is not None and step.digits.by != "key":
                digits = spoken_digits(text)
                if digits is not None and step.digits.min <= len(digits) <= step.digits.max:
                    return self._answered(digits, number=True)
        return self._again(_NO_MATCH)

    def _key(self, event: Event) -> list[Action]:
        assert isinstance(event, Key)
        step = self._asking
        if step.keys:
            choice = step.keys.get(event.digit)
            return self._again(_NO_MATCH) if choice is None else self._answered(choice)
        if step.digits is None or step.digits.by == "voice":
            return []
        if event.digit == step.digits.terminator:
            return self._number_ended(event)
        if not event.digit.isdecimal():
            self._pressed = ""
            return self._again(_NO_MATCH)
        self._pressed += event.digit
        return self._number_ended(event) if len(self._pressed) == step.digits.max else []

    def _number_ended(self, event: Event) -> list[Action]:
        spec, pressed = self._asking.digits, self._pressed
        if not pressed and isinstance(event, DigitTimeout):
            return []
        self._pressed = ""
        if spec is None or len(pressed) < spec.min:
            return self._again(_NO_MATCH)
        return self._answered(pressed, number=True)

    def _silent(self, event: Event) -> list[Action]:
        return self._number_ended(DigitTimeout()) if self._pressed else self._again(_NO_INPUT)

    def _all_said(self, event: Event) -> list[Action]:
        self.state = State.ENDED
        return [Hangup(self._disposition)]

    def _not_transferred(self, event: Event) -> list[Action]:
        step = self.line.flow[self.step]
        assert isinstance(step, TransferStep)
        self._speaking = False
        return self._enter(step.failed) if step.failed else self._close("transfer_failed")

    @property
    def conversing(self) -> ConverseStep | None:
        """The step that a language model has the caller for; None while the flow leads."""
        step = self.line.flow[self.step] if self.state is State.CONVERSING else None
        return step if isinstance(step, ConverseStep) else None

    def filled(self, template: str) -> str:
        """``template`` with the values that its variables have now."""
        return self._filled(template)

    def _handed_back(self, event: Event) -> list[Action]:
        assert isinstance(event, HandedBack) and self.conversing is not None
        self._slots.update(event.slots)
        following = self.conversing.next.get(event.outcome) or self.conversing.next.get("default")
        found: list[Action] = [SetSlot(name, value) for name, value in event.slots.items()]
        return found + self._enter(following or self._below(self.step))

    def _model_failed(self, event: Event) -> list[Action]:
        assert self.conversing is not None
        return self._enter(self.conversing.failed)

    def _answered(self, value: str, *, number: bool = False) -> list[Action]:
        step = self._asking
        actions: list[Action] = []
        if step.slot is not None:
            self._slots[step.slot] = value
            actions.append(SetSlot(step.slot, value, step.private))
        following = None if number else step.next.get(value)
        return actions + self._enter(following or step.next.get("default") or self._below(self.step))

    def _again(self, why: str) -> list[Action]:
        """The question was not answered: ask again, or give up."""
        step = self._asking
        policy = no_input_of(self.line, step) if why == _NO_INPUT else no_match_of(self.line, step)
        self._missed[why] += 1
        if self._missed[why] <= retries_of(policy):
            prompt = policy.prompts[min(self._missed[why], len(policy.prompts)) - 1] if policy.prompts else step.ask
            listen = self._listen = expectation(self.line, step)
            return [*self._say(prompt, step.interruptible), listen]
        return self._enter(policy.then) if policy.then else self._close(why)


Handler: TypeAlias = Callable[[Flow, Event], list[Action]]

TRANSITIONS: Final[dict[tuple[State, type[Event]], Handler]] = {
    (State.ASKING, Heard): Flow._heard,
    (State.ASKING, Key): Flow._key,
    (State.ASKING, DigitTimeout): Flow._number_ended,
    (State.ASKING, NoInput): Flow._silent,
    (State.CLOSING, Said): Flow._all_said,
    (State.CONVERSING, HandedBack): Flow._handed_back,
    (State.CONVERSING, ModelFailed): Flow._model_failed,
    (State.TRANSFERRING, TransferFailed): Flow._not_transferred,
}
"""What an event means in a state. Every other pair means nothing: a key during the farewell, say."""


def opening(line: Line, values: Mapping[str, str]) -> list[Say]:
    """The disclosure and the greeting of a line, whoever leads it. ``values`` are its variables."""
    said = []
    if line.disclosure:
        said.append(Say(render(line.disclosure, values), interruptible=False))
    if line.greeting:
        said.append(Say(render(line.greeting.text, values), line.greeting.interruptible and line.barge_in))
    return [say for say in said if say.text]


def expectation(line: Line, step: AskStep) -> Listen:
    """What a question expects."""
    phrases = [normalise(phrase) for phrases in step.expect.values() for phrase in phrases]
    by_key = step.digits is not None and step.digits.by != "voice"
    if step.digits is not None and step.digits.by != "key":
        phrases.append(DIGITS_PHRASE.format(min=step.digits.min, max=step.digits.max))
    return Listen(
        phrases=tuple(dict.fromkeys(phrases)),
        digits=step.digits if by_key else None,
        keys=tuple(step.keys.items()),
        no_input_s=no_input_of(line, step).after_s,
        reject=line.reject_unexpected,
        private=step.private,
    )


def no_input_of(line: Line, step: AskStep) -> NoInputPolicy:
    """The line's no-input rules with what the step changes."""
    own = {name: getattr(step.no_input, name) for name in step.no_input.model_fields_set} if step.no_input else {}
    return line.no_input.model_copy(update=own)


def no_match_of(line: Line, step: AskStep) -> NoMatchPolicy:
    """The line's no-match rules with what the step changes."""
    own = {name: getattr(step.no_match, name) for name in step.no_match.model_fields_set} if step.no_match else {}
    return line.no_match.model_copy(update=own)


def retries_of(policy: NoInputPolicy | NoMatchPolicy) -> int:
    """How often a question is asked again."""
    return policy.retries if policy.retries is not None else len(policy.prompts) or DEFAULT_RETRIES


def _denies(word: str) -> bool:
    return word in ("no", "not", "never", "cannot", "without") or word.endswith("n't")


def _choice(step: AskStep, text: str) -> str | None:
    """The choice that ``text`` means: a phrase of it, or else the longest phrase of a single choice within it.

    Words of denial around a phrase ("I do not want to book a table") keep it from counting.
    """
    spoken = {normalise(phrase): choice for choice, phrases in step.expect.items() for phrase in phrases}
    if text in spoken:
        return spoken[text]
    within = {
        phrase: choice
        for phrase, choice in spoken.items()
        if f" {phrase} " in f" {text} "
        and not any(_denies(word) for word in f" {text} ".replace(phrase, "", 1).split())
    }
    longest = max((len(phrase.split()) for phrase in within), default=0)
    meant = {choice for phrase, choice in within.items() if len(phrase.split()) == longest}
    return meant.pop() if len(meant) == 1 else None
