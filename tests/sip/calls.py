"""What tests of whole calls have in common: placing one, and asking what the two sides were told."""

from __future__ import annotations

from typing import TypeVar

from appliance.sip.call import Call
from appliance.sip.call_state import CallOptions
from appliance.sip.events import CallEnded, Event, IncomingCall
from appliance.sip.message import Request, Response
from appliance.sip.uri import Peer, SipUri

from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair
from .requests import good_message

TARGET = SipUri.parse("sip:100@192.0.2.2")
FROM = "sip:caller@192.0.2.1"


E = TypeVar("E", bound=Event)


def place(pair: DialogPair, body: bytes = OFFER, options: CallOptions | None = None) -> Call:
    return pair.caller.invite(TARGET, FROM, body, pair.now, options=options)


def incoming(pair: DialogPair) -> Call:
    (event,) = (event for event in pair.events[CALLED] if isinstance(event, IncomingCall))
    return event.call


def told(pair: DialogPair, who: Peer, kind: type[E]) -> list[E]:
    return [event for event in pair.events[who] if isinstance(event, kind)]


def ends(pair: DialogPair) -> list[tuple[str, int]]:
    """(who ended it, status) as the caller and the called side were told."""
    return [(e.by, e.status) for who in (CALLER, CALLED) for e in told(pair, who, CallEnded)]


def set_up(pair: DialogPair, options: CallOptions | None = None) -> tuple[Call, Call]:
    ours = place(pair, options=options)
    pair.run(0.1)
    theirs = incoming(pair)
    theirs.ring(pair.now)
    pair.run(0.2)
    theirs.accept(ANSWER, pair.now)
    pair.run(0.3)
    return ours, theirs


def nothing_is_left(pair: DialogPair) -> None:
    for agent in pair.agents.values():
        assert agent.call_count == 0
        assert len(agent.layer) == 0
        assert len(agent.timers) == 0
        assert not agent._dialogs and not agent._own_invites
        assert not agent.gate._unconfirmed and not agent.gate._half_open


def messages(pair: DialogPair, start: bytes, destination: Peer | None = None) -> list[Request | Response]:
    """What was put on the wire beginning so, read, in order."""
    return [good_message(data) for _, to, data in pair.wire if data.startswith(start) and destination in (None, to)]
