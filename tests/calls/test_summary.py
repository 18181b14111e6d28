"""What a human is told before a caller is put through: what the call has been about."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.calls.facts import summary_in
from appliance.dialplan.loader import load_dialplans
from appliance.dialplan.schema import Line
from appliance.errors import ConfigError
from appliance.ipc.messages import ToolCall
from tests.calls.test_session_transfers import HandsOn
from tests.calls.test_tool_calls import Script
from tests.calls.virtual_call import FLOW, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

SALES = {"to": "+49301234", "kind": "attended", "announce": "From ${caller.number}. ${summary}"}


class Announces(HandsOn):
    """Remembers what would be announced."""

    async def hand_on(self, leg: Any, media: Any, transfer: Any, *more: Any) -> str | None:
        self.said = transfer.announce
        return await super().hand_on(leg, media, transfer, *more)


def test_a_models_own_words_are_announced_and_on_record() -> None:
    async def call() -> None:
        transfers = Announces("transferred", 0.1)
        line = Line.model_validate(
            {"name": "x", "agent": "llm", "prompt": "Be kind.", "greeting": "Hello.", "transfers": {"sales": SALES}}
        )
        made = VirtualCall(line, llm=True, transfers=transfers)
        arguments = '{"to": "sales", "summary": "Wants ${caller.name} tables."}'
        script = Script(made.engines, ToolCall("", "transfer", arguments), "I will put you through.")
        await made.until_quiet()
        made.speaks(1.0, "sales please")
        ended = await made.over()
        assert transfers.said == "From 200. Wants ${caller.name} tables."
        assert ended.slots["summary"] == "Wants ${caller.name} tables."
        (tool,) = [tool for tool in script.prompts[0].tools if tool.name == "transfer"]
        assert '"summary"' in str(tool).replace("'", '"')

    run_virtual(call())


def test_a_flow_tells_what_it_has_found_out() -> None:
    async def call() -> None:
        transfers = Announces("transferred", 0.1)
        flow = {**FLOW["flow"], "pin": {"transfer": SALES, "failed": "bye"}}
        made = VirtualCall(flow_line(flow=flow), transfers=transfers)
        await made.until_quiet()
        made.speaks(1.0, "tea please")
        await made.over()
        assert transfers.said == "From 200. drink: tea"

    run_virtual(call())


def test_what_is_private_is_no_part_of_it() -> None:
    slots = {"card": "[private]", "how_many": "4", "ending": "done", "note": ""}
    assert summary_in(slots) == "how many: 4"
    assert summary_in({**slots, "summary": "Four."}) == "Four."
    assert len(summary_in({"note": "x" * 900})) == 300


def test_it_is_known_only_where_a_caller_is_handed_on(tmp_path: Any) -> None:
    (tmp_path / "plan.yaml").write_text("{name: x, flow: {bye: {hang_up: 'You said ${summary}.'}}}\n")
    with pytest.raises(ConfigError, match=r"unknown variable \$\{summary\}"):
        load_dialplans([tmp_path / "plan.yaml"])
