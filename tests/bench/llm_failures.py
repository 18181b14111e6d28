"""Bar 7 of the conversation: a caller whose language model fails hears something sensible within 2 s.

A whole box is called by SIP and asked a question, with a language model that streams over HTTP and fails in one of the
ways there are. Timed is from the packet with the end of the caller's speech (by the label) to the kernel's receive time
of the first packet of whatever the agent then says, and the longest silence until its turn was over. What was said and
what went wrong is the box's own record.

Beside the bar: how long after control gives up a reply the model's server has seen its client go away.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.cli.box import Box, free_port
from appliance.cli.softphone import Softphone, read_wav
from appliance.engines.client import EnginePool
from appliance.engines.openai_llm import OpenAiLlm
from appliance.engines.openai_llm_options import OpenAiLlmOptions
from appliance.engines.worker import Worker
from appliance.ipc.channel import serve
from appliance.ipc.messages import ChatMessage, Generate
from appliance.ipc.rings import AudioRings
from tests.bench import lines, records
from tests.bench.report import Bar, percentiles
from tests.bench.turn_latency import labelled_end
from tests.bench.uac import BareUac
from tests.openai_sim.chat import REPLY, Answer, ChatSim

LIMIT_S = 2.0
DEAD_AIR_S = 3.0
CANCEL_LIMIT_S = 0.020
SENTENCE = 10
"""Tokens of the reply after which its first sentence is complete."""

APOLOGIES = ("I am sorry",)
MODES: Mapping[str, Answer | None] = {
    "refuses connections": None,
    "answers 500": Answer(status=500),
    "stalls before the first token": Answer(stall_after=0),
    "stalls within the first sentence": Answer(token_s=0.02, stall_after=3),
    "stalls after the first sentence": Answer(token_s=0.02, stall_after=SENTENCE),
    "sends broken JSON": Answer(break_after=0),
    "sends broken JSON after a sentence": Answer(token_s=0.02, break_after=SENTENCE),
    "dies before the first token": Answer(die_after=0),
    "dies after the first sentence": Answer(token_s=0.02, die_after=SENTENCE),
    "reports an error after the first sentence": Answer(token_s=0.02, error_after=SENTENCE),
}
"""How a server fails; None: nobody listens."""


@dataclass(frozen=True)
class Outcome:
    """What a caller met with. Seconds; ``turn`` is the record of the turn."""

    first_s: float
    dead_air_s: float
    turn: records.Row


def settings(folder: Path, servers: list[str], **llm: Any) -> dict[str, object]:
    """A box whose assistant asks these servers; what is said is spoken by the embedded voice."""
    listed = [{"base_url": url, "model": "sim", "name": f"server{number}"} for number, url in enumerate(servers)]
    engine = {"provider": "openai_compatible", **(listed[0] if len(listed) == 1 else {"servers": listed}), **llm}
    return {**lines.settings(folder, tts="espeak"), "engines.llm": engine}


async def ask(box: Box, clip: Path, number: str = lines.ASSISTANT) -> tuple[float, float]:
    """One call with one question; (first sound of the agent, its longest silence) after the end of the question."""
    async with BareUac(("127.0.0.1", box.sip_port)) as uac, Softphone(uac) as phone:
        await phone.dial(box.uri(number))
        await phone.wait_agent_silent(30.0, quiet_s=0.8)
        question_end = await phone.play(read_wav(clip), labelled_end(clip))
        reply = await phone.wait_reply(question_end, 20.0)
        await phone.wait_agent_silent(60.0, quiet_s=DEAD_AIR_S + 1.0)
        end = question_end - phone.answered_at
        heard = [(start, stop) for start, stop in phone.heard() if stop > end]
    gaps = [start - before for (_, before), (start, _) in zip([(0.0, end), *heard], heard, strict=False)]
    return reply.latency_s, max(gaps)


async def outcome_of(
    folder: Path, clip: Path, *answers: Answer | None, line: dict[str, object] | None = None, **llm: Any
) -> Outcome:
    """Start a box whose servers answer so, call it, and read its record.

    Args:
        line: called instead of the standard assistant.
        llm: further settings of the engine.
    """
    async with AsyncExitStack() as stack:
        urls = [f"http://127.0.0.1:{free_port()}/v1" for _ in answers]
        for index, answer in enumerate(answers):
            if answer is not None:
                urls[index] = (await stack.enter_async_context(ChatSim(answer))).url
        own = lines.dialplan(folder / "own", [line]) if line is not None else {}
        box = Box(folder / "box", {**settings(folder, urls, **llm), **own})
        try:
            await asyncio.to_thread(box.start)
            first_s, dead_air_s = await ask(box, clip)
            (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
        finally:
            code = await asyncio.to_thread(box.stop)
    if code:
        raise RuntimeError(f"the box left with {code}: {box.log_tail()}")
    return Outcome(first_s, dead_air_s, next(turn for turn in call["turns"] if turn["by"] == "voice"))


async def cancellations(folder: Path, count: int) -> list[float]:
    """Seconds from giving up a reply that is under way, in control, to when the model's server sees its client go."""
    async with ChatSim(Answer(token_s=0.01, stall_after=4)) as server:
        engine = OpenAiLlm(OpenAiLlmOptions.model_validate({"base_url": server.url, "model": "sim"}))
        await engine.load()
        worker = Worker("llm-0", engine, AudioRings.create(1))
        listener = await serve(folder / "llm-0.sock", worker.connected)
        pool = EnginePool("llm", ["llm-0"], folder)
        await pool.start()
        taken: list[float] = []
        for number in range(1, count + 1):
            reply = pool.generate(Generate(pool.number(), (ChatMessage("user", "Hello"),), math.inf))
            for _ in range(4):
                await anext(reply)
            asked = await server.wait_asked(number)
            given_up_at = time.monotonic()
            await reply.aclose()  # type: ignore[attr-defined]  # an async generator; its Protocol has no aclose
            async with asyncio.timeout(10):
                await asked.gone.wait()
            taken.append(asked.gone_at - given_up_at)
        await pool.stop()
        await worker.close()
        listener.close()
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES), metavar="MODE")
    parser.add_argument("--cancel", type=int, default=100, help="replies that are cancelled")
    args = parser.parse_args()
    bar = Bar("4.7", "callers of a language model that fails")
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="bar7-") as name:
        folder = Path(name)
        clip = lines.question(folder)
        for index, mode in enumerate(args.modes):
            found = asyncio.run(outcome_of(folder / str(index), clip, MODES[mode]))
            worst = max(worst, found.first_s)
            bar.note(
                f"{mode:<42} {found.first_s:5.2f} s to the first words, {found.dead_air_s:4.2f} s of silence at most; "
                f"said {found.turn['agent_text']!r}; problem {found.turn['problem']!r}"
            )
            bar.require(found.first_s <= LIMIT_S, f"{mode}: {found.first_s:.2f} s")
            bar.require(found.dead_air_s <= DEAD_AIR_S, f"{mode}: silent for {found.dead_air_s:.2f} s")
            apologised = any(words in found.turn["agent_text"] for words in APOLOGIES)
            bar.require(apologised and bool(found.turn["problem"]), f"{mode}: no apology, or nothing on record")
        hedged = asyncio.run(outcome_of(folder / "two", clip, Answer(stall_after=0), Answer(token_s=0.02)))
        bar.figure(f"a second server in the place of a silent one {hedged.first_s:.2f} s")
        bar.require(hedged.turn["agent_text"] == REPLY, "the second server's reply was not said")
        bar.require(hedged.first_s <= LIMIT_S, "the second server came late")
        bar.figure(f"first words within {worst:.2f} s in {len(args.modes)} kinds of failure")
        taken = asyncio.run(cancellations(folder, args.cancel))
        bar.figure(f"cancelled at the server after {percentiles(taken)}")
        bar.require(max(taken) <= CANCEL_LIMIT_S, f"a cancellation took {max(taken) * 1e3:.1f} ms")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
