"""What hooks cost: a hook call with no plugin, one and ten, beside pluggy's own; and a call with ten idle plugins.

The first part runs a real plugin host beside this process, as control has it. Idle plugins implement every hook of a
call and return None. The second part has callers talk to two whole boxes at the same time, one with no plugin and one
with ten idle ones: on a line as a box comes (PocketSphinx, eSpeak NG, a flow), and on one where a language model leads,
whose recogniser, model and voice are elsewhere, as fakes that cost this machine next to nothing. What a call costs is
the processor time of all processes of its box; the ratio of both boxes, round by round, has an interval of confidence,
and rounds are added until it is narrow. The share of control and the plugin host alone is printed, too.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pluggy
import uvloop

from appliance import hookspecs
from appliance.cli.box import Box
from appliance.cli.softphone import Softphone, read_wav
from appliance.errors import ApplianceError
from appliance.hook_types import Call
from appliance.plugins.hook_table import HOOKS
from appliance.plugins.hooks import Hooks
from appliance.plugins.processor_time import of_threads
from tests.bench import lines, processes
from tests.bench.report import Bar
from tests.bench.uac import BareUac
from tests.plugins.real_host import RealHost, call

MOST = 0.05
NARROW = 0.015
"""Half of the interval of confidence that is narrow enough."""
IDLE = 10
_WARM_UP = 200
_LEAST_ROUNDS = 6


def idle_plugin() -> str:
    """A plugin with every hook of a call, plain, that does nothing."""
    parts = ['"""Does nothing."""', "from appliance.api import hookimpl"]
    for hook, rule in HOOKS.items():
        if not rule.lifecycle and hook != "tools":
            argument = "event" if hook == "campaign_event" else "call"
            parts.append(f"@hookimpl\ndef appliance_{hook}({argument}):\n    return None")
    return "\n\n".join(parts) + "\n"


def on_cores_s(pid: int) -> float:
    """Seconds that the process's threads have run, as far as they still exist."""
    return sum(ran.on_core_s for ran in of_threads(pid).values())


def bare_pluggy(count: int, times: int) -> float:
    """Microseconds that pluggy takes for one call of a hook of ``count`` plugins."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for number in range(count):
        namespace: dict[str, object] = {}
        exec(idle_plugin(), namespace)
        module = type(sys)(f"idle{number}")
        vars(module).update(namespace)
        manager.register(module, f"idle{number}")
    hook, about = manager.hook.appliance_final_transcript, Call("c1")
    began = time.perf_counter()
    for _ in range(times):
        hook(call=about, text="what the caller said")
    return (time.perf_counter() - began) / times * 1e6


async def per_call(ask: Callable[[], Awaitable[object]], times: int, host: int) -> tuple[float, float, float]:
    """Microseconds of one call: median until the result, processor time here, and in the host."""
    for _ in range(_WARM_UP):
        await ask()
    took: list[float] = []
    before, host_before = time.process_time(), on_cores_s(host) if host else 0.0
    for _ in range(times):
        began = time.perf_counter()
        await ask()
        took.append(time.perf_counter() - began)
    host_s = on_cores_s(host) - host_before if host else 0.0
    return statistics.median(took) * 1e6, (time.process_time() - before) / times * 1e6, host_s / times * 1e6


async def primitive(bar: Bar, times: int) -> None:
    """The cost of one hook call."""
    with tempfile.TemporaryDirectory(prefix="hooks-") as folder:
        real = RealHost(Path(folder))
        for number in range(IDLE):
            real.write(f"idle{number}", idle_plugin())
        real.write(
            "task", "from appliance.api import hookimpl\n@hookimpl\nasync def appliance_final_transcript(): ...\n"
        )
        async with real.running():
            for names in ([], ["idle0"], [f"idle{number}" for number in range(IDLE)], ["task"]):
                hooks = await real.hooks({name: {} for name in names}) if names else Hooks()
                pid = real.process.pid if real.process is not None else 0
                about = call()

                async def chained(hooks: Hooks = hooks, about: object = about) -> object:
                    return await hooks.chain("final_transcript", about, "what the caller said")  # type: ignore[arg-type]

                wall, here, there = await per_call(chained, times, pid)
                kind = "async plugin" if names == ["task"] else "plugins"
                bare = f"; pluggy's own {bare_pluggy(len(names), times):.1f}" if kind == "plugins" else ""
                spent = f"processor {here:.1f} in control and {there:.1f} in the host"
                bar.figure(f"{len(names)} {kind}: {wall:.0f} us, {spent}{bare}")
            asked = time.perf_counter()
            for _ in range(100_000):
                hooks.wanted("key", "a")
            bar.figure(f"asking whether a hook is wanted {(time.perf_counter() - asked) * 10:.2f} us")


@dataclass(frozen=True)
class Line:
    """Whom callers talk with."""

    words: str
    number: str
    engines: Mapping[str, str]


LINES = {
    "shipped": Line(
        "a flow with the engines of a box as it comes", lines.TALKER, {"asr": "pocketsphinx", "tts": "espeak"}
    ),
    "model": Line("a language model, with engines elsewhere", lines.ASSISTANT, {}),
}


async def talk(box: Box, target: str, clip: Path, calls: int, turns: int) -> int:
    """Have callers talk at once; how many turns were answered."""
    pcm = read_wav(clip)

    async def one() -> int:
        answered = 0
        async with BareUac(("127.0.0.1", box.sip_port)) as uac, Softphone(uac) as phone:
            try:
                await phone.dial(box.uri(target))
                await phone.wait_agent_speech(10.0, since=phone.dialled_at)
                for _ in range(turns):
                    await phone.wait_agent_silent(30.0, quiet_s=0.8)
                    end = await phone.play(pcm, None)
                    await phone.wait_reply(end, 10.0)
                    answered += 1
            except (ApplianceError, TimeoutError) as error:
                print(f"  a call of {box.directory.name}: {type(error).__name__}: {error}", flush=True)
        return answered

    return sum(await asyncio.gather(*(one() for _ in range(calls))))


def hooks_run(box: Box) -> Counter[str]:
    """How often each hook has run so far, of one of the idle plugins."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{box.http_port}/metrics", timeout=10).read().decode()
    found: Counter[str] = Counter()
    for labels, value in re.findall(r"^appliance_hook_seconds_count\{(.*?)\} (\S+)$", text, re.MULTILINE):
        known = dict(re.findall(r'(\w+)="(.*?)"', labels))
        if known["plugin"] == "idle0":
            found[known["hook"]] += int(float(value))
    return found


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The mean of what is more in (1 is as much), and half of its interval of confidence (95 %)."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = math.exp(statistics.fmean(logs)) - 1.0
    if len(logs) < 3:
        return mean, math.inf
    df = len(logs) - 1
    t = 1.96 + 2.37 / df + 3.2 / df**2  # Student's t, within 1 % from 4 degrees of freedom on
    return mean, t * statistics.stdev(logs) / math.sqrt(len(logs))


@dataclass
class Costs:
    """Processor time of a turn, round by round, in seconds: of the whole box, and of control with the plugin host."""

    whole: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    by_process: Counter[str] = field(default_factory=Counter)
    turns: int = 0

    def take(self, before: Mapping[str, float], after: Mapping[str, float], answered: int) -> None:
        spent = {name: after[name] - before[name] for name in after if name in before}
        self.by_process.update({name.partition("-")[0]: seconds for name, seconds in spent.items()})
        self.turns += answered
        self.whole.append(sum(spent.values()) / answered)
        self.ours.append((spent["control"] + spent.get("plugins", 0.0)) / answered)


def whole_calls(bar: Bar, line: Line, rounds: int, calls: int, turns: int) -> None:
    """The cost of a call without plugins and with ten idle ones that have every hook.

    Each round starts both boxes anew, now the one first and now the other: two boxes whose ticks fall together share
    a core's caches unevenly for as long as they live, which is more than what plugins cost.
    """
    costs = {"none": Costs(), "idle": Costs()}
    with tempfile.TemporaryDirectory(prefix="idle-") as name:
        folder = Path(name)
        clip = lines.question(folder)
        settings: dict[str, dict[str, object]] = {}
        for kind in costs:
            plugins = folder / kind
            plugins.mkdir()
            names = [f"idle{number}" for number in range(IDLE)] if kind == "idle" else []
            for plugin in names:
                (plugins / f"{plugin}.py").write_text(idle_plugin())
            settings[kind] = {
                **lines.settings(folder, **line.engines),
                "plugins.paths": [str(plugins)],
                "plugins.enabled": names,
            }
        ran: Counter[str] = Counter()
        total = lost = 0
        ratios: list[float] = []
        for number in range(rounds):
            with ExitStack() as stack:
                boxes: dict[str, Box] = {}
                for kind in sorted(costs, reverse=bool(number % 2)):
                    boxes[kind] = stack.enter_context(Box(folder / f"box-{kind}-{number}", settings[kind]))

                async def talk_to_both(turns: int, boxes: dict[str, Box] = boxes) -> dict[str, int]:
                    talks = (talk(box, line.number, clip, calls, turns) for box in boxes.values())
                    return dict(zip(boxes, await asyncio.gather(*talks), strict=True))

                asyncio.run(talk_to_both(1))  # warms up
                ran_before = hooks_run(boxes["idle"])
                pids = {kind: box.processes() for kind, box in boxes.items()}
                before = {kind: processes.all_processor_s(pids[kind]) for kind in boxes}
                answered = asyncio.run(talk_to_both(turns))
                after = {kind: processes.all_processor_s(pids[kind]) for kind in boxes}
                ran += hooks_run(boxes["idle"]) - ran_before
            total += answered["idle"]
            whole = min(answered.values()) == calls * turns
            if not whole or any(set(after[kind]) != set(before[kind]) for kind in costs):
                lost += 1
                bar.note(f"round {number + 1} is left out: {answered} of {calls * turns} turns, or a process has ended")
                continue
            for kind, found in costs.items():
                found.take(before[kind], after[kind], answered[kind])
            ratios = [idle / none for idle, none in zip(costs["idle"].whole, costs["none"].whole, strict=True)]
            more, half = interval(ratios)
            bar.note(f"round {number + 1}: the whole box {ratios[-1] - 1.0:+.1%}; so far {more:+.1%} +- {half:.1%}")
            if len(ratios) >= _LEAST_ROUNDS and half <= NARROW:
                break
    bar.require(3 * lost <= rounds, f"{lost} rounds were left out")
    if not ratios:
        return
    none_s, idle_s = statistics.fmean(costs["none"].whole), statistics.fmean(costs["idle"].whole)
    bar.figure(
        f"a turn without plugins {none_s * 1e3:.1f} ms of the whole box, with {IDLE} idle ones {idle_s * 1e3:.1f}"
    )
    bar.figure(f"{IDLE} idle plugins: {more:+.1%} +- {half:.1%} of the whole box ({len(ratios)} rounds)")
    ours, ours_half = interval([i / n for i, n in zip(costs["idle"].ours, costs["none"].ours, strict=True)])
    none_ours, idle_ours = statistics.fmean(costs["none"].ours), statistics.fmean(costs["idle"].ours)
    bar.figure(
        f"of control and host alone {ours:+.1%} +- {ours_half:.1%} ({none_ours * 1e3:.1f} and {idle_ours * 1e3:.1f} ms)"
    )
    extra = [
        1.0 + (idle - none) / whole
        for idle, none, whole in zip(costs["idle"].ours, costs["none"].ours, costs["none"].whole, strict=True)
    ]
    share, share_half = interval(extra)
    bar.figure(f"what control and host take more is {share:+.1%} +- {share_half:.1%} of the whole box")
    bar.require(share <= MOST, f"control and host take {share:.1%} of the whole box more")
    each = sum(ran.values()) / total
    bar.figure(f"{each:.1f} hooks a turn, {(idle_ours - none_ours) / each * 1e6:.0f} us each in a call")
    bar.note("hooks a turn: " + ", ".join(f"{hook} {count / total:.2f}" for hook, count in ran.most_common()))
    for kind, found in costs.items():
        shares = ", ".join(f"{n} {s / found.turns * 1e3:.1f}" for n, s in found.by_process.most_common())
        bar.note(f"{kind}, ms a turn: {shares}")
    bar.require(more <= MOST, f"{IDLE} idle plugins cost {more:.1%} more")
    bar.require(half <= MOST / 2, f"the figure is known to {half:.1%} alone; measure on a machine with less to do")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3000, help="hook calls of each kind")
    parser.add_argument(
        "--rounds", type=int, default=16, help="rounds of whole calls at most, for each line; 0 for none"
    )
    parser.add_argument("--calls", type=int, default=3, help="of each box at once")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    args = parser.parse_args()
    bar = Bar("plugins 3", "the cost of hooks")
    uvloop.run(primitive(bar, args.times))
    if args.rounds:
        for name in args.lines:
            whole_calls(bar, LINES[name], args.rounds, args.calls, args.turns)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
