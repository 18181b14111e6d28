"""What passes plugins on its way into the record, however long it is."""

from __future__ import annotations

import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st

from appliance.conversation.hooked import MAX_SHOWN, MAX_TEXT, HooksOfCall
from appliance.hook_types import Blocked, Denied
from appliance.plugins.hooks import HookCall
from tests.plugins.spoken_hooks import SpokenHooks


def kept(texts: list[str]) -> tuple[list[str], list[list[str]]]:
    """What is kept of ``texts``, and what the plugin was shown each time; it puts stars in place of the As."""
    hooks = SpokenHooks(before_storing=lambda texts: [text.replace("A", "*") for text in texts])
    result = asyncio.run(HooksOfCall(hooks, HookCall("call", "line")).before_storing(texts))
    return result, [told["texts"] for told in hooks.told["before_storing"]]


def messages(*contents: str) -> str:
    return json.dumps([{"role": "user", "content": content} for content in contents], ensure_ascii=False)


@given(st.lists(st.one_of(st.text(max_size=20), st.integers(0, MAX_SHOWN // 2).map(lambda n: "A" * n)), max_size=12))
def test_texts_keep_their_order_and_none_is_shown_more_than_can_be(texts: list[str]) -> None:
    result, shown = kept(texts)
    assert result == [text.replace("A", "*") for text in texts]
    assert all(sum(map(len, batch)) <= MAX_SHOWN for batch in shown)


def test_a_long_list_of_messages_is_shown_in_pieces_and_is_still_one() -> None:
    text = messages(*(f'{number}: "}}, {{"role": " AAA' * 300 for number in range(60)))
    assert len(text) > 4 * MAX_SHOWN
    (result,), shown = kept([text])
    assert result == text.replace("A", "*")
    assert len(json.loads(result)) == 60
    assert max(len(piece) for batch in shown for piece in batch) <= MAX_SHOWN


def test_what_is_too_long_to_be_looked_at_is_withheld() -> None:
    result, shown = kept(["A", "B" * (MAX_SHOWN + 1), "AC"])
    assert result == ["*", f"[withheld: {MAX_SHOWN + 1} characters are too many to be looked at]", "*C"]
    assert shown == [["A"], ["AC"]]


def test_a_message_that_is_too_long_is_withheld_alone() -> None:
    (result,), _ = kept([messages("A", "B" * (MAX_SHOWN + 1), "C")])
    assert result.startswith('[{"role": "user", "content": "*"}')
    assert "B" not in result
    assert result.endswith('{"role": "user", "content": "C"}]')


def test_what_plugins_answer_is_bounded() -> None:
    async def ask(hook: str, answer: object, text: str) -> object:
        return await getattr(HooksOfCall(SpokenHooks(**{hook: answer}), HookCall("call", "line")), hook)(text)

    long = "word " * 2000
    assert asyncio.run(ask("final_transcript", long, "x")) == long[:MAX_TEXT]
    assert asyncio.run(ask("partial_transcript", long, "x")) == long[:MAX_TEXT]
    assert asyncio.run(ask("final_transcript", Blocked(long), "x")) == Blocked(long[:400])
    assert asyncio.run(ask("transfer_requested", "1" * 999, "x")) == "1" * 256
    assert asyncio.run(ask("transfer_requested", "", "x")) == "x"
    assert asyncio.run(ask("transfer_requested", Denied("y" * 999), "x")) == Denied("y" * 200)
    said = asyncio.run(ask("reply_text", long, "x"))
    assert isinstance(said, list)
    assert sum(map(len, said)) <= MAX_TEXT
    assert max(map(len, said)) <= 200


def test_nothing_is_asked_about_nothing() -> None:
    assert kept(["", ""]) == (["", ""], [])
