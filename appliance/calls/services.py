"""What every call uses, made once by the control process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from appliance.calls.brains import BUILTIN_TOOLS
from appliance.calls.recording import RecorderClient
from appliance.calls.tool_sources import ToolSources
from appliance.calls.transfer import Transfers
from appliance.calls.warm_up import WarmUp
from appliance.clock import Clock
from appliance.conversation.budget import VerdictBudget
from appliance.conversation.speculation import SpeculationBudget
from appliance.engines.client import EnginePool
from appliance.events import CallEvent, CallStarted
from appliance.ipc.messages import LegClosed
from appliance.ipc.rings import AudioRings
from appliance.media.client import MediaClient
from appliance.plugins.hooks import NO_HOOKS, Hooks
from appliance.signalling.trunks import TrunkTable
from appliance.store.callers import CallerStore


class CallLog(Protocol):
    """Where a call's events go: the record first, then whoever counts."""

    def started(self, event: CallStarted) -> asyncio.Future[None]:
        """Puts the call on its way into the record; done when the record holds it.

        Raises:
            StoreError: at once or when awaited, where it cannot.
        """
        ...

    def say(self, event: CallEvent) -> None: ...
    def leg_closed(self, leg: LegClosed) -> None: ...


class Records(Protocol):
    """Reads what is on record."""

    async def stored(self, call_id: str) -> Mapping[str, Any] | None:
        """A call as it is on record once all that was said of it so far is there; None where there is none."""
        ...


@dataclass(frozen=True)
class Services:
    """What every call uses; made once by the control process."""

    clock: Clock
    rings: AudioRings
    media: MediaClient
    recorder: RecorderClient | None
    log: CallLog
    asr: EnginePool | None
    turn: EnginePool | None
    verdicts: VerdictBudget
    tts: EnginePool
    llm: EnginePool | None
    speech: EnginePool | None
    asr_timeout_s: float
    llm_timeout_s: float
    recordings: Path
    speculation: SpeculationBudget
    callers: CallerStore | None = None
    trunks: TrunkTable | None = None
    transfers: Transfers | None = None
    warm_up: WarmUp | None = None
    hooks: Hooks = NO_HOOKS
    tools: ToolSources = BUILTIN_TOOLS
    records: Records | None = None
