"""What a line does when its engines fail: it hands on, goes on with a step or as another line, or ends the call."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.dialplan.checks import Draft, problems
from appliance.dialplan.loader import load_dialplans
from appliance.dialplan.schema import Line
from appliance.errors import ConfigError
from appliance.events import HangupBy
from tests.calls.test_session_transfers import HandsOn
from tests.calls.virtual_call import VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

LLM: dict[str, Any] = {"name": "desk", "agent": "llm", "prompt": "Take bookings.", "greeting": "Hello."}
MESSAGE = Line.model_validate(
    {
        "name": "message",
        "greeting": "Please leave a message.",
        "voice": {"rate": 1.5},
        "flow": {"what": {"ask": "Go ahead.", "expect": ["done"], "keys": {"#": "done"}, "slot": "said"}}
        | {"bye": {"hang_up": "Thank you."}},
    }
)


def llm_line(**failure: Any) -> Line:
    return Line.model_validate({**LLM, "on_engine_failure": {"after": 1, **failure}})


def call_on(line: Line, broken: str, **more: Any) -> VirtualCall:
    made = VirtualCall(line, llm=True, **more)
    made.engines.broken = {broken}
    made.session._lines = {"message": MESSAGE, "desk": line}.get
    return made


async def speaks(made: VirtualCall, text: str) -> None:
    """The caller lets the agent finish, and says something; until there is an answer, or an end."""
    await made.until_quiet()
    said = len(made.engines.said)
    made.speaks(1.0, text)
    await made.until(lambda: len(made.engines.said) > said or made.task.done())


def test_a_model_that_fails_leads_to_another_line_in_the_same_record() -> None:
    async def call() -> None:
        made = call_on(llm_line(line="message"), "llm")
        await speaks(made, "hello")
        await made.until_says("Go ahead.")
        await speaks(made, "done")
        ended = await made.over()
        assert made.engines.said[1:] == [
            "I am sorry, I cannot help you right now.",
            "Please leave a message.",
            "Go ahead.",
            "Thank you.",
        ]
        assert ended.slots["line.changed"] == "desk to message: the language model failed"
        assert (ended.slots["said"], ended.hangup_by) == ("done", HangupBy.AGENT)
        assert [turn.number for turn in made.log.turns] == [0, 1, 2, 3]
        assert [turn.heard_text for turn in made.log.turns][2] == "Please leave a message. Go ahead."
        assert made.session._had == {"desk", "message"}

    run_virtual(call())


def test_a_line_that_fails_after_that_ends_the_call() -> None:
    async def call() -> None:
        made = call_on(llm_line(line="desk2"), "llm")
        other = llm_line(line="desk").model_copy(update={"name": "desk2"})
        made.session._lines = {"desk2": other, "desk": made.session._line}.get
        for _ in range(2):
            await speaks(made, "hello")
        ended = await made.over()
        assert ended.hangup_text == "the language model failed"
        assert ended.slots["line.changed"] == "desk to desk2: the language model failed"

    run_virtual(call())


def test_a_line_of_which_nothing_is_known_any_more_ends_the_call() -> None:
    async def call() -> None:
        made = call_on(llm_line(line="gone"), "llm")
        await speaks(made, "hello")
        assert (await made.over()).hangup_text == "the language model failed"

    run_virtual(call())


@pytest.mark.parametrize("after", [1, 2])
def test_callers_whom_nobody_understands_are_handed_on(after: int) -> None:
    async def call() -> None:
        transfers = HandsOn("transferred to 100", 1.0)
        line = flow_line(on_engine_failure={"after": after, "transfer": "100", "say": ""})
        made = call_on(line, "asr", transfers=transfers)
        for _ in range(after):
            await speaks(made, "tea please")
        ended = await made.over()
        assert ended.slots["transfer"] == "100: transferred to 100"
        assert made.engines.said.count("Sorry, what was that?") == after - 1

    run_virtual(call())


def test_a_dead_voice_keeps_nobody_from_being_handed_on() -> None:
    async def call() -> None:
        transfers = HandsOn("transferred to 100", 1.0)
        made = call_on(flow_line(on_engine_failure={"after": 1, "transfer": "100"}), "tts", transfers=transfers)
        ended = await made.over()
        assert (ended.slots["transfer"], made.engines.said) == ("100: transferred to 100", [])

    run_virtual(call())


def test_where_nobody_can_be_reached_the_caller_is_told() -> None:
    async def call() -> None:
        line = flow_line(on_engine_failure={"after": 1, "transfer": "100", "say": "One moment."}, language="de")
        made = call_on(line, "asr")
        await speaks(made, "tea please")
        ended = await made.over()
        assert made.engines.said[-2] == "One moment."
        assert made.engines.said[-1].startswith("Es tut mir leid, im Moment ist niemand erreichbar. Bitte")
        assert ended.hangup_text == "the agent's engines failed"

    run_virtual(call())


def test_a_flow_goes_on_with_a_step_and_what_it_knows() -> None:
    async def call() -> None:
        line = flow_line(on_engine_failure={"after": 2, "say": "By keys, please.", "step": "pin"})
        made = call_on(line, "none")
        await speaks(made, "tea please")
        await made.until_says("Please enter your four digit code.")
        made.engines.broken = {"asr"}
        for _ in range(2):
            await speaks(made, "one")
        await made.until_says("By keys, please.")
        await made.until_quiet()
        for digit in "1234":
            made.session.on_digit(digit, 1)
        ended = await made.over()
        assert (ended.slots["drink"], ended.slots["pin"]) == ("tea", "1234")

    run_virtual(call())


def test_a_line_that_says_nothing_of_it_ends_the_call_as_ever() -> None:
    async def call() -> None:
        made = call_on(flow_line(), "asr")
        for _ in range(3):
            await speaks(made, "tea please")
        ended = await made.over()
        assert "line.changed" not in ended.slots

    run_virtual(call())


@pytest.mark.usefixtures("in_tmp_path")
def test_mistakes_are_told(tmp_path: Any) -> None:
    (same,) = problems(Draft(flow_line(on_engine_failure={"line": "desk"}), ("what", "pin", "bye")))
    assert "is this line itself" in same.what
    text = "{name: a, on_engine_failure: {line: b, transfer: '1'}, flow: {bye: {hang_up: Bye}}}\n"
    for plan, said in (
        (text, "has both transfer and line; keep one; that line can transfer, too"),
        (text.replace(", transfer: '1'", ""), "on_engine_failure.line: there is no line 'b'"),
    ):
        (tmp_path / "plan.yaml").write_text(plan)
        with pytest.raises(ConfigError, match=said):
            load_dialplans([tmp_path / "plan.yaml"])
