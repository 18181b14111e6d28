"""Rates, bans and signatures, by arithmetic."""

from __future__ import annotations

import pytest

from appliance.sip.guard import Admission, Guard, GuardSettings, Rate
from appliance.sip.message import Request, read_message
from appliance.sip.uri import Peer

from .requests import make_request

SETTINGS = GuardSettings(
    messages=Rate(100.0, 200.0), stranger=Rate(1.0, 3.0), invites=Rate(10.0, 20.0), total_invites=Rate(15.0, 30.0),
    refusals=Rate(2.0, 2.0), ban_s=60.0, strikes=3, strike_window_s=10.0, sources=8,
)  # fmt: skip
INVITE, BYE, OPTIONS = make_request(), make_request("BYE", to_tag="x"), make_request("OPTIONS")
REINVITE = make_request(to_tag="x")


def peer(number: int) -> Peer:
    return Peer(f"192.0.2.{number}", 5060)


def offer(guard: Guard, count: int, data: bytes = INVITE, source: int = 7, now: float = 0.0, **how: bool) -> list[str]:
    settings = {"trusted": True, **how}
    return [_judge(guard, data, peer(source), now, **settings).value for _ in range(count)]


def _judge(guard: Guard, data: bytes, source: Peer, now: float, **how: bool) -> Admission:
    """As the user agent asks: about the message, then about the call that it turns out to begin."""
    admission = guard.admit(data, source, now, **how)
    message = read_message(data)
    begins = isinstance(message, Request) and not message.defect and message.method == "INVITE" and not message.to.tag
    return guard.admit_call(source, now) if begins and admission is Admission.ADMIT else admission


def test_calls_over_the_rate_are_refused_and_a_flood_is_dropped() -> None:
    guard = Guard(SETTINGS)
    assert offer(guard, 24) == ["admit"] * 20 + ["refuse"] * 2 + ["drop"] * 2
    assert offer(guard, 2, now=0.1) == ["drop"] * 2
    assert offer(guard, 12, now=1.1) == ["admit"] * 9 + ["refuse"] * 2 + ["drop"]


@pytest.mark.parametrize(("per_s", "least", "most"), [(10, 10, 10), (11, 9, 10), (20, 6, 7), (40, 0, 0), (2000, 0, 0)])
def test_the_further_over_the_rate_the_less_gets_through(per_s: int, least: int, most: int) -> None:
    guard = Guard(SETTINGS)
    offer(guard, 40)
    taken = [offer(guard, 1, now=1.0 + number / per_s)[0] for number in range(30 * per_s)]
    assert least * 10 <= taken[20 * per_s :].count("admit") <= most * 10


def test_what_belongs_to_a_call_passes_while_new_calls_do_not() -> None:
    guard = Guard(SETTINGS)
    offer(guard, 40)
    assert offer(guard, 1, BYE) + offer(guard, 1, REINVITE) + offer(guard, 1, OPTIONS) == ["admit"] * 3
    assert set(offer(guard, 200, BYE)) == {"admit", "drop"}


def test_what_belongs_to_a_call_is_known_by_its_to_tag_alone() -> None:
    """While no call may begin, so that the parser is not asked."""
    guard = Guard(SETTINGS)
    offer(guard, 40)
    to = b"To: <sip:100@192.0.2.2>;tag=x"
    for within in (b"t : <sip:100@192.0.2.2> ; tag = x", b'To: "A; B" <sip:1@h;a=b>;q=1;TAG=x', b"To: sip:1@h;tag=x"):
        assert offer(guard, 1, REINVITE.replace(to, within)) == ["admit"], within
    tricks = (
        b"To: <sip:100;tag=x@192.0.2.2>",
        b"To: sip:100@192.0.2.2\r\nX: ;tag=x",
        b"To: <sip:1@h>\r\nX-To: y;tag=x",
    )
    for new in tricks:
        assert offer(guard, 1, REINVITE.replace(to, new)) == ["drop"], new
    for whole in (b"\r\n" + INVITE, INVITE.replace(b"\r\n", b"\n"), INVITE + b"\nTo: <sip:1@h>;tag=x"):
        assert offer(guard, 1, whole) == ["drop"], whole


def test_what_is_cut_off_uses_up_no_calls() -> None:
    guard = Guard(SETTINGS)
    assert offer(guard, 100, INVITE[:150]) == ["admit"] * 100
    assert offer(guard, 20) == ["admit"] * 20


def test_one_source_cannot_use_up_the_share_of_the_others() -> None:
    guard = Guard(SETTINGS)
    offer(guard, 1000)
    assert offer(guard, 10, source=8) == ["admit"] * 10
    assert offer(guard, 1, source=9) == ["refuse"]


def test_a_stranger_may_ask_seldom() -> None:
    guard = Guard(SETTINGS)
    assert offer(guard, 4, OPTIONS, known=False, trusted=False) == ["admit"] * 3 + ["drop"]
    assert offer(guard, 2, OPTIONS, known=False, trusted=False, now=1.0) == ["admit", "drop"]


def test_a_datagram_in_the_name_of_a_trunk_that_must_authenticate_bans_nobody() -> None:
    guard = Guard(SETTINGS)
    scan = make_request("OPTIONS", extra="User-Agent: friendly-scanner\r\n")
    assert guard.admit(scan, peer(7), 0.0, trusted=False) is Admission.DROP
    assert guard.admit(BYE, peer(7), 0.0, trusted=False) is Admission.ADMIT
    assert guard.admit(scan, peer(7)._replace(transport="tcp"), 0.0, trusted=False) is Admission.DROP
    assert guard.banned(0.0) == ("192.0.2.7",)


@pytest.mark.parametrize(
    "line",
    [
        "User-Agent: friendly-scanner\r\n",
        "USER-AGENT : Some SIPVicious 0.3\r\n",
        "User-Agent: sipcli/v1.8\r\n",
        'f: "sipvicious" <sip:100@1.1.1.1>;tag=1\r\n',
        "To: <sip:nm@nm>\r\n",
    ],
)
def test_a_scanner_is_dropped_and_banned_for_a_while(line: str) -> None:
    guard = Guard(SETTINGS)
    assert offer(guard, 1, make_request("OPTIONS", extra=line), trusted=False, known=False) == ["drop"]
    assert offer(guard, 1, OPTIONS, trusted=False, now=59.0) == ["drop"]
    assert guard.banned(59.0) == ("192.0.2.7",)
    assert offer(guard, 1, OPTIONS, source=8, trusted=False, now=59.0) == ["admit"]
    assert offer(guard, 1, OPTIONS, trusted=False, now=61.0) == ["admit"]
    assert guard.counters["scanners"] == guard.counters["bans"] == guard.counters["guard_banned"] == 1


def test_names_that_only_look_like_a_scanners_pass() -> None:
    guard = Guard(SETTINGS)
    for name in ("Taiwaroma PBX", "Asterisk PBX 20", "baresip v1.0", "smapper"):
        assert offer(guard, 1, make_request("OPTIONS", extra=f"User-Agent: {name}\r\n"), trusted=False) == ["admit"]


def test_a_trunk_is_not_banned_for_what_it_passes_on() -> None:
    guard = Guard(SETTINGS)
    assert offer(guard, 1, make_request(extra="User-Agent: sipvicious\r\n")) == ["admit"]
    for _ in range(5):
        guard.strike("192.0.2.7", 0.0)
    assert offer(guard, 1) == ["admit"]


def test_strikes_within_the_window_are_a_ban() -> None:
    guard = Guard(SETTINGS)
    for when in (0.0, 1.0, 20.0, 21.0):
        guard.strike("192.0.2.7", when)
    assert guard.banned(21.0) == ()
    guard.strike("192.0.2.7", 22.0)
    assert guard.banned(22.0) == ("192.0.2.7",)


def test_tables_are_capped() -> None:
    guard = Guard(SETTINGS)
    for number in range(100):
        offer(guard, 30, source=number, known=False, trusted=False)
        guard.ban(f"192.0.2.{number}", 0.0)
    assert len(guard) == 16
    report = guard.report(1.0)
    assert report is not None and report.sources <= 8


def test_a_flood_is_reported_once_a_second() -> None:
    guard = Guard(SETTINGS)
    assert guard.report(0.0) is None
    offer(guard, 30, now=5.0)
    report = guard.report(5.5)
    assert report is not None
    assert (report.dropped, report.refused, report.sources) == (8, 2, 1)
    assert (report.worst, report.worst_count, report.seconds) == ("192.0.2.7", 10, 0.5)
    assert "192.0.2.7" in report.text
    assert guard.report(6.5) is None
    offer(guard, 1, now=6.0)
    offer(guard, 30, now=6.1)
    assert guard.report(6.2) is None
    report = guard.report(6.5)
    assert report is not None and report.dropped + report.refused > 0
    assert guard.admit(INVITE, peer(7), 60.0, trusted=True) is Admission.ADMIT
