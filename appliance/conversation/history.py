"""What a language model is shown of a call: append-only, under a budget, and only what was really heard. PURE.

The order keeps a server's prompt cache warm. First comes what is the same for every call of a line (instructions and,
in the request, the tools), then what is known when the call begins, then the turns as they happen; nothing before the
last turn changes but when old turns are given up for a summary, which is done seldom and by many turns at once.

Whatever a peer or a tool said stands between tags. The text in between cannot close them (:func:`fence`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appliance.ipc.messages import ChatMessage, ToolCall

INTERRUPTED: Final = "[interrupted]"
"""Ends what the agent said where the caller cut it short."""

CHARACTERS_PER_TOKEN: Final = 4
_TOKENS_PER_MESSAGE: Final = 4
_SUMMARISE_AT: Final = 0.6
_DROP_TO: Final = 0.6
_KEEP: Final = 0.35
_KEEP_TURNS: Final = 2
_ESCAPES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_UNSPEAKABLE: Final = {ord("<"): " ", ord(">"): " ", ord("["): "(", ord("]"): ")"}
_RUNNING: Final = '{"status": "still running"}'


def fence(tag: str, text: str, **attributes: str) -> str:
    """``text`` between tags, as data: no text can close them, for it has no angle brackets left."""
    inside = "".join(f' {name}="{_escaped(value).replace(chr(34), "&quot;")}"' for name, value in attributes.items())
    return f"<{tag}{inside}>{_escaped(text)}</{tag}>"


def context_of(text: str, source: str) -> str:
    """What ``source`` knows, as the model is told it."""
    return f"This may be of use: {fence('context', text, source=source)}"


def _escaped(text: str) -> str:
    printable = "".join(character if character.isprintable() or character == "\n" else " " for character in text)
    return "".join(_ESCAPES.get(character, character) for character in printable)


def _as_speech(text: str) -> str:
    """``text`` as somebody can have said it: what passes for a tag or for a line of the telephone system's cannot be
    said. It may hold words of a peer's, in a greeting for instance."""
    spoken, cut, rest = text.rpartition(INTERRUPTED)
    if not cut or rest.strip():
        spoken, cut = text, ""
    return spoken.translate(_UNSPEAKABLE) + cut


def tokens_of(text: str) -> int:
    """About how many tokens ``text`` is."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


@dataclass(frozen=True)
class Entry:
    """One message of the call. ``number`` counts all of them; ``turn`` those that go together."""

    number: int
    turn: int
    message: ChatMessage

    @property
    def tokens(self) -> int:
        message = self.message
        calls = sum(tokens_of(call.name) + tokens_of(call.arguments) for call in message.tool_calls)
        return tokens_of(message.content) + calls + _TOKENS_PER_MESSAGE


@dataclass(frozen=True)
class Summary:
    """What was said in the turns up to ``through``."""

    text: str
    through: int


class History:
    """The messages of one call.

    Args:
        system: instructions, the same for every call of the line.
        opening: what is known when the call begins.
        budget_tokens: what may be sent, all in all.
        tools_tokens: how much of it the tools take.
    """

    def __init__(self, system: str, opening: str, *, budget_tokens: int, tools_tokens: int = 0) -> None:
        self._system = ChatMessage("system", system)
        self._opening = opening
        self._budget = budget_tokens
        self._tools_tokens = tools_tokens
        self._summary = Summary("", 0)
        self._entries: list[Entry] = []
        self._count = 0
        self._turn = 0

    def copy(self) -> History:
        """One that goes its own way from here."""
        twin = copy.copy(self)
        twin._entries = list(self._entries)
        return twin

    @property
    def count(self) -> int:
        """The number of the newest message; see :meth:`since`."""
        return self._count

    @property
    def turn(self) -> int:
        return self._turn

    @property
    def summary(self) -> Summary:
        return self._summary

    @property
    def tokens(self) -> int:
        """About how many tokens the next request is."""
        return self._fixed + sum(entry.tokens for entry in self._entries)

    @property
    def _fixed(self) -> int:
        fixed = (self._system.content, self._opening, self._summary.text)
        return self._tools_tokens + sum(tokens_of(text) + _TOKENS_PER_MESSAGE for text in fixed)

    # --- what happens ---------------------------------------------------------------------------------------------

    def opens(self, opening: str) -> None:
        """What is known of the call has changed, before anything was said in it."""
        self._opening = opening

    def begin_turn(self) -> None:
        """What comes now is kept, or given up, together."""
        self._turn += 1

    def caller(self, words: str, time: str) -> None:
        """The caller said ``words`` at ``time`` of the day."""
        self._add(ChatMessage("user", fence("caller", words, time=time)))

    def event(self, text: str) -> None:
        """Something that is nobody's words; ``text`` is ours, what it quotes is fenced."""
        self._add(ChatMessage("user", f"[{text}]"))

    def context(self, text: str, source: str) -> None:
        """Something that ``source`` knows, and that may be of use for the next answer."""
        self.event(context_of(text, source))

    def agent(self, text: str, calls: Sequence[ToolCall] = ()) -> int:
        """The agent says ``text`` and asks for tools; the number by which :meth:`revise` knows it."""
        return self._add(ChatMessage("assistant", _as_speech(text), tuple(calls)))

    def revise(self, number: int, text: str, calls: Sequence[ToolCall] | None = None) -> None:
        """Of what the agent said, this much is true."""
        for index in range(len(self._entries) - 1, -1, -1):
            entry = self._entries[index]
            if entry.number == number:
                wanted = entry.message.tool_calls if calls is None else tuple(calls)
                message = replace_message(entry.message, content=_as_speech(text), tool_calls=wanted)
                self._entries[index] = replace(entry, message=message)
                return

    def result(self, call: ToolCall, text: str) -> None:
        """What a tool gave, as the model is to see it."""
        self._add(ChatMessage("tool", fence("tool_result", text, name=call.name), call_id=call.id))

    def _add(self, message: ChatMessage) -> int:
        self._count += 1
        self._entries.append(Entry(self._count, self._turn, message))
        return self._count

    # --- what is shown --------------------------------------------------------------------------------------------

    def messages(self) -> tuple[ChatMessage, ...]:
        """The next request's. Every tool that was asked for is answered right after, as models insist."""
        opening = self._opening
        if self._summary.text:
            opening += "\n" + fence("earlier_in_this_call", self._summary.text)
        return tuple(_joined([self._system, ChatMessage("user", opening), *self._answered(self._entries)]))

    def since(self, number: int) -> str:
        """JSON of the messages after ``number``, for the record; 0 begins with the instructions."""
        new = self._answered([entry for entry in self._entries if entry.number > number])
        first = [self._system, ChatMessage("user", self._opening)] if number == 0 else []
        return json.dumps([_as_json(message) for message in (*first, *new)], ensure_ascii=False)

    @staticmethod
    def _answered(entries: Iterable[Entry]) -> list[ChatMessage]:
        waiting: dict[str, ToolCall] = {}
        shown: list[ChatMessage] = []

        def give_up() -> None:
            shown.extend(ChatMessage("tool", _RUNNING, call_id=call_id) for call_id in waiting)
            waiting.clear()

        for entry in entries:
            message = entry.message
            if message.role == "tool":
                waiting.pop(message.call_id, None)
            else:
                give_up()
                waiting.update({call.id: call for call in message.tool_calls})
                if not message.content and not message.tool_calls:
                    continue
            shown.append(message)
        give_up()
        return shown

    # --- the budget -----------------------------------------------------------------------------------------------

    def wants_summary(self) -> bool:
        """Whether it is time to have the older turns summarised."""
        return self.tokens > _SUMMARISE_AT * self._budget and self._oldest_kept() > self._first_turn

    def to_summarise(self) -> tuple[str, int]:
        """The older turns as text, with what was summarised before them, and the last of them."""
        through = self._oldest_kept() - 1
        return self._as_text(through), through

    def everything(self) -> str:
        """The whole call as text, what was summarised before included."""
        return self._as_text(self._turn)

    def _as_text(self, through: int) -> str:
        lines = [fence("summary", self._summary.text)] if self._summary.text else []
        for message in self._answered(entry for entry in self._entries if entry.turn <= through):
            said = fence("agent", message.content) if message.role == "assistant" else message.content
            lines += [said] if message.content else []
            lines += [fence("agent_used_tool", call.arguments, name=call.name) for call in message.tool_calls]
        return "\n".join(lines)

    def summarised(self, summary: Summary) -> None:
        """Take a summary in place of the turns it is of."""
        if summary.through > self._summary.through:
            self._summary = summary
            self._entries = [entry for entry in self._entries if entry.turn > summary.through]

    def fit(self) -> None:
        """Give up the oldest turns where the budget is exceeded: so many at once that it is not done every turn."""
        if self.tokens <= self._budget:
            return
        while self.tokens > _DROP_TO * self._budget and self._first_turn < self._turn:
            first = self._first_turn
            self._entries = [entry for entry in self._entries if entry.turn > first]

    @property
    def _first_turn(self) -> int:
        return self._entries[0].turn if self._entries else self._turn

    def _oldest_kept(self) -> int:
        """The first of the newest turns that stay as they are: a share of the budget, and never fewer than two."""
        kept, tokens = self._turn + 1, 0
        for entry in reversed(self._entries):
            tokens += entry.tokens
            if tokens > _KEEP * self._budget and entry.turn <= self._turn - _KEEP_TURNS:
                break
            kept = entry.turn
        else:
            return kept
        return entry.turn + 1


def replace_message(message: ChatMessage, *, content: str, tool_calls: tuple[ToolCall, ...]) -> ChatMessage:
    """``message`` with other words and calls."""
    return ChatMessage(message.role, content, tool_calls, message.call_id)


def _joined(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """Neighbours of the same side as one message: some models' templates want the sides to take turns."""
    joined: list[ChatMessage] = []
    for message in messages:
        last = joined[-1] if joined else None
        if last is not None and last.role == message.role and message.role != "tool" and not last.tool_calls:
            content = "\n".join(text for text in (last.content, message.content) if text)
            joined[-1] = replace_message(message, content=content, tool_calls=message.tool_calls)
        else:
            joined.append(message)
    return joined


def _as_json(message: ChatMessage) -> dict[str, object]:
    plain: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls
        ]
    if message.call_id:
        plain["tool_call_id"] = message.call_id
    return plain
