"""Plugins in a real plugin host: what they are given, in which order, and what becomes of what they return."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from appliance.errors import PluginError, ToolError
from appliance.hook_types import Blocked, CallSummary, Denied, ModelRequest, Refusal, Said
from appliance.hookspecs import IdentityClaim
from appliance.plugins.hooks import Hooks
from appliance.tool_types import Answer, Question
from tests.plugins.faults import event
from tests.plugins.real_host import QUICK, RealHost, call
from tests.waiting import eventually

PATIENT_S = "20"
"""Budgets that a loaded machine keeps, too."""

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOTES = '''
"""Notes down every hook that it is called with."""

import asyncio, json, os, sys
from pathlib import Path

from appliance.api import *

ORDER = "{order}"


class Values(PluginValues):
    greeting: str = "hello"


def note(hook, call, **what):
    about = [call.call_id, call.line, call.values.greeting] if call is not None else []
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(json.dumps([hook, ORDER, about, what]) + "\\n")


@hookimpl
def appliance_configure(values, line):
    note("configure", None, line=line, greeting=values.greeting)


@hookimpl
async def appliance_started(box):
    note("started", None, lines=list(box.lines), folder=Path(box.state_dir).is_dir())


@hookimpl
async def appliance_stopping():
    note("stopping", None)


@hookimpl
def appliance_verify_identity(call, claim):
    return "TN-Validation-Passed" if claim.attest == "A" else None


@hookimpl
def appliance_admit(call):
    return Refusal("not today", 486) if call.caller == "+49666" else None


@hookimpl
def appliance_route(call):
    return call.headers.get("X-Line")


@hookimpl
def appliance_answered(call):
    note("answered", call)


@hookimpl
async def appliance_partial_transcript(call, text):
    return text + "|" + ORDER


@hookimpl
def appliance_final_transcript(call, text):
    call.state["times"] = call.state.get("times", 0) + 1
    if text.startswith("secret"):
        return Blocked("no")
    return f"{text} {call.values.greeting}{call.state['times']}"


@hookimpl
def appliance_before_llm(call, request):
    return [f"{ORDER} {request.text} {request.said[0].text}"]


@hookimpl
def appliance_before_tool(call, tool, arguments):
    if tool == "pay":
        return Denied("not by telephone")
    arguments["by"] = arguments.get("by", "") + ORDER
    return arguments if ORDER == "1" else None


@hookimpl
def appliance_after_tool(tool, arguments, result):
    return {"tool": tool, "of": arguments, "was": result}


@hookimpl
def appliance_reply_text(text):
    return "" if text == "um" else None


@hookimpl
def appliance_key(call, digit):
    note("key", call, digit=digit)


@hookimpl
async def appliance_silence(call, times):
    await asyncio.sleep(0.05)
    note("silence", call, times=times)


@hookimpl
def appliance_transfer_requested(target):
    return "+49302" if target == "sales" else None


@hookimpl
def appliance_before_storing(texts):
    return [text.replace("4111", "****") for text in texts]


@hookimpl
def appliance_call_ended(call, summary):
    note("call_ended", call, summary=summary.disposition, said=summary.transcript[0].text)


@hookimpl
def appliance_keep_recording(path):
    return f"archive:{path}" if ORDER == "1" else None


@hookimpl
def appliance_record_stored(call, record):
    note("record_stored", call, record=record)


@hookimpl
def appliance_campaign_event(event):
    note("campaign_event", None, kind=event.kind, at=event.at.year)


@hookimpl
def appliance_tools(call):
    async def book(arguments, ongoing):
        ongoing.say("one moment")
        answer = await ongoing.ask(Question("How many?", max_digits=2))
        ongoing.note("count", answer.keys)
        print("booked", answer.keys)
        if arguments.get("wrong"):
            raise ToolError("no table that large")
        return {"key": ongoing.idempotency_key, "count": answer.keys, "line": ongoing.line}

    def look(arguments, ongoing):
        return ["seen", arguments["what"]]

    schema = {"type": "object"}
    return [
        Tool(name="book" + ORDER, description="Book.", parameters=schema, run=book),
        Tool(name="look" + ORDER, description="Look.", parameters=schema, run=look, side_effects=False),
    ]


@hookimpl
def appliance_http_routes():
    def hello(request):
        return HttpResponse.of_json({"path": request.path, "body": len(request.body), "who": request.query["who"]})

    return [Route("POST", "/hello", hello)]
'''


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_BUDGET_S", PATIENT_S)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealHost]:
    directory = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTES", str(directory / "notes"))
        patch.setenv("HOOK_BUDGET_S", PATIENT_S)
        real = RealHost(directory, module=QUICK, hang_s=10.0)
        for order in "12":
            real.write(f"notes{order}", NOTES.replace("{order}", order))
        async with real.running():
            yield real


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hooks(host: RealHost) -> Hooks:
    return await host.hooks({"notes1": {}, "notes2": {"greeting": "hi"}}, {"a": {}, "b": {"notes2": False}})


def noted(host: RealHost, hook: str) -> list[Any]:
    path = host.directory / "notes"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line[1:] for line in lines if line[0] == hook]


async def told(host: RealHost, hook: str, times: int) -> list[Any]:
    await eventually(lambda: len(noted(host, hook)) >= times, f"{hook} was not told")
    return noted(host, hook)


async def test_configure_and_started_come_before_all_else(host: RealHost, hooks: Hooks) -> None:
    assert noted(host, "configure") == [
        ["1", [], {"line": "", "greeting": "hello"}],
        ["2", [], {"line": "", "greeting": "hi"}],
    ]
    assert noted(host, "started") == [
        ["1", [], {"lines": ["a", "b"], "folder": True}],
        ["2", [], {"lines": ["a"], "folder": True}],
    ]


async def test_verify_identity_admit_and_route_take_the_first_answer(hooks: Hooks) -> None:
    claim = IdentityClaim("t", "https://c", "A", "1", ("2",), 3, "1", "2")
    new = call(line="")
    assert await hooks.first("verify_identity", new, claim=claim) == "TN-Validation-Passed"
    assert await hooks.first("admit", new) is None
    assert await hooks.first("admit", type(new)("c2", caller="+49666")) == Refusal("not today", 486)
    assert await hooks.first("route", new) is None
    assert await hooks.first("route", type(new)("c3", headers={"X-Line": "b"})) == "b"


async def test_texts_pass_through_the_plugins_in_order(hooks: Hooks) -> None:
    assert await hooks.chain("partial_transcript", call("p"), "so far") == "so far|1|2"
    assert await hooks.chain("final_transcript", call("p"), "done") == "done hello1 hi1"
    assert await hooks.chain("final_transcript", call("p"), "done") == "done hello2 hi2"
    assert await hooks.chain("final_transcript", call("p", "b"), "done") == "done hello3"
    assert await hooks.chain("final_transcript", call("p"), "secret") == Blocked("no")
    assert await hooks.chain("reply_text", call("p"), "um") == ""
    assert await hooks.chain("reply_text", call("p"), "well") == "well"
    assert await hooks.chain("transfer_requested", call("p"), "sales") == "+49302"
    assert await hooks.chain("before_storing", call("p"), ["card 4111", "-"]) == ["card ****", "-"]


async def test_what_plugins_add_for_the_model_is_collected(hooks: Hooks) -> None:
    request = ModelRequest("where", 1, (Said("agent", "hello"),))
    assert await hooks.collect("before_llm", call("p"), request=request) == [
        ("notes1", ["1 where hello"]),
        ("notes2", ["2 where hello"]),
    ]


async def test_arguments_and_results_of_tools_can_be_changed(hooks: Hooks) -> None:
    """The second plugin changes its copy in place and returns None, which changes nothing."""
    assert await hooks.chain("before_tool", call("p"), {"n": 1}, tool="book") == {"n": 1, "by": "1"}
    assert await hooks.chain("before_tool", call("p"), {"n": 1}, tool="pay") == Denied("not by telephone")
    changed = await hooks.chain("after_tool", call("p", "b"), 5, tool="book", arguments={"n": 1})
    assert changed == {"tool": "book", "of": {"n": 1}, "was": 5}


async def test_what_a_call_is_told_is_heard_in_order(host: RealHost, hooks: Hooks) -> None:
    about = call("told", "b")
    hooks.tell("answered", about)
    for times in range(1, 4):
        hooks.tell("silence", about, times=times)
        hooks.tell("key", about, digit=str(times))
    summary = CallSummary(disposition="completed", hangup_by="caller", transcript=(Said("caller", "bye"),))
    hooks.tell("call_ended", about, summary=summary)
    assert await hooks.first("keep_recording", about, path="/a.wav") == "archive:/a.wav"
    hooks.tell("record_stored", about, record={"slots": {"n": 1}})
    hooks.over("told")
    assert await told(host, "record_stored", 1) == [["1", ["told", "b", "hello"], {"record": {"slots": {"n": 1}}}]]
    lines = [json.loads(line) for line in (host.directory / "notes").read_text().splitlines()]
    mine = [line[0] for line in lines if line[2][:1] == ["told"]]
    assert mine == ["answered", *["silence", "key"] * 3, "call_ended", "record_stored"]
    assert noted(host, "call_ended")[0][2] == {"summary": "completed", "said": "bye"}


async def test_campaign_events_are_told_to_the_plugins_of_the_box(host: RealHost, hooks: Hooks) -> None:
    hooks.tell("campaign_event", None, event=event("1"))
    assert [entry[2] for entry in await told(host, "campaign_event", 2)] == [{"kind": "reached", "at": 2026}] * 2


class Ongoing:
    """Somebody on the telephone who wants a table for four."""

    def __init__(self) -> None:
        self.call_id, self.line, self.caller, self.called, self.idempotency_key = "p", "a", "", "100", "p-1"
        self.did: list[tuple[str, ...]] = []

    def say(self, text: str) -> None:
        self.did.append(("say", text))

    async def ask(self, question: Question) -> Answer:
        assert question == Question("How many?", max_digits=2)
        return Answer(keys="4")

    def note(self, name: str, value: str) -> None:
        if value == "13":
            raise ToolError("not this number")
        self.did.append(("note", name, value))

    def press(self, digits: str) -> None: ...
    def hand_on(self, target: str) -> None: ...
    def hang_up(self, reason: str, farewell: str = "") -> None: ...


async def test_tools_run_in_the_host_and_use_the_call(
    host: RealHost, hooks: Hooks, capfd: pytest.CaptureFixture[str]
) -> None:
    offered = await hooks.collect("tools", call("p"))
    assert [(plugin, [tool.name for tool in tools]) for plugin, tools in offered] == [
        ("notes1", ["book1", "look1"]),
        ("notes2", ["book2", "look2"]),
    ]
    ongoing = Ongoing()
    result = await hooks.run_tool("notes1", "book1", call("p"), {}, ongoing)
    assert result == {"key": "p-1", "count": "4", "line": "a"}
    assert ongoing.did == [("say", "one moment"), ("note", "count", "4")]
    assert await hooks.run_tool("notes2", "look2", call("p"), {"what": 3}, ongoing) == ["seen", 3]
    with pytest.raises(ToolError, match="no table that large"):
        await hooks.run_tool("notes1", "book1", call("p"), {"wrong": True}, ongoing)
    with pytest.raises(ToolError, match="not available"):
        await hooks.run_tool("notes1", "nothing", call("p"), {}, ongoing)


async def test_a_tool_that_the_call_gave_up_is_cancelled(host: RealHost, hooks: Hooks) -> None:
    class Silent(Ongoing):
        async def ask(self, question: Question) -> Answer:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

    asked = asyncio.Event()
    running = asyncio.get_running_loop().create_task(hooks.run_tool("notes1", "book1", call("p"), {}, Silent()))
    await asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_http_requests_are_passed_on(host: RealHost, hooks: Hooks) -> None:
    assert "POST /plugins/notes1/hello" in host.link.manifest.plugins[0].routes
    body = b"x" * 700_000
    answer = await host.link.http.ask("notes1", "POST", "/hello", {"who": "me"}, {}, "127.0.0.1", body)
    assert (answer.status, json.loads(answer.body)) == (200, {"path": "/hello", "body": 700_000, "who": "me"})
    missing = await host.link.http.ask("notes1", "POST", "/hello", {}, {}, "127.0.0.1", b"")
    assert missing.status == 500
    unknown = await host.link.http.ask("notes1", "GET", "/hello", {}, {}, "127.0.0.1", b"")
    assert unknown.status == 404


async def test_a_call_keeps_the_values_that_it_began_with(host: RealHost) -> None:
    first = await host.hooks({"notes1": {"greeting": "old"}})
    assert await first.chain("final_transcript", call("kept"), "x") == "x old1"
    second = await host.hooks({"notes1": {"greeting": "new"}}, {"b": {}})
    assert await second.chain("final_transcript", call("new", "b"), "x") == "x new1"
    assert await first.chain("final_transcript", call("kept"), "x") == "x old2"
    assert first.wanted("final_transcript", "a") and not second.wanted("final_transcript", "a")


async def test_two_lines_have_different_values_at_the_same_time(host: RealHost) -> None:
    hooks = await host.hooks({}, {"a": {"notes1": {"greeting": "ay"}}, "b": {"notes1": {"greeting": "bee"}}, "c": {}})
    said = await asyncio.gather(
        *(hooks.chain("final_transcript", call(f"two-{line}", line), "x") for line in ("a", "b", "c"))
    )
    assert said == ["x ay1", "x bee1", "x"]
    assert not hooks.wanted("final_transcript", "c") and not hooks.wanted("admit")
    assert ["1", [], {"line": "a", "greeting": "ay"}] in noted(host, "configure")


async def test_a_host_that_ended_comes_back_with_every_plan(host: RealHost, hooks: Hooks) -> None:
    assert host.process is not None
    host.process.kill()
    await eventually(lambda: not host.link.up, "its end was not noticed")
    assert await hooks.chain("final_transcript", call("gone"), "as it was") == "as it was"
    assert host.troubles[-1][2].outcome == "unavailable"
    await eventually(lambda: host.link.up, "it did not come back")
    assert await hooks.chain("final_transcript", call("back", "b"), "x") == "x hello1"


@pytest.mark.asyncio(loop_scope="function")
async def test_a_plugin_that_cannot_be_configured_is_off_where_that_is(tmp_path: Path) -> None:
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0)
    real.write(
        "picky",
        """
        from appliance.api import PluginValues, hookimpl
        class Values(PluginValues):
            ok: bool = True
        @hookimpl
        async def appliance_configure(values):
            if not values.ok:
                raise RuntimeError("nobody there")
        @hookimpl
        def appliance_reply_text(text):
            return "changed"
        """,
    )
    async with real.running():
        hooks = await real.hooks({"picky": {}}, {"a": {}, "b": {"picky": {"ok": False}}})
        assert hooks.wanted("reply_text", "a") and not hooks.wanted("reply_text", "b")
        (off,) = real.link.manifest.unusable
        assert off.lines == ("b",) and "RuntimeError: nobody there" in off.why


@pytest.mark.asyncio(loop_scope="function")
async def test_a_plugin_that_ends_the_host_at_its_start_is_named(tmp_path: Path) -> None:
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0)
    real.write("bad", "import os\nfrom appliance.api import hookimpl\nos._exit(1)\n")
    async with real.running():
        with pytest.raises(PluginError, match="plugin 'bad' ends the plugin host in import"):
            await real.hooks({"bad": {}})


@pytest.mark.asyncio(loop_scope="function")
async def test_a_plugin_sees_no_secret_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.server.plan import child_environment

    assert child_environment({"APPLIANCE_SECRET_X": "1", "PATH": "2"}, secrets=False)["PATH"] == "2"
    assert "APPLIANCE_SECRET_X" not in child_environment({"APPLIANCE_SECRET_X": "1"}, secrets=False)
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0)
    real.write(
        "own",
        """
        from pydantic import SecretStr
        from appliance.api import PluginValues, hookimpl
        class Values(PluginValues):
            key: SecretStr
        @hookimpl
        def appliance_reply_text(call, text):
            return call.values.key.get_secret_value() + repr(call)
        """,
    )
    from pydantic import SecretStr

    async with real.running():
        hooks = await real.hooks({"own": {"key": SecretStr("sesame")}})
        told = await hooks.chain("reply_text", call(), "x")
    assert told.startswith("sesameCall(")
    assert told.count("sesame") == 1, "a secret is not shown where a call is printed"


@pytest.mark.asyncio(loop_scope="function")
async def test_what_plugins_print_is_in_the_log_under_their_names(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    real = RealHost(tmp_path, module=QUICK, hang_s=10.0)
    real.write(
        "chatty",
        """
        import sys
        from appliance.api import hookimpl
        @hookimpl
        def appliance_reply_text(text):
            print("out of thread", file=sys.stderr)
        @hookimpl
        async def appliance_final_transcript(text):
            print("out of loop", file=sys.stderr)
        """,
    )
    async with real.running():
        hooks = await real.hooks({"chatty": {}})
        await hooks.chain("reply_text", call(), "x")
        await hooks.chain("final_transcript", call(), "x")
    told = capfd.readouterr().err
    assert "plugins.chatty: out of thread" in told and "plugins.chatty: out of loop" in told
