"""Whatever two applications do to a call, over whatever network: it ends once on each side and leaves nothing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import LocalSipError
from appliance.sip.call import Call
from appliance.sip.call_state import CallOptions
from appliance.sip.events import (
    Answered,
    CallClosed,
    CallEnded,
    Event,
    IncomingCall,
    InfoAnswered,
    Progress,
    ReferReceived,
    ReofferAnswered,
    Reoffered,
    ReofferFailed,
    TransferDone,
)
from appliance.sip.uri import Peer

from .calls import nothing_is_left, place, told
from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair
from .requests import good_message

DOINGS: dict[str, Callable[[Call, float], None]] = {
    "ring": lambda call, now: call.ring(now),
    "early media": lambda call, now: call.ring(now, 183, ANSWER),
    "accept": lambda call, now: call.accept(ANSWER, now),
    "reject": lambda call, now: call.reject(486, now),
    "reoffer": lambda call, now: call.reoffer(OFFER, now),
    "ask for an offer": lambda call, now: call.reoffer(b"", now),
    "update": lambda call, now: call.update(OFFER, now),
    "refresh": lambda call, now: call.update(None, now),
    "info": lambda call, now: call.info("text/plain", b"x", now),
    "refer": lambda call, now: call.refer("sip:300@192.0.2.3", now),
    "hang up": lambda call, now: call.hangup(now),
}

OFFERS = ("reoffer", "ask for an offer", "update", "refresh")

IN_CALL = (*OFFERS, "info", "refer", "reoffer", "update")

NASTY = (
    "", "x", "0", "-1", "99999999999", ",", ";", "<sip:>", '"', "a;tag=b", "1 INVITE", "1 1 INVITE", "100rel", "refer",
    "<sip:a@name.invalid>", "\x00", "SIP/2.0 200 OK", "%", "é" * 40,
)  # fmt: skip
"""What a header of a peer might hold instead of what belongs there."""

NAMES = (
    "RAck", "RSeq", "Require", "Supported", "Session-Expires", "Min-SE", "Refer-To", "Referred-By", "Refer-Sub",
    "Event", "Subscription-State", "Replaces", "Allow", "Contact", "Retry-After", "Content-Type", "Accept",
    "Record-Route",
)  # fmt: skip

STEPS = st.one_of(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.booleans(), st.sampled_from([*DOINGS])), max_size=14),
    st.lists(st.tuples(st.floats(1.0, 20.0), st.booleans(), st.sampled_from(IN_CALL)), max_size=14).map(
        lambda steps: [(0.5, True, "accept"), *steps]
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=STEPS,
    seed=st.integers(0, 10**6),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
    duplicate=st.sampled_from([0.0, 0.2]),
    jitter_s=st.sampled_from([0.0, 0.4]),
    offered=st.booleans(),
    options=st.builds(
        CallOptions, session_expires_s=st.sampled_from([0, 90]), reliable=st.sampled_from(["supported", "required"])
    ),
)
def test_any_life_of_a_call(
    steps: list[tuple[float, bool, str]],
    seed: int,
    loss: float,
    duplicate: float,
    jitter_s: float,
    offered: bool,
    options: CallOptions,
) -> None:
    pair = DialogPair(loss=loss, duplicate=duplicate, jitter_s=jitter_s, seed=seed)
    calls: dict[bool, Call] = {}
    done: Counter[tuple[bool, str]] = Counter()

    def on_event(event: Event) -> None:
        call = event.call
        if isinstance(event, IncomingCall):
            calls[True] = call
        elif isinstance(event, Reoffered):
            call.accept(ANSWER, pair.now)
        elif isinstance(event, Answered | Progress | ReofferAnswered) and event.needs_answer:
            call.acknowledge(ANSWER, pair.now)
        elif isinstance(event, ReferReceived):
            call.refer_accept(pair.now)
            pair.after(0.5, lambda: None if call.ended else call.refer_notify(200, pair.now))

    def step(by_called: bool, what: str) -> None:
        if by_called in calls:
            with contextlib.suppress(LocalSipError):
                DOINGS[what](calls[by_called], pair.now)
                done[by_called, what] += 1

    pair.on_event = {CALLER: on_event, CALLED: on_event}
    calls[False] = place(pair, OFFER if offered else b"", options)
    for when, by_called, what in steps:
        pair.at(when, lambda by_called=by_called, what=what: step(by_called, what))
    pair.run(60.0)
    if loss == 0.0 and done[True, "accept"] and not {"reject", "hang up"}.intersection(what for _, _, what in steps):
        assert not told(pair, CALLER, CallEnded) and not told(pair, CALLED, CallEnded)
        for by_called, who in ((False, CALLER), (True, CALLED)):
            answers = [event for event in told(pair, who, ReofferAnswered) if not event.refresh]
            asked = sum(done[by_called, what] for what in OFFERS)
            assert len(answers) + len(told(pair, who, ReofferFailed)) == asked
    for call in calls.values():
        call.hangup(pair.now)
    pair.run(600.0)

    nothing_is_left(pair)
    for _, _, data in pair.wire:
        good_message(data)
    for by_called, who in ((False, CALLER), (True, CALLED)):
        if by_called in calls:
            assert len(told(pair, who, CallEnded)) == len(told(pair, who, CallClosed)) == 1
        settled = len(told(pair, who, ReofferFailed)) + sum(not e.refresh for e in told(pair, who, ReofferAnswered))
        offers = sum(done[by_called, what] for what in OFFERS)
        assert settled <= offers
        assert len(told(pair, who, TransferDone)) == done[by_called, "refer"]
        assert len(told(pair, who, InfoAnswered)) <= done[by_called, "info"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=STEPS,
    seed=st.integers(0, 10**6),
    spoils=st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(NASTY), st.integers(1, 5)), min_size=1, max_size=4
    ),
    offered=st.booleans(),
    reliable=st.sampled_from(["supported", "required"]),
)
def test_broken_headers_never_raise_and_leave_nothing(
    steps: list[tuple[float, bool, str]],
    seed: int,
    spoils: list[tuple[str, str, int]],
    offered: bool,
    reliable: Literal["supported", "required"],
) -> None:
    pair = DialogPair(jitter_s=0.2, seed=seed)
    calls: dict[bool, Call] = {}
    count = [0]

    def spoil(destination: Peer, data: bytes) -> bool:
        """Put a nasty header in place of a good one in every so-manieth message."""
        count[0] += 1
        hit = next(((name, value) for name, value, every in spoils if count[0] % every == 0), None)
        if hit is None:
            return False
        name, value = hit
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(name.lower().encode() + b":")]
        broken = b"\r\n".join([*lines, f"{name}: {value}".encode(), b"", body])
        source = CALLED if destination == CALLER else CALLER
        pair.after(0.01, lambda: pair.agents[destination].receive_datagram(broken, source, pair.now))
        return True

    def on_event(event: Event) -> None:
        call = event.call
        if isinstance(event, IncomingCall):
            calls[True] = call
        elif isinstance(event, Reoffered):
            call.accept(ANSWER, pair.now)
        elif isinstance(event, Answered | Progress | ReofferAnswered) and event.needs_answer:
            call.acknowledge(ANSWER, pair.now)
        elif isinstance(event, ReferReceived):
            call.refer_accept(pair.now)

    def step(by_called: bool, what: str) -> None:
        if by_called in calls:
            with contextlib.suppress(LocalSipError):
                DOINGS[what](calls[by_called], pair.now)

    pair.drop = spoil
    pair.on_event = {CALLER: on_event, CALLED: on_event}
    calls[False] = place(pair, OFFER if offered else b"", CallOptions(session_expires_s=90, reliable=reliable))
    for when, by_called, what in steps:
        pair.at(when, lambda by_called=by_called, what=what: step(by_called, what))
    pair.run(60.0)
    pair.drop = lambda destination, data: False
    for call in calls.values():
        call.hangup(pair.now)
    pair.run(600.0)
    nothing_is_left(pair)
