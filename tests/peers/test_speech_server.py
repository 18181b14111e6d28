"""A box that speaks through a server: callers are greeted when that server is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.cli.box import Box
from tests.bench.lines import dialplan
from tests.bench.setup_latency import measure
from tests.openai_sim.speech import SpeechSim
from tests.waiting import eventually

pytestmark = pytest.mark.peer

LINE = {
    "name": "desk",
    "greeting": "Hello, you have reached the front desk.",
    "flow": {"bye": {"hang_up": "Nobody is here today. Goodbye."}},
}


async def test_what_lines_say_in_fixed_words_is_spoken_without_the_server(tmp_path: Path) -> None:
    async with SpeechSim() as server:
        tts = {"provider": "openai_compatible", "base_url": server.url, "model": "sim", "fallback": "none"}
        box = Box(tmp_path / "box", {"engines.tts": tts, **dialplan(tmp_path, [LINE])})
        await asyncio.to_thread(box.start)
        inputs: set[str] = set()
        while not {"Hello, you have reached the front desk.", "Nobody is here today. Goodbye."} <= inputs:
            asked = await server.wait_asked(len(inputs) + 1)
            inputs.add(asked.body["input"])
        await eventually(lambda: all(asked.done for asked in server.asked))
    try:
        found, wrong = await measure(box.sip_port, 1, 1.0, 3.0)
    finally:
        await asyncio.to_thread(box.stop)
    assert wrong == []
    assert len(found) == 1, "nothing was heard"
    assert "I am sorry, something went wrong on my side. Please try again." in inputs
