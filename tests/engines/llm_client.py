"""A worker with the engine of language models in it, and what it has said."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from appliance.engines.openai_llm import OpenAiLlm
from appliance.engines.openai_llm_options import OpenAiLlmOptions
from appliance.engines.worker import Worker
from appliance.ipc.messages import AnyMessage, ChatMessage, Failed, Generate, Token
from appliance.ipc.rings import AudioRings
from tests.openai_sim.chat import Answer, ChatSim


def what_is_special(value: object) -> str:
    """The name of a case: what of an answer differs from the plain one."""
    if not isinstance(value, Answer):
        return str(value)
    special = {key: item for key, item in vars(value).items() if item != getattr(Answer(), key)}
    return ", ".join(f"{key} {item}" for key, item in special.items())


QUESTION = (ChatMessage("system", "You take bookings."), ChatMessage("user", "A table for four at eight, please."))


class Client:
    """A worker with the engine in it, and what it has said."""

    def __init__(self, engine: OpenAiLlm) -> None:
        self.engine = engine
        rings = AudioRings.create(1)
        self.worker = Worker("llm-0", engine, rings, run_timeout_s=60.0)
        self.said: list[AnyMessage] = []
        self._news = asyncio.Event()

    def send(self, message: AnyMessage) -> bool:
        self.said.append(message)
        self._news.set()
        return True

    def of(self, request: int) -> list[AnyMessage]:
        return [message for message in self.said if getattr(message, "request", None) == request]

    def text(self, request: int = 1) -> str:
        return "".join(message.text for message in self.of(request) if isinstance(message, Token))

    def ask(self, request: int = 1, **more: Any) -> None:
        self.worker.handle(
            self, Generate(request, more.pop("messages", QUESTION), more.pop("deadline", math.inf), **more)
        )

    async def end(self, request: int = 1) -> Token | Failed:
        """The final answer to a request."""

        def over() -> bool:
            said = self.of(request)
            return bool(said) and (isinstance(said[-1], Failed) or said[-1].last)  # type: ignore[union-attr]

        async with asyncio.timeout(30):
            while not over():
                self._news.clear()
                await self._news.wait()
        return self.of(request)[-1]  # type: ignore[return-value]

    async def failure(self, request: int = 1) -> str:
        end = await self.end(request)
        assert isinstance(end, Failed), end
        return end.reason


@asynccontextmanager
async def client_of(*servers: ChatSim | str | dict[str, Any], **options: Any) -> AsyncIterator[Client]:
    """A loaded engine that asks these servers."""
    listed = [
        one if isinstance(one, dict) else {"base_url": one if isinstance(one, str) else one.url, "model": "sim"}
        for one in servers
    ]
    own = listed[0] if len(listed) == 1 else {"servers": listed}
    engine = OpenAiLlm(OpenAiLlmOptions.model_validate({**own, **options}), jitter=lambda: 0.0)
    await engine.load()
    client = Client(engine)
    try:
        yield client
    finally:
        await client.worker.close()
