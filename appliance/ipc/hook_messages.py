"""Messages between control and the plugin host.

Control asks for hooks, tools and HTTP requests, each under a number; the host answers under the same number. Values of
hooks are MessagePack within the message (``bytes``), decoded as the hook's own type by whoever reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from appliance.ipc.message_base import Message

TOLD = 0
"""The number of what nobody waits for."""


class HookCall(msgspec.Struct, frozen=True, array_like=True):
    """The call that a hook is about, as control tells it; plugins see it as ``appliance.api.Call``.

    ``headers`` are for ``admit`` and ``route`` alone: they are left empty in every other hook.
    """

    call_id: str
    line: str = ""
    trunk: str = ""
    caller: str = ""
    called: str = ""
    language: str = ""
    direction: str = "inbound"
    caller_name: str = ""
    headers: Mapping[str, str] = {}
    lead: Mapping[str, str] = {}


class HookOutcome(msgspec.Struct, frozen=True, array_like=True):
    """How one plugin did in a hook.

    ``outcome`` is ok, failed, over_budget, wrong_type or off (not configured); ``text`` says what went wrong.
    """

    plugin: str
    outcome: str
    seconds: float
    text: str = ""


class SetUp(Message, frozen=True):
    """Part of a plan (``appliance.plugins.plan.PluginPlan`` as JSON), which is numbered from 1."""

    plan: int
    part: bytes
    more: bool


class SetUpDone(Message, frozen=True):
    """Part of the answer: an ``appliance.plugins.plan.Manifest`` as JSON."""

    plan: int
    part: bytes
    more: bool


class ForgetPlan(Message, frozen=True):
    """No call goes by this plan any more."""

    plan: int


class Blamed(Message, frozen=True):
    """The host asks to be killed: a plugin has taken a thread and does not give it back."""

    plugin: str
    hook: str
    line: str
    text: str


class RunHook(Message, frozen=True):
    """Run ``hook`` of these plugins, in this order, with their values of the plan. ``arguments``: a map by name.
    ``number`` TOLD: nobody waits for the answer."""

    number: int
    plan: int
    hook: str
    plugins: tuple[str, ...]
    call: HookCall | None
    arguments: bytes


class HookDone(Message, frozen=True):
    """``value`` is that of the hook's rule, nil for none; collected ones as a list of (plugin, value)."""

    number: int
    hook: str
    call_id: str
    line: str
    value: bytes
    outcomes: tuple[HookOutcome, ...]


class RunTool(Message, frozen=True):
    """Run a tool that ``plugin`` offered for this call. ``arguments``: a map by name; ``key``: ``idempotency_key`` of
    the call that the tool sees."""

    number: int
    plan: int
    plugin: str
    tool: str
    call: HookCall
    arguments: bytes
    key: str = ""


class ToolDone(Message, frozen=True):
    """``result`` is any JSON value; with ``error``, which the model is told, there is none."""

    number: int
    result: bytes
    error: str = ""


class UseCall(Message, frozen=True):
    """Of a running tool: do this with the call. ``verb`` is say, ask, note, press, hand_on or hang_up; ``step`` counts
    from 1 within the run. Only ``ask`` is answered."""

    number: int
    step: int
    verb: str
    arguments: bytes


class CallUsed(Message, frozen=True):
    """The answer to ``ask``: ``value``, or why there is none."""

    number: int
    step: int
    value: bytes
    error: str = ""


class ForgetRun(Message, frozen=True):
    """Nobody waits for the hook, tool or request of this number any more."""

    number: int


class CallOver(Message, frozen=True):
    """Nothing more comes for the call: its state can go."""

    call_id: str


class Ping(Message, frozen=True):
    """Answer with Pong of the same number, at once."""

    number: int


class Pong(Message, frozen=True):
    """The host's event loop turns. Since its start, ``leaked`` tasks that calls left behind have been cancelled, and
    ``waiting`` threads now wait in hooks that were given up."""

    number: int
    leaked: int = 0
    waiting: int = 0


class HttpAsked(Message, frozen=True):
    """A request to a plugin's route. ``body`` is its first part, ``more`` says that others follow."""

    number: int
    plugin: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    peer: str
    body: bytes
    more: bool


class HttpAnswered(Message, frozen=True):
    """The answer to HttpAsked; ``body`` is its first part, ``more`` says that others follow."""

    number: int
    status: int
    content_type: str
    headers: Mapping[str, str]
    body: bytes
    more: bool


class BodyPart(Message, frozen=True):
    """The next part of a body, either way."""

    number: int
    body: bytes
    more: bool


HookMessage: TypeAlias = (
    SetUp | SetUpDone | ForgetPlan | Blamed | RunHook | HookDone
    | RunTool | ToolDone | UseCall | CallUsed | ForgetRun | CallOver | Ping | Pong
    | HttpAsked | HttpAnswered | BodyPart
)  # fmt: skip
