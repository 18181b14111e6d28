"""The only module a plugin imports.

``appliance.api.engines`` says what an engine is, ``appliance.api.streams`` how a carrier's audio comes and goes, and
``appliance.api.carriers`` how a carrier is told what to do with a call.
"""

from appliance.api.carriers import (
    BoxCall,
    CallRequest,
    Carrier,
    CarrierBox,
    CarrierCall,
    IncomingCall,
    StreamAddress,
    StreamKind,
    StreamKinds,
    StreamOffer,
    StreamRequest,
)
from appliance.api.engines import (
    ChatTurn,
    ConverseRequest,
    Engine,
    EngineContext,
    GenerateRequest,
    JudgeTurnRequest,
    Pcm,
    RecogniseRequest,
    Shaping,
    SynthesiseRequest,
    Talk,
    Talker,
)
from appliance.api.noise import Suppression, Suppressor
from appliance.api.streams import Audio, Key, Marked, Message, Started, Stopped, StreamEvent, StreamProtocol
from appliance.errors import CarrierError, DialError, EngineError, ModelFileError, StaleSlot
from appliance.hookspecs import Provider, ProviderOptions, Providers, Resources, hookimpl

__all__ = [
    "Audio",
    "BoxCall",
    "CallRequest",
    "Carrier",
    "CarrierBox",
    "CarrierCall",
    "CarrierError",
    "ChatTurn",
    "ConverseRequest",
    "DialError",
    "Engine",
    "EngineContext",
    "EngineError",
    "GenerateRequest",
    "IncomingCall",
    "JudgeTurnRequest",
    "Key",
    "Marked",
    "Message",
    "ModelFileError",
    "Pcm",
    "Provider",
    "ProviderOptions",
    "Providers",
    "RecogniseRequest",
    "Resources",
    "Shaping",
    "StaleSlot",
    "Started",
    "Stopped",
    "StreamAddress",
    "StreamEvent",
    "StreamKind",
    "StreamKinds",
    "StreamOffer",
    "StreamProtocol",
    "StreamRequest",
    "Suppression",
    "Suppressor",
    "SynthesiseRequest",
    "Talk",
    "Talker",
    "hookimpl",
]
