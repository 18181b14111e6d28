"""Whatever happens in a call, a server takes the messages, and nothing in them passes for what it is not."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.conversation.history import History, Summary, fence
from appliance.ipc.messages import ChatMessage, ToolCall

BUDGET = 1000


def history(budget: int = BUDGET) -> History:
    return History("system", "[The call begins.]", budget_tokens=budget, tools_tokens=50)


@given(st.text(), st.text())
def test_no_text_can_leave_its_fence(text: str, attribute: str) -> None:
    fenced = fence("caller", text, name=attribute)
    assert (fenced.count("<"), fenced.count(">")) == (2, 2)
    assert fenced.startswith("<caller ")
    assert fenced.endswith("</caller>")
    assert fenced.partition(">")[0].count('"') == 2


def well_formed(messages: tuple[ChatMessage, ...]) -> None:
    """System first, tools answered right after they are asked for, and no side twice in a row but around tools."""
    assert messages[0].role == "system"
    assert all(message.role != "system" for message in messages[1:])
    assert messages[1].role == "user"
    waiting: set[str] = set()
    before = messages[0]
    for message in messages[1:]:
        if message.role == "tool":
            assert message.call_id in waiting
            waiting.remove(message.call_id)
        else:
            assert not waiting
            assert message.role != before.role
            assert message.content or message.tool_calls
            waiting = {call.id for call in message.tool_calls}
        before = message
    assert not waiting


turns = st.lists(
    st.tuples(
        st.sampled_from(["caller", "event", "silence"]),
        st.text("ab <>", max_size=300),
        st.integers(0, 3),
        st.integers(0, 3),
        st.floats(0.0, 1.0),
        st.sampled_from(["", "summary", "fork"]),
    ),
    max_size=25,
)


@given(turns)
@settings(max_examples=200, deadline=None)
def test_any_call_is_well_formed_and_within_the_budget(happened: list[tuple[str, str, int, int, float, str]]) -> None:
    talk = history()
    for number, (kind, text, calls, answered, heard, then) in enumerate(happened):
        talk.begin_turn()
        if kind == "caller":
            talk.caller(text, "14:05")
        elif kind == "event":
            talk.event("something happened")
        wanted = [ToolCall(f"c{number}x{index}", "look", "{}") for index in range(calls)]
        said = talk.agent(text, wanted)
        for call in wanted[:answered]:
            talk.result(call, "fine")
        talk.revise(said, text[: int(len(text) * heard)])
        if then == "summary" and talk.wants_summary():
            told, through = talk.to_summarise()
            assert through < talk.turn
            assert told
            talk.summarised(Summary("what was said", through))
        elif then == "fork":
            fork = talk.copy()
            fork.begin_turn()
            fork.caller("thrown away", "14:05")
        talk.fit()
        assert talk.tokens <= BUDGET
        well_formed(talk.messages())
    assert "thrown away" not in str(talk.messages())


def test_a_summary_takes_the_place_of_the_turns_it_is_of() -> None:
    talk = history()
    for number in range(12):
        talk.begin_turn()
        talk.caller(f"question {number}", "14:05")
        talk.agent(f"answer {number} " + "and so on " * 20)
    assert talk.wants_summary()
    told, through = talk.to_summarise()
    assert '<caller time="14:05">question 0</caller>' in told
    assert f"question {through}" not in told
    talk.begin_turn()
    talk.caller("meanwhile", "14:06")
    talk.summarised(Summary("Ann asked many things.", through))
    shown = talk.messages()
    assert shown[1].content == (
        "[The call begins.]\n<earlier_in_this_call>Ann asked many things.</earlier_in_this_call>\n"
        f'<caller time="14:05">question {through}</caller>'
    )
    assert "meanwhile" in shown[-1].content
    assert not talk.wants_summary()
    talk.summarised(Summary("too late", through - 3))
    assert talk.summary.text == "Ann asked many things."
    assert "Ann asked many things." in talk.everything()


def test_giving_up_turns_is_done_seldom() -> None:
    talk, changes, before = history(), 0, ()
    for number in range(100):
        talk.begin_turn()
        talk.caller(f"question {number}", "14:05")
        talk.agent("and so on " * 20)
        talk.fit()
        messages: Any = talk.messages()
        changes += messages[: len(before)] != before
        before = messages
    assert 0 < changes < 20


def test_the_record_has_what_is_new() -> None:
    talk = history()
    talk.begin_turn()
    talk.caller("hello", "14:05")
    first = json.loads(talk.since(0))
    assert [message["role"] for message in first] == ["system", "user", "user"]
    mark = talk.count
    call = ToolCall("c1", "look", '{"a": 1}')
    talk.agent("One moment.", [call])
    talk.result(call, "found <it>")
    assert json.loads(talk.since(mark)) == [
        {
            "role": "assistant",
            "content": "One moment.",
            "tool_calls": [{"id": "c1", "name": "look", "arguments": '{"a": 1}'}],
        },
        {
            "role": "tool",
            "content": '<tool_result name="look">found &lt;it&gt;</tool_result>',
            "tool_call_id": "c1",
        },
    ]
