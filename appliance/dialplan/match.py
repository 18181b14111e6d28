"""The schema of ``match``: which calls a line answers. PURE."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeAlias

import re2
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from appliance.api.hours import ON_HOLIDAYS, Days, Holiday, Spans
from appliance.config.fields import Language
from appliance.config.validation import ITEM, Section, fault, short_form

MAX_REGEX = 500
MAX_PATTERNS = 10_000
_REGEX_MEMORY = 1 << 20
_BEGINNING = 32


class Program:
    """A regular expression of RE2's, which runs in time linear in the text; it has to fit the whole of it.

    Raises:
        re2.error: it is none.
    """

    __slots__ = ("_compiled",)

    def __init__(self, regex: str) -> None:
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _REGEX_MEMORY
        re2.compile(regex, options)  # by itself: a bracket too many must not close the one around it
        self._compiled = re2.compile(rf"\A(?:{regex})\z", options)

    def fits(self, text: str) -> bool:
        """Whether all of ``text`` fits."""
        return self._compiled.match(text) is not None

    def beginning(self) -> str:
        """What every text that fits begins with; "" where that cannot be told."""
        known, low, high = self._compiled._regexp.PossibleMatchRange(_BEGINNING)
        if not known:
            return ""
        count = next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
        return bytes(low[:count]).decode("utf-8", "ignore")


@short_form(ITEM)
def one_or_many(value: Any) -> Any:
    """A list, also where one item was written alone."""
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


@short_form(ITEM)
def _patterns(value: Any) -> Any:
    return [value] if isinstance(value, dict | Section) else one_or_many(value)


def _regex(value: str) -> str:
    try:
        Program(value)
    except re2.error as error:
        told = error.args[0]
        problem = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
        hint = "look-aheads and back-references cannot be used; a plus sign of a number is written \\+"
        raise fault(f"{value!r} is not a regular expression that can be run here: {problem}", hint) from None
    return value


def _pattern(value: str) -> str:
    if not value or "*" in value[:-1]:
        hint = "write it in full, or as +49* with the star at the end; {regex: ...} takes anything else"
        raise fault(f"{value!r} is not a number or a prefix", hint)
    return value


class Regex(Section):
    """A regular expression, run by RE2: in linear time, so without look-aheads and back-references."""

    tag: ClassVar[str] = "<regex>"

    regex: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REGEX), AfterValidator(_regex)] = Field(
        description=r"Has to fit the whole number or value, such as `\+49(30|40)\d+`; single quotes keep backslashes."
    )


class NumbersFrom(Section):
    """A file of numbers and prefixes, one a line, or in a column of a CSV file. It is read again on reload."""

    tag: ClassVar[str] = "<file>"

    file: Annotated[str, StringConstraints(min_length=1, max_length=1000, strip_whitespace=True)] = Field(
        description="Text or CSV (`*.csv`), relative to the dialplan's folder. In a text file `#` begins a remark."
    )
    column: Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)] = Field(
        default="", description="Of a CSV file: the heading of the column; unless given, the first one."
    )


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return NumbersFrom.tag if "file" in value and "regex" not in value else Regex.tag
    return value.tag if isinstance(value, Regex | NumbersFrom) else "<number>"


@short_form()
def _written_so(value: Any) -> Any:
    if isinstance(value, dict) and not {"regex", "file"} & set(value):
        raise fault("is neither a number nor a list of them", "write a number, a prefix, {regex: ...} or {file: ...}")
    return value


Pattern: TypeAlias = str | Regex | NumbersFrom
_TaggedPattern: TypeAlias = Annotated[
    Annotated[Annotated[str, AfterValidator(_pattern)], Tag("<number>")]
    | Annotated[Regex, Tag(Regex.tag)]
    | Annotated[NumbersFrom, Tag(NumbersFrom.tag)],
    Discriminator(_kind),
    BeforeValidator(_written_so),
]
Patterns: TypeAlias = Annotated[
    tuple[_TaggedPattern, ...], BeforeValidator(_patterns), Field(min_length=1, max_length=MAX_PATTERNS)
]
Words: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(one_or_many), Field(min_length=1)]
HoursKey: TypeAlias = dict[Days, Annotated[tuple[Spans, ...], BeforeValidator(one_or_many)]] | None
HolidaysKey: TypeAlias = Annotated[tuple[Holiday, ...], BeforeValidator(one_or_many)]


class Match(Section):
    """Which calls a line answers. What is left out matches everything; of a list, one has to match."""

    trunk: Words | None = Field(default=None, description="Name of the trunk in appliance.yaml, or a list of names.")
    called: Patterns | None = Field(
        default=None,
        description="The number dialled: exact, or a prefix such as `+49*`; `{regex: ...}` or `{file: ...}`; or a list "
        "of these.",
    )
    calling: Patterns | None = Field(default=None, description="The caller's number, in the same ways.")
    diverted: Patterns | None = Field(
        default=None,
        description="A number the call was sent on from (Diversion, History-Info), in the same ways.",
    )
    verstat: Words | None = Field(
        default=None,
        description="The network's verdict on the caller's number, such as `TN-Validation-Passed`; `''` for none.",
    )
    headers: dict[str, Patterns] = Field(
        default={},
        description="Headers that the trunk's `headers_in` lists: name to a value, exact, or a prefix such as `gold*`, "
        "or in the other ways.",
    )
    language: Annotated[tuple[Language, ...], BeforeValidator(one_or_many), Field(min_length=1)] | None = Field(
        default=None,
        description="What the call asks for: the first of its Accept-Language; else the trunk's `language`; else what "
        "is spoken in the country of the caller's number. `de` is any German, `de-at` that of Austria.",
    )
    hours: HoursKey = Field(
        default=None,
        description="Open when, by the line's own `timezone`: `{mon-fri: 09:00-17:00, sat: [09:00-12:00]}`; "
        "`22:00-06:00` goes on the next day; `holidays` has hours of its own, none unless given.",
    )
    holidays: HolidaysKey = Field(
        default=(),
        max_length=200,
        description="Closed when: calendars (`DE`, `DE-BE`), days (`2026-12-24`), days of every year (`12-24`), or "
        "from one to another (`2026-12-24..2027-01-01`).",
    )
    closed: bool = Field(default=False, description="true: answers when `hours` and `holidays` say closed, not open.")
    calls_below: int | None = Field(
        default=None, ge=1, le=10_000, description="Only while fewer calls than this are on the line."
    )
    load_below: float | None = Field(
        default=None, gt=0, le=100, description="Only while fewer of the box's `limits.max_calls`, in percent, are on."
    )

    @model_validator(mode="after")
    def _says_when(self) -> Match:
        if self.closed and self.hours is None and not self.holidays:
            raise fault("closed has no effect without hours or holidays", "say when it is closed, or remove it")
        if self.hours is not None and ON_HOLIDAYS in self.hours and not self.holidays:
            raise fault("hours.holidays has no effect without holidays", "say which: holidays: [DE]")
        return self

    @property
    def anything(self) -> bool:
        """Whether every call matches."""
        return (
            all(words is None or "*" in words for words in (self.trunk, self.called, self.calling))
            and all(one is None for one in (self.diverted, self.verstat, self.language, self.hours))
            and not self.headers
            and not self.holidays
            and self.calls_below is None
            and self.load_below is None
        )
