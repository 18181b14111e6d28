"""The body of a chat completion's request, as OpenAI's API takes it. PURE."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import SecretStr

from appliance.api import GenerateRequest
from appliance.api.engines import ChatTurn, ToolShape
from appliance.engines.openai_llm_options import LlmServer

_NO_PARAMETERS = '{"type":"object","properties":{}}'


def request_body(server: LlmServer, request: GenerateRequest) -> bytes:
    """JSON for ``POST /chat/completions``, streamed. Equal conversations begin with equal bytes."""
    body: dict[str, Any] = {
        "model": server.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        **_sampling(server, request.max_tokens or server.max_tokens),
    }
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if server.include_usage:
        body["stream_options"] = {"include_usage": True}
    if server.session_field and request.session:
        body[server.session_field] = request.session
    return msgspec.json.encode({**body, **_revealed(server.extra_body)})


def probe_body(server: LlmServer) -> bytes:
    """The least that shows whether the model answers: one token."""
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": "Say yes."}],
        "stream": True,
        server.max_tokens_field: 1,
    }
    return msgspec.json.encode({**body, **_revealed(server.extra_body)})


def _sampling(server: LlmServer, max_tokens: int | None) -> dict[str, Any]:
    wanted = {
        "temperature": server.temperature,
        "top_p": server.top_p,
        server.max_tokens_field: max_tokens,
        "stop": list(server.stop) or None,
        "seed": server.seed,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _message(message: ChatTurn) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.content}
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    return {"role": message.role, "content": message.content or None, "tool_calls": calls}


def _tool(tool: ToolShape) -> dict[str, Any]:
    parameters = msgspec.Raw((tool.parameters or _NO_PARAMETERS).encode())
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _revealed(value: Any) -> Any:
    """``value`` with what ``!secret`` stands for."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _revealed(item) for key, item in value.items()}
    return [_revealed(item) for item in value] if isinstance(value, list | tuple) else value
