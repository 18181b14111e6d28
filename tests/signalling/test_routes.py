"""Placing calls: which trunks a number goes by, what is refused, and when the next trunk is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.trunks import Route, SipTrunk, trunk_conflicts
from appliance.errors import DialError
from appliance.signalling.leg import HangupCause
from appliance.signalling.routes import Dialler, Router, goes_on
from appliance.signalling.trunks import TrunkRule, TrunkTable
from tests.waiting import eventually

A = TrunkRule("a", proxies=("sip:a1.example", "sip:a2.example:5070;transport=tcp"), allow_prefixes=("+49", "0"))
B = TrunkRule("b", proxies=("sips:b.example",), allow_prefixes=("*",), region="DE", caller_id="+4930 99")
PBX = TrunkRule(
    "pbx", proxies=("sip:10.0.0.2",), allow=(ip_network("10.0.0.2"), ip_network("10.9.0.0/16")), allow_prefixes=("2",)
)
CLOSED = TrunkRule("closed", proxies=("sip:closed.example",))
ROUTES = (
    Route(to=("2",), trunks=("pbx",)),
    Route(to=("9",), trunks=("b",), strip=1),
    Route(to=("+49", "0"), trunks=("a", "b")),
    Route(to=("7",), trunks=("closed",)),
)


def router(*routes: Route) -> tuple[Router, TrunkTable]:
    trunks = TrunkTable((A, B, PBX, CLOSED))
    return Router(trunks, routes or ROUTES), trunks


def uris(target: str, trunk: str = "") -> list[str]:
    return [attempt.uri for attempt in router()[0].attempts(target, trunk=trunk)]


def refused(target: str, trunk: str = "") -> tuple[int, str]:
    with pytest.raises(DialError) as caught:
        router()[0].attempts(target, trunk=trunk)
    return caught.value.status, caught.value.cause


def test_the_first_route_that_fits_and_its_trunks_in_order() -> None:
    assert uris("+49 30 1234") == [
        "sip:+49301234@a1.example",
        "sip:+49301234@a2.example:5070;transport=tcp",
        "sips:+49301234@b.example",
    ]
    assert uris("201") == ["sip:201@10.0.0.2"]
    assert uris("tel:+49-30-1234")[0] == "sip:+49301234@a1.example"
    assert uris("9030123456") == ["sips:030123456@b.example"]
    assert uris("+4930", trunk="b") == ["sips:+4930@b.example"]
    assert uris("2#1*") == ["sip:2%231*@10.0.0.2"]


def test_a_sip_uri_is_called_only_at_a_trunk() -> None:
    assert uris("sip:201@10.0.0.2:5080;transport=tcp;x=y?Replaces=z") == ["sip:201@10.0.0.2"]
    assert uris("sip:+4930@A1.EXAMPLE") == ["sip:+4930@a1.example"]
    assert refused("sip:201@192.0.2.9") == (404, "no_route")
    assert refused("sip:201@10.9.0.1") == (404, "no_route"), "a network that calls come from is no place to call"
    assert refused("sip:301@10.0.0.2") == (403, "prefix")


SECURE = TrunkRule(
    "secure",
    proxies=("sip:sip.example.net;transport=tls", "sip:sip.example.net:5071;transport=tls", "sip:[2001:db8::5];x"),
    allow=(ip_network("198.51.100.4"),),
    srtp="required",
    allow_prefixes=("+49",),
)
TLS_ONLY = TrunkRule(
    "tls-only",
    proxies=("sip:tls.example;transport=tls",),
    allow=(ip_network("198.51.100.5"),),
    srtp="required",
    allow_prefixes=("+49",),
)
PLAIN = TrunkRule("plain", proxies=("sip:192.0.2.7:5062", "sip:192.0.2.7:5064"), allow_prefixes=("+49",))
NEXT_DOOR = TrunkRule("next-door", proxies=("sip:192.0.2.7:5066",), allow_prefixes=("+49", "+43"))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "sip:+4930123456@sip.example.net",
            ["sip:+4930123456@sip.example.net;transport=tls", "sip:+4930123456@sip.example.net:5071;transport=tls"],
        ),
        (
            "sip:+4930123456@SIP.example.net:9;transport=udp",
            ["sip:+4930123456@sip.example.net;transport=tls", "sip:+4930123456@sip.example.net:5071;transport=tls"],
        ),
        (
            "sip:+4930123456@sip.example.net:5071;transport=udp;maddr=192.0.2.9",
            ["sip:+4930123456@sip.example.net:5071;transport=tls"],
        ),
        ("sip:+4930123456@[2001:db8:0::5]:9;transport=tcp", ["sip:+4930123456@[2001:db8::5];x"]),
        ("sip:+4930123456@198.51.100.4:5070;transport=tcp;x=y", ["sip:+4930123456@198.51.100.4:5070;transport=tcp"]),
        ("sip:+4930123456@198.51.100.5:9;transport=udp", ["sip:+4930123456@198.51.100.5:9;transport=tls"]),
        ("sip:+4930123456@198.51.100.5", ["sip:+4930123456@198.51.100.5;transport=tls"]),
        ("sips:+4930123456@198.51.100.5", ["sips:+4930123456@198.51.100.5"]),
        ("sip:+4930123456@192.0.2.7", ["sip:+4930123456@192.0.2.7:5062", "sip:+4930123456@192.0.2.7:5064"]),
        ("sip:+4930123456@192.0.2.7:5064", ["sip:+4930123456@192.0.2.7:5064"]),
        ("sip:+4312345678@192.0.2.7:5066", ["sip:+4312345678@192.0.2.7:5066"]),
        ("sips:+4930123456@192.0.2.7", ["sips:+4930123456@192.0.2.7"]),
    ],
)
def test_a_sip_uri_does_not_say_how_a_trunk_is_spoken_to(target: str, expected: list[str]) -> None:
    ways = Router(TrunkTable((SECURE, TLS_ONLY, PLAIN, NEXT_DOOR)), ())
    assert [attempt.uri for attempt in ways.attempts(target)] == expected


_BEGINNINGS = st.sampled_from(
    ["*", "0", "00", "9", "90", "44", "0044", "+44", "+4420", "+49", "+49*", "4", "al*", "alice", "+1", "011", "2-0"]
)
_NUMBERS = st.sampled_from(
    ["442071838750", "00442071838750", "+442071838750", "02071838750", "9442071838750", "900442071838750", "alice",
     "+12025550123", "0112025550123", "+4930123456", "030123456", "44", "200", "al"]
)  # fmt: skip


@settings(max_examples=500)
@given(
    st.lists(_BEGINNINGS, min_size=1, max_size=2), st.lists(_BEGINNINGS, min_size=1, max_size=2),
    st.sampled_from([None, "GB", "DE", "US"]), st.integers(0, 2), st.sampled_from(["", "+", "+44", "00", "9"]),
    st.lists(_NUMBERS, min_size=5, max_size=5),
)  # fmt: skip
def test_no_route_that_leads_anywhere_is_reported_as_one_that_does_not(
    to: list[str], prefixes: list[str], region: str | None, strip: int, prepend: str, numbers: list[str]
) -> None:
    trunk = SipTrunk.model_validate({"kind": "sip", "proxy": "sip:t", "allow_prefixes": prefixes, "region": region})
    route = Route(to=tuple(to), trunks=("t",), strip=strip, prepend=prepend)
    ways = Router(TrunkTable((TrunkRule.of("t", trunk),)), (route,))
    dialled = [number for number in numbers if _leads(ways, number)]
    reported = [key for key, _, _ in trunk_conflicts({"t": trunk}, (route,)) if key[0] == "routes"]
    assert not (dialled and reported), dialled


def _leads(ways: Router, number: str) -> bool:
    try:
        return bool(ways.attempts(number))
    except DialError:
        return False


def test_a_proxy_that_cannot_be_read_costs_only_itself() -> None:
    """The settings take no such proxy; the other trunks' calls must not fail even if one came about."""
    broken = TrunkRule("broken", proxies=("sip:a@", "sip:host;;x", "sip:[::1"), allow_prefixes=("+49",))
    half = TrunkRule("half", proxies=("sip:exa$mple", "sip:good.example"), allow_prefixes=("+49",))
    ways = Router(TrunkTable((broken, half, PBX)), (Route(trunks=("broken", "half")),))
    assert [one.uri for one in ways.attempts("+4930123456")] == ["sip:+4930123456@good.example"]
    assert [one.uri for one in ways.attempts("sip:201@10.0.0.2")] == ["sip:201@10.0.0.2"]
    with pytest.raises(DialError, match="trunk 'broken' cannot be called; give it a proxy"):
        ways.attempts("+4930123456", trunk="broken")


def test_a_number_of_which_nothing_is_left_is_not_dialled() -> None:
    assert refused("9") == (404, "malformed")


@pytest.mark.parametrize(
    ("target", "trunk", "expected"),
    [
        ("555", "", (404, "no_route")),
        ("700", "", (403, "denied")),
        ("201", "closed", (403, "denied")),
        ("201", "nowhere", (404, "no_route")),
        ("09001123456", "b", (403, "premium")),
        ("909001123456", "", (403, "premium")),
        ("9110", "", (403, "emergency")),
        ("sip:09001123456@b.example", "", (403, "premium")),
        ("sip:%2B49900%31123456@b.example", "", (403, "premium")),
        ("http://a", "", (404, "malformed")),
        ("sip:", "", (404, "malformed")),
        ("2\r\n1", "", (404, "malformed")),
    ],
)
def test_what_is_not_dialled(target: str, trunk: str, expected: tuple[int, str]) -> None:
    assert refused(target, trunk) == expected


@pytest.mark.parametrize(
    ("route", "prefixes", "target", "expected"),
    [
        (Route(to=("9",), trunks=("t",), strip=1), ("90",), "900442071234567", "prefix"),
        (Route(to=("9",), trunks=("t",), strip=1), ("90",), "9030123456", "sip:030123456@t.example"),
        (Route(to=("9",), trunks=("t",), strip=1), ("90", "+44"), "900442071234567", "sip:00442071234567@t.example"),
        (Route(to=("9",), trunks=("t",), strip=1), ("9", "0044"), "900442071234567", "sip:00442071234567@t.example"),
        (Route(to=("9",), trunks=("t",), strip=1), ("90", "0049"), "900442071234567", "prefix"),
        (Route(to=("9",), trunks=("t",), strip=1), ("90", "+49"), "9004900442071234567", "prefix"),
        (Route(to=("9",), trunks=("t",), strip=1, prepend="+"), ("9",), "9442071234567", "prefix"),
        (Route(to=("0",), trunks=("t",), strip=1, prepend="+49"), ("0",), "030123456", "sip:+4930123456@t.example"),
        (Route(trunks=("t",), strip=1), ("*",), "900442071234567", "sip:00442071234567@t.example"),
    ],
)
def test_rewriting_a_number_opens_no_way_abroad(
    route: Route, prefixes: tuple[str, ...], target: str, expected: str
) -> None:
    rule = TrunkRule("t", proxies=("sip:t.example",), allow_prefixes=prefixes, region="DE")
    ways = Router(TrunkTable((rule,)), (route,))
    if expected.startswith("sip:"):
        assert [attempt.uri for attempt in ways.attempts(target)] == [expected]
        return
    with pytest.raises(DialError) as caught:
        ways.attempts(target)
    assert (caught.value.status, caught.value.cause) == (403, expected)


def test_without_a_region_both_common_exit_codes_lead_abroad() -> None:
    rule = TrunkRule("t", proxies=("sip:t.example",), allow_prefixes=("90",))
    ways = Router(TrunkTable((rule,)), (Route(to=("9",), trunks=("t",), strip=1),))
    for number in ("900442071838750", "9011442071838750"):
        with pytest.raises(DialError, match=r"which trunks\.t\.allow_prefixes does not list; add its beginning"):
            ways.attempts(number)


def test_a_route_for_national_numbers_takes_those_of_turin() -> None:
    rule = TrunkRule("t", proxies=("sip:t.example",), allow_prefixes=("0",), region="IT")
    ways = Router(TrunkTable((rule,)), (Route(to=("0",), trunks=("t",)),))
    assert [one.uri for one in ways.attempts("0115691111")] == ["sip:0115691111@t.example"]


def test_a_number_that_hides_another_is_told_apart_from_one_without_a_route() -> None:
    ways = Router(TrunkTable((A,)), (Route(to=("+49",), trunks=("a",)),))
    with pytest.raises(DialError, match="is no number of the country it begins with") as caught:
        ways.attempts("+4900442071234567")
    assert caught.value.cause == "prefix"


def test_refusals_are_counted() -> None:
    ways, trunks = router()
    for target in ("555", "700", "700"):
        with pytest.raises(DialError):
            ways.attempts(target)
    assert dict(ways.refused) == {"no_route": 1, "denied": 2}
    assert trunks.state("closed").counters["refused_dialling"] == 2


@pytest.mark.parametrize(
    ("by", "code", "rang", "expected"),
    [
        ("agent", 503, False, True),
        ("agent", 500, False, True),
        ("system", 408, False, True),
        ("system", 408, True, False),
        ("agent", 486, False, False),
        ("agent", 480, False, False),
        ("agent", 404, False, False),
        ("agent", 403, False, False),
        ("agent", 600, False, False),
        ("agent", 603, False, False),
        ("agent", 606, False, False),
        ("caller", 503, False, False),
    ],
)
def test_causes_for_which_the_next_trunk_is_tried(by: Any, code: int, rang: bool, expected: bool) -> None:
    assert goes_on(HangupCause(by, code, ""), rang) is expected


class Outgoing:
    """What an attempt comes to: a status, or "answers"; ``rings`` before that."""

    def __init__(self, outcome: Any, rings: bool = False) -> None:
        self.outcome = outcome
        self.rings = rings
        self.on_ringing: Any = None
        self.over: list[Any] = []
        self.hung_up = False

    def when_over(self, callback: Any) -> None:
        self.over.append(callback)

    async def wait_answered(self) -> Any:
        await asyncio.sleep(0)
        if self.rings:
            self.on_ringing(180)
        if self.outcome == "waits":
            await asyncio.sleep(3600)
        if self.outcome == "answers":
            return object()
        self.end()
        return None

    async def wait_ended(self) -> HangupCause:
        return HangupCause("agent", self.outcome, "")

    def hangup(self, reason: str = "") -> None:
        self.hung_up = True
        self.end()

    def end(self) -> None:
        for callback in self.over:
            callback()


class Wire:
    """The SIP endpoint: every INVITE and what becomes of it."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[tuple[str, str, list[tuple[str, str]]]] = []
        self.made: list[Outgoing] = []

    async def dial(
        self, target_uri: str, from_uri: str, media: Any, *, headers: Sequence[tuple[str, str]], **_: Any
    ) -> Any:
        self.sent.append((target_uri, from_uri, list(headers)))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        self.made.append(outcome if isinstance(outcome, Outgoing) else Outgoing(outcome))
        return self.made[-1]


def place(wire: Wire, target: str, rules: tuple[TrunkRule, ...] = (A, B)) -> tuple[Any, TrunkTable]:
    """The answered call or the error."""
    trunks = TrunkTable(rules)
    ways = Router(trunks, (Route(trunks=tuple(rule.name for rule in rules)),))
    dialler = Dialler(ways, trunks, wire.dial, lambda: 0.0)

    async def call() -> Any:
        try:
            return await dialler.call(ways.attempts(target), None, values={"caller.number": "100"})  # type: ignore[arg-type]
        except DialError as error:
            return error

    return asyncio.run(call()), trunks


def test_the_next_proxy_and_then_the_next_trunk_are_tried() -> None:
    wire = Wire(503, OSError("certificate of another"), "answers")
    answered, trunks = place(wire, "+4930")
    assert answered is wire.made[-1]
    assert [uri for uri, _, _ in wire.sent] == [
        "sip:+4930@a1.example",
        "sip:+4930@a2.example:5070;transport=tcp",
        "sips:+4930@b.example",
    ]
    assert [caller for _, caller, _ in wire.sent] == ["sip:anonymous@a1.example"] * 2 + ["sip:+4930%2099@b.example"]
    assert (trunks.state("a").calls, trunks.state("b").calls) == (0, 1)
    answered.end()
    assert trunks.state("b").calls == 0


@pytest.mark.parametrize("status", [486, 603, 404, 480])
def test_an_answer_of_the_one_called_is_final(status: int) -> None:
    wire = Wire(status)
    error, trunks = place(wire, "+4930")
    assert (error.status, error.cause, len(wire.sent)) == (status, "failed", 1)
    assert trunks.state("a").calls == 0


def test_a_call_that_ended_with_a_goodbye_before_anybody_answered_is_no_success() -> None:
    error, _ = place(Wire(200), "+4930")
    assert (error.status, error.cause) == (503, "failed")


def test_what_rang_is_not_called_again() -> None:
    wire = Wire(Outgoing(503, rings=True))
    error, _ = place(wire, "+4930")
    assert (error.status, len(wire.sent)) == (503, 1)


def test_when_every_trunk_fails_the_last_reason_is_told() -> None:
    error, trunks = place(Wire(500, OSError("no such host"), 503), "+4930")
    assert str(error) == "+4930 by trunk b: 503"
    assert sum(trunks.state(name).calls for name in ("a", "b")) == 0


def test_a_full_trunk_is_passed_over() -> None:
    full = TrunkRule("full", proxies=("sip:f",), allow_prefixes=("*",), max_cps=0.001)
    trunks = TrunkTable((full,))
    ways = Router(trunks, (Route(trunks=("full",)),))
    wire = Wire("answers", "answers")
    dialler = Dialler(ways, trunks, wire.dial, lambda: 0.0)

    async def call() -> None:
        await dialler.call(ways.attempts("+4930"), None)  # type: ignore[arg-type]
        with pytest.raises(DialError, match=r"no room: trunks\.full\.max_cps \(0\.001\) reached"):
            await dialler.call(ways.attempts("+4930"), None)  # type: ignore[arg-type]

    asyncio.run(call())
    assert len(wire.sent) == 1


def test_a_cancelled_attempt_is_taken_back() -> None:
    wire = Wire("waits")
    trunks = TrunkTable((A,))
    ways = Router(trunks, (Route(trunks=("a",)),))
    dialler = Dialler(ways, trunks, wire.dial, lambda: 0.0)

    async def call() -> None:
        task = asyncio.create_task(dialler.call(ways.attempts("+4930"), None))  # type: ignore[arg-type]
        await eventually(lambda: wire.made)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(call())
    assert wire.made[0].hung_up
    assert trunks.state("a").calls == 0


def test_headers_out_say_who_is_called() -> None:
    rule = TrunkRule(
        "x", proxies=("sip:x",), allow_prefixes=("*",), headers_out=(("X-For", "${called.number} ${caller.number}"),)
    )
    wire = Wire("answers")
    place(wire, "+4930", (rule,))
    assert wire.sent[0][2] == [("X-For", "+4930 100")]


# --- carriers -----------------------------------------------------------------------------------------------------

TWILIO = TrunkRule(
    "twilio", (ip_network("192.0.2.9"),), kind="twilio", allow_prefixes=("0", "+43"), region="DE", caller_id="+4930"
)
TELNYX = TrunkRule("telnyx", kind="telnyx", allow_prefixes=("*",))


def ways_by(*rules: TrunkRule, **route: Any) -> Router:
    return Router(TrunkTable(rules), (Route(trunks=tuple(rule.name for rule in rules), **route),))


@pytest.mark.parametrize(
    ("asked", "number"),
    [("030 123456", "+4930123456"), ("+43 1 58858", "+43158858"), ("tel:030123456", "+4930123456")],
)
def test_a_carrier_is_given_whole_numbers(asked: str, number: str) -> None:
    (way,) = ways_by(TWILIO).attempts(asked)
    assert (way.trunk, way.uri, way.number, way.needs_rtp) == (TWILIO, f"tel:{number}", number, False)
    assert ways_by(A).attempts("+4930")[0].needs_rtp


def test_what_a_route_makes_of_a_number_is_made_whole_too() -> None:
    (way,) = ways_by(TWILIO, to=("0",), strip=1, prepend="+49").attempts("030123456")
    assert way.number == "+4930123456"


@pytest.mark.parametrize(
    ("rule", "asked", "said"),
    [
        (TWILIO, "0900123456", "premium"),
        (TWILIO, "+447911123456", r"trunks\.twilio\.allow_prefixes"),
        (TrunkRule("closed", kind="telnyx"), "+4930123456", "may dial nothing"),
    ],
)
def test_the_policy_of_dialling_holds_for_carriers(rule: TrunkRule, asked: str, said: str) -> None:
    with pytest.raises(DialError, match=said) as caught:
        ways_by(rule).attempts(asked)
    assert caught.value.status == 403


@pytest.mark.parametrize("asked", ["030123456", "alice", "+4930#12", "+1234567890123456"])
def test_what_is_no_whole_number_is_not_asked_of_a_carrier(asked: str) -> None:
    ways = ways_by(TELNYX)
    with pytest.raises(DialError, match="trunk 'telnyx' dials no other; write") as caught:
        ways.attempts(asked)
    assert (caught.value.status, caught.value.cause) == (404, "malformed")
    assert ways.refused["malformed"] == 1
    assert "set trunks.telnyx.region" in str(caught.value)


def test_the_next_trunk_is_taken_where_a_carrier_cannot_dial_the_number() -> None:
    assert [one.trunk.name for one in ways_by(TELNYX, B).attempts("030123456")] == ["b"]


def test_a_uri_with_a_host_leads_to_no_carrier() -> None:
    with pytest.raises(DialError, match="is the host of no trunk"):
        ways_by(TWILIO).attempts("sip:+43158858@192.0.2.9")


def test_what_a_carrier_is_told_to_transfer_to_is_a_number() -> None:
    ways = ways_by(TWILIO, TELNYX)
    assert ways.referral("030 123456", TWILIO, "") == "+4930123456"
    with pytest.raises(DialError, match="dials no other"):
        ways.referral("030123456", TELNYX, "")
    with pytest.raises(DialError, match="premium"):
        ways.referral("0900123456", TWILIO, "")


def dial(
    wire: Wire, placed: list[Any], *rules: TrunkRule, asked: str = "+43158858"
) -> tuple[Any, TrunkTable, list[Any]]:
    """The answered call or the error; with what carriers were asked to place."""
    trunks = TrunkTable(rules)
    ways = Router(trunks, (Route(trunks=tuple(rule.name for rule in rules)),))
    asked_for: list[Any] = []

    async def place(
        attempt: Any, media: Any, *, values: Any, display_name: str, ring_timeout_s: float, caller_id: str
    ) -> Any:
        asked_for.append((attempt.trunk.name, attempt.number, dict(values), display_name, ring_timeout_s))
        outcome = placed.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def call() -> Any:
        dialler = Dialler(ways, trunks, wire.dial, lambda: 0.0, place)
        try:
            return await dialler.call(
                ways.attempts(asked),
                None,
                values={"line.name": "x"},
                display_name="Ann",
                ring_timeout_s=9.0,  # type: ignore[arg-type]
            )
        except DialError as error:
            return error

    return asyncio.run(call()), trunks, asked_for


def test_a_carrier_is_asked_to_place_the_call() -> None:
    there = Outgoing("answers", rings=True)
    answered, trunks, asked_for = dial(Wire(), [there], TWILIO)
    assert answered is there
    assert (there.trunk, there.uri) == ("twilio", "tel:+43158858")  # type: ignore[attr-defined]
    assert asked_for == [("twilio", "+43158858", {"line.name": "x"}, "Ann", 9.0)]
    assert trunks.state("twilio").calls == trunks.state("twilio").counters["calls_out"] == 1
    there.end()
    assert trunks.state("twilio").calls == 0


NOT_NOW = DialError("the API does not answer", status=503, cause="unreachable")
PLACES_NONE = DialError("a PBX only calls", status=404, cause="no_route")
UNSURE = DialError("the API fell silent", status=503, cause="unsure")
NO_SUCH = DialError("Twilio knows no such number", status=404, cause="failed")


@pytest.mark.parametrize("down", [NOT_NOW, PLACES_NONE, OSError("no route"), Outgoing(503)])
def test_a_call_goes_on_from_a_carrier_to_sip_and_back(down: Any) -> None:
    answered, trunks, _ = dial(Wire("answers"), [down], TWILIO, B)
    assert answered.trunk == "b"
    assert (trunks.state("twilio").calls, trunks.state("b").calls) == (0, 1)
    assert trunks.state("b").counters["failovers"] == 1
    answered, trunks, _ = dial(Wire(503), [Outgoing("answers")], B, TWILIO)
    assert answered.trunk == "twilio"


def test_what_a_carrier_says_of_the_number_is_final() -> None:
    error, trunks, _ = dial(Wire(), [NO_SUCH], TWILIO, B)
    assert (error, trunks.state("twilio").calls) == (NO_SUCH, 0)
    error, _, _ = dial(Wire(), [Outgoing(486)], TWILIO, B)
    assert error.status == 486


def test_what_may_ring_all_the_same_is_asked_of_nobody_else() -> None:
    error, trunks, _ = dial(Wire(), [UNSURE], TWILIO, B)
    assert (error, trunks.state("twilio").calls, trunks.state("b").calls) == (UNSURE, 0, 0)


def test_without_carriers_in_this_process_none_is_asked() -> None:
    trunks = TrunkTable((TWILIO,))
    ways = Router(trunks, (Route(trunks=("twilio",)),))
    dialler = Dialler(ways, trunks, Wire().dial, lambda: 0.0)
    with pytest.raises(DialError, match="'twilio' cannot be called"):
        asyncio.run(dialler.call(ways.attempts("+43158858"), None))  # type: ignore[arg-type]
    assert trunks.state("twilio").calls == 0
