"""How many calls a campaign may start now, and when to ask again. PURE.

The runner and the simulator ask here, so that what is simulated is what would happen.

Every call takes a whole agent from the moment it is placed: as many ring as could be talked to. So nobody who answers
waits for an agent, and what is abandoned was abandoned because something failed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from appliance.campaigns.pacing import Abandonment, Breaker, Gate

LOOK_AHEAD_S: Final = 1.0
"""Leads are claimed for as many calls as may leave within this time."""
_IDLE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Room:
    """What is free.

    Attributes:
        state: of the campaign.
        max_calls: of the campaign's pacing.
        active: its calls in progress on this box, ringing ones included.
        box: calls that the box could take now, with all they need.
        trunk: calls that the trunk could take now; None where it has no limit.
    """

    state: str
    max_calls: int
    active: int
    box: int
    trunk: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    Attributes:
        start: how many leads to claim and call, each as soon as the gates let it.
        again_at: when to ask again; None where nothing but a change of the campaign's state matters. The end of a
            call is always a reason to ask.
        stop: why the campaign has to be paused, in words; "" where it goes on.
        why: what holds it back, in words; "" where nothing does.
    """

    start: int
    again_at: float | None
    stop: str = ""
    why: str = ""


def plan_next(now: float, room: Room, gates: tuple[Gate, ...], breaker: Breaker, abandonment: Abandonment) -> Plan:
    """What to do at ``now``; ``gates`` are the campaign's and the trunk's."""
    if room.state != "running":
        return Plan(0, None, why=f"the campaign is {room.state}")
    speed = abandonment.speed
    if speed == 0.0:
        return Plan(0, None, stop=abandonment.reason, why=abandonment.reason)
    # Slower means fewer calls at a time, but one always: its outcome is what the speed hangs on.
    most = max(1, math.floor(room.max_calls * speed)) if room.max_calls > 0 else 0
    limits = {
        "pacing.max_calls": most - room.active,
        "the room on this box": room.box,
        "the trunk's max_calls": room.trunk,
        "the trunk's breaker": breaker.room(now),
    }
    name, free = min(((name, n) for name, n in limits.items() if n is not None), key=lambda item: item[1])
    if free <= 0:
        why = breaker.reason if breaker.room(now) == 0 else f"{name} is used up"
        timer = breaker.get_timer()
        # A breaker whose pause is over does not say when anything else has room.
        return Plan(0, timer if timer is not None and timer > now else now + _IDLE_S, why=why)
    wait_s = max((gate.wait_s(now) for gate in gates), default=0.0)
    distance_s = max((gate.distance_s for gate in gates), default=0.0) / speed
    if wait_s > LOOK_AHEAD_S:
        return Plan(0, now + wait_s, why="calls_per_s is used up")
    due = free if distance_s == 0.0 else 1 + math.floor((LOOK_AHEAD_S - wait_s) / distance_s)
    start = min(free, due)
    return Plan(start, now + max(wait_s + start * distance_s, 0.01), why=abandonment.reason)
