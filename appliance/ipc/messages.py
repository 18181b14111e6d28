"""Every message that crosses a process boundary inside the box.

Messages name a slot, a generation and sample positions; they never carry audio (that is in
:mod:`appliance.ipc.rings`). ``slot`` is the row of the call's media leg in the rings, ``generation`` the number of
times the row has been given out: a message about an older generation is about a call that is over and is dropped.

Positions are samples at 8 kHz counted from the moment the leg was connected, except ``tts_*`` positions, which count
samples in the slot's synthesis ring from the same moment. Times named ``at`` are CLOCK_MONOTONIC seconds, the same
in every process.

The messages of each peer are in a module of their own, which ends with the union of them. A new peer's module is added
to ``AnyMessage`` here; its names are imported from that module.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from appliance.ipc.engine_messages import (
    Cancel,
    ChatMessage,
    EngineMessage,
    Failed,
    Generate,
    HeardWord,
    JudgeTurn,
    Recognise,
    Recognised,
    Spoken,
    Synthesise,
    Token,
    ToolCall,
    ToolSpec,
    TurnVerdict,
    WorkerStats,
)
from appliance.ipc.hook_messages import HookMessage
from appliance.ipc.media_messages import (
    PACING_BOUNDS_MS,
    Bridge,
    CloseLeg,
    ConnectLeg,
    ConnectStream,
    Digit,
    Flush,
    Flushed,
    HoldMusic,
    LegClosed,
    LegFailed,
    LegOpened,
    MediaMessage,
    MediaStats,
    MediaTimeout,
    OpenLeg,
    Play,
    PlayoutDone,
    PlayoutStarted,
    RefuseStream,
    SendDigits,
    StreamEnded,
    StreamOffered,
    StreamStarted,
    Tick,
)
from appliance.ipc.message_base import Message
from appliance.ipc.operator_messages import OperatorMessage
from appliance.ipc.process_messages import (
    Alive,
    Drain,
    Drained,
    Hello,
    Need,
    ProcessMessage,
    ProcessState,
    Ready,
    Stop,
)
from appliance.ipc.recorder_messages import (
    RecorderMessage,
    RecordingStopped,
    SilenceRecording,
    StartRecording,
    StopRecording,
)
from appliance.ipc.talk_messages import (
    AddToTalk,
    CallerSilent,
    CallerTurn,
    CallerWords,
    Converse,
    CutShort,
    GiveRoom,
    HearCaller,
    ReplyDone,
    ReplySpoken,
    ReplyWords,
    Respond,
    TalkMessage,
)

__all__ = [
    "PACING_BOUNDS_MS",
    "AddToTalk",
    "Alive",
    "AnyMessage",
    "Bridge",
    "CallerSilent",
    "CallerTurn",
    "CallerWords",
    "Cancel",
    "ChatMessage",
    "CloseLeg",
    "ConnectLeg",
    "ConnectStream",
    "Converse",
    "CutShort",
    "Digit",
    "Drain",
    "Drained",
    "Failed",
    "Flush",
    "Flushed",
    "Generate",
    "GiveRoom",
    "HearCaller",
    "HeardWord",
    "Hello",
    "HoldMusic",
    "JudgeTurn",
    "LegClosed",
    "LegFailed",
    "LegOpened",
    "MediaStats",
    "MediaTimeout",
    "Message",
    "Need",
    "OpenLeg",
    "Play",
    "PlayoutDone",
    "PlayoutStarted",
    "ProcessState",
    "Ready",
    "Recognise",
    "Recognised",
    "RecordingStopped",
    "RefuseStream",
    "ReplyDone",
    "ReplySpoken",
    "ReplyWords",
    "Respond",
    "SendDigits",
    "SilenceRecording",
    "Spoken",
    "StartRecording",
    "Stop",
    "StopRecording",
    "StreamEnded",
    "StreamOffered",
    "StreamStarted",
    "Synthesise",
    "Tick",
    "Token",
    "ToolCall",
    "ToolSpec",
    "TurnVerdict",
    "WorkerStats",
    "decode",
    "encode",
]

AnyMessage: TypeAlias = (
    ProcessMessage | MediaMessage | EngineMessage | TalkMessage | RecorderMessage | HookMessage | OperatorMessage
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: AnyMessage) -> bytes:
    """One message as bytes."""
    return _encoder.encode(message)


def decode(data: bytes | memoryview) -> AnyMessage:
    """The message in ``data``.

    Raises:
        msgspec.MsgspecError: if it is none of ours.
    """
    return _decoder.decode(data)
