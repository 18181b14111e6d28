"""The schema of ``dialplans/*.yaml``: a line, and the steps of its flow. PURE.

Every key has a description: the tables in ``docs/dialplans.md`` are made of them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from appliance.config.fields import Language, LinePlugins, Region
from appliance.config.validation import Section, fault, short_form
from appliance.dialplan.match import Match, one_or_many

NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
Name: TypeAlias = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3600)]

Word: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
Respelling: TypeAlias = Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)]

KEYS = "0123456789*#ABCD"
DEFAULT_RETRIES = 2

BUILTIN_TOOLS = ("transfer", "hang_up", "collect_digits", "take_message", "stop_calling", "remember", "send_digits")
"""What a language model can be given without a plugin."""


_TEXT = {"type": ["string", "number"]}
_LIST_OF_TEXT = {"type": "array", "items": _TEXT}


@short_form(_LIST_OF_TEXT, {"type": "object", "additionalProperties": {"anyOf": [_TEXT, _LIST_OF_TEXT]}})
def _choices(value: Any) -> Any:
    if isinstance(value, list):
        odd = [item for item in value if not isinstance(item, str | int | float) or isinstance(item, bool)]
        if odd:
            raise fault("holds something that is not a phrase", "put words like true or null in quotes")
        return {str(item): (item,) for item in value}
    if isinstance(value, dict):
        return {key: one_or_many(phrases) for key, phrases in value.items()}
    return value


@short_form(_TEXT)
def _next(value: Any) -> Any:
    return {"default": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


@short_form(_TEXT)
def _spoken(value: Any) -> Any:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict | Spoken):
        raise fault(f"must be text, not {value!r}", "write the words to say, in quotes if they look like a number")
    return value


def _key(value: str) -> str:
    if len(value) != 1 or value not in KEYS:
        raise fault(f"{value!r} is not a telephone key", "use one of 0-9, * and #")
    return value


def _terminator(value: str) -> str:
    if value not in ("#", "*", ""):
        raise fault(f"{value!r} cannot end a number", "use '#', '*' or '' for none")
    return value


NextSteps: TypeAlias = Annotated[dict[str, str], BeforeValidator(_next)]
Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True)]


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


class NoInput(Section):
    """What to do when the caller says nothing."""

    after_s: Seconds = Field(default=7.0, description="Silence after the question, in seconds.")
    prompts: tuple[Text, ...] = Field(
        default=(), description="Said the first, second ... time; without any, the question is repeated."
    )
    retries: int | None = Field(
        default=None, ge=0, le=10, description="How often to ask again: as many as prompts, or 2 without prompts."
    )
    then: str | None = Field(default=None, description="Step to go to after that; without one, the call is ended.")


class NoMatch(Section):
    """What to do when the caller says or presses something that was not expected."""

    prompts: tuple[Text, ...] = Field(
        default=(), description="Said the first, second ... time; without any, the question is repeated."
    )
    retries: int | None = Field(
        default=None, ge=0, le=10, description="How often to ask again: as many as prompts, or 2 without prompts."
    )
    then: str | None = Field(default=None, description="Step to go to after that; without one, the call is ended.")


class DigitSpec(Section):
    """A number to collect."""

    min: int = Field(default=1, ge=1, le=32, description="Fewest digits.")
    max: int = Field(ge=1, le=32, description="Most digits; the number is complete as soon as it has them.")
    terminator: Annotated[str, AfterValidator(_terminator)] = Field(
        default="#", description="Key that ends a shorter number; '' for none."
    )
    by: Literal["key", "voice", "both"] = Field(
        default="both", description="Pressed, spoken digit by digit, or either."
    )
    timeout_s: Seconds = Field(default=3.0, description="After this long without a further key the number is complete.")

    @model_validator(mode="after")
    def _in_order(self) -> DigitSpec:
        if self.min > self.max:
            raise fault(f"min {self.min} is more than max {self.max}", "swap them")
        return self


class SayStep(Section):
    """Says something and goes on."""

    tag: ClassVar[str] = "<say>"
    say: Text = Field(description="What is said.")
    interruptible: bool | None = Field(default=None, description="As the line's `barge_in` unless given.")
    next: str | None = Field(default=None, description="Step to go on with; the one below unless given.")


class AskStep(Section):
    """Asks, and waits for one of the answers it expects."""

    tag: ClassVar[str] = "<ask>"
    ask: Text = Field(description="The question.")
    expect: Annotated[dict[str, tuple[Text, ...]], BeforeValidator(_choices)] = Field(
        default={}, description="Choice to the phrases that mean it; or a list of phrases, each its own choice."
    )
    keys: dict[Annotated[str, AfterValidator(_key)], str] = Field(
        default={}, description='Telephone key to the choice it stands for: `{"1": booking}`.'
    )
    digits: DigitSpec | None = Field(default=None, description="A number to collect instead of, or beside, choices.")
    slot: Name | None = Field(default=None, description="Where the answer is kept: the choice, or the digits.")
    next: NextSteps = Field(
        default={}, description="Step to go on with, or choice to step with `default` for the rest; else the one below."
    )
    interruptible: bool | None = Field(default=None, description="As the line's `barge_in` unless given.")
    no_input: NoInput | None = Field(default=None, description="What differs from the line's `no_input` here.")
    no_match: NoMatch | None = Field(default=None, description="What differs from the line's `no_match` here.")

    @property
    def choices(self) -> tuple[str, ...]:
        """Names of the choices; those of the keys where nothing is expected to be spoken."""
        return tuple(self.expect) or tuple(dict.fromkeys(self.keys.values()))


class BranchStep(Section):
    """Goes on by what a slot holds."""

    tag: ClassVar[str] = "<branch>"
    branch: str = Field(description="Name of the slot.")
    when: dict[str, str] = Field(min_length=1, description="Value to step.")
    default: str = Field(description="Step for any other value, and for none.")


class HangUpStep(Section):
    """Says goodbye and ends the call."""

    tag: ClassVar[str] = "<hang_up>"
    hang_up: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] | None = Field(
        description="The farewell; empty for none."
    )
    disposition: Name = Field(default="completed", description="What the record's slot `ending` says.")


class TransferTarget(Section):
    """Who a caller is handed on to, and how."""

    to: Annotated[str, StringConstraints(min_length=1, max_length=256, strip_whitespace=True)] = Field(
        description="Number or name, or a SIP URI at a trunk. `${...}` stands for values as in what is said."
    )
    trunk: Name | None = Field(default=None, description="The trunk to use; without one, `routes` say which.")
    kind: Literal["blind", "attended"] = Field(
        default="blind",
        description="blind: the caller's side is told to call there. attended: only once somebody has answered.",
    )
    timeout_s: Seconds = Field(default=30.0, description="How long the other side may take to answer.")
    announce: Annotated[str, StringConstraints(max_length=1000, strip_whitespace=True)] = Field(
        default="", description="Said to the one who answers, before the caller is put through; needs `attended`."
    )


class TransferChoice(TransferTarget):
    """Somebody a language model may hand the caller on to. It chooses the name, never the number."""

    description: Annotated[str, StringConstraints(max_length=500, strip_whitespace=True)] = Field(
        default="", description="Tells the model who that is, and when to hand on: `orders and invoices`."
    )
    say: Annotated[str, StringConstraints(max_length=1000, strip_whitespace=True)] = Field(
        default="", description="Said first, where the model says nothing by itself; the caller cannot cut it short."
    )


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


@short_form(_TEXT)
def _target(value: Any) -> Any:
    return {"to": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


class TransferStep(Section):
    """Hands the caller on to somebody else; the agent's part ends when that is done."""

    tag: ClassVar[str] = "<transfer>"
    transfer: Annotated[TransferTarget, BeforeValidator(_target)] = Field(
        description="Who to: a number, or a mapping with the keys below."
    )
    say: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] = Field(
        default="", description="Said first; the caller cannot cut it short."
    )
    failed: str | None = Field(
        default=None, description="Step to go on with when nobody could be reached; without one, the call is ended."
    )


class Fallback(Section):
    """What becomes of the caller when the language model fails: a transfer, a step of `flow`, or else the end."""

    after: int = Field(default=2, ge=1, le=2, description="So many replies in a row have to fail; 1: the first.")
    say: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] = Field(
        default="I am sorry, I cannot help you right now.",
        description="Said first; the caller cannot cut it short. Empty for nothing.",
    )
    transfer: Annotated[TransferTarget, BeforeValidator(_target)] | None = Field(
        default=None, description="Who to hand the caller on to: a number, or a mapping as in a `transfer` step."
    )
    step: str | None = Field(default=None, description="The step of `flow` that goes on with the caller.")

    @model_validator(mode="after")
    def _one_way(self) -> Fallback:
        if self.transfer is not None and self.step is not None:
            raise fault("has both transfer and step", "keep one; a step can transfer, too")
        return self


class GotoStep(Section):
    """Goes on elsewhere."""

    tag: ClassVar[str] = "<goto>"
    goto: str = Field(description="The step to go on with.")


STEP_KINDS: tuple[type[Section], ...] = (SayStep, AskStep, BranchStep, HangUpStep, TransferStep, GotoStep)
STEP_KEYS = ("transfer", "say", "ask", "branch", "hang_up", "goto")


def _kind(value: Any) -> str:
    return f"<{next(kind for kind in STEP_KEYS if kind in value)}>" if isinstance(value, dict) else value.tag


@short_form()
def _has_one_kind(value: Any) -> Any:
    if isinstance(value, STEP_KINDS):
        return value
    wanted = f"give it one of {', '.join((*STEP_KEYS[1:], STEP_KEYS[0]))}"
    if not isinstance(value, dict):
        raise fault("is not a step", wanted)
    found = [kind for kind in STEP_KEYS if kind in value]
    if "transfer" in found and "say" in found:
        found.remove("say")  # a key of the transfer step
    if not found:
        raise fault("the step does nothing", wanted)
    if len(found) > 1:
        raise fault(f"the step has both {found[0]} and {found[1]}", "make two steps of it")
    return value


Step: TypeAlias = SayStep | AskStep | BranchStep | HangUpStep | TransferStep | GotoStep
_TaggedStep: TypeAlias = Annotated[
    Annotated[SayStep, Tag("<say>")]
    | Annotated[AskStep, Tag("<ask>")]
    | Annotated[BranchStep, Tag("<branch>")]
    | Annotated[HangUpStep, Tag("<hang_up>")]
    | Annotated[TransferStep, Tag("<transfer>")]
    | Annotated[GotoStep, Tag("<goto>")],
    Discriminator(_kind),
    BeforeValidator(_has_one_kind),
]


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
    prompt: str | None = Field(default=None, description="With `agent: llm`: what the model is told to be and do.")
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
    transfers: dict[Name, Annotated[TransferChoice, BeforeValidator(_target)]] = Field(
        default={},
        description="With `agent: llm`: who the caller may be handed on to: a number, or a mapping, by name.",
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
    flow: dict[Name, _TaggedStep] = Field(
        default={},
        description="With `agent: flow`: steps by name. The first one is where the call begins. With `agent: llm`: "
        "those that `fallback` goes on with.",
    )
    fallback: Fallback | None = Field(
        default=None,
        description="With `agent: llm`: what to do when the model fails; without it, the call ends with an apology.",
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
    turn: Turn = Field(default=Turn(), description="When the caller has finished.")
    no_input: NoInput = Field(default=NoInput(), description="When the caller says nothing.")
    no_match: NoMatch = Field(default=NoMatch(), description="When the caller says something unexpected.")
    max_duration_s: float = Field(default=1800.0, ge=1, le=86400, description="A call is ended after this long.")
    record: bool = Field(default=False, description="Whether calls are recorded.")

    @property
    def catches_all(self) -> bool:
        """Whether every call matches."""
        return self.match.anything
