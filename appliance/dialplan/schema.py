"""The schema of ``dialplans/*.yaml``: a line. The steps of its flow are in :mod:`appliance.dialplan.steps`. PURE.

Every key has a description: the tables in ``docs/dialplans.md`` are made of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StringConstraints,
    model_validator,
)

from appliance.config.fields import Language, LinePlugins, Region
from appliance.config.validation import Section, fault, short_form
from appliance.dialplan.match import HolidaysKey, HoursKey, Match, one_or_many
from appliance.dialplan.shortcuts import Shortcut
from appliance.dialplan.steps import (
    TEXT_SCHEMA,
    ConverseStep,
    Name,
    NoInput,
    NoMatch,
    TaggedStep,
    Text,
    TransferTarget,
    target,
    telephone_key,
)

Word: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
Respelling: TypeAlias = Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)]

BUILTIN_TOOLS = (
    "transfer",
    "hang_up",
    "collect_digits",
    "take_message",
    "stop_calling",
    "callback",
    "remember",
    "send_digits",
    "collect_private",
)
"""What a language model can be given without a plugin."""


@short_form(TEXT_SCHEMA)
def _spoken(value: Any) -> Any:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict | Spoken):
        raise fault(f"must be text, not {value!r}", "write the words to say, in quotes if they look like a number")
    return value


class Voice(Section):
    """How the agent sounds."""

    name: str = Field(default="", description="The engine's name of the voice; empty takes its own for the language.")
    rate: float = Field(default=1.0, ge=0.5, le=2.0, description="Speed, 1.0 being the voice's own.")
    language: Language | None = Field(default=None, description="Language it speaks, if not the line's `language`.")
    lexicon: dict[Word, Respelling] = Field(
        default={},
        max_length=1000,
        description="Words that the voice says wrong, each with a spelling that it says right: `{Nguyen: win}`.",
    )


class Spoken(Section):
    """Something said, and whether the caller may talk over it."""

    text: Text = Field(description="What is said.")
    interruptible: bool = Field(default=True, description="Whether the caller can cut it short by speaking.")


class Turn(Section):
    """How long the agent waits before it takes a caller's silence for the end of the turn."""

    patience: float = Field(default=1.0, ge=0.25, le=4.0, description="Factor on every wait; above 1 waits longer.")
    min_silence_s: float = Field(default=0.4, ge=0.05, le=3.0, description="Wait when the turn is surely over.")
    max_silence_s: float = Field(default=1.55, ge=0.2, le=3.0, description="Wait when it surely is not.")
    by: Literal["box", "model"] = Field(
        default="box",
        description="Who finds the end of a turn; model: with `agent: realtime`, the model, whatever else stands here.",
    )
    speculate: int = Field(
        default=4,
        ge=0,
        le=20,
        description="Replies that may be begun, unheard, before it is certain that a turn is over; 0 for none.",
    )

    @model_validator(mode="after")
    def _waits_longer_when_unsure(self) -> Turn:
        if self.min_silence_s > self.max_silence_s:
            raise fault(
                f"min_silence_s {self.min_silence_s:g} is more than max_silence_s {self.max_silence_s:g}",
                f"set max_silence_s to {self.min_silence_s:g} or more",
            )
        return self


class TransferChoice(TransferTarget):
    """Somebody a language model may hand the caller on to. It chooses the name, never the number."""

    description: Annotated[str, StringConstraints(max_length=500, strip_whitespace=True)] = Field(
        default="", description="Tells the model who that is, and when to hand on: `orders and invoices`."
    )
    say: Annotated[str, StringConstraints(max_length=1000, strip_whitespace=True)] = Field(
        default="", description="Said first, where the model says nothing by itself; the caller cannot cut it short."
    )


class PrivateNumber(Section):
    """A number that callers press for a tool, and that the model does not learn."""

    tools: Annotated[tuple[Name, ...], BeforeValidator(one_or_many), Field(min_length=1)] = Field(
        description="The tools that are given it, by name."
    )
    min: int = Field(default=1, ge=1, le=32, description="Fewest digits.")
    max: int = Field(default=32, ge=1, le=32, description="Most digits.")
    check: Literal["none", "luhn"] = Field(default="none", description="luhn: the last digit is that of a card number.")

    @model_validator(mode="after")
    def _in_order(self) -> PrivateNumber:
        if self.min > self.max:
            raise fault(f"min {self.min} is more than max {self.max}", "swap them")
        return self


class Memory(Section):
    """What is remembered of a caller from one call to the next, by number."""

    enabled: bool = Field(default=False, description="Whether anything is. Tell callers, and have a reason to.")
    days: int = Field(default=30, ge=1, le=3650, description="Forgotten so many days after the caller's last call.")


class Filler(Section):
    """What a caller hears who has to wait."""

    after_s: float = Field(
        default=0.8, ge=0, le=10, description="Said after so long a wait for a model's tool; 0: as late as elsewhere."
    )
    texts: tuple[Text, ...] = Field(
        default=(), description="Said in turn; without any, `One moment, please` in the line's language, where known."
    )


class EngineFailure(Section):
    """What becomes of the caller when engines fail: a transfer, a step of `flow`, another line, or the end."""

    after: int = Field(
        default=2,
        ge=1,
        le=2,
        description="So many replies in a row have to fail, or turns of the caller's to be recognised; 1: the first.",
    )
    say: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] | None = Field(
        default=None,
        description="Said first; the caller cannot cut it short. Empty for nothing; unless given, a sentence in the "
        "line's language.",
    )
    transfer: Annotated[TransferTarget, BeforeValidator(target)] | None = Field(
        default=None, description="Who to hand the caller on to: a number, or a mapping as in a `transfer` step."
    )
    step: str | None = Field(default=None, description="The step of `flow` that goes on with the caller.")
    line: Name | None = Field(
        default=None,
        description="The line that goes on with the caller, from its opening, with its own engines and plugins: one "
        "that takes messages, say.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> EngineFailure:
        ways = [key for key in ("transfer", "step", "line") if getattr(self, key) is not None]
        if len(ways) > 1:
            hint = "a step can transfer, too" if "step" in ways else "that line can transfer, too"
            raise fault(f"has both {ways[0]} and {ways[1]}", f"keep one; {hint}")
        return self


class DurationWarning(Section):
    """What the caller is told before a call is ended because it has taken too long."""

    before_s: float = Field(
        default=60.0, ge=5, le=3600, description="So long before `max_duration_s`, or as soon after as nobody speaks."
    )
    text: Text = Field(description="What is said then; the caller may talk over it, and the call goes on.")
    goodbye: Annotated[str, StringConstraints(max_length=1000, strip_whitespace=True)] = Field(
        default="",
        description="Said before the call is ended; unless given, a sentence in the line's language, as without any "
        "warning.",
    )


class LineEngines(Section):
    """Engines of `engines.named` in appliance.yaml; what is not given is the one that all lines have."""

    asr: Annotated[str, StringConstraints(max_length=24)] = Field(default="", description="Understands the caller.")
    llm: Annotated[str, StringConstraints(max_length=24)] = Field(
        default="", description="Thinks, with `agent: llm` or `converse`."
    )
    tts: Annotated[str, StringConstraints(max_length=24)] = Field(
        default="", description="Speaks; `voice` says in which of its voices."
    )


@short_form({"type": "integer"})
def _refusal(value: Any) -> Any:
    return {"status": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Refusal(Section):
    """What calls are told that are not answered."""

    status: Literal[403, 404, 410, 480, 484, 486, 503, 600, 603, 604, 607, 608] = Field(
        description="As SIP has it: 403 forbidden, 404 no such number, 410 no longer in service, 480 not available "
        "now, 486 busy, 503 try again later, 603 declined, 607 unwanted, 608 rejected as spam ..."
    )
    reason: Annotated[str, StringConstraints(pattern=r"^[ -~]{0,100}$", strip_whitespace=True)] = Field(
        default="", description="Words beside it; unless given, those that SIP has for the status."
    )


@short_form({"type": "boolean"})
def _recording(value: Any) -> Any:
    return {"enabled": value} if isinstance(value, bool) else value


class Recording(Section):
    """Whether calls are recorded, what callers are told of it, and how long recordings are kept."""

    enabled: bool = Field(default=True, description="Whether calls are recorded at all.")
    consent: Literal["none", "announce", "ask"] = Field(
        default="none",
        description="announce: callers are told before the recording begins. ask: it begins only after a yes, or "
        "key 1. none: neither.",
    )
    announce: Text | None = Field(
        default=None,
        description="With `consent: announce`: what is said; unless given, a sentence in the line's language.",
    )
    ask: Text | None = Field(
        default=None, description="With `consent: ask`: the question; unless given, one in the line's language."
    )
    refused: Annotated[str, StringConstraints(max_length=1000, strip_whitespace=True)] | None = Field(
        default=None,
        description="With `consent: ask`: said after a no; unless given, a sentence in the line's language.",
    )
    keep_days: int | None = Field(
        default=None,
        ge=1,
        le=3650,
        description="A recording is deleted so many days after it began; unless given, with the call's record "
        "(`store.retention_days`).",
    )

    @model_validator(mode="after")
    def _says_what_is_said(self) -> Recording:
        for key, consent in (("announce", "announce"), ("ask", "ask"), ("refused", "ask")):
            if getattr(self, key) is not None and self.consent != consent:
                raise fault(
                    f"{key} is never said with consent: {self.consent}", f"set consent: {consent}, or remove it"
                )
        return self


@short_form(TEXT_SCHEMA)
def _closed(value: Any) -> Any:
    return {"say": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


class Closed(Section):
    """What a line does outside of its `hours`: it says something, or hands on, or is another line, or a changed one."""

    say: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] = Field(
        default="", description="Said after the `disclosure`; then the call is ended, or handed on by `transfer`."
    )
    transfer: Annotated[TransferTarget, BeforeValidator(target)] | None = Field(
        default=None, description="Who to hand the caller on to: a number, or a mapping as in a `transfer` step."
    )
    failed: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] = Field(
        default="", description="With `transfer`: said where nobody could be reached, before the call is ended."
    )
    line: Name | None = Field(
        default=None, description="The line that answers instead, whatever its own `match` and `hours` say."
    )
    instead: dict[str, Any] = Field(
        default={},
        description="Keys of a line, laid over this line's as it is by `extends`: another `greeting`, `flow`, `prompt` "
        "...; not those that say which calls it answers, nor `plugins`.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Closed:
        ways = [key for key in ("line", "instead") if getattr(self, key)]
        if self.say or self.transfer is not None:
            ways.append("say" if self.say else "transfer")
        if not ways:
            raise fault("says nothing", "give it one of say, transfer, line and instead")
        if len(ways) > 1:
            raise fault(f"has both {ways[0]} and {ways[1]}", "keep one of them")
        if self.failed and self.transfer is None:
            raise fault("failed is never said without transfer", "remove it, or add transfer")
        return self


class Line(Section):
    """Who answers a number, and what the conversation there is."""

    name: Name = Field(description="The line's name in records, metrics and logs.")
    description: str = Field(default="", description="For people.")
    extends: Name | None = Field(
        default=None,
        description="A line, or one of `bases` in any file, whose keys hold where this line does not say otherwise.",
    )
    match: Match = Field(default=Match(), description="Which calls it answers; without it, every call.")
    refuse: Annotated[Refusal, BeforeValidator(_refusal)] | None = Field(
        default=None, description="Refuses the calls that match, instead of answering: a status, or a mapping."
    )
    hours: HoursKey = Field(
        default=None,
        description="Open when, written as in `match`; outside of them the line still answers, as `closed` says.",
    )
    holidays: HolidaysKey = Field(
        default=(), max_length=200, description="Closed when, written as in `match`; the line answers as `closed` says."
    )
    closed: Annotated[Closed, BeforeValidator(_closed)] | None = Field(
        default=None,
        description="What callers have while `hours` and `holidays` say closed: a text that is said before the call is "
        "ended, or a mapping.",
    )
    language: Language = Field(default="en-us", description="Language spoken, such as `en-us`.")
    voice: Voice = Field(default=Voice(), description="How the agent sounds.")
    disclosure: Text | None = Field(
        default=None, description="Said before all else and never interrupted: that a machine is speaking."
    )
    greeting: Annotated[Spoken, BeforeValidator(_spoken)] | None = Field(
        default=None, description="Said first: a text, or `{text, interruptible}`."
    )
    agent: Literal["flow", "llm", "realtime"] = Field(
        default="flow",
        description="Who leads: the steps of `flow`, a language model, or one that hears and speaks by itself. What is "
        "said of `agent: llm` below holds for `realtime`, too, unless it says otherwise.",
    )
    prompt: str | None = Field(
        default=None, description="With `agent: llm`, or `converse`: what the model is told to be and do."
    )
    tools: tuple[Name, ...] | None = Field(
        default=None,
        description="With `agent: llm`: what the model may do, by name; `hang_up` always. Unless given: all that need "
        "nothing else, `transfer` with `transfers`, `remember` with `memory`; never `send_digits`.",
    )
    plugins: LinePlugins = Field(
        default={},
        description="Plugins of this line, beside those that the box enables for all: a list of names, or a mapping of "
        "each name to values, which are laid over the box's key by key; `NAME: false` switches one off on this line.",
    )
    transfers: dict[Name, Annotated[TransferChoice, BeforeValidator(target)]] = Field(
        default={},
        description="With `agent: llm`: who the caller may be handed on to: a number, or a mapping, by name.",
    )
    private: dict[Name, PrivateNumber] = Field(
        default={},
        max_length=10,
        description="With `agent: llm` or `converse`, not `realtime`: numbers that callers press for tools, by name; "
        "neither the model nor the record nor other plugins learn them.",
    )
    memory: Memory = Field(
        default=Memory(), description="With `agent: llm`, not `realtime`: what is remembered of callers."
    )
    filler: Filler = Field(default=Filler(), description="What bridges a wait.")
    context_tokens: int = Field(
        default=6000,
        ge=1000,
        le=40_000,
        description="With `agent: llm`, not `realtime`: what the model is shown at most, counted as a token per four "
        "characters. Above six tenths of it, older turns are summarised.",
    )
    reply_tokens: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="With `agent: llm`, not `realtime`: the longest answer; 0 leaves it to `engines.llm`.",
    )
    manners: tuple[Literal["repeat", "pace"], ...] = Field(
        default=("repeat", "pace"),
        description="What is done when a caller asks, without asking the flow or the model: saying the last thing "
        "again, speaking more slowly or faster.",
    )
    timezone: str | None = Field(
        default=None, description="Where the line is, such as `Europe/Berlin`; unless given, where the box is."
    )
    region: Region | None = Field(
        default=None,
        description="Country that numbers without country code are from in `match`, such as `DE`; unless given, "
        "`dialplans.region` of appliance.yaml.",
    )
    flow: dict[Name, TaggedStep] = Field(
        default={},
        description="With `agent: flow`: steps by name. The first one is where the call begins. With `agent: llm`: "
        "those that `on_engine_failure` or `keys` go on with.",
    )
    on_engine_failure: EngineFailure | None = Field(
        default=None,
        description="What to do when model, recogniser or synthesiser fail; without it, the call ends with an apology.",
    )
    pronunciations: dict[str, str] = Field(
        default={}, description="Words the recogniser does not know, with their ARPAbet phones."
    )
    hints: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        default=(),
        max_length=200,
        description="Words that callers are likely to say, names above all, for a recogniser of free speech.",
    )
    reject_unexpected: bool = Field(
        default=True,
        description="Whether speech that fits no expected phrase is a no-match; else the nearest is taken.",
    )
    denoise: Literal["webrtc", "rnnoise", "off", ""] = Field(
        default="",
        description="Noise suppression: `webrtc`, `rnnoise` or `off`; empty takes the box's `engines.denoise`.",
    )
    barge_in: bool = Field(default=True, description="Whether the caller can cut the agent short by speaking.")
    engines: LineEngines = Field(
        default=LineEngines(), description="Other engines than all lines have: `{llm: clever}`, by `engines.named`."
    )
    turn: Turn = Field(default=Turn(), description="When the caller has finished.")
    no_input: NoInput = Field(default=NoInput(), description="When the caller says nothing.")
    no_match: NoMatch = Field(default=NoMatch(), description="When the caller says something unexpected.")
    keys: dict[Annotated[str, AfterValidator(telephone_key)], Shortcut] = Field(
        default={},
        description='Telephone keys that do something at any time: `{"0": {transfer: ...}}`; not while a number is '
        "pressed, nor during a private question, nor where a question gives the key a meaning.",
    )
    max_duration_s: float = Field(default=1800.0, ge=1, le=86400, description="A call is ended after this long.")
    max_duration_warning: DurationWarning | None = Field(
        default=None, description="What the caller is told before that; without it, goodbye at the end."
    )
    record: Annotated[Recording, BeforeValidator(_recording)] = Field(
        default=Recording(enabled=False), description="Whether calls are recorded: true, false, or a mapping."
    )

    _written: dict[str, Any] | None = PrivateAttr(default=None)
    """Of a line that is another while it is closed: the whole of it, as it was written."""

    @model_validator(mode="wrap")
    @classmethod
    def _keep_what_changes(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        line = handler(data)
        if line.closed is not None and line.closed.instead and isinstance(data, dict):
            line._written = data
        return line

    @property
    def written(self) -> dict[str, Any] | None:
        """The line as it was written, with all that it inherits, where `closed.instead` is laid over that."""
        return self._written

    @property
    def converses(self) -> bool:
        """Whether its flow hands callers over to a language model."""
        return any(isinstance(step, ConverseStep) for step in self.flow.values())

    @property
    def catches_all(self) -> bool:
        """Whether every call matches."""
        return self.match.anything
