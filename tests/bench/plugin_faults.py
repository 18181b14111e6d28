"""Each kind of hook by each fault that a plugin can have, beside calls on another line that must not notice.

One box, nothing pinned. Callers talk on a line without plugins all the time; their packets are stamped by the kernel.
One after the other, calls come in on a line whose plugins fail: each must be answered, spoken with and recorded by the
hook's default. What came of every case is written into docs/plugins/faults.md with ``--write``.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from appliance.cli.box import Box
from appliance.cli.rtp_stream import RATE_HZ, Pcm
from appliance.cli.softphone import NothingHeard, Softphone, read_wav
from appliance.errors import ApplianceError
from tests.bench import lines, records
from tests.bench.load_calls import Array, unwrapped
from tests.bench.report import Bar, percentiles
from tests.bench.uac import BareUac
from tests.plugins.faults import ENDING, FAULTS, source

PAGE = Path(__file__).parents[2] / "docs" / "plugins" / "faults.md"
KINDS = {
    "admit": "first",
    "answered": "told",
    "final_transcript": "chained",
    "before_llm": "collected",
    "before_storing": "chained, closed",
}
WORDS = {
    "raises": "raises an exception",
    "asleep": "sleeps over its budget",
    "wrong_type": "returns the wrong type",
    "leaked_task": "leaves a task or thread behind",
    "allocates": "allocates 2 GB",
    "json": "reads 50 MB of JSON",
    "while_true": "`while True`",
    "regex": "a backtracking regular expression",
    "exits": "`os._exit`",
}
PACING_S = 0.005
SLOWER = 1.2
WATCHERS = 3
_FIRST_NUMBER = 2000
_TRIES = 3
_LOOKS = 8
"""How often, a second apart, the metrics are asked for what must come of a fault."""
_STEP_S = 0.002
_LEAST_PACKETS = 250
_AFTER_S = {"while_true": 3.0, "regex": 3.0, "exits": 1.0, "json": 2.0, "allocates": 1.0}
_SEEN = frozenset(FAULTS) - {"leaked_task", "wrong_type", "json"}
"""Faults that are no success in any hook."""
_VALUES = """
from appliance.api import PluginValues


class Values(PluginValues):
    faults: dict[str, str]


def chosen(call, hook):
    return call.values.faults.get(f"{call.called} {hook}", "nothing")

"""


@dataclass
class Watched:
    """What callers on the other line saw within a stretch of time (wall clock)."""

    latencies: list[float] = field(default_factory=list)
    pacing: list[float] = field(default_factory=list)


@dataclass
class Watcher:
    """A caller on the line without plugins, who asks again and again."""

    phone: Softphone
    turns: list[tuple[float, float]] = field(default_factory=list)
    lost: int = 0

    async def talk(self, pcm: Pcm) -> None:
        await self.phone.wait_agent_speech(10.0, since=self.phone.dialled_at)
        while not self.phone.ended:
            await self.phone.wait_agent_silent(30.0, quiet_s=0.6)
            end = await self.phone.play(pcm)
            try:
                reply = await self.phone.wait_reply(end, 10.0)
            except NothingHeard:
                self.lost += 1
            else:
                self.turns.append((end, reply.latency_s))

    def seen(self, since: float, until: float, clock: Clock) -> Watched:
        found = Watched()
        came = np.array([(one.at, one.sequence) for one in self.phone.rtp.arrivals]).reshape(-1, 2)
        for begin, end in clock.stretches(since, until):
            found.latencies += [latency for at, latency in self.turns if begin <= at and at + latency < end]
            mine = came[(came[:, 0] >= begin) & (came[:, 0] < end)]
            if len(mine) >= _LEAST_PACKETS:
                grid = clock.steady(mine[:, 0]) - 0.02 * unwrapped(mine[:, 1])
                found.pacing += list(np.abs(grid - np.median(grid)))
        return found


class Clock:
    """The machine's wall clock, which the kernel's stamps are of, beside its monotonic one. Times around which it was
    set are left out of what is measured; where it only runs too fast or too slowly, that is taken out."""

    def __init__(self) -> None:
        self._known: list[tuple[float, float]] = []
        self._set: list[tuple[float, float]] = []

    def look(self) -> None:
        now = (time.time(), time.monotonic())
        if self._known:
            before = self._known[-1]
            if abs((now[0] - before[0]) - (now[1] - before[1])) > _STEP_S:
                self._set.append((min(before[0], now[0]) - 1.0, max(before[0], now[0]) + 1.0))
        self._known.append(now)

    def steady(self, wall: Array) -> Array:
        """Stamps as monotonic time; of a stretch in which the clock was not set."""
        wide = [pair for pair in self._known if wall[0] - 1.0 <= pair[0] <= wall[-1] + 1.0]
        known, steady = np.asarray(wide or [(0.0, 0.0)]).T
        return np.asarray(wall + np.interp(wall, known, steady - known))

    def stretches(self, since: float, until: float) -> list[tuple[float, float]]:
        """(begin, end) of the times in which it was not set."""
        found, begin = [], since
        for first, last in sorted(self._set):
            if begin < first < until:
                found.append((begin, first))
            begin = max(begin, last)
        return [*found, (begin, until)] if begin < until else found


async def keep_clock(clock: Clock) -> None:
    """Look at it now and then."""
    while True:
        clock.look()
        await asyncio.sleep(0.1)


def together(watchers: Sequence[Watcher], since: float, until: float, clock: Clock) -> Watched:
    """What all of them saw."""
    all_of = Watched()
    for watcher in watchers:
        seen = watcher.seen(since, until, clock)
        all_of.latencies += seen.latencies
        all_of.pacing += seen.pacing
    return all_of


def write_plugins(folder: Path, *, plain: bool) -> dict[str, dict[str, dict[str, str]]]:
    """A plugin for each fault; their values for the box."""
    folder.mkdir()
    enabled: dict[str, dict[str, dict[str, str]]] = {}
    text = source(plain=plain, about="chosen(call, hook)").replace("time.sleep(2.0)", "time.sleep(8.0)")
    text = text.replace("do(fault, TOOLS)", "None")
    for fault in FAULTS:
        (folder / f"{fault}.py").write_text(text.replace("KEPT = []", "KEPT = []\n" + _VALUES, 1))
        enabled[fault] = {"faults": {f"{number(fault, hook)} {hook}": fault for hook in KINDS}}
    return enabled


def number(fault: str, hook: str) -> str:
    """What is called to have the fault in the hook."""
    return str(_FIRST_NUMBER + 10 * FAULTS.index(fault) + list(KINDS).index(hook))


def outcomes(box: Box, fault: str) -> Counter[tuple[str, str]]:
    """(hook, outcome) of the fault's plugin so far, and ("", how) for ends of the host."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{box.http_port}/metrics", timeout=10).read().decode()
    found: Counter[tuple[str, str]] = Counter()
    for labels, value in re.findall(r"^appliance_hook_seconds_count\{(.*?)\} (\S+)$", text, re.MULTILINE):
        known = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if known["plugin"] == fault:
            found[(known["hook"], known["outcome"])] = int(float(value))
    for labels, value in re.findall(r"^appliance_plugin_host_ends_total\{(.*?)\} (\S+)$", text, re.MULTILINE):
        known = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if known["plugin"] == fault:
            found[("", known["how"])] = int(float(value))
    return found


async def victim(box: Box, target: str, pcm: Pcm) -> str:
    """A call with a failing hook: "" where it goes on as it should, else what was wrong."""
    try:
        async with BareUac(("127.0.0.1", box.sip_port)) as uac, Softphone(uac) as phone:
            await phone.dial(box.uri(target))
            await phone.wait_agent_speech(10.0, since=phone.dialled_at)
            await phone.wait_agent_silent(20.0, quiet_s=0.6)
            end = await phone.play(pcm)
            reply = await phone.wait_reply(end, 10.0)
            await asyncio.sleep(1.0)
            return "cut off while speaking" if reply.latency_s < 0.1 else ""
    except (ApplianceError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"


async def host_back(box: Box) -> bool:
    """Wait until hooks run again; False where they do not within 20 s."""
    for _ in range(200):
        text = await asyncio.to_thread(
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{box.http_port}/plugins", timeout=10).read().decode()
        )
        if '"host": "ready"' in text:
            return True
        await asyncio.sleep(0.1)
    return False


async def run(bar: Bar, box: Box, faults: Sequence[str], baseline_s: float) -> list[list[str]]:
    """Every case; the rows of the table."""
    clip = lines.question(box.directory)
    pcm = read_wav(clip)
    short = pcm[: int(3.0 * RATE_HZ)]
    rows: list[list[str]] = []
    async with BareUac(("127.0.0.1", box.sip_port)) as uac:
        watchers = [Watcher(Softphone(uac)) for _ in range(WATCHERS)]
        for watcher in watchers:
            await watcher.phone.dial(box.uri(lines.ASSISTANT))
            await asyncio.sleep(1.3)
        clock = Clock()
        talking = [asyncio.create_task(watcher.talk(short)) for watcher in watchers]
        talking.append(asyncio.create_task(keep_clock(clock)))
        await asyncio.sleep(3.0)
        since = time.time()
        await asyncio.sleep(baseline_s)
        calm = together(watchers, since, time.time(), clock)
        if not calm.latencies or not calm.pacing:
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
            bar.require(False, f"nobody was spoken with in {baseline_s:.0f} s without a fault: nothing to compare with")
            return rows
        calm_p95 = float(np.percentile(calm.latencies, 95))
        calm_p99 = float(np.percentile(calm.pacing, 99))
        bar.figure(f"undisturbed: turn latency {percentiles(calm.latencies)}, pacing {percentiles(calm.pacing)}")
        rows.append(["(undisturbed)", *[""] * len(KINDS), f"{calm_p99 * 1e3:.1f}", f"{calm_p95 * 1e3:.0f}", ""])
        everything = Watched()
        for fault in faults:
            since = time.time()
            cells: list[str] = []
            for hook in KINDS:
                words = ""
                for _ in range(_TRIES):  # a call that found no host has not met the fault
                    bar.require(await host_back(box), f"{fault} in {hook}: the plugin host does not come back")
                    before = await asyncio.to_thread(outcomes, box, fault)
                    wrong = await victim(box, number(fault, hook), short)
                    await asyncio.sleep(_AFTER_S.get(fault, 0.5))
                    for _ in range(_LOOKS if fault in _SEEN else 1):
                        words = _words(await asyncio.to_thread(outcomes, box, fault) - before, hook)
                        if _come(words, fault):
                            break
                        await asyncio.sleep(1.0)
                    bar.require(not wrong, f"{fault} in {hook}: {wrong}")
                    if words != "ok" or fault not in _SEEN:
                        break
                cells.append(words)
            seen = together(watchers, since, time.time(), clock)
            everything.latencies += seen.latencies
            everything.pacing += seen.pacing
            if not seen.pacing or not seen.latencies:
                bar.require(False, f"{fault}: nobody was spoken with on the other line")
                continue
            p99, p95 = float(np.percentile(seen.pacing, 99)), float(np.percentile(seen.latencies, 95))
            bar.note(
                f"{fault}: {cells}; {len(seen.latencies)} turns, latency {percentiles(seen.latencies)}; "
                f"{len(seen.pacing)} packets, pacing {percentiles(seen.pacing)}; {time.time() - since:.0f} s"
            )
            bar.require(p99 <= PACING_S, f"{fault}: pacing p99 {p99 * 1e3:.1f} ms")
            share = p95 / calm_p95
            bar.require(share <= SLOWER, f"{fault}: turn latency p95 {share:.2f} x undisturbed")
            rows.append([WORDS[fault], *cells, f"{p99 * 1e3:.1f}", f"{p95 * 1e3:.0f}", f"{share:.2f}"])
        bar.figure(
            f"disturbed: turn latency {percentiles(everything.latencies)}, {percentiles(everything.pacing)} pacing"
        )
        lost = sum(watcher.lost for watcher in watchers)
        bar.require(not lost, f"{lost} turns of the other line had no reply")
        bar.require(not any(watcher.phone.ended for watcher in watchers), "a call of the other line ended")
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
        for watcher in watchers:
            await watcher.phone.hangup()
    return rows


def _words(changed: Counter[tuple[str, str]], hook: str) -> str:
    """What became of a hook that had a fault."""
    ended = [how for (about, how), count in changed.items() if not about and count]
    mine = [outcome for (about, outcome), count in changed.items() if about == hook and count and outcome != "ok"]
    mine = [outcome for outcome in mine if outcome not in ("unavailable", *ended)]
    words = [*dict.fromkeys(mine), *(f"host {how}" for how in ended)]
    return ", ".join(words).replace("_", " ") or "ok"


def _come(words: str, fault: str) -> bool:
    """Whether all that comes of the fault has been seen: of some, that is the end of the host."""
    if "switched off" in words:
        return True
    return "host" in words if fault in ENDING else words != "ok"


def page(rows: Sequence[Sequence[str]], command: str) -> str:
    """The page with the table."""
    heads = ["fault", *(f"`{hook}` ({kind})" for hook, kind in KINDS.items())]
    heads += ["pacing p99, ms", "turn latency p95, ms", "of undisturbed"]
    table = [heads, ["---"] * len(heads), *rows]
    text = "\n".join("| " + " | ".join(row) + " |" for row in table)
    return f"""\
# What a plugin's faults come to

<!-- Made by `{command}`; run that. -->

Each row is a fault, in a hook of each kind. The call whose hook failed was answered, spoken with and recorded in every
case: it went on by the hook's default. The last columns are of {WATCHERS} calls on another line at the same time, by
the packets at the caller's socket: nothing of the box was pinned, and it shared its cores with the callers. What
else the machine did is in every row; the first one is without a fault.

{text}

* *failed*: an exception, *over budget*: the hook was given up, *wrong type*: what it returned was not taken, *ok*: the
  hook did its work all the same. The plugin host went on.
* *host hung*: the plugin host was killed and started again, and the hook is left alone for a minute. *host ended*: the
  plugin ended it.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--baseline", type=float, default=120.0, help="seconds without a fault")
    parser.add_argument("--tasks", action="store_true", help="async functions instead of plain ones")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    args = parser.parse_args()
    bar = Bar("plugins 2", f"{len(KINDS)} kinds of hooks by {len(args.faults)} faults")
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        settings = lines.settings(folder)
        victims = {
            "name": "victims", "match": {"called": "2*"}, "greeting": "Good morning.", "agent": "llm",
            "prompt": "You are a helpful receptionist.", "no_input": {"after_s": 600}, "record": True,
        }  # fmt: skip
        plan = folder / "dialplans"
        (plan / "victims.yaml").write_text(yaml.safe_dump(victims, sort_keys=False))
        assistant = plan / "assistant.yaml"
        healthy = {**yaml.safe_load(assistant.read_text()), "plugins": dict.fromkeys(FAULTS, False)}
        assistant.write_text(yaml.safe_dump(healthy, sort_keys=False))
        settings["plugins.paths"] = [str(folder / "plugins")]
        settings["plugins.enabled"] = write_plugins(folder / "plugins", plain=not args.tasks)
        settings["plugins.hang_s"] = 1.0
        with Box(folder / "box", settings) as box:
            rows = asyncio.run(run(bar, box, args.faults, args.baseline))
            if not rows:
                return bar.finish()
            count = len(args.faults) * len(KINDS) + WATCHERS
            found = records.wait_settled(box.database, count)
            kinds = Counter(row["disposition"] for row in found)
            bar.figure(f"{len(found)} calls on record: {dict(kinds)}")
            bar.require(set(kinds) == {"completed"} and len(found) >= count, f"not every call of {count} was completed")
    if args.write:
        PAGE.write_text(page(rows, "python -m tests.bench.plugin_faults --write"), encoding="utf-8")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
