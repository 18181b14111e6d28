"""What every call uses, made once by the control process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from appliance.dialplan.schema import Line
from appliance.engines.client import EnginePool
from appliance.events import CallEvent, CallStarted
from appliance.ipc.messages import LegClosed
from appliance.ipc.rings import AudioRings
from appliance.media.client import MediaClient
from appliance.plugins.hooks import NO_HOOKS, Hooks
from appliance.signalling.trunks import TrunkTable
from appliance.store.callers import CallerStore

logger = logging.getLogger(__name__)


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
class NamedEngine:
    """The workers of an engine that lines name; of a synthesiser, what keeps their caches warm, too."""

    pool: EnginePool
    timeout_s: float
    warm_up: WarmUp | None = None


@dataclass(frozen=True)
class Services:
    """What every call uses; made once by the control process. ``named`` are engines, by kind and name."""

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
    named: Mapping[tuple[str, str], NamedEngine] = field(default_factory=dict)

    def on(self, line: Line) -> Services:
        """As calls on ``line`` use them: with the engines that it names."""
        wanted = line.engines
        changes: dict[str, Any] = {}
        for kind, name in (("asr", wanted.asr), ("llm", wanted.llm), ("tts", wanted.tts)):
            if not name:
                continue
            engine = self.named.get((kind, name))
            if engine is None:  # the check of dialplans lets none through
                logger.error("line %s wants engines.named.%s.%s, which there is not", line.name, kind, name)
                continue
            changes[kind] = engine.pool
            changes |= {"warm_up": engine.warm_up} if kind == "tts" else {f"{kind}_timeout_s": engine.timeout_s}
        return replace(self, **changes) if changes else self
