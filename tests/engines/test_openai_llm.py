"""The engine against a server over real sockets that keeps time and fails in every way there is."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.engines.builtin import provider_registry
from appliance.engines.openai_llm import OpenAiLlm
from appliance.engines.openai_llm_options import OpenAiLlmOptions
from appliance.errors import EngineError
from appliance.ipc.messages import (
    Cancel,
    ChatMessage,
    Generate,
    Token,
    ToolCall,
    ToolSpec,
)
from tests.certificates import Authority
from tests.engines.llm_client import QUESTION, client_of, what_is_special
from tests.openai_sim.chat import REPLY, Answer, ChatSim, split
from tests.openai_sim.server import HOST
from tests.waiting import eventually


@pytest.fixture
def nobody() -> str:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return f"http://{HOST}:{probe.getsockname()[1]}/v1"


# --- replies ----------------------------------------------------------------------------------------------------------


async def test_a_reply_streams() -> None:
    async with ChatSim() as server, client_of(server) as client:
        client.ask()
        end = await client.end()
        assert isinstance(end, Token)
        assert end.last
        assert end.server == f"sim at {HOST}:{server.port}"
        assert [message.text for message in client.said if isinstance(message, Token)] == [*split(REPLY), ""]
        assert server.asked[0].body["messages"] == [{"role": m.role, "content": m.content} for m in QUESTION]
        assert server.problems == []


@pytest.mark.parametrize(
    "answer",
    [Answer(huge=True), Answer(whole=True), Answer(line_end="\r\n", comments=True), Answer(thoughts=("a", "b")),
     Answer(text=f"<think>He wants a table.</think>{REPLY}"), Answer(finish="length")],
    ids=["one write", "not streamed", "CR LF and comments", "reasoning", "think tags", "cut at its length"],
)  # fmt: skip
async def test_a_reply_in_other_shapes(answer: Answer) -> None:
    async with ChatSim(answer) as server, client_of(server) as client:
        client.ask()
        assert isinstance(await client.end(), Token)
        assert client.text() == REPLY


async def test_tools_are_asked_for_and_answered() -> None:
    calls = (("c1", "book_table", '{"people": 4, "at": "20:00"}'), ("c2", "look_up", "{}"))
    tools = (ToolSpec("book_table", "Books.", '{"type":"object","properties":{"people":{"type":"integer"}}}'),
             ToolSpec("look_up", "", ""))  # fmt: skip
    async with ChatSim() as server, client_of(server) as client:
        server.script += [Answer("One moment.", calls, finish="tool_calls"), Answer()]
        client.ask(tools=tools)
        await client.end()
        wanted = tuple(ToolCall(*call) for call in calls)
        assert [message.calls for message in client.said if isinstance(message, Token) and message.calls] == [wanted]
        done = [ChatMessage("tool", text, call_id=call) for call, text in (("c1", '{"ok": true}'), ("c2", "none"))]
        history = (*QUESTION, ChatMessage("assistant", "One moment.", wanted), *done)
        client.ask(2, messages=history, tools=tools)
        assert isinstance(await client.end(2), Token)
        assert server.problems == []
        assert server.asked[0].body["tools"][1]["function"]["parameters"] == {"type": "object", "properties": {}}


async def test_requests_obey_the_published_schema() -> None:
    openai = pytest.importorskip(
        "openai.types.chat.completion_create_params", reason="openai is not installed (make setup-dev)"
    )
    from pydantic import TypeAdapter

    calls = (ToolCall("c1", "f", "{}"),)
    history = (*QUESTION, ChatMessage("assistant", "", calls), ChatMessage("tool", "done", call_id="c1"))
    options = {"temperature": 0.3, "top_p": 0.9, "max_tokens": 99, "stop": ["\n\n"], "seed": 7,
               "session_field": "prompt_cache_key", "extra_body": {"parallel_tool_calls": True}}  # fmt: skip
    async with ChatSim() as server, client_of(server, **options) as client:
        client.ask(
            messages=history, tools=(ToolSpec("f", "Does.", '{"type":"object"}'),), session="call-7", max_tokens=50
        )
        await client.end()
        body = server.asked[0].body
    schema = TypeAdapter(openai.CompletionCreateParamsStreaming)
    checked = schema.validate_python(body)
    for message in checked["messages"]:
        list(message.get("tool_calls") or ())
    assert set(body) <= set(openai.CompletionCreateParamsStreaming.__annotations__) | set(
        openai.CompletionCreateParamsBase.__annotations__
    )
    assert (body["max_tokens"], body["prompt_cache_key"], body["temperature"]) == (50, "call-7", 0.3)


async def test_the_server_of_these_tests_is_one_to_the_official_client() -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed (make setup-dev)")
    async with ChatSim() as server, openai.AsyncOpenAI(base_url=server.url, api_key="x") as official:
        stream = await official.chat.completions.create(
            model="sim", messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == REPLY


async def test_hints_of_the_session_and_further_keys_are_sent() -> None:
    async with ChatSim(strict=False) as server:
        more = {"session_field": "session_id", "session_header": "X-Session",
                "max_tokens_field": "max_completion_tokens", "max_tokens": 9,
                "extra_body": {"cache_prompt": True}, "include_usage": False}  # fmt: skip
        async with client_of(server, **more) as client:
            client.ask(session="call-7")
            await client.end()
        asked = server.asked[0]
        assert (asked.body["session_id"], asked.body["cache_prompt"], asked.body["max_completion_tokens"]) == (
            "call-7",
            True,
            9,
        )
        assert asked.headers["X-Session"] == "call-7"
        assert "stream_options" not in asked.body


async def test_equal_conversations_begin_with_equal_bytes() -> None:
    from appliance.engines.chat_request import request_body
    from appliance.engines.openai_llm_options import LlmServer

    server = LlmServer(base_url="http://h/v1", model="m")
    longer = (*QUESTION, ChatMessage("assistant", "Yes?"))
    one, two = (request_body(server, Generate(n, m, math.inf)) for n, m in ((1, QUESTION), (2, longer)))
    shared = one[: one.index(b'],"stream"')]
    assert two.startswith(shared)


# --- connections ------------------------------------------------------------------------------------------------------


async def test_connections_are_open_before_the_first_request() -> None:
    async with ChatSim() as server, client_of(server, connections=3) as client:
        before = set(server.connections)
        assert len(before) == 3
        for request in range(1, 5):
            client.ask(request)
            await client.end(request)
            await eventually(lambda: client.worker.stats().running == 0)
        assert server.connections == before


async def test_a_connection_the_server_has_closed_is_opened_again_unnoticed() -> None:
    async with ChatSim(idle_s=0.01) as server, client_of(server, connections=2) as client:
        for request in range(1, 4):
            client.ask(request)
            assert isinstance(await client.end(request), Token)
            await asyncio.sleep(0.05)


async def test_kept_connections_are_used_so_that_they_stay() -> None:
    async with ChatSim() as server, client_of(server, connections=2) as client:
        (kept,) = client.engine.servers
        looks = len(server.looked)
        kept.ping_every_s = 0.02
        await kept.close()
        await kept.open()
        await eventually(lambda: len(server.looked) > looks + 8)


async def test_a_connection_that_a_cancelled_reply_took_along_is_replaced() -> None:
    async with ChatSim(Answer(stall_after=1)) as server, client_of(server, connections=1) as client:
        client.ask()
        await eventually(lambda: client.said)
        client.worker.handle(client, Cancel(1))
        await eventually(lambda: len(server.connections) == 2)
        server.answer = Answer()
        await eventually(lambda: client.worker.stats().running == 0)
        client.ask(2)
        await client.end(2)
        assert len(server.connections) == 2


async def test_many_replies_at_once_do_not_wait_for_one_another() -> None:
    async with ChatSim(Answer(first_token_s=0.2)) as server, client_of(server, first_token_s=60) as client:
        server.script.append(Answer(stall_after=0))
        client.ask(1)
        await server.wait_asked(1)
        for request in range(2, 201):
            client.ask(request)
        await asyncio.gather(*(client.end(request) for request in range(2, 201)))
        assert all(client.text(request) == REPLY for request in range(2, 201))
        assert client.text(1) == ""
        client.worker.handle(client, Cancel(1))


async def test_a_server_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue(HOST)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    async with ChatSim(tls=context, key="sk-1") as server:
        async with client_of(server, ca_file=str(authority.ca), api_key="sk-1") as client:
            client.ask()
            assert isinstance(await client.end(), Token)
            assert client.text() == REPLY
        async with client_of(server, api_key="sk-1") as client:
            client.ask()
            reason = await client.failure()
    assert "cannot be trusted" in reason
    assert "check engines.llm.base_url and ca_file" in reason
    assert len(server.asked) == 1


async def test_certificates_that_cannot_be_read_are_said_at_once(tmp_path: Path) -> None:
    engine = OpenAiLlm(OpenAiLlmOptions(base_url="https://h/v1", model="m", ca_file=tmp_path / "none.pem"))
    with pytest.raises(EngineError, match=r"engines.llm.ca_file: cannot be read .*; name a PEM file"):
        await engine.load()
    await engine.close()


# --- cancelling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [Answer(stall_after=0), Answer(stall_after=3)], ids=["before", "in the middle"])
async def test_a_cancelled_request_ends_at_the_server(answer: Answer) -> None:
    async with ChatSim(answer) as server, client_of(server) as client:
        client.ask()
        asked = await server.wait_asked(1)
        await eventually(lambda: len(client.said) == (answer.stall_after or 0))
        client.worker.handle(client, Cancel(1))
        async with asyncio.timeout(30):
            await asked.gone.wait()
        await eventually(lambda: client.worker.stats().running == 0)
        assert len(client.said) == (answer.stall_after or 0)


async def test_a_closed_worker_leaves_nothing_at_the_server() -> None:
    async with ChatSim(Answer(stall_after=2)) as server:
        async with client_of(server) as client:
            client.ask()
            asked = await server.wait_asked(1)
        async with asyncio.timeout(30):
            await asked.gone.wait()


# --- failures before the first token ----------------------------------------------------------------------------------


async def test_nobody_listens(nobody: str) -> None:
    async with client_of(nobody) as client:
        client.ask()
        reason = await client.failure()
    assert "refuses connections; start it, or check engines.llm.base_url" in reason
    assert "no language model answered" in reason


@pytest.mark.parametrize(
    ("answer", "attempts", "words"),
    [
        (Answer(status=401), 1, "answered 401: it wants a key (said 401); set engines.llm.api_key"),
        (Answer(status=404), 1, "check engines.llm.base_url and engines.llm.model 'sim'"),
        (
            Answer(status=400, body='{"error": {"message": "context is too long"}}'),
            1,
            "answered 400: context is too long",
        ),
        (Answer(status=429), 2, "answered 429: said 429"),
        (Answer(status=429, headers={"Retry-After": "30"}), 1, "answered 429"),
        (Answer(status=500, body="<html>oops</html>"), 2, "answered 500: <html>oops</html>"),
        (Answer(status=302, headers={"Location": "https://elsewhere/v1"}), 1, "it redirects to https://elsewhere/v1"),
        (Answer(status=200, body="{}"), 2, "broke off"),
        (Answer(stall_after=0), 2, "gave no first token within 0.2 s"),
        (Answer(break_after=0), 1, "broke off with what is no chat completion"),
        (Answer(error_after=0), 1, "reported an error: the engine core died"),
        (Answer(die_after=0), 2, "in the middle of the reply"),
        (Answer(close_after=0), 2, "in the middle of the reply"),
        (Answer(""), 2, "gave an empty reply"),
        (Answer("", finish="length"), 1, "raise max_tokens"),
        (Answer("", finish="content_filter"), 1, "content filter"),
    ],
    ids=what_is_special,
)
async def test_a_server_that_fails(answer: Answer, attempts: int, words: str) -> None:
    patience_s = 0.2 if answer.stall_after == 0 else 30
    async with ChatSim(answer) as server, client_of(server, first_token_s=patience_s) as client:
        client.ask()
        assert words in await client.failure()
        assert len(server.asked) == attempts


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=429, headers={"Retry-After": "0.05"}),
        Answer(status=503),
        Answer(stall_after=0),
        Answer(die_after=0),
    ],
    ids=what_is_special,
)
async def test_a_second_attempt_may_succeed(answer: Answer) -> None:
    patience_s = 2 if answer.stall_after == 0 else 30
    async with ChatSim() as server, client_of(server, first_token_s=patience_s) as client:
        server.script.append(answer)
        client.ask()
        assert isinstance(await client.end(), Token)
        assert client.text() == REPLY
        assert len(server.asked) == 2


async def test_a_second_attempt_waits_as_long_as_it_was_asked_to() -> None:
    async with ChatSim() as server, client_of(server) as client:
        server.script.append(Answer(status=429, headers={"Retry-After": "0.3"}))
        client.ask()
        await client.end()
        assert server.asked[1].came_at - server.asked[0].came_at >= 0.29


async def test_a_server_that_wants_to_be_left_alone_until_a_date_is() -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    async with ChatSim(Answer(status=429, headers={"Retry-After": until})) as server, client_of(server) as client:
        client.ask()
        await client.failure()
        client.ask(2)
        assert "no language model is in use" in await client.failure(2)
        assert len(server.asked) == 1


async def test_a_model_that_the_server_does_not_list_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with ChatSim() as server, client_of({"base_url": server.url, "model": "simm"}):
        assert "does not list 'simm'; engines.llm.model: it has sim" in caplog.text


async def test_the_key_is_sent_and_never_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with ChatSim(key="sk-right") as server:
        own = {"base_url": server.url, "model": "sim"}
        async with client_of({**own, "api_key": "sk-right"}) as client:
            client.ask()
            assert isinstance(await client.end(), Token)
        async with client_of({**own, "api_key": "sk-wrong"}) as client:
            client.ask()
            reason = await client.failure()
    assert "the key was refused" in reason
    assert "sk-" not in reason.replace("***", "")
    assert "sk-wrong" not in caplog.text
    assert "sk-right" not in caplog.text


async def test_a_web_page_is_no_api() -> None:
    async with ChatSim(Answer(headers={"Content-Type": "text/html"})) as server, client_of(server) as client:
        client.ask()
        assert "is engines.llm.base_url an OpenAI-compatible API?" in await client.failure()


async def test_a_first_token_that_is_too_late_for_the_caller() -> None:
    async with ChatSim(Answer(stall_after=0)) as server, client_of(server, first_token_s=60.0) as client:
        client.ask(first_token_by=time.monotonic() + 0.1)
        assert "gave no first token in time" in await client.failure()
        asked = await server.wait_asked(1)
        async with asyncio.timeout(30):
            await asked.gone.wait()


# --- failures after it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(stall_after=3), "fell silent for 0.2 s in the middle of the reply"),
        (Answer(break_after=3), "broke off with what is no chat completion"),
        (Answer(die_after=3), "broke off in the middle of the reply"),
        (Answer(close_after=3), "broke off in the middle of the reply"),
        (Answer(error_after=3), "reported an error: the engine core died"),
    ],
    ids=what_is_special,
)
async def test_what_was_said_stands_and_nobody_is_asked_again(answer: Answer, words: str) -> None:
    slow = Answer(**{**vars(answer), "token_s": 0.01})
    more = {"stall_s": 0.2 if answer.stall_after is not None else 30, "hedge_after_s": 0, "first_token_s": 30}
    async with ChatSim(slow) as server, ChatSim() as second, client_of(server, second, **more) as client:
        client.ask()
        reason = await client.failure()
        assert words in reason
        assert reason.startswith(f"sim at {HOST}:{server.port} ")
        assert client.text()
        assert "".join(split(REPLY)[:3]).startswith(client.text())
        assert (len(server.asked), len(second.asked)) == (1, 0)


async def test_a_reply_that_takes_too_long() -> None:
    async with ChatSim(Answer(token_s=0.05, text="word " * 1000)) as server, client_of(server) as client:
        client.ask(deadline=time.monotonic() + 0.5)
        assert "took too long" in await client.failure()
        assert client.text().startswith("word")


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "base_url is missing; set base_url and model, or list servers"),
        ({"base_url": "http://h/v1"}, "model is missing"),
        ({"base_url": "h:8000", "model": "m"}, "write it as http://127.0.0.1:8000/v1"),
        ({"base_url": "http://h/v1/chat/completions", "model": "m"}, "leave /chat/completions out"),
        ({"base_url": "http://u:p@h/v1", "model": "m"}, "set api_key instead"),
        ({"base_url": "http://h/v1?x=1", "model": "m"}, "has something behind the path"),
        ({"base_url": "http://h/v1", "model": "m", "extra_body": {"model": "x"}}, "set model"),
        ({"api_key": "secret", "servers": [{"base_url": "http://h/v1", "model": "m"}]}, "move it into servers"),
        ({"base_url": "http://h/v1", "model": "m", "api_key": "a secret\nkey"}, "no HTTP header may have"),
        ({"base_url": "http://h/v1", "model": "m", "temprature": 1}, "did you mean 'temperature'?"),
    ],
    ids=what_is_special,
)  # fmt: skip
def test_wrong_options_are_said_with_what_would_be_right(options: dict[str, Any], words: str) -> None:
    problems = provider_registry().validate_options("llm", "openai_compatible", options)
    assert words in "; ".join(problems)
    assert "secret" not in "; ".join(problems)


def test_what_stands_beside_the_servers_holds_for_each() -> None:
    options = OpenAiLlmOptions.model_validate(
        {"temperature": 0.2, "servers": [{"base_url": "http://a/v1", "model": "m"},
                                         {"base_url": "http://b/v1", "model": "m", "temperature": 0.9}]}
    )  # fmt: skip
    assert [server.temperature for server in options.all_servers] == [0.2, 0.9]


def test_the_simulator_notices_what_is_wrong() -> None:
    from tests.openai_sim.chat import problems_of

    good: dict[str, Any] = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    assert problems_of(good, strict=True) == []
    for wrong in ({"model": ""}, {"stream": False}, {"messages": []}, {"temperature": 3}, {"frobnicate": 1},
                  {"tools": []}, {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}):  # fmt: skip
        assert problems_of({**good, **wrong}, strict=True)
