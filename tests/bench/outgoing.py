"""Placed calls over SIP and RTP: how soon whoever answers hears the agent, with machines looked for and without; and
that what the farm did is what the box says came of it.

    python -m tests.bench.outgoing --calls 60 --at-once 2

A person of the farm says hello and leaves after a second. Times are the callee's: from its 200 to the first packet of
the agent's that is sound. The calls with detection and those without take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from appliance.cli.box import HOST, Box
from tests.bench.callees import FarmProcess
from tests.bench.lines import dialplan
from tests.bench.report import Bar, percentiles

TOKEN: Final = "a-token-for-the-benchmark"
LINE: Final[dict[str, Any]] = {
    "name": "recall",
    "disclosure": "This is an automated call from ${campaign.owner}.",
    "flow": {
        "ask": {
            "ask": "Shall we come?",
            "expect": {"yes": ["yes", "yes please"], "no": ["no", "no thank you"]},
            "slot": "wanted",
        },
        "bye": {"hang_up": "Goodbye."},
    },
}
MESSAGE: Final = "This is Acme. Please call us back."
LATER_MS: Final = 20.0
"""Detection may cost the greeting a packet, and no more."""

EXPECTED: Final[dict[str, dict[str, Any]]] = {
    "1": {"sip_code": 200, "completed": True, "opted_out": False},
    "2": {"sip_code": 486},
    "3": {"sip_code": 408},
    "4": {"sip_code": 603},
    "5": {"sip_code": 404},
    "6": {"sip_code": 503},
    "7": {"sip_code": 200, "message_left": True},
    "8": {"sip_code": 200, "completed": True, "message_left": False},
    "9": {"sip_code": 200, "opted_out": True},
}
"""What must come of a call, by the last digit of its number."""


class Caller:
    """Asks a box for calls."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def call(self, number: str, *, detect: bool) -> dict[str, Any]:
        """Place one, and give what came of it."""
        body: dict[str, Any] = {
            "number": number, "line": "recall", "trunk": "farm", "owner": "Acme", "ring_timeout_s": 6
        }  # fmt: skip
        if detect:
            body["answering"] = {"on_machine": "message", "message": MESSAGE}
        request = urllib.request.Request(
            f"http://{HOST}:{self._box.http_port}/api/v1/calls?wait=true",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            told: dict[str, Any] = json.loads(reply.read())
        return {**told["result"], "call_id": told["call_id"]}


def greeted(bar: Bar, caller: Caller, farm: FarmProcess, calls: int, at_once: int) -> None:
    """How soon the agent is heard."""
    kinds = [bool(number % 2) for number in range(calls)]
    for detect in (False, True):
        caller.call("hello", detect=detect)  # whatever is made only once
    before = {entry["call_id"] for entry in farm.entries()}
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(lambda detect: (detect, caller.call("hello", detect=detect)), kinds))
    heard = [entry for entry in farm.entries() if entry["event"] == "heard" and entry["call_id"] not in before]
    bar.require(len(heard) == calls, f"{len(heard)} of {calls} callees were spoken to")
    waits: dict[bool, list[float]] = {False: [], True: []}
    for detect, result in found:
        waits[detect].append(result["greeted_after_s"] - result["answered_after_s"])
    seen = [entry["first_sound_after_s"] for entry in heard if entry["first_sound_after_s"] is not None]
    bar.figure(f"200 to the agent's first sound at the callee: {percentiles(seen)}")
    bar.figure(f"by the box, without detection: {percentiles(waits[False])}")
    bar.figure(f"with it: {percentiles(waits[True])}")
    later_ms = (float(np.median(waits[True])) - float(np.median(waits[False]))) * 1e3
    bar.require(later_ms <= LATER_MS, f"detection delays the greeting by {later_ms:.0f} ms")
    bar.require(len(seen) == len(heard), "everybody is greeted")


def outcomes(bar: Bar, caller: Caller, each: int, at_once: int) -> None:
    """What comes of calls to all kinds."""
    numbers = [f"+120255{50 + turn:02d}12{digit}" for turn in range(each) for digit in EXPECTED]
    with ThreadPoolExecutor(at_once) as pool:
        found = dict(zip(numbers, pool.map(lambda number: caller.call(number, detect=True), numbers), strict=True))
    right = 0
    for number, result in found.items():
        wanted = EXPECTED[number[-1]]
        got = {key: result[key] for key in wanted}
        right += got == wanted
        if got != wanted:
            bar.note(f"{number}: {got}, verdict {result['verdict']}, {result['reason']}, {result['problem']}")
    bar.figure(f"{right} of {len(numbers)} calls came to what the callee did")
    bar.require(right == len(numbers), "every result is right")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=60, help="of the greeting")
    parser.add_argument("--each", type=int, default=2, help="calls to each kind of callee")
    parser.add_argument("--at-once", type=int, default=2)
    arguments = parser.parse_args()
    bar = Bar("6.4", "placed calls: nobody is kept waiting, and the results are right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with FarmProcess(folder / "farm.jsonl") as farm:
            trunk = {
                "kind": "sip", "proxy": f"sip:{HOST}:{farm.port}", "allow_prefixes": ["+1202", "hello"],
                "caller_id": "+12025550100",
            }  # fmt: skip
            settings = {"trunks": {"farm": trunk}, "api.tokens": [TOKEN], **dialplan(folder, [LINE])}
            with Box(folder / "box", settings) as box:
                caller = Caller(box)
                greeted(bar, caller, farm, arguments.calls, arguments.at_once)
                outcomes(bar, caller, arguments.each, 2 * arguments.at_once)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
