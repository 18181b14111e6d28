"""Whole calls in virtual time: what plugins are told of them, and what they let be kept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from appliance.dialplan.schema import Line
from appliance.events import CallAnswered, RecordingFinished, RecordingKept, TurnProgress
from appliance.ipc.hook_messages import HookOutcome
from appliance.ipc.messages import RecordingStopped
from tests.calls.hooked_call import hang_up, one_tool, use_it, used_in
from tests.calls.test_session_transfers import HandsOn
from tests.calls.virtual_call import FLOW, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual
from tests.plugins.spoken_hooks import SpokenHooks


class Records:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def stored(self, call_id: str) -> Any:
        self.asked.append(call_id)
        return {"id": call_id, "turns": []}


def test_plugins_are_told_of_the_answer_keys_silences_the_end_and_the_record() -> None:
    async def call() -> None:
        records = Records()
        hooks = SpokenHooks(answered=None, key=None, silence=None, call_ended=None, record_stored=None)
        made = VirtualCall(flow_line(no_input={"after_s": 5, "retries": 5}), hooks=hooks, records=records)
        await made.until(lambda: len(hooks.told["silence"]) == 2)
        await made.until_quiet()
        made.session.on_digit("1", 0)
        await made.until_says("Please enter your four digit code.")
        await made.until(lambda: len(hooks.told["silence"]) == 3)
        await hang_up(made)
        assert hooks.told["answered"] == [{}]
        assert hooks.told["key"] == [{"digit": "1"}]
        assert [told["times"] for told in hooks.told["silence"]] == [1, 2, 1]
        (ended,) = hooks.told["call_ended"]
        summary = ended["summary"]
        assert (summary.disposition, summary.hangup_by, summary.slots["drink"]) == ("completed", "caller", "tea")
        assert summary.turns == len(made.log.turns)
        assert summary.duration_s > 10.0
        assert ("caller", "1") in [(said.by, said.text) for said in summary.transcript]
        assert (records.asked, hooks.told["record_stored"]) == (["leg1"], [{"record": {"id": "leg1", "turns": []}}])
        assert hooks.ended == ["leg1"]

    run_virtual(call())


class Recorder:
    """Closes every recording at once."""

    def __init__(self) -> None:
        self.path = ""

    def start(self, call_id: str, slot: int, generation: int, path: Path, *rest: object) -> None:
        self.path = str(path)

    def active(self, call_id: str) -> bool:
        return bool(self.path)

    async def stop(self, call_id: str, media: object) -> RecordingStopped:
        return RecordingStopped(call_id, self.path, 50, "")


@pytest.mark.parametrize(("kept", "expected"), [("s3://calls/leg1", "s3://calls/leg1"), (None, None)])
def test_a_finished_recording_is_kept_where_a_plugin_puts_it(kept: str | None, expected: str | None) -> None:
    async def call() -> None:
        hooks = SpokenHooks(keep_recording=kept)
        line = flow_line(record={"enabled": True, "consent": "none"})
        made = VirtualCall(line, hooks=hooks, recorder=Recorder())
        await made.until_quiet()
        await hang_up(made)
        (asked,) = hooks.told["keep_recording"]
        finished = [event.path for event in made.log.events if isinstance(event, RecordingFinished)]
        assert finished == [asked["path"]]
        assert [event.path for event in made.log.events if isinstance(event, RecordingKept)] == [expected] * bool(kept)

    run_virtual(call())


def redact(texts: list[str]) -> list[str]:
    return [text.replace("tea", "[drink]") for text in texts]


def test_what_is_kept_is_what_plugins_let_be_kept_in_the_order_in_which_it_was_said() -> None:
    async def call() -> None:
        hooks = SpokenHooks(2.0, before_storing=redact, call_ended=None)
        made = VirtualCall(flow_line(), hooks=hooks)
        hooks._delay_s = 2.0
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until_says("Please enter your four digit code.")
        for digit in "1234":
            made.session.on_digit(digit, 0)
        ended = await made.over()
        assert ended.slots["drink"] == "[drink]"
        told = [type(event).__name__ for event in made.log.events if type(event).__name__ != "TurnProgress"]
        assert told[:3] == ["CallStarted", "CallRinging", "CallAnswered"]
        assert told[-2:] == ["TurnFinished", "CallEnded"]
        texts = [text for turn in made.log.turns for text in (turn.caller_text, turn.agent_text, turn.heard_text)]
        assert "[drink] please" in texts
        assert not any("tea" in text for text in texts)
        transcript = hooks.told["call_ended"][0]["summary"].transcript
        assert not any("tea" in said.text for said in transcript)

    run_virtual(call())


def test_arguments_and_results_of_tools_are_kept_as_plugins_let_them_be() -> None:
    async def call() -> None:
        made, _, _ = one_tool(SpokenHooks(before_storing=lambda texts: [t.replace("Ann", "***") for t in texts]))
        await use_it(made)
        (used,) = used_in(made)
        assert json.loads(used.result)["who"] == "***"

    run_virtual(call())


def test_a_call_whose_texts_nobody_answers_for_is_on_record_all_the_same() -> None:
    async def call() -> None:
        hooks = SpokenHooks(3600.0, before_storing=redact)
        made = VirtualCall(flow_line(), hooks=hooks)
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until_says("Please enter your four digit code.")
        made.hangs_up()
        ended = await made.over(3700.0)
        assert ended.hangup_text.startswith("[withheld")
        assert made.log.turns[1].caller_text.startswith("[withheld")
        assert made.log.turns[1].number == 1

    run_virtual(call())


@pytest.mark.parametrize("kept", [["only one"], "text", None, [1, 2, 3, 4, 5, 6, 7, 8]])
def test_an_answer_that_does_not_fit_keeps_back_the_texts_that_it_is_about(kept: Any) -> None:
    async def call() -> None:
        hooks = SpokenHooks(before_storing=lambda texts: kept)
        made = VirtualCall(flow_line(), hooks=hooks)
        await made.until_quiet()
        made.hangs_up()
        await made.over()
        expected = "Hello, this is the desk." if kept is None else "[withheld: a plugin failed]"
        assert made.log.turns[0].agent_text.startswith(expected)

    run_virtual(call())


def test_a_call_that_is_cut_off_while_texts_are_looked_at_is_on_record() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line(), hooks=SpokenHooks(3600.0, before_storing=redact))
        await made.until_quiet()
        made.hangs_up()
        await asyncio.sleep(1.0)
        made.task.cancel()
        await asyncio.gather(made.task, return_exceptions=True)
        assert made.log.ended.hangup_text.startswith("[withheld")

    run_virtual(call())


def test_trouble_with_a_hook_is_in_the_record_of_the_turn() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line())
        made.session.note_trouble("admit", HookOutcome("tone", "failed", 0.02, "ValueError: x"))
        await made.until_quiet()
        made.session.note_trouble("reply_text", HookOutcome("tone", "over_budget", 0.02, "20 ms"))
        await hang_up(made)
        wanted = "plugin tone: admit failed ValueError: x; plugin tone: reply_text over_budget 20 ms"
        assert made.log.turns[0].problem == wanted

    run_virtual(call())


def test_without_plugins_nothing_is_asked_and_nothing_waits() -> None:
    async def call() -> None:
        hooks = SpokenHooks()
        made = VirtualCall(flow_line(), hooks=hooks)
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until_says("Please enter your four digit code.")
        await hang_up(made)
        assert not hooks.told
        assert any(isinstance(event, CallAnswered) for event in made.log.events)
        assert isinstance(made.session._line, Line)

    run_virtual(call())


def test_what_is_under_way_is_shown_without_words_where_plugins_decide_what_may_be_kept() -> None:
    async def call() -> None:
        made = VirtualCall(flow_line(), hooks=SpokenHooks(before_storing=redact))
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        await made.until_says("Please enter your four digit code.")
        await made.ends()
        told = [event for event in made.log.events if isinstance(event, TurnProgress)]
        assert {event.doing.value for event in told} >= {"agent_speaks", "caller_speaks"}
        words = {
            (event.hearing, event.turn.caller_text, event.turn.agent_text, event.turn.heard_text) for event in told
        }
        assert words == {("", "", "", "")}

    run_virtual(call())


@pytest.mark.parametrize(
    ("target", "kept"), [("+49301234", "+49301234: failed"), ("${slots.drink}", "[drink]: failed")]
)
def test_the_operators_own_number_stays_in_what_became_of_a_transfer(target: str, kept: str) -> None:
    async def call() -> None:
        transfers = HandsOn(None, 0.1)
        flow = {**FLOW["flow"], "pin": {"transfer": target, "failed": "bye"}}
        hide = SpokenHooks(
            before_storing=lambda texts: [text.replace("+49301234", "[phone]") for text in redact(texts)]
        )
        made = VirtualCall(flow_line(flow=flow), hooks=hide, transfers=transfers)
        await made.until_quiet()
        made.speaks(0.8, "tea please")
        ended = await made.over()
        assert ended.slots["transfer"] == kept

    run_virtual(call())
