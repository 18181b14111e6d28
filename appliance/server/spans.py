"""Spans of calls for OpenTelemetry: a call, its turns with their stages, its tools, and the hooks of plugins.

Spans have names, times and outcomes, and nothing that anybody said: no texts, no numbers, no arguments of tools. They
are sent in the background, in small batches. What cannot be sent in time is dropped; no call waits for it.

Nothing of OpenTelemetry is imported unless ``traces.endpoint`` is set.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from appliance.errors import ApplianceError
from appliance.events import CallAnswered, CallEnded, CallEvent, CallStarted, TurnFinished
from appliance.plugins.hooks import HookRun

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

_MAX_CALLS: Final = 5000
_MAX_EARLY: Final = 20
_MAX_QUEUE: Final = 4096
_BATCH: Final = 64
"""Spans that are encoded at once: the thread that does it holds the interpreter for a millisecond or two."""
_EVERY_MS: Final = 1000
_TIMEOUT_S: Final = 5.0

Attributes = Mapping[str, str | int | float | bool]


@dataclass(eq=False)
class _Call:
    root: Span
    context: Context
    epoch_s: float
    """What a CLOCK_MONOTONIC time of the call is more by as a wall clock's."""

    def ns(self, at: float) -> int:
        return int((at + self.epoch_s) * 1e9)


class CallSpans:
    """Makes spans of the events of calls.

    Args:
        tracer: takes them.
        within: makes the context in which a span's children are.
        close: sends what is left; may block for some seconds.
        wall: seconds since 1970, less CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        tracer: Tracer,
        within: Callable[[Span], Context],
        close: Callable[[], None],
        wall: Callable[[], float] = lambda: time.time() - time.monotonic(),
    ) -> None:
        self._tracer = tracer
        self._within = within
        self._wall = wall
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._early: OrderedDict[str, list[HookRun]] = OrderedDict()
        self.close = close

    def observe(self, event: CallEvent) -> None:
        """Take an event of a call."""
        if isinstance(event, CallStarted):
            self._started(event)
            return
        call = self._calls.get(event.call_id)
        if call is None:
            return
        match event:
            case CallAnswered():
                call.root.add_event("answered", timestamp=call.ns(event.answered_at))
            case TurnFinished():
                self._turn(call, event)
            case CallEnded():
                call.root.set_attributes(
                    {
                        "call.disposition": event.disposition.value,
                        "call.hangup_by": event.hangup_by.value,
                        "call.hangup_code": event.hangup_code,
                    }
                )
                call.root.end(call.ns(event.ended_at))
            case _:
                pass

    def hook_ran(self, run: HookRun) -> None:
        """Take a hook of a call; one that was asked before the call is on record waits for that."""
        call = self._calls.get(run.call_id)
        if call is not None:
            self._hook(call, run)
        elif run.call_id:
            early = self._early.setdefault(run.call_id, [])
            if len(early) < _MAX_EARLY:
                early.append(run)
            while len(self._early) > _MAX_CALLS:
                self._early.popitem(last=False)

    def _started(self, event: CallStarted) -> None:
        epoch_s = self._wall()
        attributes = {
            "call.id": event.call_id,
            "call.line": event.line,
            "call.trunk": event.trunk,
            "call.direction": event.direction.value,
            "call.protocol": event.protocol,
        }
        root = self._tracer.start_span(
            "call", attributes=attributes, start_time=int((event.started_at + epoch_s) * 1e9)
        )
        call = self._calls[event.call_id] = _Call(root, self._within(root), epoch_s)
        while len(self._calls) > _MAX_CALLS:  # what plugins do after the end of a call belongs to it, too
            self._calls.popitem(last=False)[1].root.end()
        for run in self._early.pop(event.call_id, ()):
            self._hook(call, run)

    def _turn(self, call: _Call, turn: TurnFinished) -> None:
        times = [stage.start_at for stage in turn.stages] + [stage.end_at for stage in turn.stages]
        known = [at for at in (turn.speech_start_at, turn.speech_end_at, turn.reply_at, *times) if at is not None]
        if not known:
            return
        attributes: dict[str, str | int | float | bool] = {
            "call.id": turn.call_id,
            "turn.number": turn.number,
            "turn.by": turn.by.value,
            "turn.ended_by": turn.ended_by,
            "turn.interrupted": turn.interrupted,
            "turn.failed": bool(turn.problem),
        }
        if turn.latency_s is not None:
            attributes["turn.latency_ms"] = round(turn.latency_s * 1e3, 1)
        span = self._span(call, call.context, "turn", min(known), max(known), attributes)
        context = self._within(span)
        for stage in turn.stages:
            self._span(call, context, stage.stage.value, stage.start_at, stage.end_at, {})
        for tool in turn.tools:
            about: Attributes = {"tool.name": tool.name[:64], "tool.source": tool.source, "tool.ok": not tool.problem}
            self._span(call, context, f"tool {tool.name[:64]}", tool.start_at, tool.end_at, about)

    def _hook(self, call: _Call, run: HookRun) -> None:
        attributes: dict[str, str | int | float | bool] = {"hook.name": run.hook, "call.id": run.call_id}
        for one in run.outcomes:
            attributes[f"hook.{one.plugin}.outcome"] = one.outcome
            attributes[f"hook.{one.plugin}.ms"] = round(one.seconds * 1e3, 3)
        self._span(call, call.context, f"hook {run.hook}", run.began_at, run.ended_at, attributes)

    def _span(
        self, call: _Call, context: Context, name: str, began_at: float, ended_at: float, attributes: Attributes
    ) -> Span:
        span = self._tracer.start_span(name, context, attributes=dict(attributes), start_time=call.ns(began_at))
        span.end(call.ns(max(began_at, ended_at)))
        return span


def call_spans(endpoint: str) -> CallSpans:
    """Spans that are sent to ``endpoint`` by OTLP over HTTP.

    Raises:
        ApplianceError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import set_span_in_context
    except ImportError as error:
        raise ApplianceError(
            f"traces.endpoint is set, and OpenTelemetry is not installed ({error.name}); "
            "pip install 'appliance[traces]', or remove the setting"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "appliance"}), shutdown_on_exit=False)
    exporter: Any = OTLPSpanExporter(endpoint=endpoint, timeout=_TIMEOUT_S)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter, max_queue_size=_MAX_QUEUE, max_export_batch_size=_BATCH, schedule_delay_millis=_EVERY_MS
        )
    )
    return CallSpans(provider.get_tracer("appliance"), set_span_in_context, provider.shutdown)
