"""Many calls at once that do everything a call can, over a network that loses a fifth of it."""

from __future__ import annotations

from collections import Counter

import pytest

from appliance.sip.call import Call
from appliance.sip.call_state import CallOptions
from appliance.sip.events import (
    Answered,
    CallClosed,
    CallEnded,
    EarlyConfirmed,
    Event,
    IncomingCall,
    InfoReceived,
    ReferReceived,
    ReofferAnswered,
    Reoffered,
    ReofferFailed,
    TransferDone,
)

from .calls import nothing_is_left, place, told
from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair

HELD = OFFER + b"a=sendonly\r\n"
OPTIONS = CallOptions(session_expires_s=90, reliable="required")


def life(pair: DialogPair, event: Event, steps: Counter[int]) -> None:
    """The calling side: hold, resume, two keys, transfer, hang up, each once the one before is done."""
    call = event.call
    if not isinstance(event, Answered | ReofferAnswered | TransferDone) or call.ended:
        return
    if isinstance(event, ReofferAnswered) and event.refresh:
        return
    steps[id(call)] += 1
    if steps[id(call)] <= 2:
        pair.after(1.0, lambda: None if call.ended else call.reoffer(HELD, pair.now))
    elif steps[id(call)] == 3:
        for key in (b"Signal=1", b"Signal=2"):
            call.info("application/dtmf-relay", key, pair.now)
        call.refer("sip:300@192.0.2.3", pair.now)
    else:
        pair.after(1.0, lambda: call.hangup(pair.now))


@pytest.mark.parametrize(("loss", "duplicate", "jitter_s", "count"), [(0.2, 0.05, 0.3, 300), (0.0, 0.2, 0.5, 100)])
def test_none_is_stuck_none_lost_none_doubled(loss: float, duplicate: float, jitter_s: float, count: int) -> None:
    pair = DialogPair(loss=loss, duplicate=duplicate, jitter_s=jitter_s, seed=count)
    calls: list[Call] = []
    steps: Counter[int] = Counter()

    def called_side(event: Event) -> None:
        call = event.call
        if isinstance(event, IncomingCall):
            call.ring(pair.now, 183, ANSWER)
            pair.after(1.0, lambda: None if call.ended else call.accept(ANSWER, pair.now))
        elif isinstance(event, EarlyConfirmed):
            pair.after(4.0, lambda: None if call.ended else call.update(OFFER, pair.now))
        elif isinstance(event, Reoffered):
            call.accept(ANSWER, pair.now)
        elif isinstance(event, ReferReceived):
            call.refer_accept(pair.now)
            pair.after(0.5, lambda: None if call.ended else call.refer_notify(200, pair.now))

    def caller_side(event: Event) -> None:
        if isinstance(event, Reoffered):
            event.call.accept(ANSWER, pair.now)
        else:
            life(pair, event, steps)

    pair.on_event = {CALLED: called_side, CALLER: caller_side}
    for i in range(count):
        pair.at(i * 0.1, lambda: calls.append(place(pair, options=OPTIONS)))
    pair.run(400.0)
    nothing_is_left(pair)
    for who in (CALLER, CALLED):
        ended = told(pair, who, CallEnded)
        assert len(ended) == len(told(pair, who, CallClosed)) == count
        assert {event.status for event in ended} == {200}
        assert not told(pair, who, ReofferFailed)
    assert len(told(pair, CALLED, IncomingCall)) == len(told(pair, CALLER, Answered)) == count
    assert Counter(event.body for event in told(pair, CALLED, InfoReceived)) == {b"Signal=1": count, b"Signal=2": count}
    assert [event.status for event in told(pair, CALLER, TransferDone)] == [200] * count
    assert len([event for event in told(pair, CALLER, ReofferAnswered) if not event.refresh]) == 2 * count
