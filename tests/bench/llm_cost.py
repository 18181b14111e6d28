"""What many replies at once cost the worker that asks a language model over HTTP. No bar.

The server is a process of its own that streams every reply at 50 tokens a second, the first token after 150 ms. Told
are the processor time of the worker per token, and how much later than that the last of the first tokens came.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import resource
import subprocess
import sys
import time

import uvloop

from appliance.engines.openai_llm import OpenAiLlm
from appliance.engines.openai_llm_options import OpenAiLlmOptions
from appliance.engines.worker import Worker
from appliance.ipc.messages import AnyMessage, ChatMessage, Generate, Token
from appliance.ipc.rings import AudioRings

FIRST_TOKEN_S = 0.15
PROMPT = (ChatMessage("system", "You take bookings for a restaurant. " * 120), ChatMessage("user", "A table for four."))
_SERVE = f"""
import asyncio
from tests.openai_sim.chat import Answer, ChatSim

async def main():
    async with ChatSim(Answer(text="word " * 100, first_token_s={FIRST_TOKEN_S}, token_s=0.02)) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


class _Client:
    """Notes when the first token of each reply came, and counts all."""

    def __init__(self, replies: int) -> None:
        self.first: dict[int, float] = {}
        self.tokens = 0
        self.left = replies
        self.done = asyncio.Event()

    def send(self, message: AnyMessage) -> bool:
        if not isinstance(message, Token):
            raise RuntimeError(f"a reply failed: {message}")
        self.first.setdefault(message.request, time.monotonic())
        self.tokens += 1
        self.left -= message.last
        if not self.left:
            self.done.set()
        return True


async def measure(replies: int, url: str) -> tuple[float, float]:
    """(seconds of processor per token, seconds that the last first token came late)."""
    engine = OpenAiLlm(OpenAiLlmOptions(base_url=url, model="sim", first_token_s=60, stall_s=60))
    await engine.load()
    worker = Worker("llm-0", engine, AudioRings.create(1), run_timeout_s=60.0)
    client = _Client(replies)
    before, began_at = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    for number in range(replies):
        worker.handle(client, Generate(number + 1, PROMPT, math.inf))
    await client.done.wait()
    after = resource.getrusage(resource.RUSAGE_SELF)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    await worker.close()
    return used_s / client.tokens, max(client.first.values()) - began_at - FIRST_TOKEN_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, nargs="+", default=[1, 20, 100, 300])
    args = parser.parse_args()
    with subprocess.Popen([sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            for replies in args.replies:
                cost_s, late_s = uvloop.run(measure(replies, url))
                cores = replies * 50 * cost_s
                print(
                    f"{replies:4d} replies at once: {cost_s * 1e6:4.0f} us a token, {cores:.2f} core at 50 tokens a "
                    f"second each; the last first token {late_s * 1e3:.0f} ms late"
                )
        finally:
            server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
