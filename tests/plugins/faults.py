"""Plugins that do everything wrong: each hook does what the caller's number says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from appliance.hook_types import CallSummary, CampaignEvent, ModelRequest
from appliance.hookspecs import IdentityClaim
from appliance.ipc.hook_messages import HookCall
from appliance.plugins.hook_table import HOOKS, Rule
from appliance.plugins.hooks import Hooks

SURVIVED = ("raises", "asleep", "wrong_type", "leaked_task", "allocates")
"""Faults that the plugin host lives through."""
ENDING = ("while_true", "regex", "exits")
"""Faults that end it: it is killed, or ends itself."""
FAULTS = (*SURVIVED, "json", *ENDING)

HOOKS_OF_CALLS = tuple(hook for hook, rule in HOOKS.items() if not rule.lifecycle)

_SOURCE = '''
"""Does what the caller's number says."""

import asyncio, datetime, json, os, re, threading, time

from appliance.api import CampaignEvent, Tool, hookimpl

KEPT = []


def do(fault, right):
    if fault == "raises":
        raise RuntimeError("as asked")
    if fault == "asleep":
        time.sleep(2.0)
    if fault == "while_true":
        while True:
            pass
    if fault == "regex":
        re.match(r"(a+)+$", "a" * 40 + "b")
    if fault == "json":
        json.loads("[" + "1," * 25_000_000 + "1]")
    if fault == "wrong_type":
        return object()
    if fault == "leaked_task":
        try:
            KEPT.append(asyncio.get_running_loop().create_task(asyncio.sleep(3600)))
        except RuntimeError:
            threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
    if fault == "allocates":
        return bytearray(2 << 30)
    if fault == "exits":
        os._exit(9)
    return right


async def run(arguments, call):
    return do(call.caller, {"done": True})


TOOLS = [Tool(name="faulty", description="Fails.", parameters={"type": "object"}, run=run, timeout_s=2.0)]
'''


def source(*, plain: bool, about: str = "call.caller") -> str:
    """The text of a plugin with every hook; of ``async`` functions unless ``plain``.

    ``about`` is what says which fault a hook has, in Python, of ``call`` and ``hook``.
    """
    parts = [_SOURCE]
    word = "def" if plain else "async def"
    for hook, rule in HOOKS.items():
        if rule.lifecycle:
            continue
        fault = "event.lead" if hook == "campaign_event" else about
        argument = "event" if hook == "campaign_event" else "call"
        body = f"    hook = {hook!r}\n    fault = {fault}\n"
        if not plain:
            body += '    if fault == "asleep":\n        await asyncio.sleep(60)\n'
        right = "TOOLS" if hook == "tools" else "None"
        parts.append(f"@hookimpl\n{word} appliance_{hook}({argument}):\n{body}    return do(fault, {right})\n")
    return "\n\n".join(parts)


def call(fault: str, line: str = "a", call_id: str = "c1") -> HookCall:
    """A call whose hooks have the fault."""
    return HookCall(call_id, line=line, caller=fault, called="100", language="en")


ARGUMENTS: dict[str, dict[str, Any]] = {
    "verify_identity": {"claim": IdentityClaim("t", "https://c", "A", "1", ("2",), 3, "1", "2")},
    "before_llm": {"request": ModelRequest("hello")},
    "before_tool": {"tool": "book"},
    "after_tool": {"tool": "book", "arguments": {}},
    "key": {"digit": "1"},
    "keep_recording": {"path": "/var/recordings/c1.wav"},
    "silence": {"times": 1},
    "call_ended": {"summary": CallSummary(disposition="completed", hangup_by="caller")},
    "record_stored": {"record": {"call_id": "c1"}},
}
VALUES: dict[str, Any] = {
    "before_tool": {"day": "tuesday"},
    "after_tool": {"booked": True},
    "before_storing": ["one", "two"],
}


def value_of(hook: str) -> Any:
    """What is chained."""
    return VALUES.get(hook, "some text")


def default_of(hook: str, plugin: str) -> Any:
    """What the hook gives where the plugin fails."""
    rule = HOOKS[hook]
    if rule.closed:
        return [f"[withheld: {plugin} failed]"] * len(value_of(hook))
    return {Rule.FIRST: None, Rule.COLLECTED: [], Rule.CHAINED: value_of(hook), Rule.TOLD: None}[rule.rule]


async def ask(hooks: Hooks, hook: str, about: HookCall) -> Any:
    """Call a hook as the box does."""
    arguments = ARGUMENTS.get(hook, {})
    match HOOKS[hook].rule:
        case Rule.FIRST:
            return await hooks.first(hook, about, **arguments)
        case Rule.COLLECTED:
            return await hooks.collect(hook, about, **arguments)
        case Rule.CHAINED:
            return await hooks.chain(hook, about, value_of(hook), **arguments)
        case Rule.TOLD:
            if hook == "campaign_event":
                hooks.tell(hook, None, event=event(about.caller))
            else:
                hooks.tell(hook, about, **arguments)
            return None


def event(fault: str) -> CampaignEvent:
    """Something that happened in a campaign."""
    return CampaignEvent("spring", fault, "reached", datetime(2026, 1, 1, tzinfo=UTC))
