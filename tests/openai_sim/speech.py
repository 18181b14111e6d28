"""A server of streamed speech that keeps time, checks what it is asked, and fails in every way there is.

It speaks OpenAI's ``POST /v1/audio/speech`` over real sockets, and notes when a client goes away.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from tests.openai_sim.server import SimServer, close, port_of, refused, reset, wrong_key

RATE_HZ = 24_000
S_PER_CHARACTER = 0.06
_KNOWN = frozenset({"model", "input", "voice", "response_format", "speed", "instructions", "stream_format"})
_FORMATS = frozenset({"mp3", "opus", "aac", "flac", "wav", "pcm"})


@dataclass(frozen=True)
class Speech:
    """How a request is answered.

    The first bytes come after ``first_audio_s``, the rest at ``speed`` times real time (0: all at once), in writes of
    ``chunk_bytes``. After so many writes the server does what ``stall_after``, ``die_after`` or ``close_after`` says.
    ``content_type`` "" is that of the format asked for. ``body``: this in place of audio.
    """

    first_audio_s: float = 0.0
    speed: float = 0.0
    chunk_bytes: int = 4801
    level: float = 0.2
    offset: float = 0.0
    status: int = 200
    body: bytes | None = None
    content_type: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    stall_after: int | None = None
    die_after: int | None = None
    close_after: int | None = None


@dataclass
class Asked:
    """One request: ``gone`` is set when its client went away before the answer was complete."""

    body: dict[str, Any]
    headers: dict[str, str]
    connection: int
    came_at: float
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    gone_at: float = 0.0
    done: bool = False


class SpeechSim(SimServer):
    """``async with SpeechSim() as server``; ``answer`` is how it answers, after what ``script`` holds."""

    def __init__(self, answer: Speech = Speech(), *, key: str = "") -> None:
        super().__init__(key)
        self.answer = answer
        self.script: deque[Speech] = deque()

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/v1/audio/speech", self._speak)]

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked = Asked(body, dict(request.headers), port_of(request), time.monotonic())
        self.came(request, asked)
        problems = problems_of(body)
        if problems:
            return refused(400, "; ".join(problems))
        if not self.knows(request):
            return wrong_key(request)
        answer = self.script.popleft() if self.script else self.answer
        if answer.status != 200:
            return refused(answer.status, f"said {answer.status}", answer.headers)
        try:
            response = await self._stream(request, answer, body)
        except (asyncio.CancelledError, ConnectionError):
            asked.gone_at = time.monotonic()
            asked.gone.set()
            raise
        asked.done = True
        return response

    async def _stream(self, request: web.Request, answer: Speech, body: dict[str, Any]) -> web.StreamResponse:
        wanted = body["response_format"]
        data = answer.body if answer.body is not None else said(body, answer, wav=wanted == "wav")
        kind = answer.content_type or ("audio/wav" if wanted == "wav" else "audio/pcm")
        await asyncio.sleep(answer.first_audio_s)
        response = web.StreamResponse(headers={"Content-Type": kind, **answer.headers})
        await response.prepare(request)
        start = asyncio.get_running_loop().time()
        for index, at in enumerate(range(0, len(data), answer.chunk_bytes)):
            if index == answer.stall_after:
                await self.stopping.wait()
                raise ConnectionError
            if index == answer.die_after:
                reset(request)
                raise ConnectionError
            if index == answer.close_after:
                close(request)
                return response
            if answer.speed:
                due = start + at / (2 * RATE_HZ) / answer.speed
                await asyncio.sleep(max(due - asyncio.get_running_loop().time(), 0.0))
            await response.write(data[at : at + answer.chunk_bytes])
        await response.write_eof()
        return response


def said(body: dict[str, Any], answer: Speech, *, wav: bool) -> bytes:
    """A 220 Hz tone of 60 ms a character, with a third of a second of silence around it."""
    seconds = len(body["input"]) * S_PER_CHARACTER / body.get("speed", 1.0)
    tone = answer.level * np.sin(2 * np.pi * 220 / RATE_HZ * np.arange(int(seconds * RATE_HZ)))
    quiet = np.zeros(RATE_HZ // 3)
    pcm: NDArray[np.int16] = (np.concatenate([quiet, tone, quiet]) * 32767 + answer.offset * 32767).astype("<i2")
    data = pcm.tobytes()
    return wav_header(RATE_HZ) + data if wav else data


def wav_header(rate_hz: int, *, bits: int = 16, channels: int = 1, code: int = 1, size: int = 0xFFFFFFFF) -> bytes:
    """As servers write it that do not know the length yet."""
    frame = bits // 8 * channels
    format_ = struct.pack("<HHIIHH", code, channels, rate_hz, rate_hz * frame, frame, bits)
    listed = b"LIST" + struct.pack("<I", 5) + b"INFO\0\0"
    return (
        b"RIFF"
        + struct.pack("<I", 0xFFFFFFFF)
        + b"WAVE"
        + b"fmt "
        + struct.pack("<I", 16)
        + format_
        + listed
        + (b"data" + struct.pack("<I", size))
    )


def problems_of(body: Any) -> list[str]:
    """What OpenAI's published schema (CreateSpeechRequest) has against a request."""
    if not isinstance(body, dict):
        return ["the body is no object"]
    found = [f"unknown key {key!r}" for key in body if key not in _KNOWN]
    found += [f"{key} is missing" for key in ("model", "input", "voice") if not isinstance(body.get(key), str)]
    if len(body.get("input") or "") > 4096:
        found.append("input is too long")
    if body.get("response_format", "mp3") not in _FORMATS:
        found.append("response_format is none")
    if not 0.25 <= body.get("speed", 1.0) <= 4.0:
        found.append("speed is out of range")
    return found
