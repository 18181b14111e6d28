"""What can be set of ``engines.llm`` with ``provider: openai_compatible``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from appliance.engines.api_address import HeaderName, HeaderText, api_address
from appliance.hookspecs import ProviderOptions

_OURS: Final = frozenset({"messages", "model", "stream", "tools"})
_ONE_SERVERS: Final = ("base_url", "model", "name", "api_key", "extra_headers")


def _base_url(value: str) -> str:
    return api_address(value, "/chat/completions")


def _extra_body(value: dict[str, Any]) -> dict[str, Any]:
    for key in sorted(_OURS & set(value)):
        hint = "set model" if key == "model" else "leave it out"
        raise ValueError(f"{key!r} is what the appliance fills in itself; {hint}")
    return value


class _ServerKeys(ProviderOptions):
    """What may differ between servers."""

    base_url: Annotated[str, AfterValidator(_base_url)] | None = Field(
        default=None, description="Where the server's API begins, such as `http://127.0.0.1:8000/v1`."
    )
    model: str | None = Field(default=None, max_length=256, description="The model, as the server calls it.")
    name: str = Field(default="", max_length=64, description="What records call it; by default model and host.")
    api_key: HeaderText | None = Field(default=None, description="Its key, if it wants one: `!secret NAME`.")
    extra_headers: dict[HeaderName, HeaderText] = Field(default={}, description="Further HTTP headers.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="By default the server's own.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="By default the server's own.")
    max_tokens: int | None = Field(default=None, ge=1, le=65_536, description="Longest reply, where a line has none.")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="What the server calls that; OpenAI's newer models: the second."
    )
    stop: tuple[str, ...] = Field(default=(), max_length=4, description="Texts that end a reply.")
    seed: int | None = Field(default=None, description="For replies that can be repeated, where the server can.")
    session_field: str = Field(
        default="",
        max_length=64,
        description="Key of the request that names the call, for servers that keep prompts by it: `prompt_cache_key` "
        "(OpenAI), `user`, `session_id`.",
    )
    session_header: str = Field(
        default="", max_length=64, description="The same as an HTTP header, for a balancer before several servers."
    )
    extra_body: Annotated[dict[str, Any], AfterValidator(_extra_body)] = Field(
        default={}, description="Further keys of the request, such as `{cache_prompt: true}` (llama.cpp)."
    )
    include_usage: bool = Field(default=True, description="Ask for token counts; `false` for servers that refuse it.")
    thinks_first: bool = Field(
        default=False, description="The model begins with its thoughts, and only `</think>` is in its text."
    )
    first_token_s: float = Field(
        default=2.5, gt=0, le=120, description="An attempt that has no first token by then has failed."
    )
    stall_s: float = Field(default=2.0, gt=0, le=120, description="A reply that pauses for longer has broken off.")
    ca_file: Path | None = Field(
        default=None, description="Certificates to trust instead of the system's; an absolute path."
    )


class LlmServer(_ServerKeys):
    """One server of several. A key that is not given here is taken from beside `servers`, the first five excepted."""

    base_url: Annotated[str, AfterValidator(_base_url)] = Field(description="Where its API begins.")
    model: str = Field(min_length=1, max_length=256, description="The model, as the server calls it.")


class OpenAiLlmOptions(_ServerKeys):
    """A language model behind an OpenAI-compatible API: vLLM, SGLang, llama.cpp, Ollama, clouds."""

    servers: tuple[LlmServer, ...] = Field(
        default=(), max_length=8, description="Several servers, in the order in which they are asked."
    )
    hedge_after_s: float = Field(
        default=0.8,
        ge=0,
        le=60,
        description="The next server is asked as well when the first has no token by then; 0: only once it has failed.",
    )
    retries: int = Field(default=1, ge=0, le=3, description="How often a server is asked again for the same reply.")
    failures: int = Field(
        default=3, ge=1, le=1000, description="So many in a row, and a server is out of use until it answers a probe."
    )
    connections: int = Field(default=4, ge=1, le=64, description="Connections kept open to each server.")
    keep_alive_s: float = Field(default=15.0, ge=1, le=300, description="How often these are used, so that they stay.")

    @model_validator(mode="after")
    def _one_or_many(self) -> OpenAiLlmOptions:
        own = [key for key in _ONE_SERVERS if getattr(self, key)]
        if self.servers and own:
            raise ValueError(f"{own[0]} belongs to one server; move it into servers")
        for key in ("base_url", "model"):
            if not self.servers and not getattr(self, key):
                raise ValueError(f"{key} is missing; set base_url and model, or list servers")
        return self

    @property
    def all_servers(self) -> tuple[LlmServer, ...]:
        """Every server with what it has of its own and what stands beside."""
        beside = {key: getattr(self, key) for key in self.model_fields_set & set(LlmServer.model_fields)}
        if not self.servers:
            return (LlmServer.model_validate(beside),)
        return tuple(
            LlmServer.model_validate({**beside, **{key: getattr(server, key) for key in server.model_fields_set}})
            for server in self.servers
        )
