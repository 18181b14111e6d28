"""The only module a plugin imports.

``appliance.api.engines`` says what an engine is, ``appliance.api.streams`` how a carrier's audio comes and goes, and
``appliance.api.carriers`` how a carrier is told what to do with a call.
"""

from typing import Final

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
from appliance.errors import CarrierError, DialError, EngineError, ModelFileError, StaleSlot, ToolError
from appliance.hook_types import (
    Blocked,
    Box,
    Call,
    CallSummary,
    CampaignEvent,
    Command,
    Denied,
    HttpRequest,
    HttpResponse,
    ModelRequest,
    Refusal,
    Route,
    Said,
)
from appliance.hookspecs import IdentityClaim, Provider, ProviderOptions, Providers, Resources, hookimpl
from appliance.tool_types import Answer, Arguments, OngoingCall, Question, Tool

PluginValues = ProviderOptions
"""Base of a plugin's values, a pydantic model: unknown keys are mistakes, and ``!secret NAME`` is a ``SecretStr``."""

API: Final = 1
"""The major version of this interface. A plugin that needs it says ``API = 1``; a later one is refused."""

__all__ = [
    "API",
    "Answer",
    "Arguments",
    "Audio",
    "Blocked",
    "Box",
    "BoxCall",
    "Call",
    "CallRequest",
    "CallSummary",
    "CampaignEvent",
    "Carrier",
    "CarrierBox",
    "CarrierCall",
    "CarrierError",
    "ChatTurn",
    "Command",
    "ConverseRequest",
    "Denied",
    "DialError",
    "Engine",
    "EngineContext",
    "EngineError",
    "GenerateRequest",
    "HttpRequest",
    "HttpResponse",
    "IdentityClaim",
    "IncomingCall",
    "JudgeTurnRequest",
    "Key",
    "Marked",
    "Message",
    "ModelFileError",
    "ModelRequest",
    "OngoingCall",
    "Pcm",
    "PluginValues",
    "Provider",
    "ProviderOptions",
    "Providers",
    "Question",
    "RecogniseRequest",
    "Refusal",
    "Resources",
    "Route",
    "Said",
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
    "Tool",
    "ToolError",
    "hookimpl",
]
