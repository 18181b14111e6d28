from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engines.chat_reply import Calls, Finished, Piece, ReplyReader, ThinkFilter, Thought, Usage, Words
from appliance.engines.server_fault import ServerFault


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more})


def read(*chunks: str, thinks_first: bool = False) -> list[Piece]:
    reader = ReplyReader(thinks_first=thinks_first)
    return [piece for one in chunks for piece in reader.feed(one)]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Words))


def test_words_come_as_they_come_and_the_end_once() -> None:
    pieces = read(chunk({"role": "assistant", "content": ""}), chunk({"content": "\n\nHel"}), chunk({"content": "lo."}),
                  chunk({}, "stop"), "[DONE]")  # fmt: skip
    assert pieces == [Words("Hel"), Words("lo."), Finished("stop")]


def test_done_alone_ends_a_reply() -> None:
    assert read(chunk({"content": "Yes"}), "[DONE]") == [Words("Yes"), Finished("stop")]


def test_usage_comes_behind_the_end() -> None:
    reader = ReplyReader()
    reader.feed(chunk({"content": "x"}, "stop"))
    details = {"cached_tokens": 64}
    reader.feed(json.dumps({"choices": [], "usage": {"prompt_tokens": 80, "completion_tokens": 17,
                                                     "prompt_tokens_details": details}}))  # fmt: skip
    assert reader.usage == Usage(80, 17, 64)


@pytest.mark.parametrize("usage", [None, 3, {"prompt_tokens": "x", "prompt_tokens_details": None}, {}])
def test_strange_usage_is_nothing(usage: object) -> None:
    assert read(json.dumps({"choices": [], "usage": usage})) == []


def test_a_call_comes_in_fragments() -> None:
    pieces = read(
        chunk(
            {
                "tool_calls": [
                    {"index": 0, "id": "a1", "type": "function", "function": {"name": "book", "arguments": ""}}
                ]
            }
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"at'}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "a2", "function": {"name": "note"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '": 8}'}}]}),
        chunk({}, "tool_calls"),
    )
    wanted = Calls((("a1", "book", '{"at": 8}'), ("a2", "note", "{}")))
    assert [piece for piece in pieces if not isinstance(piece, Thought)] == [wanted, Finished("tool_calls")]


def test_calls_that_all_have_the_index_0_are_told_apart() -> None:
    one = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    two = {"index": 0, "id": "b", "function": {"name": "g", "arguments": {"x": 1}}}
    pieces = read(chunk({"tool_calls": [one]}), chunk({"tool_calls": [two]}), chunk({}, "stop"))
    assert Calls((("a", "f", "{}"), ("b", "g", '{"x":1}'))) in pieces


def test_calls_without_index_or_id() -> None:
    pieces = read(
        chunk({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        chunk({"tool_calls": [{"function": {"arguments": "}"}}]}),
        chunk({}, "tool_calls"),
    )
    assert Calls((("call_0", "f", "{}"),)) in pieces


def test_a_call_without_a_name_is_none() -> None:
    with pytest.raises(ServerFault, match="without a name"):
        read(chunk({"tool_calls": [{"index": 0, "id": "a"}]}), chunk({}, "tool_calls"))


def test_too_many_calls_are_refused() -> None:
    with pytest.raises(ServerFault, match="more than 64 tools"):
        read(*(chunk({"tool_calls": [{"index": i, "id": f"c{i}", "function": {"name": "f"}}]}) for i in range(65)))


def test_a_reply_without_end_is_refused() -> None:
    with pytest.raises(ServerFault, match="set max_tokens"):
        read(*(chunk({"content": "x" * 10_000}) for _ in range(7)))


def test_thoughts_are_never_words() -> None:
    pieces = read(
        chunk({"reasoning_content": "He wants"}), chunk({"reasoning": "a table"}), chunk({"content": "Sure."})
    )
    assert pieces == [Thought(), Thought(), Words("Sure.")]


def test_thoughts_in_the_text_are_cut_out() -> None:
    pieces = read(
        *(chunk({"content": part}) for part in ("<thi", "nk>He ", "wants</th", "ink>\n\nSu", "re <b")), "[DONE]"
    )
    assert text_of(pieces) == "Sure <b"


def test_a_model_that_begins_with_its_thoughts() -> None:
    pieces = read(chunk({"content": "He wants</think>Sure."}), "[DONE]", thinks_first=True)
    assert text_of(pieces) == "Sure."


@given(st.data())
def test_think_blocks_vanish_however_they_are_cut(data: st.DataObject) -> None:
    whole = "One <think>two < three </b> </think>four <thinking>five</thinking>six < seven <thinker>"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    places = [0, *cuts, len(whole)]
    cutter = ThinkFilter()
    got = "".join(cutter.push(whole[a:b]) for a, b in pairwise(places)) + cutter.finish()
    assert got == "One four six < seven <thinker>"


@pytest.mark.parametrize(
    "body",
    ['{"error": {"message": "the engine died", "code": 500}}', '{"error": "the engine died"}',
     '{"object": "error", "message": "the engine died"}', '{"detail": "the engine died"}',
     '{"error": {"message": "the engine died"}, "choices": []}'],
)  # fmt: skip
def test_an_error_in_the_stream_is_told(body: str) -> None:
    with pytest.raises(ServerFault, match=r"reported an error: the engine died"):
        read(body)


@pytest.mark.parametrize("body", ['{"choices": [{"delta": {"content": "brok', "hello", '{"choices": 3}', "[]", "null"])
def test_what_is_no_chunk_is_told(body: str) -> None:
    with pytest.raises(ServerFault, match="no chat completion"):
        read(body)


@pytest.mark.parametrize("body", ["{}", '{"choices": null}', '{"choices": []}', '{"choices": [{"delta": null}]}'])
def test_empty_chunks_are_nothing(body: str) -> None:
    assert read(body) == []


def test_a_whole_answer_is_a_reply() -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "Hello."}, {"type": "thinking"}]}
    assert read(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})) == [
        Words("Hello."), Finished("stop")
    ]  # fmt: skip


def test_a_refusal_is_spoken() -> None:
    assert text_of(read(chunk({"refusal": "I cannot do that."}, "stop"))) == "I cannot do that."


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["choices", "delta", "content", "tool_calls", "function", "id",
                                                       "index", "error", "usage", "finish_reason"]), inner, max_size=4),
                    max_leaves=12))  # fmt: skip
def test_any_json_gives_pieces_or_the_named_error(value: object) -> None:
    reader = ReplyReader()
    with suppress(ServerFault):
        reader.feed(json.dumps(value))
