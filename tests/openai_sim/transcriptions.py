"""A server of transcriptions that keeps time, checks what it is sent, and fails in the ways such servers do.

It speaks OpenAI's ``POST /v1/audio/transcriptions`` (multipart, a WAV file) over real sockets. What it "hears" is the
text of its answer, three words a second, as far as the audio goes.
"""

from __future__ import annotations

import asyncio
import io
import re
import wave
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web

from tests.openai_sim.server import SimServer, close, port_of, refused, wrong_key

WORDS_PER_S = 3.0
_FIELDS = frozenset(
    {"file", "model", "language", "prompt", "response_format", "temperature", "timestamp_granularities[]", "stream"}
    | {"chunking_strategy", "include[]"}
)
_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")


@dataclass(frozen=True)
class Answer:
    """How a request is answered; ``status`` other than 200 is an error with ``headers``.

    ``body`` replaces the answer. ``words``: tell when each was said; ``bare``: without its punctuation. ``die``:
    close the connection instead of answering. ``stall``: never answer.
    """

    text: str = "I would like to book a table for four."
    delay_s: float = 0.0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    words: bool = True
    bare: bool = False
    avg_logprob: float = -0.1
    no_speech_prob: float = 0.01
    die: bool = False
    stall: bool = False


@dataclass
class Asked:
    """One request: its fields (of several values the last), and the audio."""

    fields: dict[str, str]
    granularities: list[str]
    seconds: float
    samples: bytes
    headers: dict[str, str]
    connection: int
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class TranscriptionSim(SimServer):
    """``async with TranscriptionSim() as server``; ``answer`` is how it answers, after what ``script`` holds.

    ``key``: it wants this API key. ``formats``: what it knows of response formats.
    """

    def __init__(self, answer: Answer = Answer(), *, key: str = "", formats: tuple[str, ...] = _FORMATS) -> None:
        super().__init__(key, largest=1 << 25)
        self.answer = answer
        self.script: deque[Answer] = deque()
        self.formats = formats

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/v1/audio/transcriptions", self._transcribe)]

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request)
        self.came(request, asked)
        if not self.knows(request):
            return wrong_key(request)
        wanted = asked.fields.get("response_format", "json")
        if wanted not in self.formats:
            return refused(400, f"response_format '{wanted}' is not compatible with model 'sim'")
        answer = self.script.popleft() if self.script else self.answer
        try:
            await asyncio.sleep(answer.delay_s)
            if answer.stall:
                await self.stopping.wait()
        except asyncio.CancelledError:
            asked.gone.set()
            raise
        if answer.die:
            close(request)
        if answer.status != 200:
            return refused(answer.status, f"said {answer.status}", answer.headers)
        if answer.body is not None:
            return web.Response(text=answer.body, content_type="application/json")
        return web.json_response(self._answer(answer, asked, wanted))

    def _answer(self, answer: Answer, asked: Asked, wanted: str) -> dict[str, Any]:
        words = answer.text.split()[: int(asked.seconds * WORDS_PER_S + 0.01)]
        text = " ".join(words)
        if wanted == "json":
            return {"text": text, "usage": {"type": "duration", "seconds": round(asked.seconds)}}
        full: dict[str, Any] = {
            "task": "transcribe",
            "language": "english",
            "duration": asked.seconds,
            "text": text,
            "usage": {"type": "duration", "seconds": round(asked.seconds)},
        }
        if "segment" in asked.granularities or not asked.granularities:
            full["segments"] = [
                {
                    "id": 0,
                    "seek": 0,
                    "start": 0.0,
                    "end": asked.seconds,
                    "text": f" {text}",
                    "tokens": [],
                    "temperature": 0.0,
                    "avg_logprob": answer.avg_logprob,
                    "compression_ratio": 1.0,
                    "no_speech_prob": answer.no_speech_prob,
                }
            ]
        if answer.words and "word" in asked.granularities:
            full["words"] = [
                {
                    "word": re.sub(r"[^\w']", "", word) if answer.bare else word,
                    "start": round(at / WORDS_PER_S, 2),
                    "end": round((at + 1) / WORDS_PER_S, 2),
                }
                for at, word in enumerate(words)
            ]
        return full

    async def _read(self, request: web.Request) -> Asked:
        """The request; what is against the published schema goes to ``problems``."""
        fields: dict[str, str] = {}
        granularities: list[str] = []
        seconds, samples = 0.0, b""
        problems = self.problems
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            name = part.name or ""
            if name not in _FIELDS:
                problems.append(f"unknown field {name!r}")
            if name != "file":
                value = await part.text()
                fields[name] = value
                if name == "timestamp_granularities[]":
                    granularities.append(value)
                continue
            if not (part.filename or "").endswith(".wav"):
                problems.append(f"the file is called {part.filename!r}")
            with wave.open(io.BytesIO(await part.read())) as audio:
                if (audio.getnchannels(), audio.getsampwidth()) != (1, 2):
                    problems.append("not mono of 16 bits")
                samples = audio.readframes(audio.getnframes())
                seconds = audio.getnframes() / audio.getframerate()
        problems += [f"{name} is missing" for name in ("model",) if not fields.get(name)]
        if not samples:
            problems.append("no audio")
        if fields.get("response_format", "json") not in _FORMATS:
            problems.append(f"response_format {fields['response_format']!r}")
        if not re.fullmatch(r"[a-z]{2,3}", fields.get("language", "en")):
            problems.append(f"language {fields['language']!r} is not ISO 639-1")
        if granularities and fields.get("response_format") != "verbose_json":
            problems.append("timestamp_granularities need verbose_json")
        if not set(granularities) <= {"word", "segment"}:
            problems.append(f"timestamp_granularities {granularities}")
        return Asked(fields, granularities, seconds, samples, dict(request.headers), port_of(request))
