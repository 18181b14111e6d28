"""Session timers: the arithmetic, and calls whose peer has gone (RFC 4028)."""

from __future__ import annotations

import pytest

from appliance.errors import RemoteSipError
from appliance.sip.call_state import CallOptions
from appliance.sip.events import Answered, CallEnded, Event, IncomingCall, ReofferAnswered, Reoffered
from appliance.sip.message import Headers, Request, Response, make_response
from appliance.sip.session_timer import SessionExpires, SessionTimer, min_se_of, session_expires_of

from .calls import incoming, messages, nothing_is_left, place, set_up, told
from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair
from .requests import make_request


def request(*lines: tuple[str, str]) -> Request:
    return Request("INVITE", "sip:x", Headers(lines))


def response(status: int, *lines: tuple[str, str]) -> Response:
    return Response(status, "", Headers(lines))


TIMER = ("Supported", "timer")


def test_the_header_both_ways() -> None:
    assert SessionExpires.parse("1800") == SessionExpires(1800)
    assert str(SessionExpires.parse("90 ; Refresher=UAC;x")) == "90;refresher=uac"
    assert SessionExpires.parse("90;refresher=proxy").refresher == ""
    assert session_expires_of(request(("x", "120"))) == SessionExpires(120)
    assert min_se_of(request()) == 90 and min_se_of(request(("Min-SE", "120;a=b"))) == 120
    for broken in ("", "soon", "-1", "99999999999", "90;;"):
        with pytest.raises(RemoteSipError):
            SessionExpires.parse(broken)
    with pytest.raises(RemoteSipError):
        min_se_of(request(("Min-SE", "x")))


@pytest.mark.parametrize(
    ("lines", "headers", "we_refresh"),
    [
        ((), [], False),
        (
            (TIMER, ("Session-Expires", "1200")),
            [("Session-Expires", "1200;refresher=uac"), ("Require", "timer")],
            False,
        ),
        (
            (TIMER, ("Session-Expires", "1200;refresher=uas")),
            [("Session-Expires", "1200;refresher=uas"), ("Require", "timer")],
            True,
        ),
        ((("Session-Expires", "1200"),), [("Session-Expires", "1200;refresher=uas")], True),
        (
            (TIMER, ("Session-Expires", "7200"), ("Min-SE", "3600")),
            [("Session-Expires", "3600;refresher=uac"), ("Require", "timer")],
            False,
        ),
        ((TIMER,), [("Session-Expires", "1800;refresher=uac"), ("Require", "timer")], False),
    ],
)
def test_what_a_200_says(lines: tuple[tuple[str, str], ...], headers: list[tuple[str, str]], we_refresh: bool) -> None:
    timer = SessionTimer(1800, 90)
    assert timer.answer(request(*lines)) == headers
    assert timer.we_refresh is we_refresh
    assert (timer.interval_s == 0) is (not headers)


def test_an_interval_that_is_too_small() -> None:
    timer = SessionTimer(1800, 120)
    assert timer.too_small(request(TIMER, ("Session-Expires", "100"))) == 120
    assert timer.too_small(request(TIMER, ("Session-Expires", "120"))) is None
    assert timer.too_small(request(("Session-Expires", "100"))) is None
    assert timer.answer(request(("Session-Expires", "100"))) == [("Session-Expires", "120;refresher=uas")]


def test_a_422_raises_what_we_ask_for_and_never_twice_to_the_same() -> None:
    timer = SessionTimer(300, 90)
    assert timer.ask() == [("Session-Expires", "300")]
    assert timer.refused(response(422, ("Min-SE", "900")))
    assert timer.ask() == [("Session-Expires", "900"), ("Min-SE", "900")]
    assert not timer.refused(response(422, ("Min-SE", "900")))
    assert not timer.refused(response(422)) and not timer.refused(response(422, ("Min-SE", "x")))


def test_what_a_200_to_us_agrees() -> None:
    timer = SessionTimer(1800, 90)
    timer.answered(response(200, ("Session-Expires", "600;refresher=uas")))
    assert (timer.interval_s, timer.we_refresh, timer.refresh_after_s, timer.ends_after_s) == (600, False, None, 568.0)
    assert timer.ask() == [("Session-Expires", "600;refresher=uas")]
    timer.answered(response(200, ("Session-Expires", "60;refresher=uac")))
    assert (timer.we_refresh, timer.refresh_after_s, timer.ends_after_s) == (True, 30.0, 40.0)
    timer.answered(response(200))
    assert (timer.interval_s, timer.refresh_after_s, timer.ends_after_s) == (0, None, None)
    timer.answered(response(200, ("Session-Expires", "soon")))
    assert timer.interval_s == 0


def test_a_timer_that_nobody_wants() -> None:
    assert SessionTimer(0, 90).ask() == []
    assert SessionTimer(0, 90).answer(request(TIMER)) == []


# --- in calls ---------------------------------------------------------------------------------------------------------


SHORT = CallOptions(session_expires_s=100)


@pytest.mark.parametrize("by_called", [False, True])
def test_the_refresher_refreshes_at_half_time_and_the_call_lasts(by_called: bool) -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair, SHORT)
    if by_called:
        ours.session.we_refresh, theirs.session.we_refresh = False, True
        ours.session.restart(ours, pair.now)
        theirs.session.restart(theirs, pair.now)
    assert (ours.session.interval_s, theirs.session.interval_s) == (100, 100)
    assert ours.session.we_refresh is not by_called and theirs.session.we_refresh is by_called
    pair.run(1000.0)
    updates = [when for when, to, data in pair.wire if data.startswith(b"UPDATE")]
    assert len(updates) == 19
    assert updates[1] - updates[0] == pytest.approx(50.0, abs=0.1)
    assert {to for _, to, data in pair.wire if data.startswith(b"UPDATE")} == {CALLER if by_called else CALLED}
    assert not told(pair, CALLER, CallEnded) and not told(pair, CALLED, CallEnded)
    assert all(event.refresh for who in (CALLER, CALLED) for event in told(pair, who, ReofferAnswered))
    ours.hangup(pair.now)
    pair.run(1100.0)
    nothing_is_left(pair)


def test_a_peer_without_update_is_refreshed_by_the_same_offer_again() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair, SHORT)
    ours.remote_allows = frozenset(("INVITE", "BYE"))
    pair.on_event = {
        CALLED: lambda event: event.call.accept(ANSWER, pair.now) if isinstance(event, Reoffered) else None
    }
    pair.run(60.0)
    assert [event.offer for event in told(pair, CALLED, Reoffered)] == [OFFER]
    assert told(pair, CALLER, ReofferAnswered) == [ReofferAnswered(ours, ANSWER, refresh=True)]
    assert not told(pair, CALLER, CallEnded)


def test_a_peer_that_only_says_it_knows_update_is_refreshed_by_a_reinvite() -> None:
    pair = DialogPair()
    set_up(pair, SHORT)
    refused = []

    def drop(destination: object, data: bytes) -> bool:
        if data.startswith(b"UPDATE") and not refused:
            request = messages(pair, b"UPDATE")[-1]
            assert isinstance(request, Request)
            refused.append(request)
            answer = make_response(request, 501, to_tag="x").encode()
            pair.after(0.001, lambda: pair.caller.receive_datagram(answer, CALLED, pair.now))
        return data.startswith(b"UPDATE")

    pair.drop = drop
    pair.on_event = {
        CALLED: lambda event: event.call.accept(ANSWER, pair.now) if isinstance(event, Reoffered) else None
    }
    pair.run(300.0)
    assert len(refused) == 1 and len(told(pair, CALLED, Reoffered)) == 5
    assert not told(pair, CALLER, CallEnded)


def test_a_peer_that_vanished_ends_the_call_on_both_sides() -> None:
    pair = DialogPair()
    set_up(pair, SHORT)
    pair.drop = lambda destination, data: True
    pair.run(400.0)
    (ours,), (theirs,) = told(pair, CALLER, CallEnded), told(pair, CALLED, CallEnded)
    assert (ours.by, ours.status) == (theirs.by, theirs.status) == ("network", 408)
    assert "expired" in theirs.reason
    nothing_is_left(pair)


def test_a_small_interval_is_refused_and_asked_for_again_with_the_peers_minimum() -> None:
    pair = DialogPair()
    pair.called.call_options = lambda peer: CallOptions(min_se_s=600)
    ours = place(pair, options=SHORT)
    pair.run(0.1)
    assert pair.sent(b"SIP/2.0 422") == 1
    assert len(told(pair, CALLED, IncomingCall)) == 1
    incoming(pair).accept(ANSWER, pair.now)
    pair.run(1.0)
    first, second = messages(pair, b"INVITE")
    assert (first.call_id, first.from_.tag) == (second.call_id, second.from_.tag)
    assert (second.cseq.number, second.headers.get("session-expires"), second.headers.get("min-se")) == (
        2,
        "600",
        "600",
    )
    assert ours.session.interval_s == 600
    assert len(told(pair, CALLER, Answered)) == 1
    ours.hangup(pair.now)
    pair.run(100.0)
    nothing_is_left(pair)


def test_a_small_interval_of_a_refused_call_leaves_nothing() -> None:
    pair = DialogPair()
    data = make_request(extra="Supported: timer\r\nSession-Expires: 30\r\n", body=OFFER)
    pair.called.receive_datagram(data.replace(b"192.0.2.7:5070", b"192.0.2.1:5060"), CALLER, 0.0)
    pair.settle()
    (refused,) = messages(pair, b"SIP/2.0 422")
    assert refused.headers.get("min-se") == "90"
    assert not pair.events[CALLED] and pair.called.call_count == 0
    assert pair.called.gate.half_open(CALLER) == 0 and pair.called.counters["calls_received"] == 0
    for i, line in enumerate(("Session-Expires: x\r\n", "Min-SE: x\r\n")):
        broken = make_request(branch=f"z9hG4bK{i}", call_id=f"{i}", extra=line, body=OFFER)
        pair.called.receive_datagram(broken.replace(b"192.0.2.7:5070", b"192.0.2.1:5060"), CALLER, 0.0)
        pair.settle()
        assert pair.sent(b"SIP/2.0 400") == i + 1 and pair.called.call_count == 0


def test_intervals_refused_over_and_over_do_not_shut_the_peer_out() -> None:
    pair = DialogPair()
    for i in range(200):
        short = make_request(
            branch=f"z9hG4bK{i}", call_id=f"{i}", extra="Supported: timer\r\nSession-Expires: 30\r\n", body=OFFER
        )
        pair.called.receive_datagram(short.replace(b"192.0.2.7:5070", b"192.0.2.1:5060"), CALLER, float(i))
    pair.settle()
    assert pair.sent(b"SIP/2.0 422") == 200
    pair.now = 200.0
    place(pair)
    pair.run(200.5)
    incoming(pair).reject(486, pair.now)
    pair.run(400.0)
    nothing_is_left(pair)


def test_a_refresh_that_is_refused_is_tried_again_until_the_session_ends() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair, SHORT)
    ours.remote_allows = frozenset()
    pair.on_event = {
        CALLED: lambda event: event.call.refuse_reoffer(488, pair.now) if isinstance(event, Reoffered) else None
    }
    pair.run(60.0)
    assert not told(pair, CALLER, CallEnded)
    pair.run(200.0)
    assert len(told(pair, CALLED, Reoffered)) >= 2
    assert [(e.by, e.status) for e in told(pair, CALLED, CallEnded)] == [("network", 408)]
    assert [(e.by, e.status) for e in told(pair, CALLER, CallEnded)] == [("remote", 200)]


HELD = OFFER + b"a=sendonly\r\n"


def deciding(pair: DialogPair, statuses: list[int], after_s: float = 0.0) -> None:
    """Let the called side accept (200) or refuse the offers it gets, one status for each."""

    def decide(event: Event) -> None:
        if isinstance(event, Reoffered):
            status, call = statuses.pop(0), event.call
            pair.after(
                after_s,
                lambda: call.accept(ANSWER, pair.now) if status == 200 else call.refuse_reoffer(status, pair.now),
            )

    pair.on_event = {CALLED: decide}


@pytest.mark.parametrize("status", [488, 200])
def test_an_offer_under_way_when_the_refresh_is_due_does_not_cost_the_call(status: int) -> None:
    pair = DialogPair()
    ours, _ = set_up(pair, SHORT)
    deciding(pair, [status], after_s=1.0)
    pair.at(50.0, lambda: ours.reoffer(HELD, pair.now))
    pair.run(51.5)
    assert pair.sent(b"UPDATE") == (1 if status == 488 else 0)
    pair.run(500.0)
    assert not told(pair, CALLER, CallEnded) and not told(pair, CALLED, CallEnded)


def test_an_offer_refused_early_does_not_put_the_refresh_off_or_forward() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair, SHORT)
    deciding(pair, [488])
    pair.at(20.0, lambda: ours.reoffer(HELD, pair.now))
    pair.run(60.0)
    (at,) = (when for when, _, data in pair.wire if data.startswith(b"UPDATE"))
    assert at == pytest.approx(50.2, abs=0.1)


@pytest.mark.parametrize(("status", "repeated"), [(488, OFFER), (200, HELD)])
def test_a_refresh_repeats_the_session_as_agreed_and_no_offer_that_was_refused(status: int, repeated: bytes) -> None:
    pair = DialogPair()
    ours, _ = set_up(pair, SHORT)
    deciding(pair, [status, 200])
    pair.at(20.0, lambda: ours.reoffer(HELD, pair.now))
    pair.run(49.0)
    ours.remote_allows = frozenset()
    pair.run(75.0)
    assert [event.offer for event in told(pair, CALLED, Reoffered)] == [HELD, repeated]


def test_a_refresh_that_waited_repeats_what_was_agreed_meanwhile() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair, SHORT)
    deciding(pair, [200])
    pair.at(50.0, lambda: theirs.reoffer(HELD, pair.now))
    pair.run(50.1)
    ours.remote_allows = frozenset()
    pair.at(52.0, lambda: ours.accept(ANSWER + b"a=recvonly\r\n", pair.now))
    pair.run(53.0)
    assert [event.offer for event in told(pair, CALLED, Reoffered)] == [ANSWER + b"a=recvonly\r\n"]


def test_infos_that_nobody_answers_do_not_keep_the_refresh_back() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair, CallOptions(session_expires_s=600))
    pair.drop = lambda destination, data: data.startswith(b"INFO")
    pair.run(299.0)
    for _ in range(65):
        ours.info("text/plain", b"x", pair.now)
    pair.run(340.0)
    assert pair.sent(b"UPDATE") == 1
    pair.run(700.0)
    assert not told(pair, CALLER, CallEnded) and not told(pair, CALLED, CallEnded)


@pytest.mark.parametrize(("loss", "jitter_s"), [(0.2, 0.3), (0.05, 1.0)])
def test_refreshing_survives_a_bad_network(loss: float, jitter_s: float) -> None:
    pair = DialogPair(loss=loss, duplicate=0.05, jitter_s=jitter_s, seed=3)
    pair.on_event = {
        CALLED: lambda event: event.call.accept(ANSWER, pair.now) if isinstance(event, IncomingCall) else None
    }
    for i in range(20):
        pair.at(i * 0.7, lambda: place(pair, options=SHORT))
    pair.run(1000.0)
    assert not told(pair, CALLER, CallEnded) and not told(pair, CALLED, CallEnded)
    for call in pair.caller.calls:
        call.hangup(pair.now)
    pair.run(1200.0)
    nothing_is_left(pair)
