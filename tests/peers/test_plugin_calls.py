"""A plugin in a call: a file in a real plugin host, a caller over SIP and RTP, a server of a language model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.box import Box
from appliance.cli.softphone import CallFailed, Softphone, read_wav
from tests.bench import lines, records
from tests.bench.llm_failures import settings
from tests.bench.uac import BareUac
from tests.openai_sim.chat import Answer, ChatSim
from tests.waiting import eventually

pytestmark = [pytest.mark.peer, pytest.mark.slow]

CARD = "4111 1111 1111 1111"
PLUGIN = '''
"""What the desk may hear, do and keep."""

import json
import re
from pathlib import Path

from appliance.api import Denied, Refusal, Tool, hookimpl

API = 1
LOG = Path(__file__).with_name("told.jsonl")


def note(**what):
    with LOG.open("a") as log:
        log.write(json.dumps(what) + "\\n")


@hookimpl
def appliance_admit(call):
    return Refusal("a known nuisance", 486) if call.caller == "+49306666" else None


@hookimpl
def appliance_final_transcript(call, text):
    return text.replace("whether", "weather")


@hookimpl
def appliance_before_llm(call, request):
    return [f"The caller asked for the {request.text.split()[0]} before."]


async def look_up(arguments, call):
    call.say("Let me look.")
    call.note("city", arguments["city"])
    return {"city": arguments["city"], "sun": True, "card": "4111 1111 1111 1111", "key": call.idempotency_key}


@hookimpl
def appliance_tools(call):
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return [Tool(name="forecast", description="The weather.", parameters=city, run=look_up)]


@hookimpl
async def appliance_before_tool(call, tool, arguments):
    return {**arguments, "city": arguments["city"].title()} if tool == "forecast" else None


@hookimpl
def appliance_reply_text(call, text):
    return text.replace("rubbish", "lovely")


@hookimpl
def appliance_transfer_requested(call, target):
    return Denied("the office has closed")


@hookimpl
def appliance_before_storing(call, texts):
    return [re.sub(r"\\d[\\d ]{10,}\\d", "[card]", text) for text in texts]


@hookimpl
def appliance_call_ended(call, summary):
    said = [one.text for one in summary.transcript]
    note(hook="call_ended", disposition=summary.disposition, slots=summary.slots, said=said)


@hookimpl
def appliance_record_stored(call, record):
    note(hook="record_stored", id=record["id"], turns=len(record["turns"]))
'''
LINE: dict[str, object] = {
    "name": "desk",
    "agent": "llm",
    "prompt": "You are the desk.",
    "greeting": "Good morning.",
    "turn": {"speculate": 0},
    "transfers": {"office": "sip:office@127.0.0.1:9"},
}
CALL = (
    Answer(calls=[("a", "forecast", '{"city": "berlin"}')]),
    Answer("It is rubbish there.", calls=[("a", "transfer", '{"to": "office"}')]),
    Answer("They have closed. Goodbye.", calls=[("a", "hang_up", '{"reason": "all is done"}')]),
)


def content(body: dict[str, Any], role: str) -> str:
    return "\n".join(message["content"] or "" for message in body["messages"] if message["role"] == role)


async def test_a_plugin_rewrites_adds_forbids_and_redacts_in_a_real_call(tmp_path: Path) -> None:
    clip = lines.question(tmp_path)
    plugins = tmp_path / "own" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "desk_rules.py").write_text(PLUGIN)
    told = plugins / "told.jsonl"
    async with ChatSim() as server:
        server.script.extend(CALL)
        box = Box(
            tmp_path / "box",
            {
                **settings(tmp_path, [server.url]),
                **lines.dialplan(tmp_path / "own", [LINE]),
                "plugins.paths": [str(plugins)],
                "plugins.enabled": ["desk_rules"],
                "engines.asr": {"provider": "fake", "delay_ms": 50, "text": f"whether it rains, my card is {CARD}"},
            },
        )
        try:
            await asyncio.to_thread(box.start)
            async with BareUac(("127.0.0.1", box.sip_port), "+49306666") as nuisance:
                with pytest.raises(CallFailed, match="486"):
                    await nuisance.dial(box.uri(lines.ASSISTANT), ("127.0.0.1", 9), 10.0)
            async with BareUac(("127.0.0.1", box.sip_port), "+49301234") as uac, Softphone(uac) as phone:
                await phone.dial(box.uri(lines.ASSISTANT))
                await phone.wait_agent_silent(30.0, quiet_s=0.8)
                await phone.play(read_wav(clip))
                await phone.wait_hangup(30.0)
            rejected, call = await asyncio.to_thread(records.wait_settled, box.database, 2)
            await eventually(lambda: told.exists() and "record_stored" in told.read_text(), box.log_tail)
        finally:
            code = await asyncio.to_thread(box.stop)
    assert code == 0, box.log_tail()
    assert server.problems == []

    assert (rejected["disposition"], rejected["hangup_text"]) == ("rejected", "a known nuisance")

    first, second, third = (asked.body for asked in server.asked)
    assert "forecast" in [tool["function"]["name"] for tool in first["tools"]]
    assert f"weather it rains, my card is {CARD}" in content(first, "user")
    assert '<context source="desk_rules">The caller asked for the weather before.</context>' in content(first, "user")
    assert '"city":"Berlin"' in content(second, "tool")
    assert "<reason>the office has closed</reason>" in content(third, "user")
    assert "It is lovely there." in content(third, "assistant")

    slots = json.loads(call["slots"])
    assert slots["city"] == "Berlin"
    assert slots["transfer"] == "sip:office@127.0.0.1:9: denied (the office has closed)"
    spoken = next(turn for turn in call["turns"] if turn["by"] == "voice")
    assert spoken["caller_text"] == "weather it rains, my card is [card]"
    assert "It is lovely there." in spoken["heard_text"]
    used = [tool for turn in call["turns"] for tool in json.loads(turn["tools"])]
    assert [(tool["name"], tool["source"], tool["problem"]) for tool in used] == [
        ("forecast", "desk_rules", ""),
        ("transfer", "builtin", ""),
        ("hang_up", "builtin", ""),
    ]
    assert used[0]["key"] == f"{call['id']}-1"
    assert json.loads(used[0]["result"]) == {"city": "Berlin", "sun": True, "card": "[card]", "key": used[0]["key"]}
    assert CARD not in json.dumps(call)

    ended, stored = (json.loads(line) for line in told.read_text().splitlines())
    assert (ended["hook"], ended["disposition"], ended["slots"]["city"]) == ("call_ended", "completed", "Berlin")
    assert spoken["caller_text"] in ended["said"]
    assert stored == {"hook": "record_stored", "id": call["id"], "turns": len(call["turns"])}
