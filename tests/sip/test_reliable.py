"""Reliable provisional responses in both roles (RFC 3262), and what may happen before the answer."""

from __future__ import annotations

import pytest

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.call import Call
from appliance.sip.call_state import CallOptions
from appliance.sip.events import (
    Answered,
    CallEnded,
    Confirmed,
    EarlyConfirmed,
    Event,
    IncomingCall,
    Progress,
    ReofferAnswered,
    Reoffered,
)
from appliance.sip.message import Headers, Response
from appliance.sip.reliable import parse_rack

from .calls import ends, incoming, messages, nothing_is_left, place, set_up, told
from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair

EARLY = ANSWER + b"a=sendonly\r\n"
REQUIRED = CallOptions(reliable="required")


def with_early_media() -> tuple[DialogPair, Call, Call]:
    """A call that has rung with media, reliably: the caller's side of it and the called one's."""
    pair = DialogPair()
    ours = place(pair)
    pair.run(0.1)
    theirs = incoming(pair)
    theirs.ring(pair.now, 183, EARLY)
    pair.run(0.2)
    return pair, ours, theirs


def test_rack() -> None:
    assert parse_rack("776656 1 INVITE") == (776656, 1, "INVITE")
    for broken in ("", "1 2", "x 1 INVITE", "1 x INVITE", "1 2 3 4"):
        with pytest.raises(RemoteSipError):
            parse_rack(broken)


def test_early_media_is_confirmed_and_the_answer_is_not_sent_twice() -> None:
    pair, ours, theirs = with_early_media()
    assert [(e.status, e.body) for e in told(pair, CALLER, Progress)] == [(100, None), (183, EARLY)]
    assert pair.sent(b"PRACK") == 1
    assert told(pair, CALLED, EarlyConfirmed) == [EarlyConfirmed(theirs, None)]
    theirs.accept(ANSWER, pair.now)
    pair.run(1.0)
    (accepted,) = (m for m in messages(pair, b"SIP/2.0 200", CALLER) if m.cseq.method == "INVITE")
    assert accepted.body == b""
    assert told(pair, CALLER, Answered) == [Answered(ours, EARLY)]
    ours.hangup(pair.now)
    pair.run(100.0)
    nothing_is_left(pair)


def test_a_plain_ringing_needs_no_prack_unless_the_caller_insists() -> None:
    pair = DialogPair()
    set_up(pair)
    assert pair.sent(b"PRACK") == 0
    pair = DialogPair()
    set_up(pair, REQUIRED)
    assert pair.sent(b"PRACK") == 1
    ringing = messages(pair, b"SIP/2.0 180")[0]
    assert ringing.headers.get("require") == "100rel"
    assert 0 < int(ringing.headers.get("rseq") or 0) < 2**31


def test_an_unconfirmed_response_is_repeated_ever_slower_and_then_the_call_is_refused() -> None:
    pair = DialogPair()
    place(pair, options=REQUIRED)
    pair.run(0.1)
    pair.drop = lambda destination, data: data.startswith(b"PRACK")
    incoming(pair).ring(pair.now)
    pair.run(100.0)
    at = [when for when, _, data in pair.wire if data.startswith(b"SIP/2.0 180")]
    assert at == pytest.approx([0.1, 0.6, 1.6, 3.6, 7.6, 15.6, 31.6])
    assert ends(pair) == [("remote", 504), ("network", 504)]
    assert len(told(pair, CALLER, Progress)) == 2
    nothing_is_left(pair)


def test_the_answer_and_further_responses_wait_for_the_prack() -> None:
    pair = DialogPair()
    ours = place(pair, options=REQUIRED)
    pair.run(0.1)
    theirs = incoming(pair)
    theirs.ring(pair.now)
    theirs.ring(pair.now, 183, EARLY)
    theirs.accept(ANSWER, pair.now)
    with pytest.raises(LocalSipError):
        theirs.accept(ANSWER, pair.now)
    pair.settle()
    assert pair.sent(b"SIP/2.0 183") == pair.sent(b"SIP/2.0 200") == 0
    pair.run(2.0)
    rseq = [int(m.headers.get("rseq") or 0) for m in messages(pair, b"SIP/2.0 18")]
    assert len(rseq) == 2 and rseq[1] == rseq[0] + 1
    assert told(pair, CALLER, Answered) == [Answered(ours, EARLY)]


def test_a_prack_that_confirms_nothing_is_refused() -> None:
    pair = DialogPair()
    ours = place(pair)
    pair.run(0.1)
    incoming(pair).ring(pair.now)
    pair.run(0.2)
    assert ours.dialog is not None
    for rack, status in (("1 1 INVITE", b"481"), ("x", b"400")):
        ours.send_in_dialog(ours.dialog, "PRACK", pair.now, [("RAck", rack)])
        pair.run(pair.now + 0.1)
        assert pair.sent(b"SIP/2.0 " + status) == 1


def test_an_offer_in_a_provisional_response_is_answered_in_the_prack() -> None:
    pair = DialogPair()
    ours = place(pair, b"")
    pair.run(0.1)
    theirs = incoming(pair)
    theirs.ring(pair.now, 183, OFFER)
    pair.run(0.2)
    assert told(pair, CALLER, Progress)[-1] == Progress(ours, 183, OFFER, needs_answer=True)
    assert pair.sent(b"PRACK") == 0
    ours.acknowledge(ANSWER, pair.now)
    pair.run(0.3)
    assert told(pair, CALLED, EarlyConfirmed) == [EarlyConfirmed(theirs, ANSWER)]
    theirs.accept(b"", pair.now)
    pair.run(0.4)
    assert told(pair, CALLER, Answered) == [Answered(ours, OFFER)]
    assert told(pair, CALLED, Confirmed) == [Confirmed(theirs, None)]


@pytest.mark.parametrize("by_called", [False, True])
def test_an_update_before_the_answer(by_called: bool) -> None:
    pair = DialogPair()
    ours = place(pair)
    pair.run(0.1)
    theirs = incoming(pair)
    with pytest.raises(LocalSipError, match="cannot send an UPDATE"):
        (theirs if by_called else ours).update(OFFER, pair.now)
    theirs.ring(pair.now, 183, EARLY)
    pair.run(0.2)

    def answer(event: Event) -> None:
        if isinstance(event, Reoffered):
            event.call.accept(ANSWER, pair.now)

    pair.on_event = {CALLER: answer, CALLED: answer}
    side, who = (theirs, CALLED) if by_called else (ours, CALLER)
    side.update(OFFER, pair.now)
    pair.run(0.3)
    assert told(pair, who, ReofferAnswered) == [ReofferAnswered(side, ANSWER)]
    theirs.accept(b"", pair.now)
    pair.run(1.0)
    assert told(pair, CALLER, Answered) == [Answered(ours, None)]


def test_a_refused_update_leaves_what_was_agreed_before() -> None:
    pair, ours, theirs = with_early_media()
    pair.on_event = {
        CALLER: lambda event: event.call.refuse_reoffer(488, pair.now) if isinstance(event, Reoffered) else None
    }
    theirs.update(OFFER, pair.now)
    pair.run(0.3)
    theirs.accept(b"", pair.now)
    pair.run(1.0)
    assert told(pair, CALLER, Answered) == [Answered(ours, EARLY)]


def test_what_was_agreed_reliably_is_not_undone_by_later_responses() -> None:
    pair, ours, _ = with_early_media()
    (first,) = messages(pair, b"SIP/2.0 183")
    assert isinstance(first, Response)
    for status in (180, 200):
        later = Response(status, "", Headers(list(first.headers)), OFFER)
        later.headers.set_all("require", [])
        pair.caller.receive_datagram(later.encode(), CALLED, pair.now)
        pair.settle()
    assert [(e.status, e.body) for e in told(pair, CALLER, Progress)] == [(100, None), (183, EARLY), (180, None)]
    assert told(pair, CALLER, Answered) == [Answered(ours, EARLY)]


def test_an_update_with_an_offer_before_the_first_is_answered_is_told_to_come_back() -> None:
    pair = DialogPair()
    ours = place(pair)
    pair.run(0.1)
    incoming(pair).ring(pair.now)
    pair.run(0.2)
    assert ours.dialog is not None
    ours.send_in_dialog(ours.dialog, "UPDATE", pair.now, body=OFFER)
    pair.run(0.3)
    assert pair.sent(b"SIP/2.0 500", CALLER) == 1
    ours.update(None, pair.now)
    pair.run(0.4)
    assert not told(pair, CALLED, Reoffered)
    assert told(pair, CALLER, ReofferAnswered) == [ReofferAnswered(ours, None)]


def test_responses_out_of_order_are_left_until_their_turn() -> None:
    pair = DialogPair()
    place(pair)
    pair.run(0.1)
    theirs = incoming(pair)
    theirs.ring(pair.now, 183, EARLY)
    pair.settle()
    (first,) = messages(pair, b"SIP/2.0 183")
    assert isinstance(first, Response)
    pair.run(0.2)
    rseq = int(first.headers.get("rseq") or 0)
    for number in (rseq + 2, rseq, 0):
        first.headers.set("rseq", str(number))
        pair.caller.receive_datagram(first.encode(), CALLED, pair.now)
    pair.settle()
    assert pair.sent(b"PRACK") == 1
    first.headers.set("rseq", str(rseq + 1))
    pair.caller.receive_datagram(first.encode(), CALLED, pair.now)
    pair.settle()
    assert pair.sent(b"PRACK") == 2


@pytest.mark.parametrize(("loss", "duplicate", "jitter_s"), [(0.2, 0.05, 0.3), (0.3, 0.2, 0.1)])
def test_early_media_over_a_bad_network(loss: float, duplicate: float, jitter_s: float) -> None:
    pair = DialogPair(loss=loss, duplicate=duplicate, jitter_s=jitter_s, seed=5)

    def called_side(event: Event) -> None:
        if isinstance(event, IncomingCall):
            call = event.call
            call.ring(pair.now)
            call.ring(pair.now, 183, EARLY)
            pair.after(1.0, lambda: None if call.ended else call.accept(ANSWER, pair.now))

    def caller_side(event: Event) -> None:
        if isinstance(event, Answered):
            call = event.call
            pair.after(5.0, lambda: call.hangup(pair.now))

    pair.on_event = {CALLED: called_side, CALLER: caller_side}
    count = 100
    for i in range(count):
        pair.at(i * 0.2, lambda: place(pair, options=REQUIRED))
    pair.run(300.0)
    answered = told(pair, CALLER, Answered)
    assert [event.body for event in answered] == [EARLY] * len(answered)
    assert len(answered) >= count - 2
    assert len(told(pair, CALLER, CallEnded)) == len(told(pair, CALLED, CallEnded)) == count
    assert len(told(pair, CALLED, IncomingCall)) == count
    nothing_is_left(pair)
