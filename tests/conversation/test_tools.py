"""Tools in a reply: when they run, what the model is told, what the caller hears meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.api.tools import Arguments, OngoingCall, Question, Tool
from appliance.conversation.brain import (
    Gate,
    HangUp,
    Heard,
    Key,
    KeysEnded,
    Listen,
    Pace,
    Say,
    SendDigits,
    Silence,
    Step,
    Transfer,
    Used,
)
from appliance.conversation.thinking import MAX_ROUNDS, HandOver
from appliance.conversation.tools import MAX_RESULT, ToolSet, as_json
from appliance.errors import EngineError, ToolError
from tests.conversation.scripted_model import NOTHING, Made, call, in_order, make, said, tool
from tests.engines.virtual_time import run_virtual

DAY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "day": {"type": "string", "enum": ["monday", "friday"]},
        "people": {"type": "integer", "minimum": 1},
    },
    "required": ["day"],
    "additionalProperties": False,
}


def now() -> float:
    return asyncio.get_running_loop().time()


def waiting(seconds: float, result: Any = "done", name: str = "book", **more: Any) -> tuple[Tool, list[str]]:
    """A tool that takes its time, and what became of it."""
    log: list[str] = []

    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        log.append("begun")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        log.append("done")
        return result

    return tool(name, run, **more), log


def results(made: Made, index: int = -1) -> list[str]:
    return [text for role, text in made.model.shown(index) if role == "tool"]


def used(steps: list[Step]) -> list[Used]:
    return [step for step in steps if isinstance(step, Used)]


# --- one round ------------------------------------------------------------------------------------------------------


def test_a_tool_is_run_and_its_result_goes_back_to_the_model() -> None:
    async def story() -> None:
        book, _ = waiting(0.2, {"booked": "<b>table 4</b>"}, parameters=DAY)
        made = make(["Let me see. ", call("book", '{"day": "friday"}')], ["You have table four."], tools=[book])
        steps = await made.reply("a table on friday please")
        assert said(steps) == "Let me see. You have table four."
        (use,) = used(steps)
        assert (use.tool.name, use.tool.arguments, use.tool.problem) == ("book", '{"day": "friday"}', "")
        assert use.tool.end_at - use.tool.start_at == pytest.approx(0.2)
        first, second = made.model.asked
        assert [spec.name for spec in first.tools] == ["book"]
        assert first.tools == second.tools
        assert second.messages[: len(first.messages)] == first.messages
        assistant, result = second.messages[-2:]
        assert assistant.content == "Let me see."
        assert (assistant.tool_calls[0].id, assistant.tool_calls[0].name) == (result.call_id, "book")
        assert json.loads(result.content.partition(">")[2].rpartition("<")[0]) == {"booked": "<b>table 4</b>"}
        assert result.content.count("<") == 2
        in_order(second.messages)
        await made.reply("thanks")
        assert ("assistant", "You have table four.") in made.model.shown()

    run_virtual(story())


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (call("book", '{"day": "sunday"}'), "day: 'sunday' is not one of"),
        (call("book", '{"people": 0}'), "'day' is a required property; people: 0 is less than the minimum"),
        (call("book", '{"day": "monday", "x": 1}'), "Additional properties are not allowed"),
        (call("book", "{day: friday}"), "not JSON"),
        (call("book", "[" * 5000), "not JSON"),
        (call("book", "[1]"), "must be a JSON object"),
        (call("book", '{"day": "' + "x" * 9000 + '"}'), "longer than"),
        (call("cook"), "there is no tool 'cook'; there are: book"),
    ],
)
def test_what_does_not_fit_is_told_to_the_model_so_that_it_can_do_better(wanted: Any, told: str) -> None:
    async def story() -> None:
        book, log = waiting(0.0, parameters=DAY)
        made = make([wanted], [call("book", '{"day": "friday"}')], ["It is done now."], tools=[book])
        steps = await made.reply("a table please")
        assert said(steps) == "It is done now."
        assert log == ["begun", "done"]
        assert told in results(made, 1)[0]
        assert [bool(use.tool.problem) for use in used(steps)] == [True, False]
        for request in made.model.asked:
            in_order(request.messages)
            for message in request.messages:
                assert all(isinstance(json.loads(wish.arguments), dict) for wish in message.tool_calls)

    run_virtual(story())


def test_a_model_that_never_gets_it_right_is_not_asked_for_ever() -> None:
    async def story() -> None:
        made = make([call("cook")])
        with pytest.raises(EngineError, match="did not answer"):
            await made.reply("hello")
        assert len(made.model.asked) == MAX_ROUNDS
        made.model.answers[:] = [["I am back with you."]]
        await made.reply("hello?")
        in_order(made.model.asked[-1].messages)

    run_virtual(story())


def test_several_run_side_by_side_and_are_answered_in_order() -> None:
    async def story() -> None:
        tools = [waiting(seconds, name, name)[0] for name, seconds in (("slow", 2.0), ("quick", 0.5), ("mid", 1.0))]
        wanted = [call("slow"), call("quick"), call("mid")]
        made = make([*wanted], ["All three are there."], tools=tools, manner={"filler_after_s": 0})
        before = now()
        steps = await made.reply("look everything up")
        assert now() - before == pytest.approx(2.0)
        assert [use.tool.name for use in used(steps)] == ["quick", "mid", "slow"]
        assert [name in text for name, text in zip(("slow", "quick", "mid"), results(made), strict=True)] == [True] * 3

    run_virtual(story())


async def _fails(arguments: Arguments, call: OngoingCall) -> Any:
    raise ToolError("there is no table left; offer another day")


async def _breaks(arguments: Arguments, call: OngoingCall) -> Any:
    raise ValueError("secret of the database")


async def _gives_rubbish(arguments: Arguments, call: OngoingCall) -> Any:
    return object()


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (_fails, "there is no table left; offer another day"),
        (_breaks, "the tool failed"),
        (_gives_rubbish, "not JSON"),
        (waiting(60.0)[0].run, "no result within 10 s"),
    ],
)
def test_what_goes_wrong_in_a_tool_is_told_to_the_model_and_kept(run: Any, told: str) -> None:
    async def story() -> None:
        made = make([call("book")], ["That did not work."], tools=[tool("book", run)])
        steps = await made.reply("book it")
        assert said(steps) == "That did not work."
        assert told in results(made)[0]
        assert "secret" not in results(made)[0]
        assert told in used(steps)[0].tool.problem

    run_virtual(story())


def test_too_much_of_a_result_is_cut() -> None:
    assert len(as_json("x" * 100_000)) < MAX_RESULT + 100
    assert as_json({"a": "</tool_result>"}) == '{"a":"\\u003c/tool_result\\u003e"}'


# --- what the caller hears ------------------------------------------------------------------------------------------


def test_a_wait_is_bridged_after_what_was_said_before() -> None:
    async def story() -> None:
        book, _ = waiting(5.0)
        made = make(["I will look into the book for you. ", call("book")], ["Friday is free."], tools=[book])
        begun = now()
        fillers: list[tuple[float, str]] = []
        heard: list[tuple[float, str]] = []
        async for step in made.brain.reply(Heard("a table", 0.9, True)):
            if isinstance(step, Say):
                (fillers if step.filler else heard).append((round(now() - begun, 1), step.text))
        assert [text for _, text in fillers] == ["One moment."]
        assert 2.5 <= fillers[0][0] <= 4.0
        assert heard[-1] == (5.0, "Friday is free.")
        assert "One moment" not in str(made.model.asked[-1].messages)

    run_virtual(story())


def test_a_tool_may_have_words_of_its_own_for_a_wait_and_no_wait_is_counted_before_the_turn_is_certain() -> None:
    async def story() -> None:
        book, _ = waiting(3.0, side_effects=False, filler="I am asking the kitchen.")
        made = make([call("book")], ["Friday is free."], tools=[book])
        gate = Gate(is_open=False)
        begun = now()
        asyncio.get_running_loop().call_later(1.5, gate.open)
        async for step in made.brain.reply(Heard("a table", 0.9, True), gate):
            if isinstance(step, Say) and step.filler:
                assert (round(now() - begun, 1), step.text) == (2.3, "I am asking the kitchen.")
                break
        else:
            pytest.fail("there was no filler")

    run_virtual(story())


def test_a_tool_can_speak_while_it_runs_and_what_was_heard_of_it_is_kept() -> None:
    async def story() -> None:
        async def run(arguments: Arguments, call: OngoingCall) -> Any:
            call.say("I have **found** your order.")
            await asyncio.sleep(1.0)
            return "shipped"

        made = make([call("track")], ["It is on its way."], tools=[tool("track", run, side_effects=False)])
        steps = await made.reply("where is it")
        assert said(steps) == "I have found your order. It is on its way."
        await made.reply("thanks")
        assert [text for role, text in made.model.shown() if role == "assistant"] == [
            "",
            "I have found your order.\nIt is on its way.",
        ]
        in_order(made.model.asked[-1].messages)

    run_virtual(story())


# --- the gate -------------------------------------------------------------------------------------------------------


def test_only_a_tool_without_side_effects_runs_before_the_turn_is_certain() -> None:
    async def story() -> None:
        book, booked = waiting(0.1, name="book")
        look, looked = waiting(0.1, name="look", side_effects=False)
        made = make([call("look"), call("book")], ["It is done now."], tools=[book, look])
        gate = Gate(is_open=False)
        fork = made.brain.fork()
        steps = asyncio.create_task(_all(fork, gate))
        await asyncio.sleep(5.0)
        assert (looked, booked) == (["begun", "done"], [])
        gate.open()
        assert said(await steps) == "It is done now."
        assert booked == ["begun", "done"]

    run_virtual(story())


async def _all(brain: Any, gate: Gate, words: str = "please") -> list[Step]:
    return [step async for step in brain.reply(Heard(words, 0.9, True), gate)]


@given(
    kinds=st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.0, 2.0)), min_size=1, max_size=5),
    opens_at=st.one_of(st.none(), st.floats(0.0, 3.0)),
    given_up_at=st.one_of(st.none(), st.floats(0.0, 4.0)),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_with_side_effects_ever_begins_before_the_gate_opens(
    kinds: list[tuple[bool, bool, float]], opens_at: float | None, given_up_at: float | None
) -> None:
    """Whatever tools are asked for, whenever the turn becomes certain, and whenever the reply is given up."""

    async def story() -> None:
        gate = Gate(is_open=False)
        early: list[str] = []
        half_done: list[str] = []

        def maker(name: str, effects: bool, cancellable: bool, seconds: float) -> Tool:
            async def run(arguments: Arguments, call: OngoingCall) -> Any:
                if effects and not gate.is_open:
                    early.append(name)
                try:
                    await asyncio.sleep(seconds)
                except asyncio.CancelledError:
                    if effects and not cancellable:
                        half_done.append(name)
                    raise
                if effects:
                    call.note(name, "yes")
                return name

            return tool(name, run, side_effects=effects, cancellable=cancellable)

        tools = [maker(f"t{number}", *kind) for number, kind in enumerate(kinds)]
        made = make([*(call(each.name) for each in tools)], ["All of it is done."], tools=tools)
        fork = made.brain.fork()
        replying = asyncio.create_task(_all(fork, gate))
        if opens_at is not None:
            asyncio.get_running_loop().call_later(opens_at, gate.open)
        if given_up_at is not None:
            asyncio.get_running_loop().call_later(given_up_at, replying.cancel)
        await asyncio.wait({replying}, timeout=20.0)
        replying.cancel()
        await asyncio.wait({replying})
        next_brain = fork if gate.is_open else made.brain
        async for _ in next_brain.reply(Heard("and now", 0.9, True)):
            pass
        in_order(made.model.asked[-1].messages)
        await next_brain.close()
        assert (early, half_done) == ([], [])
        if not gate.is_open:
            assert made.slots == {}
        assert len(asyncio.all_tasks()) == 1

    run_virtual(story())


@pytest.mark.parametrize(
    ("more", "became"), [({}, "done"), ({"cancellable": True}, "cancelled"), ({"side_effects": False}, "cancelled")]
)
def test_an_interrupted_tool_is_finished_unless_it_may_be_cancelled(more: dict[str, Any], became: str) -> None:
    async def story() -> None:
        book, log = waiting(3.0, {"table": 4}, **more)
        made = make([call("book")], ["I am still at it."], ["Table four it is."], tools=[book])
        replying = asyncio.create_task(_all(made.brain, Gate()))
        await asyncio.sleep(1.0)
        replying.cancel()
        await asyncio.wait({replying})
        steps = await made.reply("are you there")
        assert not used(steps)
        await asyncio.sleep(3.0)
        assert log == ["begun", became]
        steps = await made.reply("and now")
        in_order(made.model.asked[-1].messages)
        if became == "done":
            assert [use.tool.result for use in used(steps)] == ['{"table":4}']
            assert "still running" in results(made)[0]
            assert "has finished: <tool_result" in str(made.model.shown())
        else:
            assert "cancelled" in results(made)[0]
        await made.brain.close()

    run_virtual(story())


def test_what_must_be_finished_is_finished_when_the_call_ends() -> None:
    async def story() -> None:
        book, log = waiting(3.0)
        made = make([call("book")], tools=[book])
        replying = asyncio.create_task(_all(made.brain, Gate()))
        await asyncio.sleep(1.0)
        replying.cancel()
        await asyncio.wait({replying})
        await made.brain.close()
        assert log == ["begun", "done"]
        assert len(asyncio.all_tasks()) == 1

    run_virtual(story())


# --- what tools do to the call --------------------------------------------------------------------------------------


def doing(act: Callable[[OngoingCall], None], **more: Any) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        act(call)
        return "done"

    return tool("act", run, **more)


def test_hanging_up_ends_the_reply_with_a_farewell() -> None:
    async def story() -> None:
        made = make([call("act")], tools=[doing(lambda call: call.hang_up("done", "Goodbye then."))])
        steps = await made.reply("that is all")
        assert said(steps) == "Goodbye then."
        assert steps[-2] == HangUp("done")
        assert len(made.model.asked) == 1
        spoke = make(["Bye for now.", call("act")], tools=[doing(lambda call: call.hang_up("done", "Goodbye then."))])
        assert said(await spoke.reply("that is all")) == "Bye for now."

    run_virtual(story())


def test_a_caller_is_handed_on_only_to_those_that_the_line_names() -> None:
    async def story() -> None:
        sales = HandOver(Transfer("sip:sales@192.0.2.1"), "I will put you through.")
        manner = {"transfers": {"sales": sales}}
        act = doing(lambda call: call.hand_on("sales"))
        made = make([call("act")], tools=[act], manner=manner)
        steps = await made.reply("sales please")
        assert said(steps) == "I will put you through."
        assert steps[-2] == sales.transfer
        wrong = make(
            [call("act")], ["There is none."], tools=[doing(lambda call: call.hand_on("+1900"))], manner=manner
        )
        steps = await wrong.reply("call my friend")
        assert not [step for step in steps if isinstance(step, Transfer)]
        assert "there are: sales" in results(wrong)[0]

    run_virtual(story())


def test_keys_slots_and_facts() -> None:
    async def story() -> None:
        def act(call: OngoingCall) -> None:
            call.press("1#")
            call.note("about", f"{call.call_id} {call.line} {call.caller} {call.called}")

        made = make([call("act")], ["Pressed and noted."], tools=[doing(act)])
        steps = await made.reply("go on")
        assert SendDigits("1#") in steps
        assert made.slots == {"about": "call1 desk +49301234 100"}

    run_virtual(story())


@pytest.mark.parametrize(
    "act",
    [
        lambda call: call.press("1"),
        lambda call: call.note("a", "b"),
        lambda call: call.hang_up("x"),
        lambda call: call.hand_on("sales"),
    ],
)
def test_a_tool_that_declares_no_side_effects_has_none(act: Callable[[OngoingCall], None]) -> None:
    async def story() -> None:
        made = make([call("act")], ["That did not work."], tools=[doing(act, side_effects=False)])
        steps = await made.reply("go on")
        assert "declares no side effects" in used(steps)[0].tool.problem
        assert made.slots == {}
        assert not [step for step in steps if isinstance(step, SendDigits | HangUp | Transfer)]

    run_virtual(story())


# --- questions of tools ---------------------------------------------------------------------------------------------


def asking(*questions: Question, **more: Any) -> Tool:
    async def run(arguments: Arguments, call: OngoingCall) -> Any:
        answers = [await call.ask(question) for question in questions]
        return [[answer.words, answer.keys] for answer in answers]

    return tool("ask", run, **more)


def test_a_tool_asks_the_caller_and_the_model_gets_the_answers() -> None:
    async def story() -> None:
        questions = (Question("Your code?", min_digits=2, max_digits=4), Question("And your name?"))
        made = make(["One second. ", call("ask")], ["Thank you very much."], tools=[asking(*questions, timeout_s=5.0)])
        steps = await made.reply("hello")
        assert said(steps) == "One second. Your code?"
        assert isinstance(steps[-1], Listen)
        assert (steps[-1].expectation.min_digits, steps[-1].expectation.key_timeout_s) == (2, 3.0)
        await asyncio.sleep(60.0)
        (listen,) = await made.reply(Key("4"))
        assert isinstance(listen, Listen)
        await made.reply(Key("2"))
        assert said(await made.reply(KeysEnded())) == "And your name?"
        assert said(await made.reply("my name is ann", heard_share=0.5)) == "Thank you very much."
        assert '[["","42"],["my name is ann",""]]' in results(made)[0]
        await made.reply("bye")
        shown = made.model.shown()
        assert ("assistant", "One second.") in shown
        assert "[Meanwhile the caller heard you say: <agent>Your code? And your name?</agent>]" in str(shown)
        assert ("assistant", "Thank you [interrupted]") in shown
        in_order(made.model.asked[-1].messages)

    run_virtual(story())


def test_an_answer_begun_in_advance_and_thrown_away_is_no_answer() -> None:
    async def story() -> None:
        made = make([call("ask")], ["Thank you very much."], tools=[asking(Question("Your code?", max_digits=4))])
        await made.reply("hello")
        fork = made.brain.fork()
        gate = Gate(is_open=False)
        drafting = asyncio.create_task(_all(fork, gate, "one two"))
        await asyncio.sleep(1.0)
        assert not drafting.done()
        drafting.cancel()
        await asyncio.wait({drafting})
        fork, gate = made.brain.fork(), Gate(is_open=False)
        drafting = asyncio.create_task(_all(fork, gate, "one two three four"))
        await asyncio.sleep(0.5)
        gate.open()
        assert said(await drafting) == "Thank you very much."
        assert "one two three four" in results(made)[0]
        await fork.close()
        assert len(asyncio.all_tasks()) == 1

    run_virtual(story())


def test_a_question_that_was_not_understood_is_put_again_and_is_not_answered_by_that() -> None:
    async def story() -> None:
        made = make(["One second. ", call("ask")], ["Thank you very much."], tools=[asking(Question("Your code?"))])
        await made.reply("hello")
        again = await made.reply("sorry, could you say that again")
        assert said(again) == "One second. Your code?"
        slower = await made.reply("slower please", heard_share=0.5)
        assert isinstance(slower[0], Pace)
        assert said(await made.reply("four two")) == "Thank you very much."
        assert len(made.model.asked) == 2
        await made.reply("bye")
        shown = str(made.model.shown())
        assert "heard you say: <agent>Your code? One second. Your code? One second.</agent>]" in shown
        assert '[["four two",""]]' in shown
        in_order(made.model.asked[-1].messages)

    run_virtual(story())


def test_silence_is_an_answer_too() -> None:
    async def story() -> None:
        made = make([call("ask")], ["Never mind about that."], tools=[asking(Question("Your code?", max_digits=4))])
        await made.reply("hello")
        assert said(await made.reply(Silence())) == "Never mind about that."

    run_virtual(story())


@pytest.mark.parametrize(
    ("answers", "done"),
    [(["yes please"], True), (["no"], False), (["what for", "go ahead"], True), (["hm", "hm"], False)],
)
def test_leave_is_asked_of_the_caller_and_not_of_the_model(answers: list[str], done: bool) -> None:
    async def story() -> None:
        cancel, log = waiting(0.1, name="cancel", confirm="Shall I cancel booking {id}?")
        made = make([call("cancel", '{"id": 7}')], ["That is settled."], tools=[cancel])
        steps = await made.reply("cancel it")
        assert said(steps) == "Shall I cancel booking 7?"
        for answer in answers:
            assert log == []
            steps = await made.reply(answer)
        assert said(steps) == "That is settled."
        assert log == (["begun", "done"] if done else [])
        assert ("did not say yes" in results(made)[0]) is not done

    run_virtual(story())


def test_a_call_that_ends_during_a_question_leaves_nothing_behind() -> None:
    async def story() -> None:
        made = make([call("ask")], tools=[asking(Question("Your code?", max_digits=4))])
        await made.reply("hello")
        await made.brain.close()
        assert len(asyncio.all_tasks()) == 1

    run_virtual(story())


# --- which tools can be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tools", "problem"),
    [
        ([tool("a b", _fails)], "letters, digits"),
        ([tool("a", _fails), tool("a", _fails)], "two of this name"),
        ([tool("a", _fails, parameters={"type": "string"})], "of type object"),
        ([tool("a", _fails, parameters={"type": "object", "properties": {"x": {"type": "no"}}})], "no JSON schema"),
    ],
)
def test_a_tool_that_cannot_be_offered_is_refused_with_the_reason(tools: list[Tool], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ToolSet(tools)


def test_no_arguments_may_be_written_as_nothing() -> None:
    tools = ToolSet([tool("a", _fails, parameters=NOTHING)])
    assert tools.read(call("a", "")) == (tools.read(call("a", "{}"))[0], {})
    assert "a" in tools


def test_a_schema_is_never_fetched_from_elsewhere() -> None:
    tools = ToolSet([tool("a", _fails, parameters={"type": "object", "$ref": "http://192.0.2.1/schema.json"})])
    with pytest.raises(ToolError, match="schema"):
        tools.read(call("a", "{}"))
