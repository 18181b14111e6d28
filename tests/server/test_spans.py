"""Spans of calls, as a real receiver of OTLP over HTTP gets them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.box import HOST, Box
from appliance.cli.softphone import Softphone
from appliance.config import Settings
from appliance.config.settings import conflicts
from appliance.errors import ApplianceError
from appliance.events import (
    CallEnded,
    CallStarted,
    Direction,
    Disposition,
    HangupBy,
    Stage,
    StageTiming,
    ToolRun,
    TurnFinished,
)
from appliance.ipc.hook_messages import HookOutcome
from appliance.plugins.hooks import HookRun
from appliance.server.spans import call_spans
from tests.bench.uac import BareUac
from tests.waiting import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "my card is 4111"

PLUGIN = """
from appliance.api import hookimpl


@hookimpl
def appliance_admit(call):
    return None


@hookimpl
def appliance_reply_text(text):
    return None


@hookimpl
def appliance_answered():
    raise ValueError("as asked")
"""


class Collector:
    """Receives spans, by the path that they were sent to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.paths.add(self.path)
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    @property
    def spans(self) -> list[Any]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        requests = map(ExportTraceServiceRequest.FromString, list(self.bodies))
        return [
            span for request in requests for one in request.resource_spans for scope in one.scope_spans
            for span in scope.spans
        ]  # fmt: skip

    def named(self, name: str) -> Any:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def names(self) -> set[str]:
        return {span.name for span in self.spans}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    serving = threading.Thread(target=made.server.serve_forever, args=(0.05,), daemon=True)
    serving.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    serving.join()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_call_its_turn_its_tool_and_its_hooks(collector: Collector) -> None:
    spans = call_spans(collector.url)
    spans.hook_ran(HookRun("c1", "admit", 9.9, 9.95, (HookOutcome("p", "ok", 0.001),)))
    spans.hook_ran(HookRun("", "campaign_event", 9.9, 9.95, ()))
    spans.observe(
        CallStarted(
            call_id="c1", started_at=10.0, started_utc=NOW, direction=Direction.INBOUND, protocol="sip",
            protocol_call_id="x", trunk="t", line="desk", called="100", calling="+49301234567",
        )
    )  # fmt: skip
    tool = ToolRun("book", f'{{"card": "{SECRET}"}}', "", 14.0, 14.5, problem=SECRET, source="calendar")
    spans.observe(
        TurnFinished(
            call_id="c1", number=1, finished_utc=NOW, answered_at=11.0, caller_text=SECRET,
            agent_text=SECRET, speech_start_at=12.0, speech_end_at=13.0, reply_at=13.8, ended_by="verdict",
            stages=(StageTiming(next(iter(Stage)), 13.1, 13.4),), tools=(tool,), problem=SECRET,
        )
    )  # fmt: skip
    spans.observe(
        CallEnded(
            call_id="c1", ended_at=20.0, ended_utc=NOW, disposition=Disposition.COMPLETED, hangup_by=HangupBy.CALLER,
            hangup_text=SECRET,
        )
    )  # fmt: skip
    late = (HookOutcome("p", "ok", 0.002), HookOutcome("q", "over_budget", 0.02, SECRET))
    spans.hook_ran(HookRun("c1", "call_ended", 20.1, 20.2, late))
    spans.close()

    assert collector.paths == {"/v1/traces"}
    call, turn = collector.named("call"), collector.named("turn")
    assert not call.parent_span_id and turn.parent_span_id == call.span_id
    assert {span.trace_id for span in collector.spans} == {call.trace_id}
    assert attributes(call)["call.line"] == "desk" and attributes(call)["call.disposition"] == "completed"
    assert round((call.end_time_unix_nano - call.start_time_unix_nano) / 1e9, 3) == 10.0
    assert round((turn.start_time_unix_nano - call.start_time_unix_nano) / 1e9, 3) == 2.0
    assert attributes(turn)["turn.latency_ms"] == 800.0
    tool_span = collector.named("tool book")
    assert tool_span.parent_span_id == turn.span_id and attributes(tool_span)["tool.ok"] is False
    assert collector.named(next(iter(Stage)).value).parent_span_id == turn.span_id
    assert collector.named("hook admit").parent_span_id == call.span_id
    ended = attributes(collector.named("hook call_ended"))
    assert (ended["hook.p.outcome"], ended["hook.q.outcome"]) == ("ok", "over_budget")
    assert "hook campaign_event" not in collector.names()
    told = b"".join(collector.bodies)
    assert SECRET.encode() not in told and b"+49301234567" not in told


def test_without_the_setting_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, appliance.server.control; "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_without_the_extra_the_box_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ApplianceError, match=r"pip install 'appliance\[traces\]', or remove the setting"):
        call_spans("http://127.0.0.1:4318/v1/traces")


def test_the_endpoint_is_an_address_that_egress_lists() -> None:
    with pytest.raises(ValueError, match=r"is no address of HTTP; write it as http://127\.0\.0\.1:4318/v1/traces"):
        Settings(traces={"endpoint": "localhost:4317"})
    made = Settings(traces={"endpoint": "https://traces.example.com/v1/traces"}, egress=[])
    assert [path for path, _, _ in conflicts(made)] == [("traces", "endpoint")]
    local = Settings(traces={"endpoint": "http://127.0.0.1:4318/v1/traces"}, egress=[])
    assert not conflicts(local)


@pytest.mark.peer
async def test_a_real_call_of_a_real_box(tmp_path: Path, collector: Collector) -> None:
    plans, plugins = tmp_path / "plans", tmp_path / "plugins"
    plans.mkdir()
    plugins.mkdir()
    (plans / "bye.yaml").write_text('name: bye\nmatch: {called: "*"}\nflow:\n  bye: {hang_up: Goodbye.}\n')
    (plugins / "p.py").write_text(PLUGIN)
    settings = {
        "dialplans.paths": [str(plans)],
        "plugins.paths": [str(plugins)],
        "plugins.enabled": ["p"],
        "traces.endpoint": collector.url,
        "engines.asr.provider": "fake",
        "engines.tts": {"provider": "fake", "first_audio_ms": 10, "chunk_ms": 20, "fallback": "none"},
        "engines.turn.provider": "fake",
    }
    with Box(tmp_path / "box", settings) as box:
        async with BareUac((HOST, box.sip_port)) as uac, Softphone(uac) as phone:
            await phone.dial(box.uri("100"))
            assert await phone.wait_hangup(20.0) == "them"
        wanted = {"call", "hook admit", "hook answered", "hook reply_text"}
        await eventually(lambda: collector.names() >= wanted, lambda: f"{collector.names()}")
    call = collector.named("call")
    assert attributes(call)["call.line"] == "bye" and attributes(call)["call.disposition"] == "completed"
    assert attributes(collector.named("hook answered"))["hook.p.outcome"] == "failed"
    assert {span.trace_id for span in collector.spans} == {call.trace_id}
