from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from appliance.admin.metrics import Metrics
from appliance.campaigns.stats import CampaignStats
from appliance.config.trunks import Route
from appliance.errors import DialError
from appliance.events import Disposition, InputBy, Speculation, Stage, ToolRun
from appliance.ipc.hook_messages import Pong
from appliance.ipc.messages import PACING_BOUNDS_MS, LegClosed, MediaStats, ProcessState, WorkerStats
from appliance.plugins.breaker import Key
from appliance.plugins.declarative.delivery import WebhookStats
from appliance.signalling.routes import REFUSALS, Router
from appliance.signalling.trunks import COUNTED, TrunkRule, TrunkTable
from appliance.store.writer import WriterStats
from tests.store import facts

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def media_stats(lateness: tuple[int, ...] = (50, *[0] * len(PACING_BOUNDS_MS)), **changes: int) -> MediaStats:
    counts = {"skipped": 0, "sent": 150, "received": 149, "dropped": 2, "concealed": 1, "underruns": 0, "outbox": 4}
    return MediaStats(ticks=50, legs=3, busy_s=0.2, lateness=lateness, **{**counts, **changes})


def trunks() -> tuple[TrunkTable, Router]:
    table = TrunkTable([TrunkRule("carrier", register=True, max_calls=1, allow_prefixes=("*",)), TrunkRule("pbx")])
    state = table.state("carrier")
    state.registered, state.reachable, state.round_trip_ms = True, False, 12.5
    router = Router(table, (Route(trunks=("carrier",)),))
    for target in ("+19005551234", "112"):
        with pytest.raises(DialError):
            router.attempts(target)
    table.take("carrier", 0.0)
    table.take("carrier", 0.0)
    return table, router


@pytest.fixture
def metrics() -> Metrics:
    """Everything has been seen once."""
    metrics = Metrics()
    metrics.watch_store(WriterStats)
    metrics.watch_webhooks(lambda: WebhookStats(waiting=Counter({("crm", "calls"): 2})))
    metrics.watch_campaigns(
        lambda: CampaignStats(
            attempts=Counter({("spring", "busy"): 2}),
            leads_done=Counter({("spring", "completed"): 1}),
            held_back=Counter({("spring", "window"): 1}),
            calls={"spring": 1},
            abandoned_percent={"spring": 0.5},
            problem="away",
            open_breakers={"carrier"},
        )
    )
    metrics.watch_sip(lambda: {"garbage": 3, "calls": 2})
    metrics.watch_refusals(lambda: {"no_line": 2})
    metrics.watch_budgets(lambda: {"speculation": 2})
    metrics.process_state(ProcessState("media", "ready", os.getpid(), 2))
    metrics.media_stats(media_stats())
    metrics.leg_closed(LegClosed(0, 1, 500, 480, lost=5, late=6, concealed=11, strangers=7, srtp_failures=3, mos=4.2))
    metrics.worker_stats(WorkerStats("asr-0", 3, 1, 10, 1, 2, 0, 4.0))
    metrics.calls_recovered(1)
    metrics.watch_trunks(*trunks())
    metrics.watch_plugins(lambda: [(Key("crm", "key", "a"), 3.0)], lambda: Pong(1, leaked=2, waiting=1))
    metrics.hook_ran("key", "crm", "ok", 0.001)
    metrics.plugin_host_ended("crm", "hung")
    for event in (
        facts.started(),
        facts.ringing(),
        facts.answered(),
        facts.recording(),
        facts.turn(pauses=1, speculation=Speculation(2, True, 5, 0.5), tools=(ToolRun("a", "{}", "1", 0.0, 1.0),)),
        facts.ended(),
        facts.recorded(),
    ):
        metrics.observe(event)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_every_metric_is_documented_with_its_type_and_labels(metrics: Metrics) -> None:
    documented = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(appliance_\w+)` \| (\w+) \|([^|]*)\|", DOCUMENT.read_text(), re.M)
    }
    existing = {}
    for family in metrics.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        existing[family.name] = (family.type, labels)
    assert documented.keys() == existing.keys()
    for name, (kind, wanted) in documented.items():
        assert (kind, set(wanted)) == existing[name], name


def test_every_value_of_a_label_that_is_an_enumeration_is_documented() -> None:
    text = DOCUMENT.read_text()
    assert all(f"`{name}`" in text for name in (*COUNTED, *REFUSALS))
    for enumeration in (InputBy, Stage, [d for d in Disposition if d is not Disposition.IN_PROGRESS]):
        for member in enumeration:
            assert f"`{member.value}`" in text


def test_a_call_is_counted_by_what_became_of_it(metrics: Metrics) -> None:
    labels = {"direction": "inbound", "trunk": "local", "disposition": "completed"}
    assert value(metrics, "appliance_calls_total", **labels) == 1
    assert value(metrics, "appliance_calls_active") == 0
    assert value(metrics, "appliance_call_setup_seconds_sum") == 1.0
    assert value(metrics, "appliance_call_talk_seconds_sum") == 19.0


def test_a_turn_is_counted_with_its_latency_and_stages(metrics: Metrics) -> None:
    assert value(metrics, "appliance_turns_total", by="voice", accepted="true") == 1
    assert value(metrics, "appliance_turn_latency_seconds_sum") == pytest.approx(0.6)
    assert value(metrics, "appliance_turn_stage_seconds_sum", stage="tts") == pytest.approx(0.25)
    assert value(metrics, "appliance_barge_ins_total") == 1
    assert value(metrics, "appliance_asr_rejections_total") == 0


def test_trunks_are_shown_as_they_are(metrics: Metrics) -> None:
    assert value(metrics, "appliance_trunk_registered", trunk="carrier") == 1
    assert value(metrics, "appliance_trunk_registered", trunk="pbx") is None
    assert value(metrics, "appliance_trunk_reachable", trunk="carrier") == 0
    assert value(metrics, "appliance_trunk_round_trip_seconds", trunk="carrier") == 0.0125
    assert value(metrics, "appliance_trunk_calls", trunk="carrier") == 1
    assert value(metrics, "appliance_trunk_events_total", trunk="carrier", event="refused_max_calls") == 1
    assert value(metrics, "appliance_dial_refused_total", cause="premium") == 1
    assert value(metrics, "appliance_dial_refused_total", cause="emergency") == 1


def test_only_speech_can_be_rejected_by_recognition(metrics: Metrics) -> None:
    metrics.observe(facts.turn(accepted=False, interrupted=False))
    metrics.observe(facts.turn(accepted=False, by=InputBy.KEY))
    assert value(metrics, "appliance_asr_rejections_total") == 1


def test_lateness_of_ticks_becomes_a_histogram(metrics: Metrics) -> None:
    late = [0] * (len(PACING_BOUNDS_MS) + 1)
    late[1], late[-1] = 5, 2
    metrics.media_stats(media_stats(tuple(late)))
    name = "appliance_media_tick_lateness_seconds_bucket"
    assert value(metrics, name, le="0.00025") == 50
    assert value(metrics, name, le="0.0005") == 55
    assert value(metrics, name, le="0.1") == 55
    assert value(metrics, name, le="+Inf") == 57


def test_a_worker_that_was_restarted_counts_on(metrics: Metrics) -> None:
    metrics.worker_stats(WorkerStats("asr-0", 0, 0, 25, 1, 2, 0, 6.0))
    metrics.worker_stats(WorkerStats("asr-0", 0, 0, 4, 0, 0, 0, 0.5))
    assert value(metrics, "appliance_worker_requests_total", worker="asr-0", result="done") == 29
    assert value(metrics, "appliance_worker_requests_total", worker="asr-0", result="failed") == 1
    assert value(metrics, "appliance_worker_busy_seconds_total", worker="asr-0") == 6.5
    assert value(metrics, "appliance_drops_total", at="asr-0") == 2


def test_processes_are_read_from_the_kernel(metrics: Metrics) -> None:
    memory = value(metrics, "appliance_process_resident_memory_bytes", process="media")
    assert memory is not None
    assert memory > 1_000_000
    assert (value(metrics, "appliance_process_open_files", process="media") or 0) > 2
    assert (value(metrics, "appliance_process_threads", process="media") or 0) >= 1
    assert value(metrics, "appliance_process_restarts_total", process="media") == 2


def test_a_process_that_is_gone_is_not_ready_and_has_no_usage(metrics: Metrics) -> None:
    metrics.process_state(ProcessState("media", "restarting", 2**22 + 5, 3))
    assert value(metrics, "appliance_process_ready", process="media") == 0
    assert value(metrics, "appliance_process_open_files", process="media") is None


def test_what_is_kept_elsewhere_is_read_when_asked(metrics: Metrics) -> None:
    metrics.watch_store(lambda: WriterStats(pending=4, failing="disk full", written=9))
    assert value(metrics, "appliance_store_pending") == 4
    assert value(metrics, "appliance_store_failing") == 1
    assert value(metrics, "appliance_store_writes_total") == 9
    assert value(metrics, "appliance_sip_events_total", event="garbage") == 3
    assert value(metrics, "appliance_sip_held", kind="calls") == 2


def test_a_thousand_calls_leave_nothing_behind(metrics: Metrics) -> None:
    before = len(generate_latest(metrics.registry).splitlines())
    for number in range(1000):
        name = f"c{number}"
        for event in (facts.started(name), facts.answered(name), facts.turn(name), facts.ended(name)):
            metrics.observe(event)
    assert len(generate_latest(metrics.registry).splitlines()) == before


def test_the_score_of_a_line_and_what_did_not_authenticate_are_counted(metrics: Metrics) -> None:
    assert value(metrics, "appliance_call_mos_count", side="heard") == 1
    assert value(metrics, "appliance_call_mos_sum", side="heard") == pytest.approx(4.2)
    assert value(metrics, "appliance_call_mos_count", side="far") is None
    assert value(metrics, "appliance_rtp_packets_bad_total", reason="unauthentic") == 3
