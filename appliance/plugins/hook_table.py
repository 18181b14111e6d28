"""Every hook that runs in the plugin host: its rule, its budget, its type, and what a failure comes to. PURE.

``hookspecs.py`` says the same in words, and a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from appliance.hook_types import Blocked, Denied, Refusal


class Rule(StrEnum):
    """What becomes of the results."""

    FIRST = "first"
    COLLECTED = "collected"
    CHAINED = "chained"
    TOLD = "told"


@dataclass(frozen=True)
class HookRule:
    """One hook.

    Attributes:
        rule: what becomes of the results.
        budget_s: how long one plugin may take.
        result: type of one plugin's result, None aside; ``Any`` for any JSON value.
        value: name of the argument that is chained.
        box_wide: no line has been chosen: only plugins enabled for the whole box run.
        closed: a failure withholds the value, instead of leaving it as it was.
        lifecycle: run by the host itself, not asked for by a call.
    """

    rule: Rule
    budget_s: float
    result: Any = None
    value: str = ""
    box_wide: bool = False
    closed: bool = False
    lifecycle: bool = False


class ToolOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of a plugin, without its function. ``parameters`` is JSON text."""

    name: str
    description: str
    parameters: str
    side_effects: bool = True
    cancellable: bool = False
    timeout_s: float = 10.0
    filler: str = ""
    confirm: str = ""


HOOKS: Final[dict[str, HookRule]] = {
    "configure": HookRule(Rule.TOLD, 10.0, lifecycle=True),
    "started": HookRule(Rule.TOLD, 10.0, lifecycle=True),
    "stopping": HookRule(Rule.TOLD, 3.0, lifecycle=True),
    "verify_identity": HookRule(Rule.FIRST, 0.05, str, box_wide=True),
    "admit": HookRule(Rule.FIRST, 0.1, Refusal, box_wide=True),
    "route": HookRule(Rule.FIRST, 0.1, str, box_wide=True),
    "tools": HookRule(Rule.COLLECTED, 0.1, list[ToolOffer]),
    "answered": HookRule(Rule.TOLD, 5.0),
    "partial_transcript": HookRule(Rule.CHAINED, 0.02, str, "text"),
    "final_transcript": HookRule(Rule.CHAINED, 0.05, str | Blocked, "text"),
    "before_llm": HookRule(Rule.COLLECTED, 0.1, list[str]),
    "before_tool": HookRule(Rule.CHAINED, 0.1, dict[str, Any] | Denied, "arguments"),
    "after_tool": HookRule(Rule.CHAINED, 0.1, Any, "result"),
    "reply_text": HookRule(Rule.CHAINED, 0.02, str, "text"),
    "key": HookRule(Rule.TOLD, 1.0),
    "silence": HookRule(Rule.TOLD, 1.0),
    "transfer_requested": HookRule(Rule.CHAINED, 0.1, str | Denied, "target"),
    "before_storing": HookRule(Rule.CHAINED, 0.5, list[str], "texts", closed=True),
    "call_ended": HookRule(Rule.TOLD, 30.0),
    "keep_recording": HookRule(Rule.FIRST, 30.0, str),
    "record_stored": HookRule(Rule.TOLD, 30.0),
    "campaign_event": HookRule(Rule.TOLD, 5.0, box_wide=True),
    "http_routes": HookRule(Rule.COLLECTED, 0.1, lifecycle=True),
    "cli_commands": HookRule(Rule.COLLECTED, 0.1, lifecycle=True),
}
