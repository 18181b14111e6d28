"""A server of streamed chat completions that keeps time, checks what it is asked, and fails in every way there is.

It speaks OpenAI's ``POST /v1/chat/completions`` over real sockets, and notes when a client goes away.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.openai_sim.server import SimServer, close, port_of, refused, reset, wrong_key

REPLY = "Your table is booked for four at eight. Is there anything else I can do?"
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KNOWN = frozenset(
    {"model", "messages", "stream", "stream_options", "tools", "tool_choice", "temperature", "top_p", "max_tokens"}
    | {"max_completion_tokens", "stop", "seed", "user", "prompt_cache_key", "parallel_tool_calls", "frequency_penalty"}
    | {"presence_penalty", "response_format", "logit_bias", "n"}
)


@dataclass(frozen=True)
class Answer:
    """How a request is answered.

    ``calls`` are (id, name, arguments) that the model asks for, their arguments streamed in pieces. After so many
    tokens the server does what ``stall_after``, ``break_after``, ``die_after`` (RST), ``close_after`` or
    ``error_after`` says; 0 is before the first. ``whole``: not streamed. ``huge``: all in one write.
    """

    text: str = REPLY
    calls: Sequence[tuple[str, str, str]] = ()
    thoughts: Sequence[str] = ()
    first_token_s: float = 0.0
    token_s: float = 0.0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    stall_after: int | None = None
    break_after: int | None = None
    die_after: int | None = None
    close_after: int | None = None
    error_after: int | None = None
    finish: str = "stop"
    whole: bool = False
    huge: bool = False
    line_end: str = "\n"
    comments: bool = False


@dataclass
class Asked:
    """One request: ``gone`` is set when its client went away before the answer was complete, at ``gone_at``."""

    body: dict[str, Any]
    headers: dict[str, str]
    came_at: float
    connection: int
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    gone_at: float = 0.0
    done: bool = False


class ChatSim(SimServer):
    """``async with ChatSim() as server``; ``answer`` is how it answers, after what ``script`` holds.

    ``answer`` may depend on the request's body.

    ``key``: it wants this API key. ``strict``: it refuses keys that OpenAI's API does not know.
    """

    def __init__(
        self,
        answer: Answer | Callable[[dict[str, Any]], Answer] = Answer(),
        *,
        key: str = "",
        strict: bool = True,
        idle_s: float = 75.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(key, largest=1 << 24, idle_s=idle_s, tls=tls)
        self.answer: Answer | Callable[[dict[str, Any]], Answer] = answer
        self.script: deque[Answer] = deque()
        self.strict = strict

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.post("/v1/chat/completions", self._complete)]

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked = Asked(body, dict(request.headers), time.monotonic(), port_of(request))
        self.came(request, asked)
        problems = problems_of(body, strict=self.strict)
        self.problems += problems
        if problems:
            return refused(400, "; ".join(problems))
        if not self.knows(request):
            return wrong_key(request)
        answer = self.script.popleft() if self.script else self.answer
        if not isinstance(answer, Answer):
            answer = answer(body)
        try:
            response = await self._answer(request, answer, body)
        except (asyncio.CancelledError, ConnectionError) as error:
            asked.gone_at = time.monotonic()
            asked.gone.set()
            if isinstance(error, ConnectionError):
                return web.Response()  # which nobody reads
            raise
        asked.done = True
        return response

    async def _answer(self, request: web.Request, answer: Answer, body: dict[str, Any]) -> web.StreamResponse:
        if answer.status != 200 or answer.body is not None:
            text = (
                answer.body if answer.body is not None else json.dumps({"error": {"message": f"said {answer.status}"}})
            )
            return web.Response(
                status=answer.status, text=text, headers=answer.headers, content_type="application/json"
            )
        if answer.whole:
            message = {
                "role": "assistant",
                "content": answer.text,
                "tool_calls": [_whole_call(c) for c in answer.calls],
            }
            choice = {"index": 0, "message": message, "finish_reason": answer.finish}
            return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **answer.headers})
        await response.prepare(request)
        start = asyncio.get_running_loop().time() + answer.first_token_s
        chunks = list(_chunks(answer, usage="stream_options" in body))
        if answer.huge:
            await response.write(b"".join(_event(chunk, answer) for chunk in [*chunks, "[DONE]"]))
            await response.write_eof()
            return response
        for index, chunk in enumerate(chunks):
            if index == answer.stall_after:
                await self.stopping.wait()
                raise ConnectionError
            if index == answer.die_after:
                await asyncio.sleep(0.02)
                reset(request)
                raise ConnectionError
            if index == answer.close_after:
                close(request)
                return response
            if index == answer.break_after:
                await response.write(b'data: {"choices": [{"delta": {"content": "brok\n\n')
                await response.write_eof()
                return response
            if index == answer.error_after:
                await response.write(b'data: {"error": {"message": "the engine core died", "code": 500}}\n\n')
                await response.write_eof()
                return response
            delay = start + index * answer.token_s - asyncio.get_running_loop().time()
            await asyncio.sleep(max(delay, 0.0))
            if answer.comments:
                await response.write(b": keep-alive" + (answer.line_end * 2).encode())
            await response.write(_event(chunk, answer))
        await response.write(_event("[DONE]", answer))
        await response.write_eof()
        return response


def split(text: str) -> list[str]:
    """Words with the space before them."""
    return re.findall(r"\s*\S+", text)


def _chunks(answer: Answer, *, usage: bool) -> Iterator[dict[str, Any]]:
    for thought in answer.thoughts:
        yield _chunk({"reasoning_content": thought})
    for index, word in enumerate(split(answer.text)):
        yield _chunk({"role": "assistant", "content": word} if index == 0 else {"content": word})
    for index, (id_, name, arguments) in enumerate(answer.calls):
        yield _chunk({"tool_calls": [{"index": index, "id": id_, "type": "function", "function": {"name": name}}]})
        for start in range(0, len(arguments), 4):
            piece = arguments[start : start + 4]
            yield _chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield _chunk({}, answer.finish)
    if usage:
        details = {"cached_tokens": 64}
        counts = {"prompt_tokens": 80, "completion_tokens": 17, "total_tokens": 97, "prompt_tokens_details": details}
        yield {
            "id": "x",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "sim",
            "choices": [],
            "usage": counts,
        }


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "sim", "choices": [choice]}


def _event(chunk: dict[str, Any] | str, answer: Answer) -> bytes:
    data = chunk if isinstance(chunk, str) else json.dumps(chunk)
    return f"data: {data}{answer.line_end * 2}".encode()


def _whole_call(call: tuple[str, str, str]) -> dict[str, Any]:
    return {"id": call[0], "type": "function", "function": {"name": call[1], "arguments": call[2]}}


def problems_of(body: Any, *, strict: bool) -> list[str]:
    """What OpenAI's published schema (CreateChatCompletionRequest) has against a request."""
    if not isinstance(body, dict):
        return ["the body is no object"]
    found = [f"unknown key {key!r}" for key in body if strict and key not in _KNOWN]
    if not isinstance(body.get("model"), str) or not body["model"]:
        found.append("model is missing")
    if body.get("stream") is not True:
        found.append("stream is not true")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return [*found, "messages is missing"]
    open_calls: set[str] = set()
    for message in messages:
        found += _message_problems(message, open_calls)
    for tool in body.get("tools", ()):
        function = tool.get("function", {}) if tool.get("type") == "function" else {}
        if not _TOOL_NAME.fullmatch(function.get("name", "")) or not isinstance(function.get("parameters"), dict):
            found.append(f"no tool: {tool}")
    for key, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("max_tokens", 1, 1e6)):
        if key in body and not low <= body[key] <= high:
            found.append(f"{key} is {body[key]}")
    if "tools" in body and not body["tools"]:
        found.append("tools is empty")
    if len(body.get("stop") or ()) > 4:
        found.append("more than four stops")
    return found


def _message_problems(message: dict[str, Any], open_calls: set[str]) -> list[str]:
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        if message.get("tool_call_id") not in open_calls:
            return [f"a tool's message answers no call: {message}"]
        open_calls.discard(message["tool_call_id"])
        return [] if isinstance(content, str) else ["a tool's message has no content"]
    if open_calls:
        return [f"calls without an answer: {sorted(open_calls)}"]
    if role not in ("system", "user", "assistant"):
        return [f"role {role!r}"]
    calls = message.get("tool_calls")
    if calls is not None:
        if role != "assistant" or not calls:
            return ["tool_calls of nobody, or none"]
        for call in calls:
            if call.get("type") != "function" or not isinstance(call["function"].get("arguments"), str):
                return [f"no call: {call}"]
            open_calls.add(call["id"])
        return []
    return [] if isinstance(content, str) else [f"a message of {role} has no content"]
