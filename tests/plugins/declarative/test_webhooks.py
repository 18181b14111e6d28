"""What webhooks are told, and how it is signed; by arithmetic."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import count, pairwise
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from appliance.events import Confirmed, ToolRun, TurnAmended
from appliance.plugins.declarative.webhooks import MAX_BODY, Target, WebhookEvents, pause_s, signed
from tests.store import facts

ALL = ("call.started", "call.answered", "call.ended", "call.recorded", "tool.used")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def target(*events: str) -> Target:
    return Target(
        plugin="crm",
        webhook="calls",
        url="https://hooks.example.com/",
        events=frozenset(events or ALL),
        secret=SecretStr(SECRET),
        headers={},
        timeout_s=1.0,
        attempts=3,
        concurrency=2,
        max_waiting=5,
    )


def machine(targets_of: Callable[[str], list[Target]] = lambda line: [target()]) -> WebhookEvents:
    numbers = count(1)
    return WebhookEvents(targets_of, lambda: f"evt_{next(numbers)}", lambda: facts.after(99))


def told(events: WebhookEvents, *happened: Any) -> list[dict[str, Any]]:
    return [json.loads(new.body) for event in happened for _, new in events.events(event)]


RUN = ToolRun("order_status", '{"number":"7"}', '{"state":"sent"}', 10.0, 10.25, source="shop", key="c1-1")


def test_a_call_is_told_from_its_beginning_to_its_recording() -> None:
    sent = told(
        machine(),
        facts.started(),
        facts.ringing(),
        facts.answered(),
        facts.turn(tools=(RUN,)),
        facts.ended(),
        facts.recorded(),
    )
    assert [one["type"] for one in sent] == [
        "call.started",
        "call.answered",
        "tool.used",
        "call.ended",
        "call.recorded",
    ]
    first, _, tool, end, recording = (one["data"] for one in sent)
    about = {
        "call_id": "c1",
        "line": "reception",
        "trunk": "local",
        "direction": "inbound",
        "calling": "sip:anna@10.0.0.9",
        "called": "sip:100@127.0.0.1",
    }
    assert first == {**about, "calling_name": "Anna"}
    assert tool == {
        **about,
        "turn": 1,
        "tool": "order_status",
        "source": "shop",
        "arguments": {"number": "7"},
        "result": {"state": "sent"},
        "problem": "",
        "confirmed": Confirmed.NOT_NEEDED.value,
        "idempotency_key": "c1-1",
        "duration_s": 0.25,
    }
    assert end["disposition"] == "completed"
    assert end["duration_s"] > 0
    assert recording["path"]
    assert sent[0]["timestamp"] == facts.after(0).isoformat()


def test_only_lines_that_have_the_webhook_and_events_that_it_wants_are_told() -> None:
    events = machine(lambda line: [target("call.ended")] if line == "reception" else [])
    assert told(events, facts.started(line="other"), facts.ended()) == []
    assert [one["type"] for one in told(events, facts.started(), facts.answered(), facts.ended())] == ["call.ended"]


def test_a_tool_that_was_finished_late_is_told_once() -> None:
    events = machine(lambda line: [target("tool.used")])
    turn = facts.turn(tools=(RUN,))
    later = TurnAmended(call_id="c1", turn=facts.turn(tools=(RUN, RUN)))
    assert len(told(events, facts.started(), turn, facts.ended(), later, later)) == 2


def test_calls_that_are_over_are_forgotten() -> None:
    events = machine()
    for number in range(1000):
        told(events, facts.started(f"c{number}"), facts.ended(f"c{number}"))
    assert len(events._calls) == 0
    assert len(events._ended) <= 200


def test_a_running_call_keeps_the_webhooks_that_it_began_with() -> None:
    targets = [target()]
    events = machine(lambda line: list(targets))
    told(events, facts.started())
    targets.clear()
    assert [one["type"] for one in told(events, facts.answered())] == ["call.answered"]


def test_half_a_character_from_a_peer_is_replaced() -> None:
    (one,) = told(machine(lambda line: [target("call.started")]), facts.started(calling_name="a\x00b\ud800"))
    assert one["data"]["calling_name"] == "a\x00b?"


def test_a_body_that_is_too_long_is_left_out() -> None:
    long = ToolRun("t", "{}", json.dumps("x" * (MAX_BODY + 1)), 0.0, 1.0)
    (one,) = told(machine(lambda line: [target("tool.used")]), facts.started(), facts.turn(tools=(long,)))
    assert one["data"]["left_out"] == "too long"


@pytest.mark.parametrize("secret", [SECRET, "a secret of at least sixteen characters"])
def test_an_independent_library_takes_the_signature_and_refuses_any_other(secret: str) -> None:
    from time import time

    body = b'{"type":"call.ended"}'
    headers = signed(SecretStr(secret), "evt_1", int(time()), body)
    judge = Webhook(secret if secret.startswith("whsec_") else secret.encode())
    assert judge.verify(body, headers) == {"type": "call.ended"}
    for wrong_body, wrong in ((b"{}", headers), (body, signed(SecretStr(secret), "evt_1", int(time()) - 3600, body))):
        with pytest.raises(WebhookVerificationError):
            judge.verify(wrong_body, wrong)


def test_pauses_double_up_to_an_hour_and_obey_the_server() -> None:
    pauses = [pause_s("evt_1", attempts) for attempts in range(1, 13)]
    assert all(later >= earlier for earlier, later in pairwise(pauses))
    assert 5 <= pauses[0] <= 5.5
    assert 10 <= pauses[1] <= 11
    assert pauses[-1] == 3600
    assert pause_s("evt_1", 1, 60.0) == 60
    assert pause_s("evt_1", 1, 1e9) == 3600
    assert pause_s("evt_1", 10_000) == 3600
    assert len({pause_s(f"evt_{number}", 1) for number in range(50)}) > 40


def test_a_call_that_was_cut_off_is_told_as_interrupted() -> None:
    call = {
        "id": "c1",
        "line": "reception",
        "trunk": "t",
        "direction": "inbound",
        "calling": "1",
        "called": "2",
        "slots": {},
    }
    ((_, new),) = machine().interrupted({**call, "slots": {}}, facts.NOON + timedelta(seconds=5), "the box stopped")
    data = json.loads(new.body)["data"]
    assert (data["call_id"], data["disposition"], data["hangup_text"]) == ("c1", "interrupted", "the box stopped")
