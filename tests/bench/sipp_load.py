"""Bar 2: Debian's SIPp, its built-in caller, 300 calls of 8 s at 20 a second against ``appliance serve``.

The box is the one that is shipped: its own dialplan and the embedded engines; only ports and folders are chosen here.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from appliance.cli.box import HOST, Box, free_port
from tests.bench import records
from tests.bench.report import Bar, require_command


def run_sipp(box: Box, folder: Path, calls: int, rate: int, talk_ms: int) -> subprocess.CompletedProcess[str]:
    """Run SIPp to its end in ``folder``, where it leaves its statistics."""
    command = ["sipp", f"{HOST}:{box.sip_port}", "-sn", "uac", "-i", HOST]
    command += ["-p", str(free_port()), "-mi", HOST, "-mp", str(free_port()), "-m", str(calls), "-r", str(rate)]
    command += ["-d", str(talk_ms), "-nostdin", "-trace_stat", "-stf", "stat.csv", "-fd", "1"]
    command += ["-trace_counts", "-trace_err", "-error_file", "errors.log", "-timeout", "120s", "-timeout_error"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [
            {key.strip(): value for key, value in row.items() if key} for row in csv.DictReader(file, delimiter=";")
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rate", type=int, default=20, help="calls per second")
    parser.add_argument("--talk-ms", type=int, default=8000)
    args = parser.parse_args()
    require_command("sipp")
    bar = Bar(2, f"SIPp, {args.calls} calls at {args.rate}/s")
    with tempfile.TemporaryDirectory(prefix="bar2-") as name:
        folder = Path(name)
        with Box(folder / "box") as box:
            done = run_sipp(box, folder, args.calls, args.rate, args.talk_ms)
            found = records.wait_settled(box.database, args.calls)
            left = box.stop()
        stats = rows(folder / "stat.csv")
        last = stats[-1]
        peak = max(int(row["CurrentCall"]) for row in stats)
        failed = int(last["FailedCall(C)"])
        counts = rows(next(folder.glob("*_counts.csv")))[-1]
        again = {key: int(value) for key, value in counts.items() if key.endswith("Retrans") and int(value or 0)}
        unexpected = {key: int(value) for key, value in counts.items() if key.endswith("Unexp") and int(value or 0)}
        strays = int(last["OutOfCallMsgs(C)"]) + int(last["DeadCallMsgs(C)"])
        bar.figure(f"peak {peak} at once")
        bar.figure(f"{failed} failed")
        bar.figure(f"{sum(unexpected.values()) + strays} unexpected messages")
        bar.figure(f"{sum(again.values())} retransmissions")
        bar.note(f"INVITE to 200: mean {last['ResponseTime1(C)']}")
        wanted = int(0.9 * args.rate * args.talk_ms / 1000)
        bar.require(done.returncode == 0, f"SIPp left with {done.returncode}: {done.stderr.strip()[-300:]}")
        bar.require(peak > min(140, wanted), f"only {peak} calls at once")
        bar.require(failed == 0 and int(last["SuccessfulCall(C)"]) == args.calls, f"{failed} failed calls")
        bar.require(not unexpected and not strays, f"unexpected messages {unexpected}, {strays} outside calls")
        bar.require(not again, f"retransmissions {again}")
        completed = sum(row["disposition"] == "completed" for row in found)
        bar.require(len(found) == completed == args.calls, f"{len(found)} records, {completed} of them completed")
        bar.require(left == 0, f"the box left with {left}")
        errors = folder / "errors.log"
        if errors.exists() and bar.failures:
            bar.note(errors.read_text(errors="replace")[:1500])
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
