"""Headless Chromium, driven by its DevTools protocol, with a WAV file as its microphone."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.waiting import LIMIT_S

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
NAME = "box.test"
"""A name of this machine that a browser does not take for local."""
_START_S = 30.0
_COMMAND_S = 20.0


class Page:
    """One tab. What a page's console and its exceptions say is in ``said``."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.said: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def command(self, method: str, **params: Any) -> Any:
        """Ask the browser for something; its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(_COMMAND_S):
            return await answer

    async def open(self, url: str, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        for domain in ("Page", "Runtime", "Log"):
            await self.command(f"{domain}.enable")
        await self.resize(width, height)
        await self.scheme(dark)
        await self.go(url)

    async def go(self, url: str) -> None:
        """Open another page in the same tab."""
        await self.command("Page.navigate", url=url)
        await self.until(f"location.href === {url!r} && document.readyState === 'complete'")

    async def resize(self, width: int, height: int) -> None:
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def scheme(self, dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[feature])

    async def js(self, expression: str) -> Any:
        """The value of an expression, awaited where it is a promise."""
        result = await self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {json.dumps(result['exceptionDetails'])[:500]}")
        return result["result"].get("value")

    async def until(self, expression: str, within_s: float = 20.0) -> None:
        """Wait until an expression is true."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            if await self.js(f"Boolean({expression})"):
                return
            if asyncio.get_running_loop().time() > deadline:
                shown = await self.js("document.body.innerText")
                raise AssertionError(f"not within {within_s:.0f} s: {expression}\npage: {shown}\nconsole: {self.said}")
            await asyncio.sleep(0.05)

    async def key(self, key: str) -> None:
        """Press a key on the keyboard."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            await self.command("Input.dispatchKeyEvent", type=kind, key=key, **text)

    async def picture(self, path: Path) -> None:
        shot = await self.command("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                answer = self._answers.pop(told["id"])
                if not answer.done():
                    answer.set_result(told.get("result", {}) if "error" not in told else told)
            elif told["method"] == "Runtime.exceptionThrown":
                self.said.append(json.dumps(told["params"]["exceptionDetails"])[:600])
            elif told["method"] == "Log.entryAdded":
                entry = told["params"]["entry"]
                self.said.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
            elif told["method"] == "Runtime.consoleAPICalled":
                self.said.append(" ".join(str(one.get("value", one)) for one in told["params"]["args"]))


@asynccontextmanager
async def chromium(folder: Path, microphone: Path | None = None, *, allowed: bool = True) -> AsyncIterator[Page]:
    """A browser with one empty tab; ``microphone`` is played once from the moment that the page asks for it.

    Not ``allowed``: the page is refused the microphone.
    """
    flags = [
        "--use-fake-device-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
    ]
    if allowed:
        flags.append("--use-fake-ui-for-media-stream")
    else:
        flags.append("--deny-permission-prompts")
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    profile = folder / "chromium"
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
        "--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={profile}", *flags, "about:blank",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = await _port(profile / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as listed:
                tab = next(one for one in await listed.json() if one["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                try:
                    yield page
                finally:
                    await page.close()
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(LIMIT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        shutil.rmtree(profile, ignore_errors=True)


async def _port(path: Path, process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(_START_S):
        while True:
            if process.returncode is not None:
                raise AssertionError(f"chromium left with {process.returncode}")
            with suppress(OSError, ValueError, IndexError):
                return int(path.read_text().splitlines()[0])
            await asyncio.sleep(0.05)
