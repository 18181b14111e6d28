"""What the host keeps of each call: the plugins' state, their tools, what they have yet to be told, what they left."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.api import Call, Tool
from appliance.ipc.hook_messages import HookCall, RunHook
from appliance.plugins.host.context import Running
from appliance.plugins.host.installed import Installed

MAX_TOLD: Final = 256
MAX_CALLS: Final = 20_000


@dataclass(eq=False)
class CallState:
    """One call, or the box as a whole.

    Attributes:
        told: hooks that nobody waits for, in order; ``telling`` while one of them runs.
        at_work: hooks and tools of the call that run now.
        over: nothing more will be asked; the rest is finished first.
    """

    call_id: str
    plan: Installed
    told: deque[RunHook] = field(default_factory=deque)
    telling: bool = False
    at_work: int = 0
    over: bool = False
    tools: dict[tuple[str, str], Tool] = field(default_factory=dict)
    _states: dict[str, dict[str, Any]] = field(default_factory=dict)
    _seen: dict[str, tuple[HookCall, Call]] = field(default_factory=dict)
    _running: dict[tuple[str, str, str], Running] = field(default_factory=dict)

    def of(self, plugin: str, call: HookCall) -> Call:
        """The call as the plugin sees it."""
        seen = self._seen.get(plugin)
        if seen is not None and seen[0] == call:
            return seen[1]
        made = Call(
            call_id=call.call_id,
            line=call.line,
            trunk=call.trunk,
            caller=call.caller,
            called=call.called,
            language=call.language,
            direction=call.direction,
            caller_name=call.caller_name,
            headers=call.headers,
            lead=call.lead,
            values=self.plan.of(call.line, plugin),
            state=self._states.setdefault(plugin, {}),
        )
        self._seen[plugin] = (call, made)
        return made

    def running(self, plugin: str, hook: str, line: str) -> Running:
        """Who runs, for the marker page; what it leaves behind is the call's."""
        key = (plugin, hook, line)
        found = self._running.get(key)
        if found is None:
            found = self._running[key] = Running(plugin, hook, line)
        return found

    def left_behind(self) -> list[asyncio.Task[Any]]:
        """Tasks that hooks of the call began and that still run."""
        return [task for running in self._running.values() for task in running.tasks if not task.done()]


class Calls:
    """All calls that plugins know of.

    Attributes:
        leaked: tasks that calls left behind, cancelled since the start.
    """

    def __init__(self) -> None:
        self._calls: dict[str, CallState] = {}
        self.leaked = 0

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, call_id: str, plan: Installed) -> CallState:
        """The call's state, made where it is new. The first plan that a call goes by stays its plan."""
        state = self._calls.get(call_id)
        if state is None:
            if len(self._calls) >= MAX_CALLS:  # the oldest cannot be running any more
                self._forget(next(iter(self._calls.values())))
            state = self._calls[call_id] = CallState(call_id, plan)
        return state

    def known(self, call_id: str) -> CallState | None:
        return self._calls.get(call_id)

    def over(self, call_id: str) -> None:
        """Forget the call as soon as all that it was told has been heard."""
        state = self._calls.get(call_id)
        if state is not None:
            state.over = True
            self.settle(state)

    def settle(self, state: CallState) -> None:
        """Forget the call if it is over and nothing of it runs any more."""
        if state.over and not state.at_work and not state.told and not state.telling:
            self._forget(state)

    def clear(self) -> None:
        """Control is gone, and its calls with it."""
        for state in list(self._calls.values()):
            self._forget(state)

    def _forget(self, state: CallState) -> None:
        if self._calls.get(state.call_id) is state:
            del self._calls[state.call_id]
        for task in state.left_behind():
            self.leaked += 1
            task.cancel()
