"""What a call says on its way into the record, where asking plugins goes wrong in a way that nobody thought of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from appliance.calls.storing import CallKeeping
from appliance.conversation.hooked import HooksOfCall
from appliance.events import CallEnded, CallEvent, Disposition, HangupBy


class Failing:
    """Hooks of a call that break what they promise."""

    def wanted(self, hook: str) -> bool:
        return hook == "before_storing"

    async def before_storing(self, texts: list[str]) -> list[str]:
        raise RuntimeError("not foreseen")


class Log:
    def __init__(self) -> None:
        self.events: list[CallEvent] = []

    def say(self, event: CallEvent) -> None:
        self.events.append(event)


async def test_the_end_of_a_call_is_on_record_and_its_texts_withheld_where_asking_fails() -> None:
    log = Log()
    keeping = CallKeeping(log, cast(HooksOfCall, Failing()))
    for _ in range(2):
        keeping.say(
            CallEnded(
                call_id="c1",
                ended_at=1.0,
                ended_utc=datetime(2026, 1, 1, tzinfo=UTC),
                disposition=Disposition.COMPLETED,
                hangup_by=HangupBy.CALLER,
                hangup_code=200,
                hangup_text="secret",
                slots={},
            )
        )
    await keeping.close()
    ended = [cast(CallEnded, event).hangup_text for event in log.events]
    assert ended == ["[withheld: plugins could not be asked]"] * 2
