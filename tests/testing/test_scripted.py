"""What authors of plugins test with: whole calls in virtual time, with the plugin loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from aiohttp import web

from appliance.errors import PluginError
from appliance.testing import ScriptError, run_virtual, uses
from appliance.testing import scripted_call as place
from tests.plugins.declarative.server import HttpServer

TEA = """
    import asyncio, time
    from appliance.api import API, Blocked, Denied, Question, Refusal, Tool, ToolError, PluginValues, hookimpl

    told = []

    class Values(PluginValues):
        kinds: list[str] = ["green"]

    @hookimpl
    def appliance_admit(call):
        return Refusal("no", 486) if call.caller == "+666" else None

    @hookimpl
    def appliance_tools(call):
        async def brew(arguments, ongoing):
            if arguments["kind"] not in call.values.kinds:
                raise ToolError("there is no such tea")
            answer = await ongoing.ask(Question("With milk?", phrases=("yes", "no")))
            ongoing.note("tea", arguments["kind"])
            return {"kind": arguments["kind"], "milk": answer.words}

        def stir(arguments, ongoing):
            time.sleep(0.05)
            return "stirred"

        text = {"type": "object", "properties": {"kind": {"type": "string"}}}
        return [
            Tool(name="brew", description="Makes tea.", parameters=text, run=brew),
            Tool(name="stir", description="Stirs.", parameters=text, run=stir),
        ]

    @hookimpl
    async def appliance_final_transcript(call, text):
        await asyncio.sleep(0)
        return text.replace("tee", "tea")

    @hookimpl
    def appliance_reply_text(call, text):
        return text.replace("coffee", "tea")

    @hookimpl
    def appliance_transfer_requested(call, target):
        return Denied("the kitchen is closed") if target == "kitchen" else None

    @hookimpl
    def appliance_record_stored(call, record):
        told.append(record)
"""


@pytest.fixture
def tea(tmp_path: Path) -> Path:
    (tmp_path / "tea.py").write_text(dedent(TEA))
    return tmp_path


async def test_a_tool_asks_notes_and_answers_in_a_scripted_call(scripted_call: Any, tea: Path) -> None:
    call = await scripted_call(
        plugins={"tea": {"kinds": ["black"]}},
        paths=[tea],
        model={"black tea": [uses("brew", kind="black"), [uses("stir")], "Your coffee is ready."]},
    )
    assert call.heard("hello")
    await call.says("A black tee please")
    assert call.heard("With milk?")
    await call.says("yes")
    await call.hangs_up()
    assert call.said[-1] == "Your tea is ready."
    assert [(used.name, used.source) for used in call.tools] == [("brew", "tea"), ("stir", "tea")]
    assert call.tool("brew").result == {"kind": "black", "milk": "yes"}
    assert call.tool("stir").result == "stirred"
    assert call.slots == {"tea": "black"}
    assert call.plugin("tea").told == [call.record]
    assert {"brew", "stir", "hang_up"} <= set(call.offered)


async def test_a_line_has_values_of_its_own_and_a_tool_that_refuses_tells_why(scripted_call: Any, tea: Path) -> None:
    call = await scripted_call(
        {"plugins": {"tea": {"kinds": ["red"]}}},
        paths=[tea],
        model={"black": [uses("brew", kind="black"), "There is none."]},
    )
    await call.says("black please")
    assert call.tool("brew").problem == "there is no such tea"
    assert "there is no such tea" in call.prompts[-1]


async def test_calls_are_refused_and_transfers_seen(scripted_call: Any, tea: Path) -> None:
    refused = await scripted_call(plugins=["tea"], paths=[tea], caller="+666")
    assert refused.refusal.status == 486
    call = await scripted_call(
        {"transfers": {"office": "+49301234", "bar": {"to": "+49305678", "kind": "attended"}}},
        plugins=["tea"],
        paths=[tea],
        model={"office": uses("transfer", to="office")},
    )
    await call.says("the office please")
    await call.ends()
    assert [(one.to, one.attended) for one in call.transfers] == [("+49301234", False)]


async def test_a_flow_is_driven_by_words_and_keys(scripted_call: Any) -> None:
    call = await scripted_call(
        {
            "flow": {
                "what": {"ask": "Tea or coffee?", "expect": {"tea": ["tea please"]}, "slot": "drink"},
                "pin": {"ask": "Your code?", "digits": {"min": 4, "max": 4}, "slot": "pin"},
                "bye": {"hang_up": "Goodbye."},
            }
        }
    )
    await call.says("tea please")
    assert call.heard("your code?")
    await call.presses("4217")
    await call.ends()
    assert call.slots == {"drink": "tea", "pin": "4217", "ending": "completed"}
    assert call.said[-1] == "Goodbye."


async def test_yaml_plugins_ask_real_servers_in_their_own_time(scripted_call: Any, tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return web.json_response({"state": "sent"})

    (tmp_path / "shop.yaml").write_text(
        "values: {address: {}}\nsecrets: {key: !secret shop_key}\n"
        "tools:\n  order_status:\n    description: The state.\n    url: ${values.address}/orders\n"
        "    headers: {Authorization: '${secrets.key}'}\n"
    )
    async with HttpServer(answer) as server:
        call = await scripted_call(
            plugins={"shop": {"address": server.url}},
            paths=[tmp_path],
            secrets={"shop_key": "top"},
            model={"order": [uses("order_status"), "It was sent."]},
        )
        await call.says("where is my order")
        await call.close()
    assert call.tool("order_status").result == {"state": "sent"}
    assert server.asked[0].headers["Authorization"] == "top"


async def test_what_a_plugin_fails_at_fails_the_test(scripted_call: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from appliance.api import hookimpl\n@hookimpl\ndef appliance_reply_text(call, text):\n    return 7\n"
    )
    call = await scripted_call(plugins=["bad"], paths=[tmp_path], model={"tea": "Yes."})
    with pytest.raises(ScriptError, match="plugin bad: reply_text wrong_type"):
        await call.close()


async def test_a_model_without_a_script_fails_the_test(scripted_call: Any) -> None:
    call = await scripted_call(model={"tea": "Yes."})
    await call.says("coffee")
    with pytest.raises(ScriptError, match=r"no answer to.*coffee"):
        await call.close()


def test_mistakes_in_values_and_names_are_said(tea: Path) -> None:
    async def wrong_value() -> None:
        await place(plugins={"tea": {"kind": 1}}, paths=[tea])

    async def wrong_name() -> None:
        await place(plugins=["cocoa"], paths=[tea])

    with pytest.raises(PluginError, match="kind: unknown key"):
        run_virtual(wrong_value())
    with pytest.raises(ScriptError, match="no plugin 'cocoa'"):
        run_virtual(wrong_name())


def test_the_plugin_serves_a_project_of_its_own(tmp_path: Path) -> None:
    """As an author runs it: pytest with nothing but the plugin."""
    import subprocess
    import sys

    (tmp_path / "test_own.py").write_text(
        "async def test_own(scripted_call):\n"
        "    call = await scripted_call(model={'tea': 'Yes.'})\n"
        "    await call.says('tea')\n"
        "    assert call.heard('Yes.')\n"
    )
    options = ["-p", "no:asyncio", "-p", "appliance.testing.plugin", "-p", "no:cacheprovider", "-q"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr
