"""Several servers of language models: who is asked, when, and who wins."""

from __future__ import annotations

import asyncio

import pytest

from appliance.ipc.messages import Token
from tests.engines.llm_client import client_of, what_is_special
from tests.openai_sim.chat import REPLY, Answer, ChatSim
from tests.openai_sim.server import HOST
from tests.waiting import eventually


@pytest.mark.parametrize(
    "answer", [Answer(status=500), Answer(status=401), Answer(break_after=0), Answer(die_after=0)], ids=what_is_special
)
async def test_the_second_server_is_asked_when_the_first_fails(answer: Answer) -> None:
    async with ChatSim(answer) as first, ChatSim() as second, client_of(first, second, first_token_s=30) as client:
        client.ask()
        end = await client.end()
        assert isinstance(end, Token)
        assert end.server == f"sim at {HOST}:{second.port}"
        assert client.text() == REPLY
        assert len(first.asked) == 1


async def test_a_silent_server_is_overtaken_and_told_so() -> None:
    async with (
        ChatSim(Answer(stall_after=0)) as first,
        ChatSim() as second,
        client_of(first, second, hedge_after_s=0.05, first_token_s=60.0) as client,
    ):
        client.ask()
        assert isinstance(await client.end(), Token)
        assert client.text() == REPLY
        async with asyncio.timeout(30):
            await first.asked[0].gone.wait()


async def test_a_first_server_that_is_merely_slow_wins_once_it_speaks() -> None:
    async with (
        ChatSim(Answer(first_token_s=0.3)) as first,
        ChatSim(Answer(stall_after=0)) as second,
        client_of(first, second, hedge_after_s=0.05, first_token_s=60.0) as client,
    ):
        client.ask()
        end = await client.end()
        assert isinstance(end, Token)
        assert end.server.endswith(str(first.port))
        async with asyncio.timeout(30):
            await second.asked[0].gone.wait()


async def test_without_hedging_the_second_waits_for_the_first_to_fail() -> None:
    async with (
        ChatSim(Answer(stall_after=0)) as first,
        ChatSim() as second,
        client_of(
            {"base_url": first.url, "model": "sim", "first_token_s": 0.2},
            {"base_url": second.url, "model": "sim", "first_token_s": 30},
            hedge_after_s=0,
        ) as client,
    ):
        client.ask()
        assert isinstance(await client.end(), Token)
        assert second.asked[0].came_at - first.asked[0].came_at >= 0.19


async def test_when_all_fail_each_is_named() -> None:
    async with (
        ChatSim(Answer(status=500)) as first,
        ChatSim(Answer(status=404)) as second,
        client_of(
            {"base_url": first.url, "model": "sim", "name": "ours"},
            {"base_url": second.url, "model": "sim", "name": "cloud"},
        ) as client,
    ):
        client.ask()
        reason = await client.failure()
    assert "ours answered 500" in reason
    assert "cloud answered 404" in reason
    assert "engines.llm.servers.1.base_url" in reason
    assert (len(first.asked), len(second.asked)) == (2, 1)


async def test_a_dead_server_is_not_tried_by_every_turn_and_comes_back_after_a_probe() -> None:
    async with (
        ChatSim(Answer(status=500)) as first,
        ChatSim() as second,
        client_of(first, second, retries=0, hedge_after_s=0, first_token_s=30) as client,
    ):
        for request in range(1, 5):
            client.ask(request)
            await client.end(request)
        assert len(first.asked) == 3
        first.answer = Answer("Yes")
        await first.wait_asked(4)
        assert first.asked[3].body["max_tokens"] == 1
        await eventually(lambda: client.engine.servers[0].circuit.usable)
        client.ask(9)
        await client.end(9)
        assert client.text(9) == "Yes"


async def test_while_no_server_is_in_use_a_turn_fails_at_once() -> None:
    async with ChatSim(Answer(stall_after=0)) as server, client_of(server, retries=0, first_token_s=0.05) as client:
        for request in (1, 2, 3):
            client.ask(request)
            await client.failure(request)
        client.ask(4)
        reason = await client.failure(4)
        assert "no language model is in use: sim at" in reason
        assert "gave no first token" in reason
