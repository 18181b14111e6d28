"""Bar 6: turn latency on one call with the standard fakes, on the wire, and where the time goes.

From the packet with the end of a human's speech (by the label) leaving the caller's socket to the kernel's receive
time of the first packet of the spoken reply. The waterfall is the box's own record of the same turns.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import numpy as np

from appliance.cli.box import Box
from appliance.cli.rtp_stream import RATE_HZ, speech_bounds
from appliance.cli.softphone import NothingHeard, Softphone, Turn, read_wav
from tests.bench import lines, records
from tests.bench.report import Bar, percentiles
from tests.bench.uac import BareUac


def labelled_end(clip: Path) -> int | None:
    """Speech end in samples at 8 kHz, from the ``labels.tsv`` of the clip's collection."""
    labels = clip.parents[1] / "labels.tsv"
    if not labels.exists():
        return None
    for line in labels.read_text().splitlines():
        name, _, end = line.split("\t")
        if name == f"{clip.parent.name}/{clip.name}":
            return round(float(end) * RATE_HZ)
    return None


async def converse(box: Box, number: str, clips: list[Path], turns: int, bar: Bar) -> list[Turn]:
    """Say one clip after the other, each when the agent has finished, until there were ``turns`` of them."""
    spoken = [(clip, read_wav(clip), labelled_end(clip)) for clip in clips]
    found: list[Turn] = []
    async with BareUac(("127.0.0.1", box.sip_port)) as uac, Softphone(uac) as phone:
        await phone.dial(box.uri(number))
        bar.note(f"answered after {(phone.answered_at - phone.dialled_at) * 1e3:.1f} ms")
        first = await phone.wait_agent_speech(10.0, since=phone.dialled_at)
        bar.note(f"INVITE to first packet of the greeting {(first - phone.dialled_at) * 1e3:.0f} ms")
        for index in range(turns):
            clip, pcm, end = spoken[index % len(spoken)]
            await phone.wait_agent_silent(30.0, quiet_s=0.8)
            speech_end = await phone.play(pcm, end)
            try:
                found.append(await phone.wait_reply(speech_end, 10.0))
            except NothingHeard as error:
                bar.note(f"{clip.name}: {error}")
                continue
            level_end = speech_bounds(pcm, RATE_HZ)[1] / RATE_HZ
            labelled = f"{end / RATE_HZ:.2f} s by label" if end else "no label"
            bar.note(f"{clip.name}: {found[-1].latency_s * 1e3:.0f} ms (end {labelled}, {level_end:.2f} by level)")
    return found


def waterfall(turns: list[records.Row]) -> list[str]:
    """Mean start and end of each stage, in ms after speech end."""
    stages: dict[str, list[list[float]]] = {}
    for turn in turns:
        for stage, span in turn["waterfall"].items():
            stages.setdefault(stage, []).append(span)
    means = {stage: np.mean(np.asarray(spans, float), axis=0) for stage, spans in stages.items()}
    ordered = sorted(means.items(), key=lambda item: (item[1][0], item[1][1]))
    return [f"{stage:<12} {start:7.0f} -> {end:5.0f} ms  {_bar(start, end)}" for stage, (start, end) in ordered]


def _bar(start: float, end: float) -> str:
    """A character for every 10 ms."""
    return "." * max(0, int(start / 10)) + "#" * max(1, int((end - start) / 10))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--clip", type=Path, nargs="+", help="WAVs of the caller (default: every recorded sentence)")
    parser.add_argument("--line", default=lines.ASSISTANT, help="number to call")
    args = parser.parse_args()
    bar = Bar(6, f"turn latency, {args.turns} turns, standard fakes")
    with tempfile.TemporaryDirectory(prefix="bar6-") as name:
        folder = Path(name)
        clips = args.clip or [lines.question(folder), *lines.human_speech(folder)]
        with Box(folder / "box", lines.settings(folder)) as box:
            found = asyncio.run(converse(box, args.line, clips, args.turns, bar))
            (call,) = records.wait_settled(box.database, 1)
            bar.require(box.stop() == 0, "the box did not leave with exit code 0")
        latencies = [turn.latency_s for turn in found]
        early = sum(latency < 0.1 for latency in latencies)
        bar.figure(f"on the wire {percentiles(latencies)}")
        own = [turn["latency_ms"] / 1e3 for turn in call["turns"] if turn["latency_ms"] is not None]
        bar.note(f"by the record {percentiles(own)}")
        for line in waterfall([turn for turn in call["turns"] if turn["by"] == "voice"]):
            bar.note(line)
        bar.require(len(found) == args.turns, f"{len(found)} of {args.turns} turns answered")
        bar.require(early == 0, f"{early} replies began while the caller was speaking")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
