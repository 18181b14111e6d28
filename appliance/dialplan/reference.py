"""The tables of keys in ``docs/dialplans.md``, made of the schema: ``python -m appliance.dialplan.reference``."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from appliance.config.reference import with_keys
from appliance.dialplan.match import Match, NumbersFrom, Regex
from appliance.dialplan.schema import (
    Closed,
    DurationWarning,
    EngineFailure,
    Filler,
    Line,
    LineEngines,
    Memory,
    PrivateNumber,
    Recording,
    Refusal,
    Spoken,
    TransferChoice,
    Turn,
    Voice,
)
from appliance.dialplan.shortcuts import Shortcut
from appliance.dialplan.steps import (
    AskStep,
    BranchStep,
    CallbackStep,
    ConverseStep,
    DigitSpec,
    GotoStep,
    HangUpStep,
    NoInput,
    NoMatch,
    SayStep,
    SlotSpec,
    TransferStep,
    TransferTarget,
)

TARGET = Path(__file__).parents[2] / "docs" / "dialplans.md"

_BEGIN = "<!-- Keys: made by `python -m appliance.dialplan.reference`; edit schema.py and steps.py there. -->"

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("A line", Line),
    ("`match`", Match),
    ("`{regex: ...}`, in `match`", Regex),
    ("`{file: ...}`, in `match`", NumbersFrom),
    ("`refuse`", Refusal),
    ("`closed`", Closed),
    ("`voice`", Voice),
    ("`greeting`", Spoken),
    ("`engines`", LineEngines),
    ("`turn`", Turn),
    ("`no_input`", NoInput),
    ("`no_match`", NoMatch),
    ("`on_engine_failure`", EngineFailure),
    ("One of `transfers`", TransferChoice),
    ("One of `private`", PrivateNumber),
    ("`memory`", Memory),
    ("`filler`", Filler),
    ("`max_duration_warning`", DurationWarning),
    ("`record`", Recording),
    ("One of `keys` of a line", Shortcut),
    ("A `say` step", SayStep),
    ("An `ask` step", AskStep),
    ("`digits` of an `ask` step", DigitSpec),
    ("A `branch` step", BranchStep),
    ("A `hang_up` step", HangUpStep),
    ("A `transfer` step", TransferStep),
    ("`transfer` of a `transfer` step", TransferTarget),
    ("A `converse` step", ConverseStep),
    ("One of `slots` of a `converse` step", SlotSpec),
    ("A `callback` step", CallbackStep),
    ("A `goto` step", GotoStep),
)


def updated(page: str) -> str:
    """``page`` with its part about the keys made anew."""
    return with_keys(page, _BEGIN, SECTIONS)


if __name__ == "__main__":
    TARGET.write_text(updated(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
