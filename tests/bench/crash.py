"""Bar 8: ``kill -9`` of each process in turn, in the middle of ten calls.

After the restart every call is on record, as interrupted where it was, and every recording opens and plays to within
a second of the crash. Killing an engine worker or the recorder ends no call.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
import wave
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance.cli.box import Box
from appliance.cli.rtp_stream import Pcm, Ticker
from appliance.cli.softphone import Softphone, read_wav
from appliance.errors import ApplianceError
from tests.bench import lines, records
from tests.bench.load_calls import talk
from tests.bench.report import Bar
from tests.bench.uac import BareUac

ENDS_CALLS = ("media", "control", "supervisor")
BEFORE_S = 4.0
AFTER_S = 6.0
RESTART_S = 30.0


@dataclass
class Outcome:
    """What ten callers saw. ``crashed_at`` is CLOCK_REALTIME."""

    call_ids: list[str]
    crashed_at: float
    killed_pid: int
    ended: int
    silent: int


async def through_a_crash(box: Box, victim: str, count: int, speech: list[Pcm]) -> Outcome:
    """Have ``count`` calls talking, kill ``victim``, and go on for a while."""
    ticker = Ticker(phases=5)
    async with BareUac(("127.0.0.1", box.sip_port)) as uac:
        phones = [Softphone(uac, ticker=ticker, keep_audio=False) for _ in range(count)]
        for phone in phones:
            await phone.dial(box.uri(lines.TALKER))
        talking = [asyncio.create_task(talk(phone, speech, i)) for i, phone in enumerate(phones)]
        await asyncio.sleep(BEFORE_S)
        pid = box.processes()[victim]
        call_ids = list(uac.calls)
        crashed_at = time.time()
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(AFTER_S)
        ended = sum(phone.ended for phone in phones)
        silent = sum(not phone.rtp.arrivals or phone.rtp.arrivals[-1].at < time.time() - 1.0 for phone in phones)
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
        await asyncio.gather(*(hang_up(phone) for phone in phones))
    return Outcome(call_ids, crashed_at, pid, ended, silent)


async def hang_up(phone: Softphone) -> None:
    """BYE, but a dead box is not waited for."""
    try:
        await asyncio.wait_for(phone.hangup(), 2.0)
    except TimeoutError:
        phone.rtp.close()


def wait_restarted(box: Box, victim: str, old_pid: int) -> bool:
    """Until the process is back under another id and the box says that it is ready."""
    deadline = time.monotonic() + RESTART_S
    while time.monotonic() < deadline:
        if box.processes().get(victim, old_pid) != old_pid and box.get("/readyz")[0] == 200:
            return True
        time.sleep(0.2)
    return False


def wait_gone(pids: list[int], timeout_s: float = 15.0) -> list[int]:
    """Processes that are still there when the time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        pids = [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in _state(pid)]
        if not pids:
            break
        time.sleep(0.1)
    return pids


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def judge(bar: Bar, box: Box, victim: str, outcome: Outcome) -> None:
    """Compare the record with what happened."""
    found = records.wait_settled(box.database, len(outcome.call_ids))
    mine = [row for row in found if row["protocol_call_id"] in outcome.call_ids]
    wrong = records.problems(mine, outcome.call_ids)
    bar.require(not wrong, f"{victim}: {len(wrong)} calls not on record once ({'; '.join(wrong[:3])})")
    expected = "interrupted" if victim in ENDS_CALLS else "completed"
    other = {row["disposition"] for row in mine} - {expected}
    bar.require(not other, f"{victim}: calls recorded as {sorted(other)}, not {expected}")
    if victim not in ENDS_CALLS:
        bar.require(outcome.ended == 0, f"{victim}: {outcome.ended} calls ended")
        bar.require(outcome.silent == 0, f"{victim}: {outcome.silent} calls without audio afterwards")
    worst = 0.0
    for row in mine:
        answered = datetime.fromisoformat(row["answered_at"]).replace(tzinfo=UTC).timestamp()
        try:
            seconds = records.recording_seconds(row["recording_path"], box.recordings)
        except (OSError, EOFError, wave.Error) as error:
            bar.require(False, f"{victim}: recording of {row['id']}: {error}")
            continue
        worst = max(worst, (outcome.crashed_at - answered) - seconds)
    bar.require(worst <= 1.0, f"{victim}: a recording ends {worst:.2f} s before the crash")
    bar.note(f"{victim}: {len(mine)} records, {outcome.ended} calls ended, recordings at most {worst:.2f} s short")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--victims", nargs="+", help="processes to kill (default: all, the supervisor last)")
    args = parser.parse_args()
    bar = Bar(8, f"kill -9 in the middle of {args.calls} calls")
    with tempfile.TemporaryDirectory(prefix="bar8-") as name:
        folder = Path(name)
        speech = [read_wav(path) for path in lines.human_speech(folder)]
        box = Box(folder / "box", lines.settings(folder))
        box.start()
        try:
            names = [process for process in box.processes() if process != "supervisor"]
            victims = args.victims or [*sorted(names, key=lambda process: process in ENDS_CALLS), "supervisor"]
            survived = 0
            for victim in victims:
                everyone = list(box.processes().values())
                outcome = asyncio.run(through_a_crash(box, victim, args.calls, speech))
                if victim == "supervisor":
                    left = wait_gone(everyone)
                    bar.require(not left, f"processes {left} outlive the supervisor")
                    box = Box(folder / "box", {**lines.settings(folder)})
                    box.start()
                else:
                    back = wait_restarted(box, victim, outcome.killed_pid)
                    bar.require(back, f"{victim} was not back after {RESTART_S:.0f} s")
                before = len(bar.failures)
                judge(bar, box, victim, outcome)
                survived += len(bar.failures) == before
            bar.figure(f"{survived} of {len(victims)} processes killed without loss")
            bar.require(box.stop() == 0, "the box did not leave with exit code 0")
        except ApplianceError as error:
            bar.require(False, str(error))
        finally:
            box.stop()
            if bar.failures:
                bar.note(box.log_tail(60))
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
