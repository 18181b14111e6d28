"""The callers of :mod:`tests.bench.carrier_load`, in a process of their own, off the core that is measured.

Prints ``measuring`` and ``measured`` around the time that counts, then what was found, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

import uvloop

from appliance.cli.carrier_caller import Speech
from appliance.cli.carrier_load import Load, Target
from appliance.cli.playout import Codec
from appliance.cli.softphone import read_wav
from appliance.cli.stream_caller import sid
from tests.bench import processes

TOKEN = "BENCH_AUTH_TOKEN"


async def run(args: argparse.Namespace) -> int:
    codec = Codec("pcmu")
    speech = [Speech.of(read_wav(path), codec) for path in args.speech]
    target = Target(args.url, args.webhook, os.environ.get(TOKEN, ""), args.account_sid or sid("AC"), args.to)
    async with Load(target, args.calls, speech, args.rate) as load:
        await load.place()
        await asyncio.sleep(args.settle)
        print("measuring", flush=True)
        found = await load.measure(args.seconds)
        print("measured", flush=True)
    print(json.dumps(found.as_dict()), flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="")
    parser.add_argument("--webhook", default="")
    parser.add_argument("--account-sid", default="")
    parser.add_argument("--to", default="+4930123456")
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--settle", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=4.0)
    parser.add_argument("--speech", nargs="+", type=Path, required=True)
    args = parser.parse_args()
    with processes.measuring(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
