"""Whole calls between two user agents, over good and bad networks, in virtual time."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import pytest

from appliance.errors import LocalSipError
from appliance.sip.call import Call
from appliance.sip.call_state import UAC_TABLE, UAS_TABLE, CallState
from appliance.sip.events import (
    Answered,
    CallClosed,
    CallEnded,
    Confirmed,
    Event,
    IncomingCall,
    InfoReceived,
    Progress,
    Reoffered,
)
from appliance.sip.uri import Peer

from .calls import FROM, TARGET, ends, incoming, nothing_is_left, place, set_up, told
from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair


def test_the_tables_end() -> None:
    for table in (UAS_TABLE, UAC_TABLE):
        left = {before for before, _ in table}
        assert CallState.TERMINATED not in left
        assert set(table.values()) <= left | {CallState.TERMINATED}


def test_a_call_hung_up_by_the_caller() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    assert [e.status for e in told(pair, CALLER, Progress)] == [100, 180]
    assert told(pair, CALLER, Answered) == [Answered(ours, ANSWER)]
    assert told(pair, CALLED, Confirmed) == [Confirmed(theirs, None)]
    ours.hangup(pair.now)
    pair.run(0.4)
    assert ends(pair) == [("local", 200), ("remote", 200)]
    assert told(pair, CALLER, CallClosed) and told(pair, CALLED, CallClosed)
    assert pair.sent(b"INVITE") == 1
    assert pair.sent(b"BYE") == 1
    pair.run(100.0)
    nothing_is_left(pair)


def test_a_call_hung_up_by_the_called_side() -> None:
    pair = DialogPair()
    _, theirs = set_up(pair)
    theirs.hangup(pair.now, 'bye "now"')
    theirs.hangup(pair.now)
    pair.run(100.0)
    assert ends(pair) == [("remote", 200), ("local", 200)]
    assert any(b'Reason: SIP;cause=200;text="bye now"' in data for _, _, data in pair.wire)
    nothing_is_left(pair)


def test_a_refused_call() -> None:
    pair = DialogPair()
    place(pair)
    pair.run(0.1)
    incoming(pair).reject(486, pair.now, headers=[("Retry-After", "7")])
    pair.run(100.0)
    assert ends(pair) == [("remote", 486), ("local", 486)]
    assert any(b"Retry-After: 7" in data for _, _, data in pair.wire)
    nothing_is_left(pair)


def test_a_cancelled_call() -> None:
    pair = DialogPair()
    ours = place(pair)
    pair.run(0.1)
    incoming(pair).ring(pair.now)
    pair.run(0.2)
    ours.hangup(pair.now)
    pair.run(100.0)
    assert ends(pair) == [("local", 200), ("remote", 487)]
    assert pair.sent(b"CANCEL") == 1
    nothing_is_left(pair)


def test_a_hang_up_before_anything_came_back_waits_for_the_first_response() -> None:
    pair = DialogPair()
    ours = place(pair)
    ours.hangup(pair.now)
    pair.settle()
    assert pair.sent(b"CANCEL") == 0
    pair.run(100.0)
    assert pair.sent(b"CANCEL") == 1
    assert ends(pair) == [("local", 200), ("remote", 487)]
    nothing_is_left(pair)


def test_a_cancel_that_crosses_the_answer_ends_the_call_with_a_bye() -> None:
    pair = DialogPair()
    ours = place(pair)
    pair.run(0.1)
    theirs = incoming(pair)
    theirs.accept(ANSWER, pair.now)
    ours.hangup(pair.now)
    pair.run(100.0)
    assert pair.sent(b"CANCEL") == 1
    assert pair.sent(b"BYE", CALLED) == 1
    assert not told(pair, CALLER, Answered)
    assert ends(pair) == [("local", 200), ("remote", 200)]
    nothing_is_left(pair)


def test_a_cancel_that_is_never_answered_is_given_up() -> None:
    pair = DialogPair()
    ours = place(pair)
    pair.run(0.1)
    pair.drop = lambda destination, data: destination == CALLED
    ours.hangup(pair.now)
    pair.run(40.0)
    assert pair.caller.call_count == 0
    assert len(pair.caller.layer) == 0


def test_an_answer_never_acknowledged_is_repeated_and_then_hung_up() -> None:
    pair = DialogPair()
    place(pair)
    pair.run(0.1)
    pair.drop = lambda destination, data: data.startswith(b"ACK")
    theirs = incoming(pair)
    theirs.accept(ANSWER, 1.0)
    pair.run(60.0)
    at = [
        when for when, to, data in pair.wire if data.startswith(b"SIP/2.0 200") and b"INVITE" in data and to == CALLER
    ]
    assert at == pytest.approx([0.1, 1.5, 2.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5, 32.5])
    assert [(e.by, e.status) for e in told(pair, CALLED, CallEnded)] == [("network", 408)]
    assert pair.sent(b"BYE", CALLER) == 1
    pair.run(200.0)
    nothing_is_left(pair)


def test_a_lost_ack_is_sent_again_for_every_200() -> None:
    pair = DialogPair()
    lost = Counter[str]()

    def drop(destination: Peer, data: bytes) -> bool:
        lost["ACK"] += data.startswith(b"ACK")
        return data.startswith(b"ACK") and lost["ACK"] <= 2

    pair.drop = drop
    ours, _ = set_up(pair)
    pair.run(10.0)
    assert pair.sent(b"ACK") == 3
    assert len(told(pair, CALLER, Answered)) == len(told(pair, CALLED, Confirmed)) == 1
    ours.hangup(pair.now)
    pair.run(100.0)
    nothing_is_left(pair)


def test_a_hang_up_before_the_ack_waits_for_it() -> None:
    pair = DialogPair()
    place(pair)
    pair.run(0.1)
    theirs = incoming(pair)
    theirs.accept(ANSWER, pair.now)
    theirs.hangup(pair.now)
    pair.settle()
    assert pair.sent(b"BYE") == 0
    pair.run(0.2)
    assert pair.sent(b"BYE") == 1
    pair.run(100.0)
    assert ends(pair) == [("remote", 200), ("local", 200)]
    nothing_is_left(pair)


def test_a_bye_answered_into_the_void_is_answered_again() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    pair.drop = lambda destination, data: destination == CALLER and pair.now < 5.0
    ours.hangup(pair.now)
    pair.run(100.0)
    assert pair.sent(b"BYE") == 5
    assert ends(pair) == [("local", 200), ("remote", 200)]
    nothing_is_left(pair)


def test_both_hang_up_at_once() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    ours.hangup(pair.now)
    theirs.hangup(pair.now)
    pair.run(100.0)
    assert ends(pair) == [("local", 200), ("local", 200)]
    nothing_is_left(pair)


def test_nobody_there() -> None:
    pair = DialogPair()
    pair.drop = lambda destination, data: True
    place(pair)
    pair.run(100.0)
    assert ends(pair) == [("network", 408)]
    nothing_is_left(pair)


def test_a_phone_that_rings_for_ever_is_cancelled() -> None:
    pair = DialogPair()
    pair.caller.invite(TARGET, FROM, OFFER, 0.0, ring_timeout_s=30.0)
    pair.run(0.1)
    incoming(pair).ring(pair.now)
    pair.run(100.0)
    assert ends(pair) == [("local", 408), ("remote", 487)]
    nothing_is_left(pair)


def test_a_call_that_the_application_forgot_is_refused() -> None:
    pair = DialogPair()
    pair.caller.invite(TARGET, FROM, OFFER, 0.0, ring_timeout_s=1000.0)
    pair.run(0.1)
    incoming(pair).ring(pair.now)
    pair.run(179.0)
    assert pair.sent(b"SIP/2.0 180") == 3
    pair.run(300.0)
    assert ends(pair) == [("remote", 480), ("local", 408)]
    nothing_is_left(pair)


def test_delayed_offer() -> None:
    pair = DialogPair()
    place(pair, b"")
    pair.run(0.1)
    (event,) = told(pair, CALLED, IncomingCall)
    assert isinstance(event, IncomingCall) and event.offer is None
    event.call.accept(OFFER, pair.now)
    pair.run(0.2)
    (answered,) = told(pair, CALLER, Answered)
    assert isinstance(answered, Answered) and answered.body == OFFER


def test_the_wrong_moment_is_our_own_error() -> None:
    pair = DialogPair()
    _, theirs = set_up(pair)
    with pytest.raises(LocalSipError, match="cannot send 18x while the call is confirmed"):
        theirs.ring(pair.now)
    with pytest.raises(LocalSipError):
        theirs.accept(ANSWER, pair.now)
    with pytest.raises(LocalSipError):
        theirs.reject(486, pair.now)
    with pytest.raises(LocalSipError, match="use 300 to 699"):
        theirs.reject(200, pair.now)
    with pytest.raises(LocalSipError):
        theirs.refuse_reoffer(488, pair.now)


def reinvite(pair: DialogPair, ours: Call, *, body: bytes = OFFER, method: str = "INVITE", extra: str = "") -> None:
    """A request from the caller inside the call, as a peer's stack would write it."""
    assert ours.dialog is not None
    request = ours.dialog.request(method, f"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{method}{ours.dialog.local_cseq}")
    request.headers.add("contact", "<sip:caller@192.0.2.1>")
    if body:
        request.headers.add("content-type", extra or "application/sdp")
        request.body = body
    pair.called.receive_datagram(request.encode(), CALLER, pair.now)
    pair.settle()


def test_a_reinvite_is_answered_and_repeated_until_its_ack() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    reinvite(pair, ours)
    assert told(pair, CALLED, Reoffered) == [Reoffered(theirs, OFFER)]
    theirs.accept(ANSWER, pair.now)
    pair.run(pair.now + 2.0)
    assert ours.dialog is not None
    ack = ours.dialog.request("ACK", "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKack", ours.dialog.local_cseq)
    before = pair.sent(b"SIP/2.0 200", CALLER)
    assert before >= 3
    pair.called.receive_datagram(ack.encode(), CALLER, pair.now)
    pair.run(20.0)
    assert pair.sent(b"SIP/2.0 200", CALLER) == before
    assert not told(pair, CALLED, CallEnded)


def test_a_reinvite_never_acknowledged_ends_the_call() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    reinvite(pair, ours)
    theirs.accept(ANSWER, pair.now)
    pair.run(40.0)
    assert [(e.by, e.status) for e in told(pair, CALLED, CallEnded)] == [("network", 408)]


def test_a_refused_reinvite_leaves_the_call_as_it_was() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    reinvite(pair, ours)
    theirs.refuse_reoffer(488, pair.now)
    pair.run(100.0)
    assert pair.sent(b"SIP/2.0 488", CALLER) > 1
    assert theirs.state is CallState.CONFIRMED
    assert not told(pair, CALLED, CallEnded)


def test_a_second_reinvite_during_the_first_is_told_to_wait() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    reinvite(pair, ours)
    reinvite(pair, ours)
    assert pair.sent(b"SIP/2.0 500", CALLER) == 1
    assert len(told(pair, CALLED, Reoffered)) == 1


def test_requests_inside_a_call() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    reinvite(pair, ours, method="INFO", body=b"Signal=5", extra="application/dtmf-relay")
    assert told(pair, CALLED, InfoReceived) == [InfoReceived(theirs, "application/dtmf-relay", b"Signal=5")]
    for method, status in (
        ("OPTIONS", b"200"),
        ("UPDATE", b"200"),
        ("REFER", b"400"),
        ("NOTIFY", b"489"),
        ("FOO", b"501"),
    ):
        before = pair.sent(b"SIP/2.0 " + status, CALLER)
        reinvite(pair, ours, method=method, body=b"")
        assert pair.sent(b"SIP/2.0 " + status, CALLER) == before + 1
    reinvite(pair, ours, body=b"<x/>", extra="application/xml")
    assert pair.sent(b"SIP/2.0 415", CALLER) == 1
    assert theirs.state is CallState.CONFIRMED


def test_a_bye_while_it_rings_ends_both() -> None:
    pair = DialogPair()
    ours = place(pair)
    pair.run(0.1)
    incoming(pair).ring(pair.now)
    pair.run(0.2)
    reinvite(pair, ours, method="BYE", body=b"")
    assert [(e.by, e.status) for e in told(pair, CALLED, CallEnded)] == [("remote", 200)]
    assert pair.sent(b"SIP/2.0 487", CALLER) == 1
    pair.run(100.0)
    nothing_is_left(pair)


def test_the_other_branches_of_a_forked_call_are_ended() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    won = next(data for _, to, data in pair.wire if to == CALLER and data.startswith(b"SIP/2.0 200"))
    tag = ours.dialog.remote_tag.encode() if ours.dialog is not None else b""
    pair.caller.receive_datagram(won.replace(tag, b"loser"), CALLED, pair.now)
    pair.run(0.4)
    assert sum(b"tag=loser" in data for _, _, data in pair.wire if data.startswith(b"ACK")) == 1
    assert sum(b"tag=loser" in data for _, _, data in pair.wire if data.startswith(b"BYE")) == 1
    assert len(told(pair, CALLER, Answered)) == 1
    assert ours.state is CallState.CONFIRMED
    ours.hangup(pair.now)
    pair.run(100.0)
    nothing_is_left(pair)


@pytest.mark.parametrize(
    ("loss", "duplicate", "jitter_s", "calls"),
    [(0.0, 0.3, 0.2, 100), (0.2, 0.0, 0.0, 500), (0.2, 0.05, 0.3, 300), (0.4, 0.1, 0.2, 300)],
)
def test_every_call_is_set_up_and_torn_down_exactly_once(
    loss: float, duplicate: float, jitter_s: float, calls: int
) -> None:
    pair = DialogPair(loss=loss, duplicate=duplicate, jitter_s=jitter_s, seed=int(loss * 100) + calls)

    def called_side(event: Event) -> None:
        if isinstance(event, IncomingCall):
            call = event.call
            call.ring(pair.now)
            pair.after(0.8, lambda: None if call.ended else call.accept(ANSWER, pair.now))

    def caller_side(event: Event) -> None:
        if isinstance(event, Answered):
            call = event.call
            pair.after(5.0, lambda: call.hangup(pair.now))

    def place_one() -> None:
        place(pair)

    pair.on_event = {CALLED: called_side, CALLER: caller_side}
    for i in range(calls):
        pair.at(i * 0.05, place_one)
    pair.run(300.0)
    for who in (CALLER, CALLED):
        per_call = Counter(id(event.call) for event in told(pair, who, CallEnded))
        assert set(per_call.values()) == {1}
        assert len(told(pair, who, CallClosed)) == len(per_call)
    answered = len(told(pair, CALLER, Answered))
    assert len(told(pair, CALLED, IncomingCall)) == len(told(pair, CALLED, CallEnded))
    assert len(told(pair, CALLER, CallEnded)) == calls
    nothing_is_left(pair)
    if loss <= 0.2:
        assert answered == len(told(pair, CALLED, IncomingCall)) == calls
    else:
        assert answered > 0.95 * calls


def test_nothing_keeps_a_finished_call_but_the_collector_is_not_needed() -> None:
    pair = DialogPair()
    pair.on_event = {
        CALLED: lambda event: event.call.accept(ANSWER, pair.now) if isinstance(event, Reoffered) else None
    }
    gc.disable()
    try:
        ours, theirs = set_up(pair)
        ours.reoffer(OFFER, pair.now)
        theirs.info("text/plain", b"x", pair.now)
        ours.refer("sip:300@192.0.2.3", pair.now)
        pair.run(5.0)
        ours.hangup(pair.now)
        pair.run(100.0)
        kept = [weakref.ref(ours), weakref.ref(theirs)]
        del ours, theirs
        pair.events.clear()
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()
