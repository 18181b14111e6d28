"""Bars 5 and 8 of the fifth part: other dialplans while calls are up, over and over, right and wrong ones by turns.

Callers press their way through a line, hang up and call again, all the while. Everything that the line says names the
dialplan it is from, so that no call may have heard of two. A process of its own asks the control process for a sign
of life every few milliseconds: how long it takes to answer is how long anything else in it had to wait.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import multiprocessing
import os
import re
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import uvloop

from appliance.cli.box import HOST, Box
from appliance.cli.rtp_stream import Ticker
from appliance.cli.softphone import Softphone
from appliance.errors import ApplianceError
from appliance.ipc.channel import connect
from appliance.ipc.messages import AnyMessage
from appliance.ipc.operator_messages import Reload, Reloaded
from appliance.server.reload import SOCKET
from tests.bench import lines, records
from tests.bench.processes import private_kib, usage
from tests.bench.report import Bar, percentiles
from tests.bench.uac import BareUac

RELOAD_S = 2.0
PACING_S = 0.005
STALL_S = 0.1
POLL_S = 0.005
ROUNDS = 4
"""How often a caller goes round in the flow before it says goodbye."""

_OF_ALL = """\
bases:
  shop:
    no_input: {{after_s: 60}}
    barge_in: false
    greeting: Hello from plan {number}.
    flow:
      what: {{ask: Plan {number}?, keys: {{1: on, 2: end}}, next: {{"on": again, end: bye}}}}
      again: {{ask: Still plan {number}?, keys: {{1: on, 2: end}}, next: {{"on": what, end: bye}}}}
      bye: {{hang_up: Goodbye from plan {number}.}}
"""
_OF_ITS_OWN = """\
- name: line-{at}
  match: {{called: "+49301{at:05}*"}}
  no_input: {{after_s: 60}}
  barge_in: false
  greeting: Hello from plan {number}.
  flow:
    what: {{ask: Plan {number}?, keys: {{1: on, 2: end}}, next: {{"on": again, end: bye}}}}
    again: {{ask: Still plan {number}?, keys: {{1: on, 2: end}}, next: {{"on": what, end: bye}}}}
    bye: {{hang_up: Goodbye from plan {number}.}}
"""


class Plans:
    """The folder of dialplans; ``own`` writes every line with a flow of its own, else all extend one base."""

    def __init__(self, folder: Path, count: int, own: bool) -> None:
        self.folder = folder / "plans"
        self.folder.mkdir()
        self._count = count
        self._own = own
        if not own:
            text = "".join(
                f'- {{name: line-{at}, extends: shop, match: {{called: "+49301{at:05}*"}}}}\n' for at in range(count)
            )
            (self.folder / "lines.yaml").write_text("lines:\n" + text)

    def write(self, number: int, *, wrong: bool = False) -> int:
        """Write dialplan ``number``; with a mistake, of which the line in the file is returned."""
        if self._own:
            text = "lines:\n" + "".join(_OF_ITS_OWN.format(at=at, number=number) for at in range(self._count))
        else:
            text = _OF_ALL.format(number=number)
        name = "lines.yaml" if self._own else "base.yaml"
        where = 0
        if wrong:
            where = text[: text.index("greeting: ")].count("\n") + 1
            text = text.replace("greeting: ", "greting: ", 1)
        beside = self.folder / f"{name}.new"
        beside.write_text(text)
        beside.replace(self.folder / name)
        return where


# --- callers ----------------------------------------------------------------------------------------------------------


class Callers:
    """Calls that go on while everything is read again."""

    def __init__(self, box: Box, uac: BareUac, count: int) -> None:
        self._box = box
        self._uac = uac
        self._count = count
        self._ticker = Ticker(phases=10)
        self.ended: Counter[str] = Counter()
        self.errors_s: list[float] = []
        self.missing = 0
        self.over = asyncio.Event()

    async def run(self, line_count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._calls(f"+49301{number * 7919 % line_count:05}1"))

    async def _calls(self, number: str) -> None:
        while not self.over.is_set():
            try:
                self.ended[await self._one(number)] += 1
            except (ApplianceError, TimeoutError) as error:
                self.ended[f"{type(error).__name__}: {error}"] += 1

    async def _one(self, number: str) -> str:
        phone = Softphone(self._uac, ticker=self._ticker, keep_audio=False)
        try:
            await phone.dial(self._box.uri(number))
            for _ in range(ROUNDS):
                await asyncio.sleep(2.5)
                if phone.ended:
                    return "cut off"
                phone.send_digits("1")
            await asyncio.sleep(1.0)
            phone.send_digits("2")
            return f"by {await phone.wait_hangup(20.0)}"
        finally:
            await phone.hangup()
            self._pacing(phone)

    def _pacing(self, phone: Softphone) -> None:
        came = np.array([(a.at, a.sequence) for a in phone.rtp.arrivals]).reshape(-1, 2)
        if len(came) < 100:
            return
        sequence = came[0, 1] + np.concatenate([[0], np.cumsum((np.diff(came[:, 1]) + 32768) % 65536 - 32768)])
        grid = came[:, 0] - 0.02 * sequence
        self.errors_s += list(np.abs(grid - np.median(grid)))
        self.missing += int(sequence.max() - sequence.min() + 1 - len(sequence))


# --- the control process ----------------------------------------------------------------------------------------------


def look(port: int, told: Connection) -> None:
    """Ask for a sign of life over and over until told to stop; then send when and how long each took."""
    with contextlib.suppress(OSError, PermissionError):
        os.nice(-5)
    found: list[tuple[float, float]] = []
    connection = http.client.HTTPConnection(HOST, port, timeout=30.0)
    while not told.poll(POLL_S):
        start = time.monotonic()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        found.append((start, time.monotonic() - start))
    told.send(found)


async def reloaded(box: Box) -> Reloaded:
    """What came of ``appliance reload``, without the time that the command takes to start."""
    answer: asyncio.Future[Reloaded] = asyncio.get_running_loop().create_future()

    def received(message: AnyMessage) -> None:
        assert isinstance(message, Reloaded)
        answer.set_result(message)

    channel = await connect(Path(str(box.settings["runtime_dir"])) / SOCKET, received)
    try:
        channel.send(Reload())
        return await asyncio.wait_for(answer, 60.0)
    finally:
        channel.close()


# --- the bar ----------------------------------------------------------------------------------------------------------


async def measure(bar: Bar, box: Box, plans: Plans, args: argparse.Namespace) -> None:
    control = box.processes()["control"]
    took: list[float] = []
    spans: list[tuple[float, float]] = []
    odd: list[str] = []
    early = None
    ours, theirs = multiprocessing.Pipe()
    looking = multiprocessing.get_context("spawn").Process(target=look, args=(box.http_port, theirs), daemon=True)
    looking.start()
    async with BareUac((HOST, box.sip_port)) as uac:
        callers = Callers(box, uac, args.calls)
        calling = asyncio.create_task(callers.run(args.lines))
        await asyncio.sleep(args.settle)
        for number in range(1, args.reloads + 1):
            for wrong in (True, False):
                where = plans.write(number, wrong=wrong)
                start = time.monotonic()
                told = await reloaded(box)
                if not wrong:
                    took.append(time.monotonic() - start)
                    spans.append((start, time.monotonic()))
                    if told.outcome != "changed" or len(told.changed) + told.left_out != args.lines:
                        odd.append(f"plan {number}: {told.outcome} {told.mistakes[:1]} {told.problem}")
                elif told.outcome != "refused" or [one[1] for one in told.mistakes][:1] != [where]:
                    odd.append(f"broken plan {number}, line {where}: {told.outcome} {told.mistakes[:1]}")
            if number == max(args.reloads // 10, 3):
                early = (private_kib(control), usage(control).files)
            await asyncio.sleep(args.pause)
        await asyncio.sleep(2 * args.settle)
        callers.over.set()
        await calling
    await asyncio.sleep(16.0)  # memory is tidied every 15 s
    late = (private_kib(control), usage(control).files)
    ours.send(None)
    stalls = np.array(await asyncio.to_thread(ours.recv))
    await asyncio.to_thread(looking.join)
    report(bar, took, spans, stalls, callers, odd)
    if early is not None:
        growth = late[0] / early[0] - 1
        bar.figure(f"control's memory {early[0] / 1024:.0f} -> {late[0] / 1024:.0f} MiB, files {early[1]} -> {late[1]}")
        bar.require(growth <= 0.05 and late[1] <= early[1] + 2, "no leak: memory within 5 %, no more files")
    mixed(bar, box, callers)


def report(
    bar: Bar,
    took: list[float],
    spans: list[tuple[float, float]],
    stalls: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    callers: Callers,
    odd: list[str],
) -> None:
    for line in odd[:5]:
        bar.note(line)
    bar.require(not odd, "each dialplan taken over, each broken one refused at its line")
    bar.figure(f"reload {percentiles(took)}")
    bar.require(max(took) <= RELOAD_S, f"at most {RELOAD_S:g} s")
    inside = np.zeros(len(stalls), bool)
    for start, end in spans:
        inside |= (stalls[:, 0] + stalls[:, 1] >= start) & (stalls[:, 0] <= end)
    bar.figure(
        f"sign of life while it reads {percentiles(stalls[inside, 1])}, at most {1e3 * stalls[inside, 1].max():.0f} ms"
    )
    if not inside.all():
        bar.note(f"else {percentiles(stalls[~inside, 1])}, at most {1e3 * stalls[~inside, 1].max():.0f} ms")
    bar.require(float(np.percentile(stalls[inside, 1], 99)) <= STALL_S, f"p99 of a sign of life {STALL_S * 1e3:g} ms")
    bar.figure(f"pacing {percentiles(callers.errors_s)}, {callers.missing} packets missing")
    bar.require(float(np.percentile(callers.errors_s, 99)) <= PACING_S, f"pacing p99 {PACING_S * 1e3:g} ms")


def mixed(bar: Bar, box: Box, callers: Callers) -> None:
    """No call was dropped, and none has heard of two dialplans."""
    found = records.wait_settled(box.database, sum(callers.ended.values()))
    heard = [
        {number for turn in call["turns"] for number in re.findall(r"plan (\d+)", turn["agent_text"], re.I)}
        for call in found
    ]
    bar.figure(f"{len(found)} calls on {len(set().union(*heard))} plans")
    bar.require(all(len(plans) == 1 for plans in heard), "every call kept to one plan")
    bar.require(set(callers.ended) == {"by them"}, f"every call ended as its line says: {dict(callers.ended)}")
    dispositions = Counter(call["disposition"] for call in found)
    bar.require(set(dispositions) == {"completed"}, f"every record is complete: {dict(dispositions)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--own", action="store_true", help="every line has a flow of its own; else all extend one base")
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between reloads")
    parser.add_argument(
        "--settle", type=float, default=5.0, help="seconds of calls before the first and after the last"
    )
    args = parser.parse_args()
    kind = "with flows of their own" if args.own else "that extend a base"
    bar = Bar("5.5, 5.8", f"{args.reloads} reloads of {args.lines} lines {kind}, {args.calls} calls up")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plans = Plans(folder, args.lines, args.own)
        plans.write(0)
        settings = {
            **lines.STANDARD_FAKES,
            "engines.turn": {"provider": "fake"},
            "dialplans.paths": [str(plans.folder)],
            "dialplans.watch": False,
            "limits.drain_s": 5,
        }
        began = time.monotonic()
        with Box(folder / "box", settings) as box:
            bar.note(f"started in {time.monotonic() - began:.1f} s")
            uvloop.run(measure(bar, box, plans, args))
            if bar.failures:
                bar.note(box.log_tail(10))
    return bar.finish()


if __name__ == "__main__":
    raise SystemExit(main())
