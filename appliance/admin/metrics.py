"""Everything the box measures about itself, for Prometheus. docs/metrics.md explains each name.

The control process owns one :class:`Metrics`. What other processes count comes to it as messages once a second
(:meth:`Metrics.media_stats`, :meth:`Metrics.worker_stats`, :meth:`Metrics.process_state`), what calls do as events
(:meth:`Metrics.observe`); what lives in this process is read when somebody asks (the ``watch_*`` methods).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from appliance.admin import processes
from appliance.admin.campaign_metrics import campaign_metrics
from appliance.campaigns.stats import CampaignStats
from appliance.events import (
    CallAnswered,
    CallEnded,
    CallEvent,
    CallStarted,
    InputBy,
    RecordingFinished,
    RecordingStarted,
    TurnFinished,
)
from appliance.ipc.hook_messages import Pong
from appliance.ipc.messages import PACING_BOUNDS_MS, LegClosed, MediaStats, ProcessState, WorkerStats
from appliance.plugins.breaker import Key
from appliance.plugins.declarative.delivery import WebhookStats
from appliance.signalling.routes import REFUSALS, Router
from appliance.signalling.trunks import COUNTED, TrunkTable

_LATENCY_BOUNDS_S: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0)
_STAGE_BOUNDS_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
_SETUP_BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)
HOOK_BOUNDS_S: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
_TALK_BOUNDS_S: Final = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_MOS_BOUNDS: Final = (1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.1, 4.2, 4.3, 4.4)

RELOADS: Final = ("changed", "unchanged", "refused", "failed")
"""What can come of reading other dialplans."""

_SIP_STATES: Final = {"calls", "transactions", "timers", "connections"}
"""Of the SIP endpoint's counters, those that say what is held now."""


class StoreCounters(Protocol):
    """What the metrics read of the call record's writer."""

    pending: int
    failing: str
    written: int
    transactions: int
    retries: int
    refused: int
    dropped: int
    busy_s: float


class HookTimes:
    """How long a plugin took for a hook. Ten plugins are counted several times for every word that a caller says, so
    this is quicker than a histogram of Prometheus's client."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(HOOK_BOUNDS_S) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(HOOK_BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class Metrics:
    """All metrics, in a registry of their own. A :class:`~appliance.events.CallObserver`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._open: dict[str, CallStarted] = {}
        self._answered_at: dict[str, float] = {}
        self._workers: dict[str, WorkerStats] = {}
        self._lateness = [0] * (len(PACING_BOUNDS_MS) + 1)
        self._define()
        self._pulled = _Pulled(self._lateness, self._hooks)
        self.registry.register(self._pulled)

    def _define(self) -> None:
        r = self.registry
        # Calls
        self._calls = Counter("appliance_calls", "Calls that ended", ["direction", "trunk", "disposition"], registry=r)
        self._calls_active = Gauge("appliance_calls_active", "Calls going on now", registry=r)
        self._calls_recovered = Counter(
            "appliance_calls_recovered", "Calls found open in the record at start and marked interrupted", registry=r
        )
        self._setup = Histogram(
            "appliance_call_setup_seconds", "Start of a call to its answer", registry=r, buckets=_SETUP_BOUNDS_S
        )
        self._talk = Histogram(
            "appliance_call_talk_seconds", "Answer of a call to its end", registry=r, buckets=_TALK_BOUNDS_S
        )
        # Turns
        self._turns = Counter("appliance_turns", "Turns of the conversation", ["by", "accepted"], registry=r)
        self._latency = Histogram(
            "appliance_turn_latency_seconds",
            "Speech end to the first packet of the reply",
            registry=r,
            buckets=_LATENCY_BOUNDS_S,
        )
        self._stages = Histogram(
            "appliance_turn_stage_seconds",
            "Time a turn spent in one stage",
            ["stage"],
            registry=r,
            buckets=_STAGE_BOUNDS_S,
        )
        self._rejections = Counter(
            "appliance_asr_rejections", "Utterances that were nothing the dialplan expected", registry=r
        )
        self._barge_ins = Counter("appliance_barge_ins", "Replies the caller cut short", registry=r)
        self._pauses = Counter("appliance_agent_pauses", "Pauses of the agent for sounds that were nothing", registry=r)
        self._speculations = Counter(
            "appliance_speculations", "Replies begun before the turn was certain", ["outcome"], registry=r
        )
        self._wasted_tokens = Counter(
            "appliance_speculation_wasted_tokens", "Tokens of replies that were thrown away", registry=r
        )
        self._wasted_speech = Counter(
            "appliance_speculation_wasted_speech_seconds", "Speech of replies that were thrown away", registry=r
        )
        self._reloads = Counter("appliance_reloads", "Readings of other dialplans", ["outcome"], registry=r)
        for outcome in RELOADS:
            self._reloads.labels(outcome)
        self._tools = Counter("appliance_tool_runs", "Tools the agent used", ["tool", "result"], registry=r)
        self._turn_problems = Counter("appliance_turn_problems", "Turns in which something went wrong", registry=r)
        # Plugins
        self._hooks: dict[tuple[str, str, str], HookTimes] = {}
        self._host_ends = Counter(
            "appliance_plugin_host_ends", "Times that the plugin host hung or ended", ["plugin", "how"], registry=r
        )
        # Media
        self._ticks = Counter("appliance_media_ticks", "20 ms ticks of the audio clock", registry=r)
        self._ticks_skipped = Counter(
            "appliance_media_ticks_skipped", "Ticks given up because they were late", registry=r
        )
        self._media_busy = Counter("appliance_media_busy_seconds", "Time the audio clock spent working", registry=r)
        self._media_legs = Gauge("appliance_media_legs", "Legs the audio clock serves now", registry=r)
        self._rtp_sent = Counter("appliance_rtp_packets_sent", "RTP packets sent", registry=r)
        self._rtp_received = Counter("appliance_rtp_packets_received", "RTP packets received", registry=r)
        self._rtp_concealed = Counter(
            "appliance_rtp_frames_concealed", "20 ms frames made up for lost audio", registry=r
        )
        self._denoised = Gauge("appliance_denoised_lines", "Callers whose noise is suppressed now", registry=r)
        self._denoise_replaced = Counter(
            "appliance_denoise_replaced", "Lines that got a cheaper noise suppression than they asked for", registry=r
        )
        self._streams = Gauge("appliance_streams", "Media streams of carriers, PBXs and browsers", registry=r)
        self._streams_ended = Counter(
            "appliance_streams_ended_badly", "Media streams refused, closed for what they sent, or broken", ["how"],
            registry=r,
        )  # fmt: skip
        self._underruns = Counter(
            "appliance_playout_underruns", "20 ms frames of silence in the middle of an utterance", registry=r
        )
        self._rtp_bad = Counter(
            "appliance_rtp_packets_bad",
            "RTP packets that did not become audio, counted when their leg closed",
            ["reason"],
            registry=r,
        )
        self._rtcp = Counter("appliance_rtcp_packets", "RTCP packets of calls", ["direction"], registry=r)
        self._mos = Histogram(
            "appliance_call_mos",
            "E-model score of a call, once it is over",
            ["side"],
            registry=r,
            buckets=_MOS_BOUNDS,
        )
        # Workers
        self._requests = Counter(
            "appliance_worker_requests", "Requests engine workers finished", ["worker", "result"], registry=r
        )
        self._worker_running = Gauge(
            "appliance_worker_running", "Requests an engine worker is working on now", ["worker"], registry=r
        )
        self._worker_busy = Counter(
            "appliance_worker_busy_seconds", "Time an engine worker spent working", ["worker"], registry=r
        )
        self._cache_hits = Counter(
            "appliance_worker_cache_hits", "Requests answered from an engine worker's cache", ["worker"], registry=r
        )
        # Recordings
        self._recordings = Counter("appliance_recordings", "Recordings that were closed", ["result"], registry=r)
        self._recordings_active = Gauge("appliance_recordings_active", "Recordings being written now", registry=r)
        # Everywhere
        self._queue_depth = Gauge("appliance_queue_depth", "Items waiting in a queue", ["queue"], registry=r)
        self._drops = Counter(
            "appliance_drops", "Items thrown away because there was no room or time", ["at"], registry=r
        )

    # --- calls ----------------------------------------------------------------------------------------------------

    def observe(self, event: CallEvent) -> None:
        """Count what happened to a call."""
        match event:
            case CallStarted():
                self._open[event.call_id] = event
                self._calls_active.set(len(self._open))
            case CallAnswered():
                self.call_answered(event)
            case TurnFinished():
                self.turn(event)
            case CallEnded():
                self.call_ended(event)
            case RecordingStarted():
                self._recordings_active.inc()
            case RecordingFinished():
                self._recordings_active.dec()
                self._recordings.labels("problem" if event.problem else "complete").inc()

    def call_answered(self, answered: CallAnswered) -> None:
        started = self._open.get(answered.call_id)
        if started is not None:
            self._answered_at[answered.call_id] = answered.answered_at
            self._setup.observe(answered.answered_at - started.started_at)

    def turn(self, turn: TurnFinished) -> None:
        self._turns.labels(turn.by.value, "true" if turn.accepted else "false").inc()
        if turn.latency_s is not None:
            self._latency.observe(turn.latency_s)
        for timing in turn.stages:
            self._stages.labels(timing.stage.value).observe(timing.duration_s)
        if turn.by is InputBy.VOICE and not turn.accepted:
            self._rejections.inc()
        if turn.interrupted:
            self._barge_ins.inc()
        self._pauses.inc(turn.pauses)
        begun = turn.speculation
        self._speculations.labels("used").inc(begun.used)
        self._speculations.labels("thrown_away").inc(begun.begun - begun.used)
        self._wasted_tokens.inc(begun.wasted_tokens)
        self._wasted_speech.inc(begun.wasted_speech_s)
        for tool in turn.tools:
            self._tools.labels(tool.name if tool.source else "(none)", "failed" if tool.problem else "done").inc()
        self._turn_problems.inc(bool(turn.problem))

    def call_ended(self, ended: CallEnded) -> None:
        started = self._open.pop(ended.call_id, None)
        answered_at = self._answered_at.pop(ended.call_id, None)
        self._calls_active.set(len(self._open))
        if started is not None:
            self._calls.labels(started.direction.value, started.trunk, ended.disposition.value).inc()
        if answered_at is not None:
            self._talk.observe(ended.ended_at - answered_at)

    def calls_recovered(self, count: int) -> None:
        """``count`` calls were found open in the record at start."""
        self._calls_recovered.inc(count)

    # --- messages -------------------------------------------------------------------------------------------------

    def media_stats(self, stats: MediaStats) -> None:
        """What the media process did since its last message."""
        self._ticks.inc(stats.ticks)
        self._ticks_skipped.inc(stats.skipped)
        self._media_busy.inc(stats.busy_s)
        self._media_legs.set(stats.legs)
        self._rtp_sent.inc(stats.sent)
        self._rtp_received.inc(stats.received)
        self._rtp_concealed.inc(stats.concealed)
        self._rtcp.labels("sent").inc(stats.rtcp_sent)
        self._rtcp.labels("received").inc(stats.rtcp_received)
        self._underruns.inc(stats.underruns)
        self._denoised.set(stats.denoised)
        self._denoise_replaced.inc(stats.denoise_replaced)
        self._streams.set(stats.streams)
        for how, count in (
            ("refused", stats.streams_refused), ("faulted", stats.streams_faulted), ("broken", stats.streams_broken)
        ):  # fmt: skip
            self._streams_ended.labels(how).inc(count)
        self._queue_depth.labels("media").set(stats.outbox)
        self._drops.labels("media").inc(stats.dropped)
        for bucket, count in enumerate(stats.lateness[: len(self._lateness)]):
            self._lateness[bucket] += count

    def leg_closed(self, leg: LegClosed) -> None:
        """Reception of one leg, once it is over."""
        self._rtp_bad.labels("lost").inc(leg.lost)
        self._rtp_bad.labels("late").inc(leg.late)
        self._rtp_bad.labels("stranger").inc(leg.strangers)
        self._rtp_bad.labels("duplicate").inc(leg.duplicates)
        self._rtp_bad.labels("unauthentic").inc(leg.srtp_failures)
        for side, score in (("heard", leg.mos), ("far", leg.mos_far)):
            if score:
                self._mos.labels(side).observe(score)

    def worker_stats(self, stats: WorkerStats) -> None:
        """What an engine worker counts since its start; one that counts less than before was restarted."""
        before = self._workers.get(stats.name)
        if before is None or stats.done < before.done or stats.busy_s < before.busy_s:
            before = WorkerStats(stats.name, 0, 0, 0, 0, 0, 0, 0.0)
        self._workers[stats.name] = stats
        name = stats.name
        self._requests.labels(name, "done").inc(stats.done - before.done)
        self._requests.labels(name, "failed").inc(max(0, stats.failed - before.failed))
        self._drops.labels(name).inc(max(0, stats.dropped - before.dropped))
        self._cache_hits.labels(name).inc(max(0, stats.cache_hits - before.cache_hits))
        self._worker_busy.labels(name).inc(stats.busy_s - before.busy_s)
        self._worker_running.labels(name).set(stats.running)
        self._queue_depth.labels(name).set(stats.queued)

    def process_state(self, state: ProcessState) -> None:
        """How a process of the box is, from the supervisor."""
        self._pulled.processes[state.name] = state

    # --- read when asked ------------------------------------------------------------------------------------------

    def watch_store(self, stats: Callable[[], StoreCounters]) -> None:
        """Read the call record's writer."""
        self._pulled.store = stats

    def watch_webhooks(self, stats: Callable[[], WebhookStats]) -> None:
        """Read how the delivery to webhooks does."""
        self._pulled.webhooks = stats

    def watch_campaigns(self, stats: Callable[[], CampaignStats]) -> None:
        """Read what campaigns do."""
        self._pulled.campaigns = stats

    def watch_sip(self, counters: Callable[[], Mapping[str, int]]) -> None:
        """Read a SIP endpoint's counters: events by name, and what it holds now."""
        self._pulled.sip = counters

    def reloaded(self, outcome: str) -> None:
        """Count a reading of other dialplans, by what came of it: one of ``RELOADS``."""
        self._reloads.labels(outcome).inc()

    def watch_dialplans(self, outdated: Callable[[], bool]) -> None:
        """Read whether calls are answered by older dialplans than there are on disk."""
        self._pulled.outdated = outdated

    def watch_refusals(self, refused: Callable[[], Mapping[str, int]]) -> None:
        """Read how many calls were not taken, by cause."""
        self._pulled.refusals = refused

    def watch_budgets(self, given_up: Callable[[], Mapping[str, int]]) -> None:
        """Read what was given up for want of time, by what it was."""
        self._pulled.given_up = given_up

    def hook_ran(self, hook: str, plugin: str, outcome: str, seconds: float) -> None:
        """Count what a plugin did in a hook."""
        times = self._hooks.get((hook, plugin, outcome))
        if times is None:
            times = self._hooks[(hook, plugin, outcome)] = HookTimes()
        times.add(seconds)

    def plugin_host_ended(self, plugin: str, how: str) -> None:
        """Count an end of the plugin host, and who is to blame."""
        self._host_ends.labels(plugin, how).inc()

    def watch_plugins(self, switched_off: Callable[[], Sequence[tuple[Key, float]]], host: Callable[[], Pong]) -> None:
        """Read which hooks are left alone for a while, and what the plugin host said of itself."""
        self._pulled.switched_off = switched_off
        self._pulled.plugin_host = host

    def watch_trunks(self, trunks: TrunkTable, router: Router) -> None:
        """Read how the trunks are, and which numbers were not dialled."""
        self._pulled.trunks = trunks
        self._pulled.router = router


class _Pulled:
    """Reads, at the moment of a scrape, what is kept elsewhere."""

    def __init__(self, lateness: list[int], hooks: Mapping[tuple[str, str, str], HookTimes]) -> None:
        self.lateness = lateness
        self.hooks = hooks
        self.processes: dict[str, ProcessState] = {}
        self.store: Callable[[], StoreCounters] | None = None
        self.webhooks: Callable[[], WebhookStats] | None = None
        self.campaigns: Callable[[], CampaignStats] | None = None
        self.sip: Callable[[], Mapping[str, int]] | None = None
        self.refusals: Callable[[], Mapping[str, int]] | None = None
        self.given_up: Callable[[], Mapping[str, int]] | None = None
        self.outdated: Callable[[], bool] = lambda: False
        self.trunks: TrunkTable | None = None
        self.router: Router | None = None
        self.switched_off: Callable[[], Sequence[tuple[Key, float]]] | None = None
        self.plugin_host: Callable[[], Pong] = lambda: Pong(0)

    def collect(self) -> Iterator[Metric]:
        yield self._pacing()
        yield self._hook_times()
        yield from self._processes()
        yield GaugeMetricFamily("appliance_dialplans_outdated", "Older dialplans answer", value=float(self.outdated()))
        if self.store is not None:
            yield from _store(self.store())
        if self.webhooks is not None:
            yield from _webhooks(self.webhooks())
        if self.campaigns is not None:
            yield from campaign_metrics(self.campaigns())
        if self.sip is not None:
            yield from _sip(self.sip())
        if self.refusals is not None:
            refused = CounterMetricFamily("appliance_calls_refused", "Calls that were not taken", labels=["cause"])
            for cause, count in sorted(self.refusals().items()):
                refused.add_metric([cause], count)
            yield refused
        if self.given_up is not None:
            given_up = CounterMetricFamily("appliance_given_up", "What the box had no time for", labels=["what"])
            for what, count in sorted(self.given_up().items()):
                given_up.add_metric([what], count)
            yield given_up
        if self.trunks is not None:
            yield from _trunks(self.trunks)
        if self.router is not None:
            yield _refused(self.router)
        if self.switched_off is not None:
            yield from _plugins(self.switched_off(), self.plugin_host())

    def _pacing(self) -> Metric:
        """A histogram without a sum: media counts buckets and does not keep the values."""
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip([*PACING_BOUNDS_MS, float("inf")], self.lateness, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound / 1000), total))
        family = HistogramMetricFamily(
            "appliance_media_tick_lateness_seconds", "How late ticks of the audio clock began"
        )
        family.add_metric([], buckets, sum_value=None)
        return family

    def _hook_times(self) -> Metric:
        labels = ["hook", "plugin", "outcome"]
        family = HistogramMetricFamily("appliance_hook_seconds", "Time a plugin took for a hook", labels=labels)
        for key, times in self.hooks.items():
            total, buckets = 0, []
            for bound, count in zip([*map(str, HOOK_BOUNDS_S), "+Inf"], times.counts, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric(key, buckets, times.seconds)
        return family

    def _processes(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("appliance_process_ready", "1 while the process can work", labels=["process"])
        restarts = CounterMetricFamily("appliance_process_restarts", "Restarts of the process", labels=["process"])
        memory = GaugeMetricFamily(
            "appliance_process_resident_memory_bytes", "Resident memory, shared pages included", labels=["process"]
        )
        cpu = CounterMetricFamily("appliance_process_cpu_seconds", "Processor time", labels=["process"])
        files = GaugeMetricFamily("appliance_process_open_files", "Open file descriptors", labels=["process"])
        threads = GaugeMetricFamily("appliance_process_threads", "Threads", labels=["process"])
        for name, state in self.processes.items():
            ready.add_metric([name], 1.0 if state.state == "ready" else 0.0)
            restarts.add_metric([name], state.restarts)
            usage = processes.usage(state.pid)
            if usage is not None:
                memory.add_metric([name], usage.resident_bytes)
                cpu.add_metric([name], usage.cpu_s)
                files.add_metric([name], usage.open_files)
                threads.add_metric([name], usage.threads)
        yield from (ready, restarts, memory, cpu, files, threads)


def _webhooks(stats: WebhookStats) -> Iterator[Metric]:
    sent = CounterMetricFamily(
        "appliance_webhook_events", "Events for webhooks, by what became of them", labels=["outcome"]
    )
    for outcome in ("delivered", "failed", "given_up", "dropped"):
        sent.add_metric([outcome], stats.outcomes[outcome])
    yield sent
    waiting = GaugeMetricFamily("appliance_webhook_waiting", "Events that wait for a webhook", labels=["webhook"])
    for (plugin, webhook), count in stats.waiting.items():
        waiting.add_metric([f"{plugin}.{webhook}"], count)
    yield waiting


def _store(stats: StoreCounters) -> Iterator[Metric]:
    yield GaugeMetricFamily("appliance_store_pending", "Writes of the record not yet committed", value=stats.pending)
    yield GaugeMetricFamily(
        "appliance_store_failing", "1 while the record cannot be written", value=1.0 if stats.failing else 0.0
    )
    for name, text, value in (
        ("writes", "Writes of the record committed", stats.written),
        ("transactions", "Transactions they took", stats.transactions),
        ("busy_seconds", "Time spent in transactions", stats.busy_s),
        ("retries", "Transactions that failed and were tried again", stats.retries),
        ("refused", "New calls refused because the record was too far behind", stats.refused),
        ("dropped", "Writes of the record that were lost", stats.dropped),
    ):
        yield CounterMetricFamily(f"appliance_store_{name}", text, value=value)


def _trunks(trunks: TrunkTable) -> Iterator[Metric]:
    registered = GaugeMetricFamily(
        "appliance_trunk_registered", "1 while the box is registered with the trunk", labels=["trunk"]
    )
    reachable = GaugeMetricFamily(
        "appliance_trunk_reachable", "1 while the trunk answers our OPTIONS", labels=["trunk"]
    )
    round_trip = GaugeMetricFamily(
        "appliance_trunk_round_trip_seconds", "Of the last OPTIONS that was answered", labels=["trunk"]
    )
    calls = GaugeMetricFamily("appliance_trunk_calls", "Calls on the trunk now, both ways", labels=["trunk"])
    events = CounterMetricFamily("appliance_trunk_events", "What happened on the trunk", labels=["trunk", "event"])
    for rule in trunks:
        state = trunks.state(rule.name)
        if state.registered is not None:
            registered.add_metric([rule.name], float(state.registered))
        if state.reachable is not None:
            reachable.add_metric([rule.name], float(state.reachable))
        if state.round_trip_ms is not None:
            round_trip.add_metric([rule.name], state.round_trip_ms / 1000)
        calls.add_metric([rule.name], state.calls)
        for event in COUNTED:
            events.add_metric([rule.name, event], state.counters[event])
    yield from (registered, reachable, round_trip, calls, events)


def _refused(router: Router) -> Metric:
    refused = CounterMetricFamily("appliance_dial_refused", "Numbers that were not dialled", labels=["cause"])
    for cause in REFUSALS:
        refused.add_metric([cause], router.refused[cause])
    return refused


def _plugins(switched_off: Sequence[tuple[Key, float]], host: Pong) -> Iterator[Metric]:
    off = GaugeMetricFamily(
        "appliance_hook_switched_off",
        "1 while a hook is left alone because it failed too often",
        labels=["hook", "plugin", "line"],
    )
    for key, _ in switched_off:
        off.add_metric([key.hook, key.plugin, key.line], 1.0)
    yield off
    yield CounterMetricFamily(
        "appliance_plugin_tasks_cancelled", "Tasks of plugins that calls left behind", value=host.leaked
    )
    yield GaugeMetricFamily(
        "appliance_plugin_threads_waiting", "Threads that hooks over their budget still hold", value=host.waiting
    )


def _sip(counters: Mapping[str, int]) -> Iterator[Metric]:
    events = CounterMetricFamily("appliance_sip_events", "What the SIP endpoint did and met", labels=["event"])
    held = GaugeMetricFamily("appliance_sip_held", "What the SIP endpoint holds now", labels=["kind"])
    for name, value in sorted(counters.items()):
        (held if name in _SIP_STATES else events).add_metric([name], value)
    yield events
    yield held
