"""The box calls people, machines and networks over SIP and RTP: what they heard, and what it says came of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from appliance.cli.box import Box
from tests.bench.callees import FarmProcess
from tests.bench.lines import dialplan
from tests.waiting import block_until

pytestmark = [pytest.mark.peer, pytest.mark.slow]

TOKEN = "a-token-of-the-box-for-tests"
LINE: dict[str, Any] = {
    "name": "recall",
    "match": {"called": ["900"]},
    "greeting": "Hello ${lead.name}.",
    "no_input": {"after_s": 6},
    "flow": {
        "ask": {
            "ask": "Shall we come?",
            "expect": {"yes": ["yes", "yes please"], "no": ["no", "no thank you"]},
            "keys": {"1": "yes"},
            "slot": "wanted",
        },
        "bye": {"hang_up": "Thank you, goodbye."},
    },
}


HAND_ON: dict[str, Any] = {
    "name": "hand-on",
    "match": {"called": ["901"]},
    "flow": {"hand": {"transfer": "brief", "say": "One moment.", "failed": "bye"}, "bye": {"hang_up": "Goodbye."}},
}


class Dialling:
    """A box with a farm of callees around it."""

    def __init__(self, box: Box, farm: FarmProcess) -> None:
        self.box, self.farm = box, farm

    def call(self, number: str, **more: Any) -> dict[str, Any]:
        """Place a call, and give what came of it."""
        body = {"number": number, "line": "recall", "trunk": "carrier", "owner": "Acme Plumbing", **more}
        told = self.ask("POST", "/api/v1/calls?wait=true", body)
        return {**told["result"], "call_id": told["call_id"]}

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """The API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.box.http_port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=90) as reply:
            told: dict[str, Any] = json.loads(reply.read())
        return told

    def seen(self, number: str) -> list[str]:
        """What the callee saw."""
        return [entry["event"] for entry in self.farm.entries() if entry["number"] == number]

    def record(self, call_id: str) -> dict[str, Any]:
        """The call as it is on record."""
        block_until(lambda: self._rows("select ended_at from calls where id = ?", call_id)[0]["ended_at"])
        (call,) = self._rows("select * from calls where id = ?", call_id)
        return {**call, "turns": self._rows("select * from turns where call_id = ? order by number", call_id)}

    def _rows(self, query: str, call_id: str) -> list[dict[str, Any]]:
        with contextlib.closing(sqlite3.connect(self.box.database)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, (call_id,))]

    def trace(self, call_id: str) -> list[str]:
        """What was said in SIP, as it is on record a moment after the call."""
        (found,) = self._rows("select trace from calls where id = ?", call_id)
        return [message["text"] for message in json.loads(found["trace"])]


@pytest.fixture(scope="module")
def dialling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dialling]:
    folder = tmp_path_factory.mktemp("outgoing")
    with FarmProcess(folder / "farm.jsonl") as farm:
        carrier = {
            "kind": "sip",
            "proxy": f"sip:127.0.0.1:{farm.port}",
            "allow_prefixes": ["+1202", "crosses", "brief", "vacant", "engaged"],
            "caller_id": "+12025550100",
            "caller_ids": ["+12025550101"],
        }
        settings = {
            "trunks": {"carrier": carrier},
            "routes": [{"trunks": ["carrier"]}],
            "api.tokens": [TOKEN],
            **dialplan(folder, [LINE, HAND_ON]),
        }
        with Box(folder / "box", settings) as box:
            yield Dialling(box, farm)


PERSON, MACHINE, UNWILLING, HANDED_ON = "+12025551230", "+12025551277", "+12025551259", "+12025551281"
REFUSED = {
    "+12025551242": 486, "+12025551243": 408, "+12025551244": 603, "+12025551245": 404, "+12025551246": 503
}  # fmt: skip
MESSAGE = "This is Acme Plumbing. Please call us back."
ORDERS: dict[str, dict[str, Any]] = {
    PERSON: {"variables": {"name": "Ann"}, "caller_id": "+12025550101"},
    MACHINE: {"answering": {"on_machine": "message", "message": MESSAGE}},
    UNWILLING: {},
    HANDED_ON: {"line": "hand-on"},
    "crosses": {"ring_timeout_s": 5},
    "vacant": {},
    "engaged": {},
    **{number: {"ring_timeout_s": 5} for number in REFUSED},
}
Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def results(dialling: Dialling) -> Results:
    """What comes of calling them all at once."""
    with ThreadPoolExecutor(len(ORDERS)) as pool:
        return dict(zip(ORDERS, pool.map(lambda number: dialling.call(number, **ORDERS[number]), ORDERS), strict=True))


def test_a_person_is_called_greeted_and_understood(dialling: Dialling, results: Results) -> None:
    number, result = PERSON, results[PERSON]
    assert (result["problem"], result["sip_code"], result["ended_by"], result["completed"]) == ("", 200, "agent", True)
    assert result["slots"]["wanted"] == "yes"
    record = dialling.record(result["call_id"])
    assert (record["direction"], record["trunk"], record["called"]) == ("outbound", "carrier", number)
    assert record["calling"] == "+12025550101"
    opening = record["turns"][0]["agent_text"]
    assert opening.startswith("This is an automated call on behalf of Acme Plumbing. Hello Ann. Shall we come?")
    heard = [entry for entry in dialling.farm.entries() if entry["number"] == number]
    assert [entry["caller_id"] for entry in heard][:1] == ["+12025550101"]
    (told,) = [entry for entry in heard if entry["event"] == "heard"]
    assert told["first_sound_after_s"] < 1.0
    block_until(lambda: dialling.trace(result["call_id"]) != [])
    assert dialling.trace(result["call_id"])[0].startswith(f"INVITE sip:{number}@")


def test_a_message_is_left_on_a_machine_after_its_beep(dialling: Dialling, results: Results) -> None:
    number, result = MACHINE, results[MACHINE]
    assert (result["verdict"]["kind"], result["message_left"], result["reason"]) == ("machine", True, "message_left")
    assert dialling.record(result["call_id"])["turns"][-1]["heard_text"] == MESSAGE
    block_until(lambda: "message" in dialling.seen(number))
    recorded = [entry for entry in dialling.farm.entries() if entry["number"] == number]
    (left,) = [entry for entry in recorded if entry["event"] == "message"]
    assert left["sound_s"] > 1.0
    assert [entry["clip"] for entry in recorded if entry["event"] == "said"] == ["greeting", "beep"]


def test_what_is_no_answer(dialling: Dialling, results: Results) -> None:
    assert {number: results[number]["sip_code"] for number in REFUSED} == REFUSED
    assert {results[number]["answered_after_s"] for number in REFUSED} == {None}
    assert "cancelled" in dialling.seen("+12025551243")


@pytest.mark.parametrize(("name", "early"), [("vacant", "sit_vacant"), ("engaged", "busy")])
def test_tones_before_the_answer_end_the_attempt(dialling: Dialling, results: Results, name: str, early: str) -> None:
    result = results[name]
    assert (result["early"], result["sip_code"], result["answered_after_s"], result["problem"]) == (early, 0, None, "")
    block_until(lambda: "cancelled" in dialling.seen(name))


def test_a_person_is_put_through_to_somebody_else(dialling: Dialling, results: Results) -> None:
    result = results[HANDED_ON]
    assert (result["sip_code"], result["transferred_to"], result["completed"]) == (200, "brief", True)
    assert dialling.record(result["call_id"])["hangup_text"].startswith("put through to brief")
    assert "answered" in dialling.seen("brief")


def test_an_answer_that_crosses_the_cancel_is_hung_up(dialling: Dialling, results: Results) -> None:
    result = results["crosses"]
    assert (result["sip_code"], result["answered_after_s"]) == (408, None)
    block_until(lambda: "ended" in dialling.seen("crosses"), lambda: str(dialling.seen("crosses")))
    (ended,) = [one for one in dialling.farm.entries() if one["number"] == "crosses" and one["event"] == "ended"]
    assert ended["by"] == "them"


def test_one_who_hangs_up_at_once_was_answered(dialling: Dialling) -> None:
    result = dialling.call("brief")
    assert (result["sip_code"], result["ended_by"], result["completed"]) == (200, "caller", False)
    assert result["talk_s"] < 3.0
    assert dialling.record(result["call_id"])["disposition"] == "completed"


def test_a_call_that_is_no_longer_wanted_is_taken_back(dialling: Dialling) -> None:
    number = "+12025551273"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(dialling.call, number)
        block_until(lambda: "ringing" in dialling.seen(number))
        (state,) = dialling.ask("GET", "/api/v1/calls")["calls"]
        assert (state["number"], state["state"]) == (number, "ringing")
        dialling.ask("DELETE", f"/api/v1/calls/{state['call_id']}")
        result = waiting.result(30)
    assert result["problem"] == "hung up as asked for"
    block_until(lambda: "cancelled" in dialling.seen(number))


def test_a_person_who_does_not_want_to_be_called_is_never_called_again(dialling: Dialling, results: Results) -> None:
    number, result = UNWILLING, results[UNWILLING]
    assert (result["opted_out"], result["reason"]) == (True, "opted_out")
    assert "stop calling me" in dialling.record(result["call_id"])["turns"][1]["caller_text"]
    again = dialling.call(number)
    assert again["problem"] == f"{number} is on the do-not-call list"
    assert dialling.seen(number).count("invite") == 1


def test_what_may_not_be_dialled_or_shown_never_leaves(dialling: Dialling) -> None:
    assert "allow_prefixes" in dialling.call("+4930123456")["problem"]
    assert "is not ours to show" in dialling.call("+12025551260", caller_id="+12025559999")["problem"]
    assert "there is no line 'nobody'" in dialling.call("+12025551260", line="nobody")["problem"]
    assert dialling.seen("+12025551260") == []


def test_a_voicemail_is_left_a_message_after_its_beep(dialling: Dialling) -> None:
    number = "+12025551267"
    answering = {"on_machine": "message", "message": "This is Acme Plumbing. Please call us back about your boiler."}
    result = dialling.call(number, answering=answering)
    assert (result["verdict"]["kind"], result["message_left"], result["reason"]) == ("machine", True, "message_left")
    assert dialling.record(result["call_id"])["turns"][-1]["agent_text"] == answering["message"]
    block_until(lambda: "message" in dialling.seen(number))
