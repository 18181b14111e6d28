"""A session of the Realtime protocol, event by event."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from appliance.engines.openai_realtime_options import OpenAiRealtimeOptions
from appliance.engines.realtime_protocol import Broken, CallerIs, CallerSaid, Done, RealtimeProtocol, Said, Words
from appliance.ipc.messages import ChatMessage, Converse, ToolSpec

TOOLS = (ToolSpec("hang_up", "End the call.", '{"type": "object", "properties": {}}'),)
SPEECH = np.zeros(4000, np.int16)


def session(*, detects_turns: bool = False, history: tuple[ChatMessage, ...] = (), **options: Any) -> RealtimeProtocol:
    made = OpenAiRealtimeOptions.model_validate({"model": "sim", **options})
    request = Converse(1, 0, 1, "Be brief.", "", "en-us", history, TOOLS, detects_turns)
    return RealtimeProtocol(made, request)


def sent(protocol: RealtimeProtocol) -> list[dict[str, Any]]:
    events = [dict(event) for event in protocol.outgoing]
    protocol.outgoing.clear()
    return events


def kinds(protocol: RealtimeProtocol) -> list[str]:
    return [event["type"] for event in sent(protocol)]


def told(protocol: RealtimeProtocol) -> list[Any]:
    outcomes = list(protocol.outcomes)
    protocol.outcomes.clear()
    return outcomes


def audio(seconds: float, response: str = "r1", item: str = "i1") -> dict[str, Any]:
    data = base64.b64encode(np.zeros(round(24_000 * seconds), "<i2").tobytes()).decode()
    return {"type": "response.output_audio.delta", "response_id": response, "item_id": item, "delta": data}


def answering(protocol: RealtimeProtocol, reply: int, name: str = "r1") -> None:
    """The caller has spoken, and the server begins to reply."""
    protocol.hear(SPEECH)
    protocol.respond(reply, heard=True)
    protocol.received({"type": "response.created", "response": {"id": name}})


def done(name: str = "r1", **more: Any) -> dict[str, Any]:
    return {"type": "response.done", "response": {"id": name, "status": "completed", **more}}


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_the_session_is_asked_for_in_either_dialect(dialect: str) -> None:
    protocol = session(dialect=dialect, voice="marin", history=(ChatMessage("assistant", "Good morning."),))
    protocol.open()
    update, item = sent(protocol)
    wanted = update["session"]
    assert wanted["instructions"] == "Be brief."
    assert wanted["tools"][0]["parameters"] == {"type": "object", "properties": {}}
    if dialect == "ga":
        assert wanted["audio"]["input"]["turn_detection"] is None
        assert wanted["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "marin"}
    else:
        assert wanted["turn_detection"] is None
        assert (wanted["output_audio_format"], wanted["voice"]) == ("pcm16", "marin")
    kind = {"ga": "output_text", "beta": "text"}[dialect]
    assert item["item"]["content"] == [{"type": kind, "text": "Good morning."}]


def test_a_reply_from_commit_to_done() -> None:
    protocol = session()
    answering(protocol, 1)
    assert kinds(protocol) == ["input_audio_buffer.append", "input_audio_buffer.commit", "response.create"]
    assert protocol.awaits == "reply"
    protocol.received({"type": "input_audio_buffer.committed", "item_id": "u1"})
    transcribed = "conversation.item.input_audio_transcription"
    protocol.received({"type": f"{transcribed}.delta", "item_id": "u1", "delta": "good "})
    protocol.received({"type": f"{transcribed}.completed", "item_id": "u1", "transcript": "good day"})
    protocol.received({"type": "response.output_audio_transcript.delta", "response_id": "r1", "delta": "Hello"})
    protocol.received(audio(0.1))
    assert protocol.awaits == "more"
    protocol.received(done())
    first, final, words, said, end = told(protocol)
    assert (first, final) == (CallerSaid(1, "good ", False), CallerSaid(1, "good day", True))
    assert words == Words(1, "Hello")
    assert isinstance(said, Said)
    assert abs(len(said.pcm) - 800) <= 25
    assert end == Done(1)
    assert protocol.awaits == ""


def test_the_names_of_the_beta_are_understood() -> None:
    protocol = session(dialect="beta")
    answering(protocol, 1)
    protocol.received({**audio(0.1), "type": "response.audio.delta"})
    protocol.received({"type": "response.audio_transcript.delta", "response_id": "r1", "delta": "Hello"})
    said, words = told(protocol)
    assert isinstance(said, Said)
    assert words == Words(1, "Hello")


def test_a_reply_cut_short_is_cancelled_at_once_and_truncated_to_what_was_heard() -> None:
    protocol = session()
    answering(protocol, 1)
    protocol.received(audio(1.0))
    sent(protocol)
    protocol.cut_short(1, -1)
    (cancel,) = sent(protocol)
    assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "r1")
    protocol.cut_short(1, 4000)
    (truncate,) = sent(protocol)
    assert (truncate["item_id"], truncate["content_index"], truncate["audio_end_ms"]) == ("i1", 0, 500)
    told(protocol)
    protocol.received(audio(1.0))
    protocol.received(done(status="cancelled"))
    assert told(protocol) == []


def test_what_nobody_heard_is_deleted_and_a_call_in_it_too() -> None:
    protocol = session()
    answering(protocol, 1)
    protocol.received(audio(1.0))
    sent(protocol)
    protocol.cut_short(1, 0)
    assert [event.get("item_id") for event in sent(protocol)] == [None, "i1"]
    call = {"type": "function_call", "id": "i2", "call_id": "c1", "name": "hang_up", "arguments": "{}"}
    protocol.received({"type": "response.output_item.done", "response_id": "r1", "item": call})
    protocol.received(done(status="cancelled"))
    assert [(event["type"], event["item_id"]) for event in sent(protocol)] == [("conversation.item.delete", "i2")]


def test_one_that_was_all_there_is_truncated_without_being_cancelled() -> None:
    protocol = session()
    answering(protocol, 1)
    protocol.received(audio(1.0))
    protocol.received(done())
    sent(protocol)
    protocol.cut_short(1, 800)
    (truncate,) = sent(protocol)
    assert (truncate["type"], truncate["audio_end_ms"]) == ("conversation.item.truncate", 100)


def test_the_next_reply_waits_until_the_server_is_done_with_the_one_before() -> None:
    protocol = session()
    answering(protocol, 1)
    protocol.cut_short(1, 0)
    sent(protocol)
    protocol.respond(2, heard=False)
    assert sent(protocol) == []
    protocol.received(done(status="cancelled"))
    assert kinds(protocol) == ["response.create"]
    protocol.received({"type": "response.created", "response": {"id": "r2"}})
    protocol.received(done("r2"))
    assert told(protocol) == [Done(2)]


def test_one_that_is_cut_short_before_it_was_created_is_cancelled_when_it_is() -> None:
    protocol = session()
    protocol.respond(1, heard=False)
    protocol.cut_short(1, -1)
    assert kinds(protocol) == ["response.create"]
    protocol.received({"type": "response.created", "response": {"id": "r1"}})
    assert kinds(protocol) == ["response.cancel"]


def test_tools_are_asked_for_once_and_answered() -> None:
    protocol = session()
    answering(protocol, 1)
    call = {"type": "function_call", "id": "i2", "call_id": "c1", "name": "hang_up", "arguments": "{}"}
    protocol.received({"type": "response.output_item.done", "response_id": "r1", "item": call})
    protocol.received(done(output=[call]))
    assert told(protocol) == [Done(1, (("c1", "hang_up", "{}"),))]
    sent(protocol)
    protocol.add(ChatMessage("tool", '{"ok": true}', (), "c1"))
    (answer,) = sent(protocol)
    assert answer["item"] == {"type": "function_call_output", "call_id": "c1", "output": '{"ok": true}'}


def test_less_than_a_tenth_of_a_second_is_not_committed() -> None:
    protocol = session()
    protocol.hear(SPEECH[:400])
    protocol.respond(1, heard=True)
    assert kinds(protocol) == ["input_audio_buffer.append", "response.create"]


def test_what_is_no_turn_is_cleared_once() -> None:
    protocol = session()
    protocol.hear(SPEECH)
    protocol.forget()
    protocol.forget()
    assert kinds(protocol) == ["input_audio_buffer.append", "input_audio_buffer.clear"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ({"code": "response_cancel_not_active", "event_id": "e9-cancel", "message": "none"}, []),
        ({"code": "invalid_value", "event_id": "e1-update", "message": "bad"}, [Broken("the server says: bad")]),
        ({"code": "session_expired", "message": "an hour"}, [Broken("the server says: an hour")]),
        ({"code": "server_error", "message": "oh"}, [Done(1, (), "the server says: oh")]),
    ],
)  # fmt: skip
def test_what_errors_mean(error: dict[str, Any], outcome: list[Any]) -> None:
    protocol = session()
    protocol.respond(1, heard=False)
    protocol.received({"type": "error", "error": error})
    assert told(protocol) == outcome


def test_a_server_that_was_not_done_is_asked_again() -> None:
    protocol = session()
    protocol.respond(1, heard=False)
    sent(protocol)
    busy = {"code": "conversation_already_has_active_response", "message": "busy"}
    protocol.received({"type": "error", "error": busy})
    assert told(protocol) == []
    assert protocol.awaits == "reply"
    protocol.received(done("r0"))
    assert kinds(protocol) == ["response.create"]


def test_a_response_that_failed_says_why() -> None:
    protocol = session()
    answering(protocol, 1)
    details = {"type": "failed", "error": {"code": "rate_limit_exceeded", "message": "slow down"}}
    protocol.received(done(status="failed", status_details=details))
    assert told(protocol) == [Done(1, (), "the reply is failed: slow down")]


def test_a_reply_that_nobody_asked_for_is_cancelled() -> None:
    protocol = session()
    protocol.received({"type": "response.created", "response": {"id": "r7"}})
    protocol.received(audio(1.0, "r7"))
    assert kinds(protocol) == ["response.cancel"]
    assert told(protocol) == []


def test_where_the_server_finds_turns_its_items_belong_to_the_reply_that_follows() -> None:
    protocol = session(detects_turns=True)
    protocol.received({"type": "input_audio_buffer.speech_started"})
    protocol.received({"type": "input_audio_buffer.committed", "item_id": "u1"})
    name = "conversation.item.input_audio_transcription.completed"
    protocol.received({"type": name, "item_id": "u1", "transcript": "good day"})
    assert told(protocol) == [CallerIs(True), CallerIs(False)]
    protocol.respond(1, heard=True)
    assert kinds(protocol) == ["response.create"]
    assert told(protocol) == [CallerSaid(1, "good day", True)]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.created"},
        {"type": "response.done", "response": None},
        {"type": "response.output_audio.delta", "delta": 5},
        {"type": "response.output_item.done", "item": []},
        {"type": "error", "error": "x"},
        {"type": "input_audio_buffer.committed"},
        {"type": "conversation.item.input_audio_transcription.delta"},
        {"type": "something.new"},
        {},
    ],
)
def test_events_that_are_not_as_they_should_be_break_nothing(event: dict[str, Any]) -> None:
    protocol = session()
    protocol.received(event)
    answering(protocol, 1)
    protocol.received(event)
    assert not any(isinstance(outcome, Said) for outcome in told(protocol))
