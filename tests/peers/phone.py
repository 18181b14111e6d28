"""Independent softphones, and the two calls that each of them must be able to make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from appliance.cli.box import Box
from appliance.errors import ApplianceError
from tests.bench import lines, records
from tests.peers.capture import RtpCapture
from tests.waiting import LIMIT_S

GREETING_S = 1.0
"""Speech that has to be heard before the key is pressed; the greeting and the question are longer."""
MAX_GAP_S = 0.040


class PeerError(ApplianceError):
    """The softphone did not do what it was asked to, or did not hear what it should."""


class Phone(Protocol):
    """A softphone of somebody else's, one call at a time."""

    name: str

    def dial(self, uri: str) -> None:
        """Call and wait for the answer."""

    def press(self, digit: str) -> None: ...

    def hang_up(self) -> None: ...

    def wait_closed(self, timeout_s: float) -> None:
        """Wait until the other side has hung up."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class CallSeen:
    """One call as the peer, the wire and the record saw it."""

    greeting_s: float
    branch_s: float
    worst_gap_s: float
    packets: int
    missing: int
    record: records.Row


def make_call(box: Box, phone: Phone, digit: str) -> CallSeen:
    """Call the line with the keys: hear the greeting, press ``digit``, hear the branch.

    With "1" the phone hangs up, with "2" the box does.
    """
    before = len(records.calls(box.database))
    with RtpCapture(str(box.settings["listen.rtp_ports"])) as capture:
        phone.dial(box.uri(lines.KEYS))
        greeting_s = capture.wait_speech(GREETING_S)
        pressed = capture.mark()
        phone.press(digit)
        branch_s = capture.wait_speech(GREETING_S, since=pressed)
        if digit == "1":
            phone.hang_up()
        else:
            phone.wait_closed(LIMIT_S)
        packets, missing, worst = capture.count(), capture.missing(), capture.worst_gap_s()
    found = records.wait_settled(box.database, before + 1)
    if len(found) != before + 1:
        raise PeerError(f"{len(found) - before} records of one call")
    return CallSeen(greeting_s, branch_s, worst, packets, missing, found[-1])


def faults(seen: CallSeen, digit: str, max_gap_s: float = math.inf) -> list[str]:
    """What is wrong with a call, in words. Tests do not time; the benchmark holds it to :data:`MAX_GAP_S`."""
    keys = [turn["caller_text"] for turn in seen.record["turns"] if turn["by"] == "key"]
    said = " ".join(turn["agent_text"] for turn in seen.record["turns"])
    ended_by = {"1": "caller", "2": "agent"}[digit]
    branch = {"1": "pressed one", "2": "pressed two"}[digit]
    checks = {
        f"only {seen.greeting_s:.1f} s of greeting heard": seen.greeting_s >= GREETING_S,
        f"only {seen.branch_s:.1f} s heard after the key": seen.branch_s >= GREETING_S,
        f"{seen.missing} breaks in the sequence of {seen.packets} packets": seen.missing == 0,
        f"a gap of {seen.worst_gap_s * 1e3:.0f} ms in the audio": seen.worst_gap_s <= max_gap_s,
        f"keys on record are {keys}": keys != [],
        f"{branch!r} was not said: {said!r}": branch in said,
        f"hung up by {seen.record['hangup_by']}": seen.record["hangup_by"] == ended_by,
        f"recorded as {seen.record['disposition']}": seen.record["disposition"] == "completed",
    }
    return [fault for fault, fine in checks.items() if not fine]
