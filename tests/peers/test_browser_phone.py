"""The browser phone as an operator has it: the shipped box, a real browser, and a voice in its microphone."""

from __future__ import annotations

import asyncio
import contextlib
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import soxr

from appliance.cli.box import Box
from appliance.cli.say import speak
from tests.bench import records
from tests.peers.chromium import NAME, PROGRAM, Page, chromium

pytestmark = [pytest.mark.peer, pytest.mark.skipif(not PROGRAM, reason="chromium is not installed (make peers)")]

RATE = 48_000
LOOPBACK = ["127.0.0.0/8"]
TRUNKS = {
    "phone": {"kind": "browser", "allow": LOOPBACK, "hosts": [NAME], "max_calls": 1},
    "lost": {"kind": "browser", "allow": ["127.0.0.1/32"], "media_url": "ws://127.0.0.1:49150"},
    "closed": {"kind": "browser", "allow": ["192.0.2.0/24"]},
}


async def microphone(folder: Path, *spoken: tuple[float, str]) -> Path:
    """A WAV of what is said at which second, with silence behind it."""
    voices = await speak([text for _, text in spoken])
    sound = np.zeros(int(RATE * (spoken[-1][0] + 60)), np.float32)
    for (at, _), voice in zip(spoken, voices, strict=True):
        louder = soxr.resample(voice.astype(np.float32), 8_000, RATE)
        sound[int(at * RATE) : int(at * RATE) + len(louder)] = louder
    path = folder / "microphone.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.clip(sound, -32_000, 32_000).astype("<i2").tobytes())
    return path


@contextlib.asynccontextmanager
async def page_of(box: Box, folder: Path, query: str = "", host: str = "127.0.0.1", **how: Any) -> AsyncIterator[Page]:
    async with chromium(folder, **how) as page:
        await page.open(f"http://{host}:{box.http_port}/phone{query}")
        await page.until("document.querySelector('#lines input') || !document.getElementById('notice').hidden")
        yield page


async def shown(page: Page, selector: str) -> list[str]:
    found: list[str] = await page.js(f"[...document.querySelectorAll({selector!r})].map((one) => one.textContent)")
    return found


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The box as it comes, for all tests that need no other."""
    with Box(tmp_path_factory.mktemp("shipped") / "box") as box:
        yield box
    assert box.stop() == 0, box.log_tail()


@pytest.fixture
def before(shipped: Box) -> int:
    """How many calls are on record."""
    return len(records.calls(shipped.database))


async def settled(box: Box, before: int, calls: int = 1) -> list[dict[str, Any]]:
    """The calls since then."""
    return (await asyncio.to_thread(records.wait_settled, box.database, before + calls))[before:]


async def test_a_conversation(shipped: Box, before: int, tmp_path: Path) -> None:
    """The question is interrupted, a key is pressed, the rest is said; the agent books and hangs up."""
    said = ((6.2, "I'd like to book a table"), (15.5, "half past seven"), (24.0, "yes please"))
    sound = await microphone(tmp_path, *said)
    async with page_of(shipped, tmp_path, microphone=sound) as page:
        assert await shown(page, ".line .number") == ["100"]
        await page.js("document.getElementById('call').click()")
        await page.until("document.body.dataset.state === 'call'")
        await page.until("document.querySelector('.bubble.agent.speaking')")
        assert "automated assistant" in (await shown(page, ".bubble.agent"))[0], "shown while it is being said"
        await page.until("document.getElementById('doing').dataset.doing === 'caller_speaks'", 30)
        await page.until(
            "[...document.querySelectorAll('.bubble.agent')].some((b) => b.textContent.includes('people'))"
        )
        await page.until("document.querySelector(\".turn[data-turn='1'] .badge\")")
        await page.key("2")
        await page.until("document.querySelector('.pressed kbd')?.textContent === '2'")
        await page.until("document.body.dataset.state === 'after'", 60)
        assert await page.js("document.getElementById('after-title').textContent") == "The agent hung up"
        callers = " | ".join(await shown(page, ".bubble.caller p:not(.note)")).lower()
        assert callers == "i'd like to book a table | 2 | half past seven | yes please"
        agents = " ".join(await shown(page, ".bubble.agent"))
        assert "Wonderful, your table is booked." in agents
        (greeting,) = await shown(page, ".turn[data-turn='0'] .bubble.agent p:not(.note)")
        (unheard,) = await shown(page, ".turn[data-turn='0'] s.unheard")
        badges = await shown(page, ".badge")
        assert len(badges) == 4 and all(badge.endswith(" ms") for badge in badges)
        assert {"recognition", "end of turn", "voice"} <= set(await shown(page, ".stages tbody th"))
        slots = dict(zip(await shown(page, "#slots dt"), await shown(page, "#slots dd"), strict=True))
        assert slots == {"request": "booking", "people": "two", "time": "half past seven", "ending": "booked"}
        assert page.said == []
    (record,) = await settled(shipped, before)
    assert (record["protocol"], record["trunk"], record["line"]) == ("browser", "phone", "reception")
    assert (record["called"], record["calling"]) == ("100", "browser")
    assert (record["disposition"], record["hangup_by"]) == ("completed", "agent")
    assert [turn["by"] for turn in record["turns"]] == ["none", "voice", "key", "voice", "voice"]
    assert record["turns"][0]["interrupted"]
    assert greeting == f"{record['turns'][0]['heard_text']} {unheard}", "what was not heard is struck out"
    latencies = [turn["latency_ms"] for turn in record["turns"][1:]]
    assert [int(badge.split()[0]) for badge in badges] == pytest.approx(latencies, abs=1.0)
    assert records.recording_seconds(record["recording_path"], shipped.recordings) > 15.0


async def test_the_caller_hangs_up_and_calls_again(shipped: Box, before: int, tmp_path: Path) -> None:
    async with page_of(shipped, tmp_path) as page:
        for _ in range(2):
            await page.js("document.getElementById(document.body.dataset.state === 'after' ? 'again' : 'call').click()")
            await page.until("document.querySelector('.bubble.agent.speaking')")
            await page.key("m")
            assert await page.js("document.getElementById('mute').getAttribute('aria-pressed')") == "true"
            await page.until("Number(document.getElementById('meter-agent').getAttribute('aria-valuenow')) > 20")
            await page.until("Number(document.getElementById('meter-you').getAttribute('aria-valuenow')) === 0")
            await page.js("document.getElementById('hangup').click()")
            await page.until("document.body.dataset.state === 'after'")
            assert await page.js("document.getElementById('after-title').textContent") == "You hung up"
        assert page.said == []
    for record in await settled(shipped, before, 2):
        assert (record["disposition"], record["hangup_by"]) == ("completed", "caller")


async def test_a_page_that_is_closed_ends_its_call(shipped: Box, before: int, tmp_path: Path) -> None:
    async with page_of(shipped, tmp_path) as page:
        await page.js("document.getElementById('call').click()")
        await page.until("document.querySelector('.bubble.agent.speaking')")
        await page.go("about:blank")
        (record,) = await settled(shipped, before)
        assert (record["disposition"], record["hangup_by"]) == ("completed", "caller")


async def test_a_stream_that_breaks_is_opened_again(shipped: Box, before: int, tmp_path: Path) -> None:
    async with page_of(shipped, tmp_path) as page:
        await page.js(
            "(() => { const Before = WebSocket; window.made = [];"
            " window.WebSocket = class extends Before { constructor(url) { super(url); made.push(this); } } })()"
        )
        await page.js("document.getElementById('call').click()")
        await page.until("document.querySelector('.bubble.agent.speaking')")
        await page.js("made[0].close(4000, 'the network changed')")
        await page.until("made.length === 2 && made[1].readyState === WebSocket.OPEN")
        await page.until("document.getElementById('doing').dataset.doing === 'listening'", 40)
        await page.key("2")
        await page.until("document.getElementById('turns').textContent.includes('noon until eleven')")
        await page.js("document.getElementById('hangup').click()")
        await page.until("document.body.dataset.state === 'after'")
    (record,) = await settled(shipped, before)
    assert (record["disposition"], record["hangup_by"]) == ("completed", "caller")


async def notice(page: Page) -> str:
    await page.until("!document.getElementById('notice').hidden")
    text: str = await page.js("document.getElementById('notice').innerText")
    return text


async def test_what_goes_wrong_is_said_in_words(start_box: Callable[..., Box], tmp_path: Path) -> None:
    box = await asyncio.to_thread(start_box, {"trunks": TRUNKS})
    url = f"http://127.0.0.1:{box.http_port}"
    async with page_of(box, tmp_path) as page:
        await page.js("document.getElementById('called').value = 'x!'; document.getElementById('call').click()")
        assert "A number is of digits" in await notice(page)
        async with aiohttp.ClientSession(headers={"Origin": url}) as session:
            async with session.post(f"{url}/browser/calls", json={"called": "100"}) as got:
                assert got.status == 200
                call = (await got.json())["call"]
            await page.js("document.getElementById('called').value = '100'; document.getElementById('call').click()")
            await page.until("document.getElementById('notice').innerText.includes('full')")
            assert "no room for another call" in await notice(page)
            async with session.delete(f"{url}/browser/calls/{call}") as got:
                assert got.status == 204
        await page.go(f"{url}/phone?trunk=lost")
        await page.until("document.getElementById('trunk').textContent === 'trunk lost'")
        await page.js("document.getElementById('call').click()")
        text = await notice(page)
        assert "ws://127.0.0.1:49150/browser/media" in text and "media_url of trunk lost" in text
        await page.go(f"{url}/phone?trunk=closed")
        assert "add that address to trunks.closed.allow" in await notice(page)
    async with page_of(box, tmp_path, host=NAME) as page:
        assert "This page is not secure" in await notice(page)
        assert await page.js("document.getElementById('call').disabled")
    async with page_of(box, tmp_path, allowed=False) as page:
        await page.js("document.getElementById('call').click()")
        assert "The microphone is blocked" in await notice(page)


WORKLET = """(async () => {
  const context = new OfflineAudioContext(1, 48000, 48000);
  await context.audioWorklet.addModule('phone/worklet.js');
  const node = new AudioWorkletNode(context, 'playback', {numberOfInputs: 0, outputChannelCount: [1]});
  node.connect(context.destination);
  const marks = [];
  node.port.onmessage = ({data}) => { if (data.mark) marks.push([data.mark, context.currentTime]); };
  const piece = (length, value) => node.port.postMessage({samples: new Int16Array(length).fill(value).buffer});
  const pause = () => new Promise((resolve) => setTimeout(resolve, 200));
  context.suspend(0).then(async () => {
    piece(9600, 8192); node.port.postMessage({mark: 'a'}); await pause(); context.resume();
  });
  context.suspend(0.5).then(async () => {
    await pause(); piece(24000, -8192); node.port.postMessage({mark: 'b'}); await pause(); context.resume();
  });
  context.suspend(0.64).then(async () => {
    await pause(); node.port.postMessage({mark: 'c'}); node.port.postMessage({clear: true}); await pause();
    context.resume();
  });
  const sound = (await context.startRendering()).getChannelData(0);
  await pause();
  const at = (from, to) => [...sound.slice(from * 48000, to * 48000)];
  return {
    marks,
    first: Math.min(...at(0.001, 0.199)),
    dies: Math.max(...at(0.21, 0.5)),
    second: Math.max(...at(0.51, 0.639)),
    cleared: Math.max(...at(0.65, 1).map(Math.abs)),
    step: Math.max(...at(0.6, 0.7).map((value, index, all) => index ? Math.abs(value - all[index - 1]) : 0)),
  };
})()"""


async def test_marks_come_back_when_the_sound_has_been_played(shipped: Box, tmp_path: Path) -> None:
    async with page_of(shipped, tmp_path) as page:
        heard = await page.js(WORKLET)
    (first, played_at), (second, _), (third, _) = heard["marks"]
    assert (first, second, third) == ("a", "b", "c"), "a clear gives back the marks of what it threw away"
    assert played_at >= 0.2
    assert heard["first"] == pytest.approx(0.25)
    assert heard["dies"] < 0.01
    assert heard["second"] == pytest.approx(-0.25)
    assert heard["cleared"] < 0.001, "silence within 10 ms"
    assert heard["step"] < 0.01, "without a click"
