"""What hooks cost: a hook call with no plugin, one and ten, beside pluggy's own; and a call with ten idle plugins.

The first part runs a real plugin host beside this process, as control has it. Idle plugins implement every hook of a
call and return None. The second part has callers talk to two whole boxes, one with no plugin and one with ten idle
ones, in turns, and compares the processor time that control and the plugin host take for a turn of a call.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pluggy
import uvloop

from appliance import hookspecs
from appliance.cli.box import Box
from appliance.cli.softphone import NothingHeard, Softphone, read_wav
from appliance.hook_types import Call
from appliance.plugins.hook_table import HOOKS
from appliance.plugins.hooks import Hooks
from appliance.plugins.processor_time import of_threads
from tests.bench import lines, processes
from tests.bench.report import Bar
from tests.bench.uac import BareUac
from tests.plugins.real_host import RealHost, call

MOST = 0.05
IDLE = 10
_WARM_UP = 200
_ASYNC = """
from appliance.api import hookimpl
@hookimpl
async def appliance_final_transcript(): ...
"""


def idle_plugin(only: Sequence[str] = ()) -> str:
    """A plugin with every hook of a call, or with those named, plain, that does nothing."""
    parts = ['"""Does nothing."""', "from appliance.api import hookimpl"]
    for hook, rule in HOOKS.items():
        if not rule.lifecycle and hook != "tools" and (not only or hook in only):
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


async def talk(box: Box, clip: Path, calls: int, turns: int) -> int:
    """Have callers talk at once; how many turns were answered."""
    pcm = read_wav(clip)

    async def one() -> int:
        answered = 0
        async with BareUac(("127.0.0.1", box.sip_port)) as uac, Softphone(uac) as phone:
            await phone.dial(box.uri(lines.ASSISTANT))
            await phone.wait_agent_speech(10.0, since=phone.dialled_at)
            for _ in range(turns):
                await phone.wait_agent_silent(30.0, quiet_s=0.8)
                end = await phone.play(pcm, None)
                try:
                    await phone.wait_reply(end, 10.0)
                    answered += 1
                except NothingHeard:
                    continue
        return answered

    return sum(await asyncio.gather(*(one() for _ in range(calls))))


def whole_calls(bar: Bar, rounds: int, calls: int, turns: int) -> None:
    """The cost of a call: without plugins, with idle ones that are only told of its answer and end, and with idle ones
    that have every hook."""
    kinds = {"none": "", "told": idle_plugin(("answered", "call_ended")), "every": idle_plugin()}
    costs: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="idle-") as name:
        folder = Path(name)
        clip = lines.question(folder)
        boxes = {}
        for kind, text in kinds.items():
            plugins = folder / kind
            plugins.mkdir()
            count = IDLE if text else 0
            for number in range(count):
                (plugins / f"idle{number}.py").write_text(text)
            settings = {**lines.settings(folder), "plugins.paths": [str(plugins)]}
            settings["plugins.enabled"] = [f"idle{number}" for number in range(count)]
            boxes[kind] = Box(folder / f"box-{kind}", settings)
            boxes[kind].start()
        try:
            for number in range(rounds + 1):
                for kind, box in boxes.items():
                    pids = box.processes()
                    before = processes.all_processor_s(pids)
                    answered = asyncio.run(talk(box, clip, calls, turns))
                    bar.require(answered == calls * turns, f"{answered} of {calls * turns} turns answered")
                    after = processes.all_processor_s(pids)
                    if number:  # the first round warms up
                        costs[kind].append({key: (after[key] - before[key]) / answered for key in after})
        finally:
            for box in boxes.values():
                box.stop()
    found: dict[str, tuple[float, float]] = {}
    for kind, rows in costs.items():
        ours = [row["control"] + row.get("plugins", 0.0) for row in rows]
        whole = [sum(row.values()) for row in rows]
        found[kind] = statistics.median(ours), statistics.median(whole)
        bar.note(f"rounds, ms a turn, {kind}: control and host {_ms(ours)}; the whole box {_ms(whole)}")
    none = found.pop("none")
    bar.figure(f"a turn without plugins {none[0] * 1e3:.1f} ms of control, {none[1] * 1e3:.1f} ms of the whole box")
    words = {"told": "told of answer and end", "every": "with every hook"}
    for kind, (ours_s, whole_s) in found.items():
        more, of_all = ours_s / none[0] - 1.0, whole_s / none[1] - 1.0
        bar.figure(
            f"{IDLE} idle plugins {words[kind]}: {more:+.1%} of control and host, {of_all:+.1%} of the whole box"
        )
        bar.require(more <= MOST, f"{IDLE} idle plugins {words[kind]} cost {more:.1%} more")


def _ms(values: list[float]) -> str:
    return ", ".join(f"{value * 1e3:.1f}" for value in values)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3000, help="hook calls of each kind")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of whole calls; 0 for none")
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--turns", type=int, default=6)
    args = parser.parse_args()
    bar = Bar("plugins 3", "the cost of hooks")
    uvloop.run(primitive(bar, args.times))
    if args.rounds:
        whole_calls(bar, args.rounds, args.calls, args.turns)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
