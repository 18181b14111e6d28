"""The client's side of both uses of OpenAI's Realtime protocol, whatever the server sends."""

from __future__ import annotations

import logging
import math
import random
from typing import Any

import numpy as np
import pytest

from appliance.engines.asr_options import RealtimeAsrOptions
from appliance.engines.openai_realtime_options import OpenAiRealtimeOptions
from appliance.engines.realtime_protocol import Broken, Done, RealtimeProtocol, Said
from appliance.engines.realtime_transcript import TranscriptProtocol
from appliance.ipc.messages import Converse

TENTH_S = np.zeros(800, np.int16)
SILENCE = "AAAA" * 320
"""960 bytes in base64: 20 ms at 24 kHz."""


def talk(*, detects_turns: bool = False, audio: str = "pcm") -> RealtimeProtocol:
    options = OpenAiRealtimeOptions.model_validate({"model": "m", "audio": audio})
    protocol = RealtimeProtocol(options, Converse(1, 0, 1, "", "", "en", (), (), detects_turns))
    protocol.open()
    return protocol


def sent(protocol: RealtimeProtocol) -> list[str]:
    """The kinds of what has been sent since the last time."""
    kinds = [event["type"] for event in protocol.outgoing]
    protocol.outgoing.clear()
    return kinds


def test_replies_are_asked_for_one_at_a_time_and_what_was_cut_short_is_forgotten() -> None:
    protocol = talk()
    assert sent(protocol) == ["session.update"]
    protocol.hear(TENTH_S)
    protocol.respond(1, heard=True)
    protocol.respond(2, heard=False)
    assert sent(protocol) == ["input_audio_buffer.append", "input_audio_buffer.commit", "response.create"]
    protocol.received({"type": "response.created", "response": {"id": "r1"}})
    protocol.received({"type": "response.output_audio.delta", "response_id": "r1", "item_id": "i", "delta": SILENCE})
    (said,) = protocol.outcomes
    assert isinstance(said, Said) and said.reply == 1
    protocol.cut_short(1, 80)
    assert sent(protocol) == ["response.cancel", "conversation.item.truncate"]
    protocol.received({"type": "response.done", "response": {"id": "r1", "status": "cancelled"}})
    assert sent(protocol) == ["response.create"]
    assert protocol.awaits == "reply"


def test_a_request_that_the_server_refuses_ends_its_reply_and_says_why() -> None:
    protocol = talk()
    protocol.respond(1, heard=False)
    create = protocol.outgoing[-1]["event_id"]
    protocol.received({"type": "error", "error": {"event_id": create, "code": "x", "message": "no"}})
    assert list(protocol.outcomes) == [Done(1, problem="the server says: no")]
    assert protocol.awaits == ""


@pytest.mark.parametrize("data", ["\u00e4\u00e4\u00e4\u00e4", "A", "!!!!"])
def test_audio_that_is_none_ends_the_session(data: str) -> None:
    protocol = talk()
    protocol.respond(1, heard=False)
    protocol.received({"type": "response.created", "response": {"id": "r1"}})
    protocol.received({"type": "response.audio.delta", "response_id": "r1", "item_id": "i", "delta": data})
    assert list(protocol.outcomes) == [Broken("the server sent audio that is not base64")]


KINDS = (
    "error", "response.created", "response.audio.delta", "response.output_audio.delta",
    "response.audio_transcript.delta", "response.output_item.done", "response.done", "input_audio_buffer.committed",
    "input_audio_buffer.speech_started", "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.completed", "conversation.item.input_audio_transcription.failed",
    "session.updated", "anything",
)  # fmt: skip
KEYS = (
    "error", "response", "delta", "item_id", "item", "response_id", "transcript", "logprobs", "content_index",
    "event_id",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, 1, -1.5, "", True, [], {}, "a", "r1", [None], [{}], {"id": "r1"}, {"id": 1}, 10**30, "\ud800", SILENCE,
    {"code": "x", "message": 3}, [{"logprob": -1e308}, {"logprob": -1e308}], [{"logprob": True}],
    {"type": "function_call", "call_id": [], "name": {}, "arguments": 5, "id": "q"},
    {"id": "r1", "output": [{"type": "function_call"}, 3, None], "status": "failed", "status_details": []},
    {"event_id": "e2-create", "code": None},
)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_no_event_of_a_server_raises(seed: int) -> None:
    chance = random.Random(seed)
    logging.disable(logging.ERROR)
    try:
        for _ in range(300):
            talking = talk(detects_turns=chance.random() < 0.5, audio=chance.choice(["pcm", "ulaw"]))
            writing = TranscriptProtocol(RealtimeAsrOptions.model_validate({"base_url": "ws://h/v1", "model": "m"}))
            writing.configure("en", "")
            for reply in range(1, 30):
                match chance.randrange(6):
                    case 0:
                        talking.hear(TENTH_S)
                        talking.respond(reply, heard=chance.random() < 0.5)
                        writing.hear(TENTH_S)
                        writing.commit()
                    case 1:
                        talking.cut_short(chance.randint(1, reply), chance.choice([-1, 0, 100]))
                        writing.begin()
                    case _:
                        fields = {key: chance.choice(VALUES) for key in chance.sample(KEYS, chance.randrange(8))}
                        event = {"type": chance.choice(KINDS), **fields}
                        talking.received(event)
                        writing.received(event)
                        assert 0.0 <= math.exp(writing.log_probability) <= 1.0
                        assert writing.text()[1] >= 0 or not writing.text()[0]
                        assert talking.awaits in ("", "reply", "more")
    finally:
        logging.disable(logging.NOTSET)
