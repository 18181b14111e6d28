"""Changing a session that is up: re-INVITE and UPDATE in both directions, glare, and offers that come late."""

from __future__ import annotations

import pytest

from appliance.errors import LocalSipError
from appliance.sip.call import Call
from appliance.sip.call_state import CallState
from appliance.sip.events import (
    Answered,
    CallEnded,
    Confirmed,
    Event,
    IncomingCall,
    ReofferAnswered,
    ReofferCancelled,
    Reoffered,
    ReofferFailed,
)
from appliance.sip.message import Request

from .calls import ends, incoming, messages, nothing_is_left, place, set_up, told
from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair

HELD = OFFER + b"a=sendonly\r\n"
HELD_ANSWER = ANSWER + b"a=recvonly\r\n"


def answering(pair: DialogPair, *sides: object) -> None:
    """Let both sides answer every offer at once."""

    def answer(event: Event) -> None:
        if isinstance(event, Reoffered):
            event.call.accept(HELD_ANSWER if event.offer is not None else OFFER, pair.now)
        elif isinstance(event, ReofferAnswered | Answered) and event.needs_answer:
            event.call.acknowledge(ANSWER, pair.now)

    pair.on_event = {CALLER: answer, CALLED: answer}


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("by_called", [False, True])
def test_an_offer_is_answered(method: str, by_called: bool) -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    answering(pair)
    side, who, other = (theirs, CALLED, CALLER) if by_called else (ours, CALLER, CALLED)
    (side.reoffer if method == "INVITE" else side.update)(HELD, pair.now)
    pair.run(1.0)
    assert told(pair, other, Reoffered) == [Reoffered(ours if by_called else theirs, HELD)]
    assert told(pair, who, ReofferAnswered) == [ReofferAnswered(side, HELD_ANSWER)]
    assert not [call for call in (ours, theirs) if call.ended]
    ours.hangup(pair.now)
    pair.run(100.0)
    nothing_is_left(pair)


def test_an_update_without_an_offer_is_answered_without_asking_the_application() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    ours.update(None, pair.now)
    pair.run(1.0)
    assert told(pair, CALLER, ReofferAnswered) == [ReofferAnswered(ours, None)]
    assert not told(pair, CALLED, Reoffered)


def test_a_reinvite_without_an_offer_gets_one_and_answers_it_in_the_ack() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    answering(pair)
    theirs.reoffer(b"", pair.now)
    pair.run(1.0)
    assert told(pair, CALLER, Reoffered) == [Reoffered(ours, None)]
    assert told(pair, CALLED, ReofferAnswered) == [ReofferAnswered(theirs, OFFER, needs_answer=True)]
    assert told(pair, CALLER, Confirmed) == [Confirmed(ours, ANSWER)]


def test_a_call_without_an_offer_answers_that_of_the_200_in_its_ack() -> None:
    pair = DialogPair()
    ours = place(pair, b"")
    pair.run(0.1)
    theirs = incoming(pair)
    theirs.accept(OFFER, pair.now)
    pair.run(2.0)
    assert told(pair, CALLER, Answered) == [Answered(ours, OFFER, needs_answer=True)]
    assert pair.sent(b"ACK") == 0
    ours.acknowledge(ANSWER, pair.now)
    pair.run(3.0)
    assert told(pair, CALLED, Confirmed) == [Confirmed(theirs, ANSWER)]
    assert len(told(pair, CALLER, Answered)) == 1
    with pytest.raises(LocalSipError, match="waits for an answer"):
        ours.acknowledge(ANSWER, pair.now)


def test_a_hang_up_before_the_late_answer_still_acknowledges() -> None:
    pair = DialogPair()
    ours = place(pair, b"")
    pair.run(0.1)
    incoming(pair).accept(OFFER, pair.now)
    pair.run(0.2)
    ours.hangup(pair.now)
    pair.run(100.0)
    assert pair.sent(b"ACK") == 1
    assert ends(pair) == [("local", 200), ("remote", 200)]
    nothing_is_left(pair)


def test_two_offers_that_cross_are_both_put_off_and_then_both_made() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    answering(pair)
    ours.reoffer(HELD, pair.now)
    theirs.reoffer(HELD, pair.now)
    began = pair.now
    pair.run(60.0)
    assert pair.sent(b"SIP/2.0 491") == 2
    assert told(pair, CALLER, ReofferAnswered) == [ReofferAnswered(ours, HELD_ANSWER)]
    assert told(pair, CALLED, ReofferAnswered) == [ReofferAnswered(theirs, HELD_ANSWER)]
    again = [when - began for when, _, data in pair.wire if data.startswith(b"INVITE") and when > began]
    by_caller = [when for when, to, data in pair.wire if data.startswith(b"INVITE") and when > began and to == CALLED]
    assert 0.0 <= min(again) <= 2.1
    assert all(2.1 <= when - began <= 4.1 for when in by_caller)


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_an_offer_during_another_of_the_same_side_is_told_to_come_back(method: str) -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    assert ours.dialog is not None
    for i, name in enumerate(("INVITE", method)):
        request = ours.dialog.request(name, f"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK{i}")
        request.headers.add("contact", "<sip:caller@192.0.2.1>")
        request.headers.add("content-type", "application/sdp")
        request.body = HELD
        pair.called.receive_datagram(request.encode(), CALLER, pair.now)
    pair.settle()
    (refused,) = messages(pair, b"SIP/2.0 500", CALLER)
    assert 0 <= int(refused.headers.get("retry-after") or "-1") <= 10
    assert len(told(pair, CALLED, Reoffered)) == 1
    theirs.accept(ANSWER, pair.now)
    assert not theirs.ended


def test_the_application_that_takes_its_time_makes_the_peer_come_back() -> None:
    """A re-INVITE crosses one that is being thought about: the 500 names a time, and the offer is made again then."""
    pair = DialogPair()
    ours, theirs = set_up(pair)
    ours.reoffer(HELD, pair.now)
    pair.run(0.4)
    theirs.reoffer(HELD, pair.now)
    assert len(told(pair, CALLER, Reoffered)) == 0
    pair.run(5.0)
    theirs.accept(HELD_ANSWER, pair.now)
    pair.run(5.1)
    assert told(pair, CALLER, ReofferAnswered) == [ReofferAnswered(ours, HELD_ANSWER)]
    assert told(pair, CALLER, Reoffered) == [Reoffered(ours, HELD)]


def test_an_offer_waits_for_the_ack_of_the_answer() -> None:
    pair = DialogPair()
    place(pair)
    pair.run(0.1)
    theirs = incoming(pair)
    theirs.accept(ANSWER, pair.now)
    theirs.reoffer(HELD, pair.now)
    pair.settle()
    assert pair.sent(b"INVITE", CALLER) == 0
    pair.run(0.2)
    assert pair.sent(b"INVITE", CALLER) == 1


def test_one_offer_at_a_time_is_our_own_rule() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    ours.reoffer(HELD, pair.now)
    with pytest.raises(LocalSipError, match="not settled"):
        ours.update(HELD, pair.now)


@pytest.mark.parametrize("status", [488, 415, 603])
def test_a_refused_offer_leaves_the_call_as_it_was(status: int) -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    pair.on_event = {
        CALLED: lambda event: event.call.refuse_reoffer(status, pair.now) if isinstance(event, Reoffered) else None
    }
    ours.reoffer(HELD, pair.now)
    pair.run(60.0)
    assert told(pair, CALLER, ReofferFailed) == [ReofferFailed(ours, status)]
    assert ours.state is theirs.state is CallState.CONFIRMED
    assert not ends(pair)


def test_a_peer_that_lost_the_call_ends_it() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    pair.called.forget(theirs, [theirs.dialog] if theirs.dialog else [])
    ours.update(None, pair.now)
    pair.run(60.0)
    assert [(e.by, e.status) for e in told(pair, CALLER, CallEnded)] == [("network", 481)]


def test_a_peer_that_went_silent_ends_the_call() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    pair.drop = lambda destination, data: True
    ours.reoffer(HELD, pair.now)
    pair.run(100.0)
    assert [(e.by, e.status) for e in told(pair, CALLER, CallEnded)] == [("network", 408)]
    assert pair.caller.call_count == 0


def test_a_reinvite_that_the_peer_never_decides_on_is_taken_back() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    ours.reoffer(HELD, pair.now)
    pair.run(95.0)
    assert told(pair, CALLED, Reoffered) == [Reoffered(theirs, HELD)]
    assert told(pair, CALLED, ReofferCancelled) == [ReofferCancelled(theirs)]
    assert told(pair, CALLER, ReofferFailed) == [ReofferFailed(ours, 487)]
    assert [m.cseq.number for m in messages(pair, b"ACK", CALLED)] == [1, 2]
    assert pair.sent(b"SIP/2.0 487") == 1
    ours.hangup(pair.now)
    pair.run(200.0)
    nothing_is_left(pair)


@pytest.mark.parametrize("offer", [HELD, b""])
def test_an_answer_that_crosses_the_taking_back_is_acknowledged_and_holds(offer: bytes) -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    pair.drop = lambda destination, data: data.startswith(b"CANCEL") and pair.now < 91.0
    pair.on_event = {
        CALLER: lambda event: (
            event.call.acknowledge(ANSWER, pair.now)
            if isinstance(event, ReofferAnswered) and event.needs_answer
            else None
        )
    }
    ours.reoffer(offer, pair.now)
    pair.run(90.5)
    assert pair.sent(b"CANCEL") == 1 and not told(pair, CALLER, ReofferFailed)
    with pytest.raises(LocalSipError, match="not settled"):
        ours.reoffer(OFFER, pair.now)
    theirs.accept(HELD_ANSWER, pair.now)
    pair.run(200.0)
    assert told(pair, CALLER, ReofferAnswered) == [ReofferAnswered(ours, HELD_ANSWER, needs_answer=not offer)]
    assert len(told(pair, CALLED, Confirmed)) == 2
    assert not ends(pair) and not told(pair, CALLER, ReofferFailed)
    ours.update(None, pair.now)
    pair.run(201.0)
    assert len(told(pair, CALLER, ReofferAnswered)) == 2


def test_a_taking_back_that_is_never_answered_is_given_up() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    ours.reoffer(HELD, pair.now)
    pair.run(1.0)
    pair.drop = lambda destination, data: destination == CALLED
    pair.run(122.2)
    assert not told(pair, CALLER, ReofferFailed)
    pair.run(122.4)
    assert told(pair, CALLER, ReofferFailed) == [ReofferFailed(ours, 408)]
    assert not told(pair, CALLER, CallEnded)


def test_a_reinvite_that_a_bye_overtook_leaves_nothing() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    answering(pair)
    ours.reoffer(HELD, pair.now)
    pair.drop = lambda destination, data: data.startswith(b"SIP/2.0 200") and b" INVITE" in data
    pair.run(0.4)
    ours.hangup(pair.now)
    pair.run(100.0)
    nothing_is_left(pair)


def test_a_cancelled_reinvite_is_answered_487_and_needs_no_answer() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    ours.reoffer(HELD, pair.now)
    pair.run(0.4)
    (reinvite,) = (m for m in messages(pair, b"INVITE", CALLED) if m.to.tag)
    assert isinstance(reinvite, Request)
    cancel = reinvite.encode().replace(b"INVITE", b"CANCEL").replace(b"Content-Type", b"X-Was").split(b"\r\n\r\n")[0]
    head = b"\r\n".join(line for line in cancel.split(b"\r\n") if not line.startswith(b"Content-Length"))
    pair.called.receive_datagram(head + b"\r\nContent-Length: 0\r\n\r\n", CALLER, pair.now)
    pair.run(60.0)
    assert told(pair, CALLED, ReofferCancelled) == [ReofferCancelled(theirs)]
    assert told(pair, CALLER, ReofferFailed) == [ReofferFailed(ours, 487)]
    with pytest.raises(LocalSipError):
        theirs.accept(ANSWER, pair.now)
    assert not ends(pair)


def test_a_hang_up_answers_the_offer_that_waits() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    ours.reoffer(HELD, pair.now)
    pair.run(0.4)
    theirs.hangup(pair.now)
    pair.run(100.0)
    assert pair.sent(b"SIP/2.0 487", CALLER) >= 1
    assert ends(pair) == [("remote", 200), ("local", 200)]
    nothing_is_left(pair)


@pytest.mark.parametrize(("loss", "duplicate", "jitter_s"), [(0.2, 0.05, 0.3), (0.0, 0.3, 0.2)])
def test_every_change_happens_once_over_a_bad_network(loss: float, duplicate: float, jitter_s: float) -> None:
    pair = DialogPair(loss=loss, duplicate=duplicate, jitter_s=jitter_s, seed=7)
    calls: list[Call] = []

    def called_side(event: Event) -> None:
        if isinstance(event, IncomingCall):
            event.call.ring(pair.now)
            event.call.accept(ANSWER, pair.now)
        elif isinstance(event, Reoffered):
            event.call.accept(HELD_ANSWER, pair.now)
        elif isinstance(event, Confirmed):
            call = event.call
            if not [e for e in told(pair, CALLED, Reoffered) if e.call is call]:
                pair.after(0.5, lambda: None if call.ended else call.update(HELD, pair.now))

    def caller_side(event: Event) -> None:
        if isinstance(event, Reoffered):
            event.call.accept(HELD_ANSWER, pair.now)
        elif isinstance(event, Answered):
            call = event.call
            pair.after(0.5, lambda: None if call.ended else call.reoffer(HELD, pair.now))
            pair.after(60.0, lambda: call.hangup(pair.now))

    pair.on_event = {CALLED: called_side, CALLER: caller_side}
    count = 60
    for i in range(count):
        pair.at(i * 0.3, lambda: calls.append(place(pair)))
    pair.run(300.0)
    changed = [e.call for e in told(pair, CALLER, ReofferAnswered)]
    assert sorted(map(id, changed)) == sorted(map(id, calls))
    assert not told(pair, CALLER, ReofferFailed) and not told(pair, CALLED, ReofferFailed)
    updated = {id(e.call) for e in told(pair, CALLED, ReofferAnswered)}
    assert len(updated) == len(told(pair, CALLED, ReofferAnswered)) == count
    assert [e.status for e in told(pair, CALLER, CallEnded)] == [200] * count
    nothing_is_left(pair)
