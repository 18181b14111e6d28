"""A streamed chat completion, chunk by chunk: words to speak, tools to run, and how it ended. PURE.

The chunks are those of OpenAI's ``POST /chat/completions`` with ``stream``, and what vLLM, SGLang, llama.cpp, Ollama
and others make of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from appliance.engines.server_fault import ServerFault

MAX_CHARACTERS: Final = 65_536
MAX_CALLS: Final = 64
MAX_TOLD: Final = 300
"""How much of a server's own words is passed on."""

_OPEN: Final = ("<think>", "<thinking>")
_CLOSE: Final = ("</think>", "</thinking>")


@dataclass(frozen=True, slots=True)
class Words:
    """The next words of the reply, to be spoken."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """The model is at work on what nobody is to hear."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The tools the model asks for, (id, name, arguments as JSON text) each; the arguments are unchecked."""

    calls: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The reply is complete. ``reason`` is the server's: stop, length, tool_calls, content_filter ..."""

    reason: str


Piece: TypeAlias = Words | Thought | Calls | Finished


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server counted, in tokens; ``cached`` are those of the prompt that it remembered."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


class ThinkFilter:
    """Takes ``<think>`` blocks out of a text that comes in pieces.

    Args:
        inside: the text begins within a block, as that of models whose prompt ends with the opening tag.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self._inside = inside
        self._held = ""

    def push(self, text: str) -> str:
        """What of the text so far is certain to be outside of every block, and has not been given before."""
        text, self._held = self._held + text, ""
        kept: list[str] = []
        while text:
            tags = _CLOSE if self._inside else _OPEN
            found = min(((at, tag) for tag in tags if (at := text.find(tag)) >= 0), default=None)
            if found is not None:
                at, tag = found
                if not self._inside:
                    kept.append(text[:at])
                text = text[at + len(tag) :]
                self._inside = not self._inside
                continue
            held = _begun_tag(text, tags)
            self._held = text[len(text) - held :]
            if not self._inside:
                kept.append(text[: len(text) - held])
            break
        return "".join(kept)

    def finish(self) -> str:
        """What was held back because it might have become a tag."""
        held, self._held = self._held, ""
        return "" if self._inside else held


def _begun_tag(text: str, tags: tuple[str, ...]) -> int:
    """How many of the last characters may be the beginning of a tag."""
    longest = max(map(len, tags)) - 1
    for length in range(min(longest, len(text)), 0, -1):
        if any(tag.startswith(text[-length:]) for tag in tags):
            return length
    return 0


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _CallDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(msgspec.Struct):
    index: int | None = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    message: Any = None
    detail: Any = None


class _Call:
    """A tool call as far as it has come."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.name = ""
        self.arguments: list[str] = []


class ReplyReader:
    """Reads one reply.

    Args:
        thinks_first: the model begins with its thoughts, and only their closing tag is in the text.
    """

    def __init__(self, *, thinks_first: bool = False) -> None:
        self.finished = False
        self.usage = Usage()
        self._filter = ThinkFilter(inside=thinks_first)
        self._decoder = msgspec.json.Decoder(_Chunk)
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._characters = 0
        self._spoken = False

    def feed(self, data: str) -> list[Piece]:
        """What the data of one event, or a whole answer that was not streamed, adds to the reply.

        Raises:
            ServerFault: it is no chunk of a chat completion, or the server says that it has failed.
        """
        if data.strip() == "[DONE]":
            return self._finish("stop")
        try:
            chunk = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ServerFault(f"broke off with what is no chat completion ({error}): {told(data)}") from None
        if isinstance(chunk.usage, dict):
            self.usage = _usage(chunk.usage)
        if chunk.choices is None:
            if chunk.error or chunk.message or chunk.detail:
                raise ServerFault(f"reported an error: {words_of_error(msgspec.to_builtins(chunk))}")
            return []
        if chunk.error:
            raise ServerFault(f"reported an error: {words_of_error(msgspec.to_builtins(chunk))}")
        pieces: list[Piece] = []
        for choice in chunk.choices:
            if not choice.index:
                pieces += self._choice(choice)
        return pieces

    def _choice(self, choice: _Choice) -> list[Piece]:
        pieces: list[Piece] = []
        delta = choice.delta or choice.message
        if delta is not None and not self.finished:
            text = self._filter.push(_text(delta.content) + (delta.refusal or ""))
            pieces += self._words(text)
            for call in delta.tool_calls or ():
                self._call(call)
            if not pieces and (delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls):
                pieces.append(Thought())
        if choice.finish_reason:
            pieces += self._finish(choice.finish_reason)
        return pieces

    def _words(self, text: str) -> list[Piece]:
        if not self._spoken:
            text = text.lstrip()
        if not text:
            return []
        self._spoken = True
        self._count(text)
        return [Words(text)]

    def _count(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise ServerFault(f"gave a reply of more than {MAX_CHARACTERS} characters; set max_tokens", blame=False)

    def _call(self, delta: _CallDelta) -> None:
        """Calls are told apart by their index; some servers leave it out, others give each the index 0."""
        call = self._by_index.get(delta.index) if delta.index is not None else None
        if delta.index is None and not delta.id and self._calls:
            call = self._calls[-1]
        if call is None or (delta.id and delta.id != call.id):
            if len(self._calls) == MAX_CALLS:
                raise ServerFault(f"asked for more than {MAX_CALLS} tools in one reply", blame=False)
            call = _Call(delta.id or f"call_{len(self._calls)}")
            self._calls.append(call)
            if delta.index is not None:
                self._by_index[delta.index] = call
        if delta.function is not None:
            arguments = delta.function.arguments
            text = msgspec.json.encode(arguments).decode() if isinstance(arguments, dict) else arguments or ""
            self._count(text + (delta.function.name or ""))
            call.name += delta.function.name or ""
            call.arguments.append(text)

    def _finish(self, reason: str) -> list[Piece]:
        if self.finished:
            return []
        self.finished = True
        pieces = self._words(self._filter.finish())
        if self._calls:
            if not all(call.name for call in self._calls):
                raise ServerFault("asked for a tool without a name", blame=False)
            pieces.append(Calls(tuple((one.id, one.name, "".join(one.arguments) or "{}") for one in self._calls)))
        return [*pieces, Finished(reason)]


def told(text: str) -> str:
    """A server's words, short and on one line."""
    text = " ".join(text.split())
    return text if len(text) <= MAX_TOLD else f"{text[:MAX_TOLD]}..."


def words_of_error(body: Any) -> str:
    """The message in an error's body, in any of the shapes that servers give it."""
    found = body
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return told(found if isinstance(found, str) else msgspec.json.encode(found).decode())


def _text(content: str | list[Any] | None) -> str:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return content or ""


def _usage(counted: dict[str, Any]) -> Usage:
    def count(value: Any) -> int:
        return value if isinstance(value, int) and value > 0 else 0

    details = counted.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(count(counted.get("prompt_tokens")), count(counted.get("completion_tokens")), count(cached))
