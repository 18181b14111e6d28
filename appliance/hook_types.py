"""What hooks are given and what they return. Plugins import these from ``appliance.api``.

What crosses the border between the box and the plugin host is checked on both sides: a result of another type than the
hook's is a failure of the plugin, and the hook's default is taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    import argparse


@dataclass(frozen=True)
class Call:
    """The call that a hook is about. What the caller or their network wrote is data: never trust it.

    Attributes:
        call_id: unique in this box.
        line: the line's name; "" while none has been chosen.
        trunk: where it came from, or was placed to.
        caller: the number of whoever is at the far end: the caller's, or on a call that the box has placed that of the
            one called; "" where it is withheld.
        called: the number called.
        language: the line's, such as ``en``; "" while no line has been chosen.
        direction: ``inbound``, or ``outbound`` for a call that the box has placed.
        caller_name: what the caller's network calls them; "" for nothing.
        lead: on a call that the box has placed, what is known of the one called, by name.
        headers: what the trunk lets through of the call's SIP headers (``headers_in``). Only in ``admit`` and
            ``route``; empty in every other hook.
        values: the plugin's values on this line: an instance of its ``Values``, or None where it has none.
        state: the plugin's own, from the first hook of the call to the last; gone if the plugin host is restarted.
    """

    call_id: str
    line: str = ""
    trunk: str = ""
    caller: str = ""
    called: str = ""
    language: str = ""
    direction: str = "inbound"
    caller_name: str = ""
    lead: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    values: Any = None
    state: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Box:
    """The box that a plugin runs in.

    Attributes:
        version: of the appliance.
        lines: names of the lines that the plugin is enabled on.
        state_dir: an absolute folder of the plugin's own, made when the plugin starts.
    """

    version: str
    lines: tuple[str, ...]
    state_dir: str


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Turn a call away before it is answered.

    Attributes:
        reason: for the log and the call's record; the caller does not hear it.
        status: what the caller's network is told, as SIP has it: 400 to 699; 603 is "declined", 486 "busy".
    """

    reason: str
    status: int = 603


class Blocked(msgspec.Struct, frozen=True, array_like=True):
    """What the caller said goes no further: no model, no flow and no record sees it.

    Attributes:
        say: said instead of a reply; "" has the line ask again, as for something not understood.
    """

    say: str = ""


class Denied(msgspec.Struct, frozen=True, array_like=True):
    """A tool may not run, or a caller may not be put through.

    Attributes:
        reason: the model is told it, as data, and so is the call's record.
    """

    reason: str


class Said(msgspec.Struct, frozen=True, array_like=True):
    """Something said before. ``by`` is ``caller`` or ``agent``."""

    by: str
    text: str


class ModelRequest(msgspec.Struct, frozen=True, array_like=True):
    """What a language model is about to be asked.

    Attributes:
        text: what the caller said.
        turn: number of the turn, from 1.
        said: what was said before, the latest last; as much as the box chooses to tell.
    """

    text: str
    turn: int = 0
    said: tuple[Said, ...] = ()


class CallSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How a call went.

    Attributes:
        disposition: ``completed``, ``rejected``, ... as in the call's record.
        hangup_by: ``caller`` (whoever is at the far end), ``agent`` or ``box``.
        hangup_text: why it ended, in words.
        duration_s: from the answer to the end; 0 where it was not answered.
        turns: how many turns it had.
        slots: what the flow and tools noted, by name.
        transcript: what was said, in order, after ``before_storing``.
        transferred_to: whom the caller was handed on to; "" for nobody.
        recording: path of the recording; "" without one.
    """

    disposition: str
    hangup_by: str
    hangup_text: str = ""
    duration_s: float = 0.0
    turns: int = 0
    slots: dict[str, str | int | float | bool | None] = {}
    transcript: tuple[Said, ...] = ()
    transferred_to: str = ""
    recording: str = ""


@dataclass(frozen=True)
class HttpRequest:
    """A request to one of a plugin's routes. ``path`` is what follows ``/plugins/NAME``; ``body`` at most 1 MB.

    Header names are in lower case. Nobody has checked who asks: that is the plugin's to do, by a signature or a key.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    peer: str

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"the body is not JSON: {error}") from error


@dataclass(frozen=True)
class HttpResponse:
    """The answer to a :class:`HttpRequest`: text as UTF-8, bytes as they are, at most 1 MB of either."""

    body: str | bytes = ""
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, value: Any, status: int = 200) -> HttpResponse:
        """``value`` as JSON."""
        return cls(msgspec.json.encode(value), status, "application/json")


Handler: TypeAlias = Callable[[HttpRequest], Awaitable[HttpResponse] | HttpResponse]


@dataclass(frozen=True)
class Route:
    """One HTTP route of a plugin: ``/plugins/NAME`` + ``path``, where ``path`` is "/" or longer and has no patterns."""

    method: str
    path: str
    handler: Handler
    summary: str = ""


@dataclass(frozen=True)
class Command:
    """A command of a plugin: ``appliance plugins run NAME COMMAND``.

    ``add_arguments`` gets an ``argparse.ArgumentParser``; ``run`` what was parsed, and returns the exit status.
    """

    name: str
    summary: str
    run: Callable[[argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None


@dataclass(frozen=True)
class CampaignEvent:
    """Something that happened to a lead of a campaign. ``kind`` is ``dialled``, ``reached``, ``failed`` or ``done``."""

    campaign: str
    lead: str
    kind: str
    at: datetime
    details: Mapping[str, str] = field(default_factory=dict)


Texts: TypeAlias = Sequence[str]
