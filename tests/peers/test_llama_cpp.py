"""The language model's engine against llama.cpp's own server: what the simulator claims, a real one does."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.box import Box
from appliance.ipc.messages import Cancel, ChatMessage, Failed, Generate, Token, ToolSpec
from tests.bench import lines, records
from tests.bench.llm_failures import ask
from tests.engines.llm_client import Client, client_of
from tests.peers.llama_cpp import MODEL, LlamaServer, missing
from tests.waiting import eventually

pytestmark = [pytest.mark.peer, pytest.mark.skipif(bool(missing()), reason=missing() or "it is there")]

QUESTION = (ChatMessage("system", "You take bookings for a restaurant."), ChatMessage("user", "A table for four."))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    with LlamaServer(tmp_path_factory.mktemp("llama")) as server:
        yield server


def options(server: LlamaServer, **more: Any) -> dict[str, Any]:
    return {"base_url": server.url, "model": MODEL, "temperature": 0, "max_tokens": 12, **more}


async def reply(client: Client, request: int, messages: tuple[ChatMessage, ...] = QUESTION, **more: Any) -> str:
    client.worker.handle(client, Generate(request, messages, math.inf, **more))
    end = await client.end(request)
    assert isinstance(end, Token), end
    return client.text(request)


async def test_words_stream(server: LlamaServer) -> None:
    async with client_of(options(server)) as client:
        words = await reply(client, 1)
        assert len(words.split()) >= 6
        assert len(client.of(1)) > 6
        assert await reply(client, 2) == words


async def test_a_conversation_that_goes_on_is_read_from_the_cache(
    server: LlamaServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "appliance.engines.openai_llm")
    async with client_of(options(server, extra_body={"cache_prompt": True})) as client:
        first = await reply(client, 1, session="call-7")
        history = (*QUESTION, ChatMessage("assistant", first), ChatMessage("user", "And at eight?"))
        await reply(client, 2, history, session="call-7")
        await eventually(lambda: len([r for r in caplog.records if "counted" in r.message]) == 2)
    counted = [record.args[2] for record in caplog.records if "counted" in record.message]  # type: ignore[index]
    assert counted[1].cached > counted[0].prompt / 2
    assert counted[1].prompt > counted[1].cached


async def test_a_cancelled_reply_frees_the_server(server: LlamaServer) -> None:
    async with client_of(options(server, max_tokens=900, extra_body={"ignore_eos": True})) as client:
        client.worker.handle(client, Generate(1, QUESTION, math.inf))
        await eventually(lambda: client.said)
        client.worker.handle(client, Cancel(1))
        await eventually(lambda: not server.busy_slots())


async def test_more_replies_than_slots_are_given_one_after_the_other(server: LlamaServer) -> None:
    async with client_of(options(server, first_token_s=30.0)) as client:
        said = await asyncio.gather(*(reply(client, number) for number in range(1, 9)))
    assert all(said)


async def test_tools_are_understood(server: LlamaServer) -> None:
    tool = ToolSpec("book", "Books a table.", '{"type":"object","properties":{"people":{"type":"integer"}}}')
    async with client_of(options(server, first_token_s=30.0)) as client:
        client.worker.handle(client, Generate(1, QUESTION, math.inf, (tool,)))
        assert isinstance(await client.end(1), Token)


async def test_a_prompt_that_is_too_long_is_said_to_be(server: LlamaServer) -> None:
    async with client_of(options(server)) as client:
        client.worker.handle(client, Generate(1, (ChatMessage("user", "a table " * 9000),), math.inf))
        end = await client.end(1)
    assert isinstance(end, Failed)
    assert "answered 400" in end.reason
    assert "context" in end.reason


async def test_a_wrong_key_is_said_to_be(tmp_path: Path) -> None:
    with LlamaServer(tmp_path, key="sk-right") as server:
        async with client_of(options(server, api_key="sk-right")) as client:
            assert await reply(client, 1)
        async with client_of(options(server, api_key="sk-wrong")) as client:
            client.worker.handle(client, Generate(1, QUESTION, math.inf))
            end = await client.end(1)
    assert isinstance(end, Failed)
    assert "set engines.llm.api_key" in end.reason


@pytest.mark.slow
async def test_a_caller_talks_with_it(server: LlamaServer, tmp_path: Path) -> None:
    line = {"name": "desk", "agent": "llm", "prompt": "Take bookings.", "greeting": "Hello.", "reply_tokens": 12}
    engine = {"provider": "openai_compatible", "first_token_s": 30.0, **options(server)}
    own = {**lines.dialplan(tmp_path / "own", [line]), "engines.llm": engine}
    box = Box(tmp_path / "box", {**lines.settings(tmp_path, tts="espeak"), **own})
    try:
        await asyncio.to_thread(box.start)
        await ask(box, lines.question(tmp_path))
        (call,) = await asyncio.to_thread(records.wait_settled, box.database, 1)
    finally:
        assert await asyncio.to_thread(box.stop) == 0, box.log_tail()
    turn = next(turn for turn in call["turns"] if turn["by"] == "voice")
    assert turn["problem"] == ""
    assert turn["server"].startswith(f"{MODEL} at ")
    assert turn["heard_text"] == turn["agent_text"] != ""
