"""The schema of the steps of a line's flow. PURE.

Every key has a description: the tables in ``docs/dialplans.md`` are made of them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from appliance.config.validation import Section, fault, short_form
from appliance.dialplan.match import one_or_many

NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
Name: TypeAlias = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3600)]

KEYS = "0123456789*#ABCD"
DEFAULT_RETRIES = 2

TEXT_SCHEMA = {"type": ["string", "number"]}
_LIST_OF_TEXT = {"type": "array", "items": TEXT_SCHEMA}


@short_form(_LIST_OF_TEXT, {"type": "object", "additionalProperties": {"anyOf": [TEXT_SCHEMA, _LIST_OF_TEXT]}})
def _choices(value: Any) -> Any:
    if isinstance(value, list):
        odd = [item for item in value if not isinstance(item, str | int | float) or isinstance(item, bool)]
        if odd:
            raise fault("holds something that is not a phrase", "put words like true or null in quotes")
        return {str(item): (item,) for item in value}
    if isinstance(value, dict):
        return {key: one_or_many(phrases) for key, phrases in value.items()}
    return value


@short_form(TEXT_SCHEMA)
def _next(value: Any) -> Any:
    return {"default": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


def telephone_key(value: str) -> str:
    if len(value) != 1 or value not in KEYS:
        raise fault(f"{value!r} is not a telephone key", "use one of 0-9, * and #")
    return value


def _terminator(value: str) -> str:
    if value not in ("#", "*", ""):
        raise fault(f"{value!r} cannot end a number", "use '#', '*' or '' for none")
    return value


NextSteps: TypeAlias = Annotated[dict[str, str], BeforeValidator(_next)]
Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True)]


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
    keys: dict[Annotated[str, AfterValidator(telephone_key)], str] = Field(
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
    private: bool = Field(
        default=False,
        description="From the question to the answer the recording is silence; words and keys are neither on record "
        "nor told to plugins, and the slot cannot be said.",
    )

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
        default="",
        description="Said to the one who answers, before the caller is put through; needs `attended`. `${summary}` "
        "stands for what the call has been about.",
    )


@short_form(TEXT_SCHEMA)
def target(value: Any) -> Any:
    return {"to": value} if isinstance(value, str | int) and not isinstance(value, bool) else value


class TransferStep(Section):
    """Hands the caller on to somebody else; the agent's part ends when that is done."""

    tag: ClassVar[str] = "<transfer>"
    transfer: Annotated[TransferTarget, BeforeValidator(target)] = Field(
        description="Who to: a number, or a mapping with the keys below."
    )
    say: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] = Field(
        default="", description="Said first; the caller cannot cut it short."
    )
    failed: str | None = Field(
        default=None, description="Step to go on with when nobody could be reached; without one, the call is ended."
    )


class GotoStep(Section):
    """Goes on elsewhere."""

    tag: ClassVar[str] = "<goto>"
    goto: str = Field(description="The step to go on with.")


class CallbackStep(Section):
    """Agrees on a time to call again, and goes on: the campaign that has placed the call does so then."""

    tag: ClassVar[str] = "<callback>"
    callback: Text = Field(
        description="When, where the one called is: `+2h`, `14:00`, `tomorrow 09:30`, `monday 10:00` or "
        "`2026-11-23T10:00`, within 30 days; or `${slots.NAME}`, whose choices are such times."
    )
    say: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] = Field(
        default="", description="Said then."
    )
    next: str | None = Field(default=None, description="Step to go on with; the one below unless given.")


class SlotSpec(Section):
    """One thing that a language model is to find out."""

    type: Literal["string", "integer", "number", "boolean"] = Field(default="string", description="What it is.")
    description: Annotated[str, StringConstraints(max_length=500, strip_whitespace=True)] = Field(
        default="", description="Tells the model what it means: `the day of the visit, as YYYY-MM-DD`."
    )
    choices: tuple[Text, ...] = Field(default=(), max_length=100, description="Of a string: one of these.")
    min: float | None = Field(default=None, description="Of a number: the smallest.")
    max: float | None = Field(default=None, description="Of a number: the largest.")

    @model_validator(mode="after")
    def _fits(self) -> SlotSpec:
        if self.choices and self.type != "string":
            raise fault(f"has choices, and is of type {self.type}", "set type: string, or remove them")
        if (self.min is not None or self.max is not None) and self.type not in ("integer", "number"):
            raise fault(f"has min or max, and is of type {self.type}", "set type: integer or number, or remove them")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise fault(f"min {self.min:g} is more than max {self.max:g}", "swap them")
        return self


class ConverseStep(Section):
    """Hands the caller over to the language model, which gives the caller back when it has done what it is told."""

    tag: ClassVar[str] = "<converse>"
    converse: Text = Field(description="What the model is to do here; the line's `prompt` stands before it.")
    say: Text | None = Field(
        default=None,
        description="Said first. Unless given, the model answers what the caller said last, or begins by itself.",
    )
    slots: dict[Name, SlotSpec] = Field(default={}, max_length=20, description="What it is to find out, by name.")
    next: NextSteps = Field(
        default={},
        description="Step to go on with, or outcome to step, of which the model chooses one; else the one below.",
    )
    unfilled: tuple[str, ...] = Field(default=(), description="Outcomes that may leave slots empty.")
    tools: tuple[Name, ...] = Field(default=(), description="What the model may do here besides, by name.")
    failed: str = Field(description="Step to go on with when the model fails, or comes to no end.")
    max_turns: int = Field(default=20, ge=1, le=200, description="So often the caller may speak before that.")

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What the model chooses among; empty where there is nothing to choose."""
        return tuple(self.next) if set(self.next) - {"default"} else ()


STEP_KINDS: tuple[type[Section], ...] = (
    SayStep, AskStep, BranchStep, HangUpStep, TransferStep, ConverseStep, CallbackStep, GotoStep
)  # fmt: skip
STEP_KEYS = ("transfer", "converse", "callback", "say", "ask", "branch", "hang_up", "goto")


def _kind(value: Any) -> str:
    return f"<{next(kind for kind in STEP_KEYS if kind in value)}>" if isinstance(value, dict) else value.tag


@short_form()
def _has_one_kind(value: Any) -> Any:
    if isinstance(value, STEP_KINDS):
        return value
    wanted = f"give it one of {', '.join((*STEP_KEYS[3:], *STEP_KEYS[:3]))}"
    if not isinstance(value, dict):
        raise fault("is not a step", wanted)
    found = [kind for kind in STEP_KEYS if kind in value]
    if {"transfer", "converse", "callback"} & {*found} and "say" in found:
        found.remove("say")  # a key of such a step
    if not found:
        raise fault("the step does nothing", wanted)
    if len(found) > 1:
        raise fault(f"the step has both {found[0]} and {found[1]}", "make two steps of it")
    return value


Step: TypeAlias = SayStep | AskStep | BranchStep | HangUpStep | TransferStep | ConverseStep | CallbackStep | GotoStep
TaggedStep: TypeAlias = Annotated[
    Annotated[SayStep, Tag("<say>")]
    | Annotated[AskStep, Tag("<ask>")]
    | Annotated[BranchStep, Tag("<branch>")]
    | Annotated[HangUpStep, Tag("<hang_up>")]
    | Annotated[TransferStep, Tag("<transfer>")]
    | Annotated[ConverseStep, Tag("<converse>")]
    | Annotated[CallbackStep, Tag("<callback>")]
    | Annotated[GotoStep, Tag("<goto>")],
    Discriminator(_kind),
    BeforeValidator(_has_one_kind),
]
