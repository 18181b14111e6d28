"""What a line is outside of its hours. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from appliance.dialplan.extends import changed
from appliance.dialplan.matcher import Open
from appliance.dialplan.schema import Closed, Line
from appliance.dialplan.steps import HangUpStep, TransferStep

_KEPT: Final = (
    "name", "description", "match", "extends", "language", "voice", "disclosure", "plugins", "timezone", "region",
    "filler", "denoise", "barge_in", "record", "engines", "on_engine_failure",
)  # fmt: skip
"""What a line that only says that it is closed has in common with itself."""
_START: Final = "closed"
_FAILED: Final = "failed"


@dataclass(frozen=True)
class Closing:
    """When a line is open, and what it is otherwise; that is itself where another line answers then."""

    hours: Open
    line: Line

    @classmethod
    def of(cls, line: Line) -> Closing | None:
        """Of a line that has been checked; None where it is never closed."""
        if line.closed is None or (line.hours is None and not line.holidays):
            return None
        return cls(Open.of(line.hours, line.holidays, line.timezone), while_closed(line))


def while_closed(line: Line) -> Line:
    """``line`` as it answers outside of its hours; itself where it is another line that does, or always the same."""
    closed = line.closed
    if closed is None or closed.line is not None:
        return line
    if closed.instead and line.written is not None:
        return Line.model_validate(changed(line.written) | {"name": line.name})
    return _short(line, closed)


def _short(line: Line, closed: Closed) -> Line:
    """A line that says what it has to say, and then ends the call or hands it on."""
    step: HangUpStep | TransferStep = HangUpStep(hang_up=closed.say, disposition=_START)
    if closed.transfer is not None:
        step = TransferStep(transfer=closed.transfer, say=closed.say, failed=_FAILED)
    steps = {_START: step} | ({_FAILED: HangUpStep(hang_up=closed.failed)} if closed.transfer is not None else {})
    kept = {key: getattr(line, key) for key in _KEPT if key in line.model_fields_set}
    return Line.model_construct(**kept, flow=steps)
