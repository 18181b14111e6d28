"""The hooks of one call, as its conversation calls them: every one that is not told of by the box itself.

A hook that no plugin of the line implements costs a look-up and changes nothing; nothing is built for it. None of them
raises: what a hook does when a plugin fails is said in :mod:`appliance.hookspecs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appliance.conversation.clauses import MAX_CHARACTERS, PARAGRAPH, ClauseCutter, speakable
from appliance.hook_types import Blocked, CallSummary, Denied, ModelRequest
from appliance.plugins.hooks import NO_HOOKS, HookCall, Hooks
from appliance.tool_types import OngoingCall

MAX_CONTEXT: Final = 4000
"""Characters of one text that a plugin adds before the model is asked."""
WITHHELD: Final = "[withheld"
"""What a text begins with that a plugin should have looked at, and has failed."""
_NOBODY: Final = HookCall("")


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
        return changed if isinstance(changed, str) else text

    async def final_transcript(self, text: str) -> str | Blocked:
        """What the caller is taken to have said."""
        changed = await self._chain("final_transcript", text)
        return changed if isinstance(changed, str | Blocked) else text

    async def reply_text(self, text: str) -> list[str]:
        """What is to be said instead of one piece of a reply, in pieces that can be spoken; none for nothing."""
        changed = await self._chain("reply_text", text.strip())
        if not isinstance(changed, str) or changed == text.strip():
            return [text]
        spoken = speakable(changed)
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
        return changed if isinstance(changed, Mapping | Denied) else arguments

    async def after_tool(self, tool: str, arguments: Mapping[str, Any], result: Any) -> Any:
        """What the model is to be told instead of ``result``, a JSON value."""
        return await self._chain("after_tool", result, tool=tool, arguments=arguments)

    async def transfer_requested(self, target: str) -> str | Denied:
        """Whom the caller is to be handed on to, if anybody."""
        changed = await self._chain("transfer_requested", target)
        return changed if isinstance(changed, str | Denied) and changed != "" else target

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

    def record_stored(self, record: Mapping[str, Any]) -> None:
        self._tell("record_stored", record=record)

    # --- what is kept -----------------------------------------------------------------------------------------------

    async def before_storing(self, texts: list[str]) -> list[str]:
        """The same texts, as they may be kept. What nobody answers for is withheld."""
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


NONE: Final = HooksOfCall()
"""Of a call in a box without plugins."""
