"""Bar 5: recorded human prompts, spoken into calls over real SIP and µ-law RTP.

The line's one question expects every text of the 150 prompts, again and again. Exact is a turn whose text is the
prompt's; a stranger is wrongly accepted when the line takes it for one of the expected texts.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from appliance.cli.box import Box
from appliance.cli.rtp_stream import Pcm, Ticker, speech_bounds
from appliance.cli.softphone import NothingHeard, Softphone, read_wav
from appliance.engines.lexicon import normalise
from appliance.errors import ApplianceError
from tests.bench import lines, records
from tests.bench.prompts import Prompt, PromptsMissing, select
from tests.bench.report import Bar, percentiles
from tests.bench.uac import BareUac

EXACT_OPEN, EXACT_REJECTING, FALSE_ACCEPTS = 0.93, 0.88, 0.30
SNR_DB = 15.0


@dataclass(frozen=True)
class Spoken:
    """A prompt that was played, and the turn it made (None when there was none, or more than one)."""

    prompt: Prompt
    turn: records.Row | None


def with_noise(pcm: Pcm, noise: Pcm, offset: int) -> Pcm:
    """``pcm`` with ``noise`` at SNR_DB below the level of its speech."""
    start, end = speech_bounds(pcm, 8000)
    speech_power = np.mean(pcm[start:end].astype(float) ** 2)
    bed = np.resize(np.roll(noise, -offset), len(pcm)).astype(float)
    bed *= np.sqrt(speech_power / max(np.mean(bed**2), 1e-9) / 10 ** (SNR_DB / 10))
    return np.clip(pcm + bed, -32768, 32767).astype(np.int16)


async def one_call(
    uac: BareUac, ticker: Ticker, uri: str, prompts: list[tuple[Prompt, Pcm]]
) -> tuple[str, list[Prompt]]:
    """Speak each prompt when the agent has asked; the call's Call-ID and the prompts that were spoken."""
    played: list[Prompt] = []
    phone = Softphone(uac, ticker=ticker, keep_audio=False)
    known = set(uac.calls)
    await phone.dial(uri)
    (call_id,) = set(uac.calls) - known
    try:
        for prompt, pcm in prompts:
            await phone.wait_agent_silent(20.0, quiet_s=0.5)
            speech_end = await phone.play(pcm)
            played.append(prompt)
            try:
                await phone.wait_reply(speech_end, 20.0)
            except NothingHeard:
                continue
        await phone.wait_agent_silent(20.0, quiet_s=0.5)
    except ApplianceError as error:
        print(f"  a call ended early after {len(played)} of {len(prompts)} prompts: {error}")
    finally:
        await phone.hangup()
    return call_id, played


async def speak_all(box: Box, prompts: list[tuple[Prompt, Pcm]], at_once: int) -> list[tuple[str, list[Prompt]]]:
    ticker = Ticker(phases=at_once)
    shares = [prompts[index::at_once] for index in range(at_once)]
    async with BareUac(("127.0.0.1", box.sip_port)) as uac:
        tasks = []
        for share in shares:
            tasks.append(asyncio.create_task(one_call(uac, ticker, box.uri(lines.PROMPTS), share)))
            await asyncio.sleep(0.3)
        return [await task for task in tasks]


def run(
    folder: Path, expected: list[Prompt], spoken: list[tuple[Prompt, Pcm]], reject: bool, at_once: int
) -> list[Spoken]:
    """One box with one line; what was understood of each prompt."""
    texts = sorted({prompt.text for prompt in expected})
    settings = {**lines.dialplan(folder, [lines.prompts_line(texts, reject)]), "limits.drain_s": 5}
    with Box(folder / "box", {**settings, "engines.tts": lines.STANDARD_FAKES["engines.tts"]}) as box:
        calls = asyncio.run(speak_all(box, spoken, at_once))
        by_id = {row["protocol_call_id"]: row for row in records.wait_settled(box.database, at_once)}
        if box.stop() != 0:
            raise ApplianceError(f"the box did not leave with exit code 0:\n{box.log_tail()}")
    return [pair for call_id, played in calls for pair in match_turns(played, by_id[call_id])]


def match_turns(played: list[Prompt], call: records.Row) -> list[Spoken]:
    """The n-th voice turn belongs to the n-th prompt, as long as there are as many."""
    turns = [turn for turn in call["turns"] if turn["by"] == "voice"]
    if len(turns) != len(played):
        print(f"  {len(played)} prompts made {len(turns)} turns in call {call['id']}")
    return align(played, turns)


def align(played: list[Prompt], turns: list[records.Row]) -> list[Spoken]:
    """Cheapest alignment by text: a prompt cut in two, or a turn too many, costs itself and not its neighbours."""
    rows, columns = len(played), len(turns)
    if rows == columns:
        return [Spoken(prompt, turn) for prompt, turn in zip(played, turns, strict=True)]
    cost = np.zeros((rows + 1, columns + 1))
    cost[:, 0], cost[0, :] = np.arange(rows + 1), np.arange(columns + 1)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            differs = normalise(turns[j - 1]["caller_text"]) != played[i - 1].text
            cost[i, j] = min(cost[i - 1, j - 1] + 1.5 * differs, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    found: list[Spoken] = []
    i, j = rows, columns
    while i:
        differs = j > 0 and normalise(turns[j - 1]["caller_text"]) != played[i - 1].text
        if j and cost[i, j] == cost[i - 1, j - 1] + 1.5 * differs:
            i, j = i - 1, j - 1
            found.append(Spoken(played[i], turns[j]))
        elif j and cost[i, j] == cost[i, j - 1] + 1:
            j -= 1
        else:
            i -= 1
            found.append(Spoken(played[i], None))
    return found[::-1]


def exact(spoken: list[Spoken]) -> float:
    right = [
        s.turn is not None and s.turn["accepted"] and normalise(s.turn["caller_text"]) == s.prompt.text for s in spoken
    ]
    return sum(right) / len(right)


def wrongly_accepted(spoken: list[Spoken]) -> float:
    return sum(s.turn is not None and bool(s.turn["accepted"]) for s in spoken) / len(spoken)


def describe(bar: Bar, spoken: list[Spoken]) -> None:
    """The prompts that were not understood, and how long recognition took."""
    missed = [
        s
        for s in spoken
        if s.turn is None or normalise(s.turn["caller_text"]) != s.prompt.text or not s.turn["accepted"]
    ]
    for s in missed[:12]:
        heard = "no turn" if s.turn is None else f"{s.turn['caller_text']!r}{'' if s.turn['accepted'] else ' rejected'}"
        bar.note(f"   {s.prompt.text!r} -> {heard}")
    kinds = Counter("no turn" if s.turn is None else "rejected" if not s.turn["accepted"] else "other" for s in missed)
    latencies = [s.turn["latency_ms"] / 1e3 for s in spoken if s.turn is not None and s.turn["latency_ms"]]
    bar.note(f"missed: {dict(kinds)}; turn latency {percentiles(latencies)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=6, help="calls at once")
    parser.add_argument("--limit", type=int, help="only so many prompts of each kind")
    parser.add_argument("--skip-noise", action="store_true")
    args = parser.parse_args()
    bar = Bar(5, "recognition of human prompts on the wire")
    try:
        expected, strangers = select()
    except PromptsMissing as error:
        print(f"skipped: {error}")
        return 77
    clean = [(prompt, prompt.pcm()) for prompt in expected][: args.limit]
    foreign = [(prompt, prompt.pcm()) for prompt in strangers][: args.limit]
    with tempfile.TemporaryDirectory(prefix="bar5-") as name:

        def measure(label: str, spoken: list[tuple[Prompt, Pcm]], reject: bool) -> list[Spoken]:
            bar.note(f"{label}: {len(spoken)} prompts")
            return run(Path(name) / label.replace(" ", "-"), expected, spoken, reject, args.calls)

        found = measure("rejection off", clean, False)
        bar.figure(f"exact {exact(found):.1%} with rejection off")
        bar.require(exact(found) >= EXACT_OPEN, f"exact {exact(found):.1%} is below {EXACT_OPEN:.0%}")
        describe(bar, found)
        found = measure("rejection on", clean + foreign, True)
        mine, others = split(found, expected)
        bar.figure(f"{exact(mine):.1%} with it on")
        bar.require(
            exact(mine) >= EXACT_REJECTING, f"exact {exact(mine):.1%} is below {EXACT_REJECTING:.0%} with rejection"
        )
        bar.figure(f"{wrongly_accepted(others):.1%} of {len(others)} strangers accepted")
        bar.require(wrongly_accepted(others) <= FALSE_ACCEPTS, "too many strangers accepted")
        describe(bar, mine)
        noises = sorted(lines.NOISE.glob("*.wav"))
        if noises and not args.skip_noise:
            bed = np.concatenate([read_wav(path) for path in noises])
            noisy = [(p, with_noise(pcm, bed, 7919 * n)) for n, (p, pcm) in enumerate(clean + foreign)]
            found = measure("noise, rejection off", noisy[: len(clean)], False)
            bar.figure(f"noise at {SNR_DB:.0f} dB: exact {exact(found):.1%}")
            mine, others = split(measure("noise, rejection on", noisy, True), expected)
            bar.figure(f"{exact(mine):.1%} with rejection, {wrongly_accepted(others):.1%} of strangers accepted")
    return bar.finish()


def split(found: list[Spoken], expected: list[Prompt]) -> tuple[list[Spoken], list[Spoken]]:
    names = {prompt.name for prompt in expected}
    return [s for s in found if s.prompt.name in names], [s for s in found if s.prompt.name not in names]


if __name__ == "__main__":
    sys.exit(main())
