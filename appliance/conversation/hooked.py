"""The hooks of one call, as its conversation calls them: every one that is not told of by the box itself.

A hook that no plugin of the line implements costs a look-up and changes nothing; nothing is built for it. None of them
raises: what a hook does when a plugin fails is said in :mod:`appliance.hookspecs`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from appliance.conversation.clauses import MAX_CHARACTERS, PARAGRAPH, ClauseCutter, speakable
from appliance.hook_types import Blocked, CallSummary, Denied, ModelRequest
from appliance.plugins.hooks import NO_HOOKS, HookCall, Hooks
from appliance.tool_types import OngoingCall

MAX_CONTEXT: Final = 4000
"""Characters of one text that a plugin adds before the model is asked."""
MAX_TEXT: Final = 4000
"""Characters of what a plugin takes to have been heard, or wants to be said."""
_MAX_SAID: Final = 400
_MAX_REASON: Final = 200
_MAX_TARGET: Final = 256
WITHHELD: Final = "[withheld"
"""What a text begins with that a plugin should have looked at, and has failed."""
MAX_SHOWN: Final = 40_000
"""Characters that plugins are shown at once before they are stored: a message between processes has its limit."""
_NOBODY: Final = HookCall("")
_MESSAGE: Final = re.compile(r'(?<=\}), (?=\{"role": )')


class HooksOfCall:
    """Calls the hooks for one call.

    Args:
        hooks: of the box.
        call: which call it is.
    """

    def __init__(self, hooks: Hooks = NO_HOOKS, call: HookCall = _NOBODY) -> None:
        self._hooks = hooks
        self._call = call

    def wanted(self, hook: str) -> bool:
        """Whether any plugin of the call's line implements ``hook``."""
        return self._hooks.wanted(hook, self._call.line)

    # --- what is heard and said -----------------------------------------------------------------------------------

    async def partial_transcript(self, text: str) -> str:
        """What the caller is taken to have said so far."""
        changed = await self._chain("partial_transcript", text)
        return changed[:MAX_TEXT] if isinstance(changed, str) else text

    async def final_transcript(self, text: str) -> str | Blocked:
        """What the caller is taken to have said."""
        changed = await self._chain("final_transcript", text)
        if isinstance(changed, Blocked):
            return Blocked(speakable(changed.say)[:_MAX_SAID])
        return changed[:MAX_TEXT] if isinstance(changed, str) else text

    async def reply_text(self, text: str) -> list[str]:
        """What is to be said instead of one piece of a reply, in pieces that can be spoken; none for nothing."""
        changed = await self._chain("reply_text", text.strip())
        if not isinstance(changed, str) or changed == text.strip():
            return [text]
        spoken = speakable(changed[:MAX_TEXT])
        if len(spoken) > MAX_CHARACTERS:
            cutter = ClauseCutter(first_words=MAX_CHARACTERS, first_max_words=MAX_CHARACTERS)
            pieces = [*cutter.push(spoken), *cutter.finish()]
        else:
            pieces = [spoken] if spoken else []
        if pieces and text.startswith(PARAGRAPH):
            pieces[0] = PARAGRAPH + pieces[0]
        return pieces

    # --- what the model is shown, and does -------------------------------------------------------------------------

    async def before_llm(self, request: ModelRequest, most: int = MAX_CONTEXT) -> list[tuple[str, str]]:
        """(plugin, text) that the model is to be shown as data, of ``most`` characters in all."""
        found: list[tuple[str, str]] = []
        left = most
        for plugin, texts in await self._hooks.collect("before_llm", self._call, request=request):
            for text in texts:
                cut = text[: min(MAX_CONTEXT, left)]
                left -= len(cut)
                found += [(plugin, cut)] if cut else []
        return found

    async def before_tool(self, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any] | Denied:
        """With what arguments the tool is to run, if at all."""
        changed = await self._chain("before_tool", arguments, tool=tool)
        if isinstance(changed, Denied):
            return Denied(changed.reason[:_MAX_REASON])
        return changed if isinstance(changed, Mapping) else arguments

    async def after_tool(self, tool: str, arguments: Mapping[str, Any], result: Any) -> Any:
        """What the model is to be told instead of ``result``, a JSON value."""
        return await self._chain("after_tool", result, tool=tool, arguments=arguments)

    async def transfer_requested(self, target: str) -> str | Denied:
        """Whom the caller is to be handed on to, if anybody."""
        changed = await self._chain("transfer_requested", target)
        if isinstance(changed, Denied):
            return Denied(changed.reason[:_MAX_REASON])
        return changed[:_MAX_TARGET] if isinstance(changed, str) and changed else target

    async def run_tool(self, plugin: str, tool: str, arguments: Mapping[str, Any], ongoing: OngoingCall) -> Any:
        """What a tool of a plugin returns. Raises ToolError where it fails."""
        return await self._hooks.run_tool(plugin, tool, self._call, arguments, ongoing)

    async def tools(self) -> list[tuple[str, Any]]:
        """(plugin, what it offers) for this call."""
        return await self._hooks.collect("tools", self._call)

    # --- what plugins are told --------------------------------------------------------------------------------------

    def over(self) -> None:
        """Nothing more is asked or told of this call."""
        self._hooks.over(self._call.call_id)

    def answered(self) -> None:
        self._tell("answered")

    def key(self, digit: str) -> None:
        self._tell("key", digit=digit)

    def silence(self, times: int) -> None:
        self._tell("silence", times=times)

    def call_ended(self, summary: CallSummary) -> None:
        self._tell("call_ended", summary=summary)

    async def keep_recording(self, path: str) -> str:
        """Where the recording at ``path`` is from now on."""
        kept = await self._hooks.first("keep_recording", self._call, path=path)
        return kept if isinstance(kept, str) and kept else path

    def record_stored(self, record: Mapping[str, Any]) -> None:
        self._tell("record_stored", record=record)

    # --- what is kept -----------------------------------------------------------------------------------------------

    async def before_storing(self, texts: list[str]) -> list[str]:
        """The same texts, as they may be kept; what nobody answers for, or is too long to be shown, is withheld."""
        if not self.wanted("before_storing"):
            return texts
        cut = [_messages_of(text) for text in texts]
        pieces = [piece for whole in cut for piece in whole]
        kept: list[str] = []
        for batch in _batches(pieces):
            kept += await self._may_be_kept(batch)
        left = iter(kept)
        return ["".join(next(left) for _ in whole) for whole in cut]

    async def _may_be_kept(self, texts: list[str]) -> list[str]:
        if not any(texts):
            return texts
        if len(texts) == 1 and len(texts[0]) > MAX_SHOWN:
            return [f"{WITHHELD}: {len(texts[0])} characters are too many to be looked at]"]
        kept = await self._chain("before_storing", texts)
        if isinstance(kept, list) and len(kept) == len(texts) and all(isinstance(text, str) for text in kept):
            return kept
        return [f"{WITHHELD}: a plugin failed]"] * len(texts)

    async def _chain(self, hook: str, value: Any, **arguments: Any) -> Any:
        if not self._hooks.wanted(hook, self._call.line):
            return value
        return await self._hooks.chain(hook, self._call, value, **arguments)

    def _tell(self, hook: str, **arguments: Any) -> None:
        if self._hooks.wanted(hook, self._call.line):
            self._hooks.tell(hook, self._call, **arguments)


def _messages_of(text: str) -> list[str]:
    """``text`` in pieces that can be shown. Where it is long it is a list of messages in JSON, and cut between them."""
    if len(text) <= MAX_SHOWN:
        return [text]
    pieces = [""]
    at = 0
    for between in [*_MESSAGE.finditer(text), None]:
        end = between.end() if between is not None else len(text)
        if pieces[-1] and len(pieces[-1]) + end - at > MAX_SHOWN:
            pieces.append("")
        pieces[-1] += text[at:end]
        at = end
    return pieces


def _batches(texts: list[str]) -> list[list[str]]:
    """``texts`` in order, as many together as can be shown at once."""
    batches: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if batches[-1] and size + len(text) > MAX_SHOWN:
            batches.append([])
            size = 0
        batches[-1].append(text)
        size += len(text)
    return batches


NONE: Final = HooksOfCall()
"""Of a call in a box without plugins."""
