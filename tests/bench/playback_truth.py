"""What the record says a caller heard, against what the carrier's buffer really played, word for word.

Callers at Twilio, behind a network of 40 ms each way with 30 ms of jitter, interrupt replies at random times. The
synthetic voice takes 60 ms for each character, so that the samples that were played say which words they were.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

import numpy as np

from appliance.cli.box import Box
from appliance.cli.playout import Piece
from appliance.cli.softphone import read_wav
from tests.bench import lines, records
from tests.bench.report import Bar
from tests.carriers.at_twilio import reach, trunk, twilio_account
from tests.carriers.tcp_relay import Fault, TcpRelay
from tests.carriers.twilio_sim import TwilioSim

SAMPLES_PER_CHARACTER = 480
REPLIES_A_CALL = 10


def words_played(text: str, samples: int) -> list[str]:
    """The words of ``text`` that ``samples`` of its synthetic voice hold: those of which at least half was played."""
    played: list[str] = []
    at = 0
    for word in text.split():
        if at + len(word) / 2 > samples / SAMPLES_PER_CHARACTER:
            break
        played.append(word)
        at += len(word) + 1
    return played


async def one_call(sim: TwilioSim, speech: np.ndarray, chance: random.Random, replies: int) -> list[int]:
    """Interrupt ``replies`` replies; how many samples of each had been played when it stopped."""
    call = await sim.call(lines.TALKER, "+491701234567")
    stream = await call.streaming()
    await stream.wait_heard()
    await stream.wait_quiet(1.5)
    played = []
    stream.say(speech)
    for _ in range(replies):
        began = await stream.wait_heard(timeout_s=20.0)
        await asyncio.sleep(chance.uniform(0.2, 4.0))
        clears = len(stream.playout.clears)
        stream.say(speech)
        while len(stream.playout.clears) == clears:
            await asyncio.sleep(0.02)
        stopped = stream.playout.clears[-1][0]
        pieces: list[Piece] = [one for one in stream.playout.pieces if began - 0.001 <= one.start <= stopped]
        played.append(sum(len(one.payload) for one in pieces if one.loud))
    await call.hang_up()
    return played


async def measure(bar: Bar, box: Box, sim: TwilioSim, replies: int, seed: int) -> None:
    chance = random.Random(seed)
    speech = read_wav(lines.question(box.directory))
    calls = -(-replies // REPLIES_A_CALL)
    truth = [
        await one_call(sim, speech, chance, min(REPLIES_A_CALL, replies - n * REPLIES_A_CALL)) for n in range(calls)
    ]
    found = await asyncio.to_thread(records.wait_settled, box.database, calls)
    differences, compared, milliseconds = [], 0, []
    for call, played in zip(found, truth, strict=True):
        interrupted = [turn for turn in call["turns"] if turn["interrupted"]]
        bar.require(len(interrupted) >= len(played), f"{len(interrupted)} of {len(played)} interruptions on record")
        for turn, samples in zip(interrupted, played, strict=False):
            heard = turn["heard_text"].split()
            really = words_played(turn["agent_text"], samples)
            differences.append(abs(len(heard) - len(really)))
            bar.require(turn["agent_text"].split()[: len(heard)] == heard, "the words heard are those of the reply")
            compared += 1
            milliseconds.append(samples / 8)
    bar.figure(f"{compared} replies interrupted after {min(milliseconds):.0f} to {max(milliseconds):.0f} ms of sound")
    bar.figure(
        f"words on record against words played: {differences.count(0)} the same, {differences.count(1)} off by one"
    )
    bar.require(max(differences, default=0) <= 1, f"off by {max(differences, default=0)} words at worst")
    bar.require(compared >= replies, f"{replies} compared")
    sim.check()


async def run(bar: Bar, replies: int, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="truth-") as folder:
        async with twilio_account() as sim:
            settings = {**lines.settings(Path(folder)), "trunks": {"twilio": trunk(sim.api_url)}}
            box = Box(Path(folder) / "box", settings)
            await asyncio.to_thread(box.start)
            try:
                port = int(str(box.settings["listen.media.port"]))
                async with TcpRelay(port, lambda number: Fault(0.04, 0.03), seed=seed) as relay:
                    reach(sim, box, relay.port)
                    await measure(bar, box, sim, replies, seed)
            finally:
                await asyncio.to_thread(box.stop)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    bar = Bar("carriers 4", "what is on record as heard is what was played")
    asyncio.run(run(bar, arguments.replies, arguments.seed))
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
