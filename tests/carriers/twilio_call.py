"""Calls at the simulated Twilio: what TwiML does to them, and what is told about them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal

from appliance.cli.stream_caller import TwilioCaller, TwilioStreamOf, sid
from appliance.errors import CarrierError
from tests.carriers import twiml
from tests.carriers.sim_account import SimLeg

if TYPE_CHECKING:
    from tests.carriers.twilio_sim import TwilioSim

FINAL = frozenset({"completed", "busy", "no-answer", "failed", "canceled"})
MAX_VERBS = 100


def signature(token: str, url: str, form: Sequence[tuple[str, str]]) -> str:
    """``X-Twilio-Signature``: HMAC-SHA1 of the URL and the form's fields in order of their names, in base64."""
    text = url + "".join(name + value for name, value in sorted(set(form)))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


@dataclass
class Callee:
    """What becomes of a call to a number.

    Attributes:
        outcome: how the ringing ends; "failed" does not ring.
        talk_s: hangs up so long after the answer; None stays until the other side leaves.
        answered_by: what machine detection finds out, after ``amd_s``.
        error_code: of a call that failed.
    """

    outcome: Literal["answered", "busy", "no-answer", "failed"] = "answered"
    ring_s: float = 0.1
    talk_s: float | None = None
    answered_by: str = "human"
    amd_s: float = 0.2
    error_code: str = ""
    sip_code: str = ""


@dataclass(frozen=True)
class Sent:
    """A webhook that was sent, and what the box answered; status 0 where it did not."""

    at: float
    url: str
    form: Mapping[str, str]
    status: int
    body: str


class _Redirected(Exception):
    """The call has been given another document."""


class SimCall(SimLeg[TwilioCaller]):
    """One call at Twilio: of a caller who dialled us, or one that was placed, or the far leg of a ``<Dial>``.

    Attributes:
        streams: every stream that was opened for it, in order; the last may be live.
        documents: the TwiML that it was given, in order.
        webhooks: what was sent about it.
        dialled: the far leg of its ``<Dial>``, while there is one.
        rejected: the reason of a ``<Reject>``, "" where there was none.
    """

    def __init__(self, sim: TwilioSim, direction: str, to: str, from_: str, **more: str) -> None:
        self.sim = sim
        self.sid = sid("CA")
        super().__init__(self.sid)
        self.direction = direction
        self.to = to
        self.from_ = from_
        self.more = more
        self.status = "queued"
        self.created_at = time.time()
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.documents: list[str] = []
        self.webhooks: list[Sent] = []
        self.dialled: SimCall | None = None
        self.parent: SimCall | None = None
        self.conference = ""
        self.rejected = ""
        self.answered_by = ""
        self.error_code = ""
        self.sip_code = ""
        self.sent_digits: list[str] = []
        self._callback: tuple[str, str, frozenset[str]] | None = None
        self._sequence = 0
        self._next: str | None = None
        self._redirected = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._verbs = 0
        self.task: asyncio.Task[None] | None = None

    # What tests ask for.

    def outcome(self) -> str:
        """The final status."""
        return self.status

    async def hang_up(self) -> None:
        """The person on this leg hangs up."""
        self._hung_up.set()
        await self.wait_ended()

    def story(self) -> str:
        asked = [f"{sent.url.rpartition('/')[2]} {sent.status}" for sent in self.webhooks]
        return f"{self.direction} {self.status}, {len(self.streams)} streams, webhooks: {', '.join(asked) or 'none'}"

    # What the API and the other legs do.

    def redirect(self, document: str) -> None:
        """Other TwiML replaces what is being executed."""
        self._next = document
        self._redirected.set()

    def complete(self) -> None:
        """End it, from whatever side."""
        self._hung_up.set()

    def resource(self) -> dict[str, object]:
        """The call as the REST API writes it."""

        def when(at: float | None) -> str | None:
            return None if at is None else format_datetime(datetime.fromtimestamp(at, UTC))

        return {
            "sid": self.sid, "account_sid": self.sim.account_sid, "parent_call_sid": self.parent and self.parent.sid,
            "to": self.to, "to_formatted": self.to, "from": self.from_, "from_formatted": self.from_,
            "phone_number_sid": None, "status": self.status, "start_time": when(self.answered_at),
            "end_time": when(self.ended_at), "duration": self.duration() if self.ended_at else None, "price": None,
            "price_unit": "USD", "direction": self.direction, "answered_by": self.answered_by or None,
            "api_version": "2010-04-01", "forwarded_from": None, "caller_name": self.more.get("CallerName"),
            "group_sid": None, "queue_time": "0", "trunk_sid": None, "date_created": when(self.created_at),
            "date_updated": when(time.time()), "annotation": None,
            "uri": f"/2010-04-01/Accounts/{self.sim.account_sid}/Calls/{self.sid}.json", "subresource_uris": {},
        }  # fmt: skip

    def duration(self) -> str:
        """Whole seconds since the answer, begun ones counted."""
        if self.answered_at is None:
            return "0"
        return str(int((self.ended_at or time.time()) - self.answered_at + 0.999))

    def form(self, **more: str) -> dict[str, str]:
        """The fields of every webhook about it."""
        fields = {
            "CallSid": self.sid, "AccountSid": self.sim.account_sid, "ApiVersion": "2010-04-01",
            "CallStatus": self.status, "Direction": self.direction, "From": self.from_, "To": self.to,
            "Caller": self.from_, "Called": self.to, "CallerCountry": "DE", "FromCountry": "DE", "ToCountry": "DE",
            **self.more,
        }  # fmt: skip
        if self.parent is not None:
            fields["ParentCallSid"] = self.parent.sid
        if self.answered_by:
            fields["AnsweredBy"] = self.answered_by
        return fields | more

    def watch(self, url: str, method: str, events: frozenset[str]) -> None:
        """Where status callbacks go."""
        if url:
            self._callback = (url, method or "POST", events or frozenset({"completed"}))

    async def set_status(self, status: str, event: str) -> None:
        """A new status, and the callback about it where one was asked for."""
        self.status = status
        now = time.time()
        if status == "in-progress":
            self.answered_at = now
        if status in FINAL:
            self.ended_at = now
        self.changed.set()
        if self._callback is None or event not in self._callback[2]:
            return
        more = {
            "CallbackSource": "call-progress-events", "SequenceNumber": str(self._sequence),
            "Timestamp": format_datetime(datetime.now(UTC)),
        }  # fmt: skip
        self._sequence += 1
        if status in FINAL:
            more |= {"CallDuration": self.duration(), "Duration": "1"}
        if self.sip_code or status in FINAL:
            codes = {"completed": "200", "busy": "486", "no-answer": "487", "failed": "503"}
            more["SipResponseCode"] = self.sip_code or codes.get(status, "487")
        if self.error_code:
            more["ErrorCode"] = self.error_code
        await self.sim.post(self, self._callback[0], self.form(**more), method=self._callback[1])

    # Executing TwiML.

    async def execute(self, document: str) -> None:
        """Run a document to its end, and those that take its place."""
        pending: str | None = document
        while pending is not None and not self._hung_up.is_set():
            self._redirected.clear()
            self._next = None
            try:
                pending = await self._run_document(pending)
            except _Redirected:
                pending = self._next
                self._next = None
            except twiml.BadTwiml as error:
                self.sim.mistake(f"{self.sid}: TwiML: {error}")
                self.error_code = "12200"
                return

    async def _run_document(self, document: str) -> str | None:
        """Run one; gives the one that follows it."""
        self.documents.append(document)
        self.changed.set()
        for verb in twiml.parse(document, tls_only=self.sim.tls_only):
            self._verbs += 1
            if self._verbs > MAX_VERBS:
                raise twiml.BadTwiml("the call goes round in circles")
            if self._hung_up.is_set():
                return None
            if verb.name == "Hangup":
                return None
            if verb.name == "Reject":
                if self.answered_at is not None:
                    raise twiml.BadTwiml("<Reject> of a call that has been answered")
                self.rejected = verb.get("reason", "rejected")
                return None
            await self._answer()
            if verb.name == "Redirect":
                return await self._ask(verb.text, verb.get("method", "POST"), {})
            if verb.name == "Connect":
                after = await self._connect(verb)
            elif verb.name == "Dial":
                after = await self._dial(verb)
            else:
                after = None
                await self._pause(verb)
            if after is not None:
                return after
        return None

    async def _answer(self) -> None:
        if self.answered_at is None:
            await self.set_status("in-progress", "answered")

    async def _ask(self, url: str, method: str, more: Mapping[str, str]) -> str | None:
        """The document that is to be executed next; None where the call has ended meanwhile."""
        if self._hung_up.is_set():
            # Twilio tells the action URL of the end too, and does not execute what it answers.
            self.status = "completed"
            await self.sim.post(self, url, self.form(**more), method=method)
            return None
        sent = await self.sim.post(self, url, self.form(**more), method=method)
        self.sim.document(self, sent)
        return sent.body

    async def _first(self, *events: asyncio.Event, timeout_s: float | None = None) -> None:
        """Wait for one of the events, for a redirection or a hang-up.

        Raises:
            _Redirected: other TwiML has come.
        """
        waits = [asyncio.create_task(event.wait()) for event in (*events, self._redirected, self._hung_up)]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if self._redirected.is_set() and not self._hung_up.is_set():
            raise _Redirected

    async def _pause(self, verb: twiml.Element) -> None:
        if verb.name == "Play" and verb.get("digits"):
            self.sent_digits.append(verb.get("digits"))
            seconds = 0.2 * len(verb.get("digits"))
        elif verb.name == "Pause":
            seconds = float(verb.get("length", "1"))
        else:
            seconds = max(1.0, len(verb.text) / 15) if verb.name == "Say" else 1.0
        await self._first(timeout_s=seconds)

    async def _connect(self, verb: twiml.Element) -> str | None:
        noun = verb.children[0]
        url = self.sim.reached(noun.get("url"))
        of = TwilioStreamOf(self.sim.account_sid, self.sid, noun.parameters())
        told = noun.get("statusCallback")
        outcome: dict[str, str] = {}
        try:
            headers = {"X-Twilio-Signature": signature(self.sim.auth_token, noun.get("url"), ())}
            caller = await TwilioCaller.open(url, of, session=self.sim.http, headers=headers)
        except CarrierError as error:
            outcome = {"StreamEvent": "stream-error", "StreamError": str(error)}
            self.sim.stream_errors.append(str(error))
            await self._tell_stream(noun, "", outcome)
        else:
            self.streams.append(caller)
            self.sim.streams.append(caller)
            self.changed.set()
            if told:
                await self._tell_stream(noun, caller.stream_sid, {"StreamEvent": "stream-started"})
            try:
                await self._first(caller.ended)
            finally:
                await caller.hang_up()
                self.sim.mistakes += [f"{self.sid}: {what}" for what in caller.violations]
            if told and caller.ended_by == "lost":
                outcome = {"StreamEvent": "stream-error", "StreamError": "31921 Stream - WebSocket - Close Error"}
                await self._tell_stream(noun, caller.stream_sid, outcome)
            elif told:
                await self._tell_stream(noun, caller.stream_sid, {"StreamEvent": "stream-stopped"})
            self.changed.set()
        if verb.get("action"):
            return await self._ask(self.sim.absolute(self, verb.get("action")), verb.get("method", "POST"), {})
        return None

    async def _tell_stream(self, noun: twiml.Element, stream_sid: str, more: Mapping[str, str]) -> None:
        url = noun.get("statusCallback")
        if not url:
            return
        form = {
            "AccountSid": self.sim.account_sid, "CallSid": self.sid, "StreamSid": stream_sid,
            "StreamName": noun.get("name") or stream_sid, "Timestamp": datetime.now(UTC).isoformat(), **more,
        }  # fmt: skip
        await self.sim.post(self, url, form, method=noun.get("statusCallbackMethod", "POST"))

    async def _dial(self, verb: twiml.Element) -> str | None:
        nouns = [child for child in verb.children if child.name in ("Number", "Sip", "Client")]
        rooms = [child for child in verb.children if child.name == "Conference"]
        if rooms:
            result = {"DialCallStatus": await self._join(rooms[0])}
        else:
            noun = nouns[0] if nouns else twiml.Element("Number", text=verb.text)
            result = await self._ring(verb, noun)
        if verb.get("action"):
            return await self._ask(self.sim.absolute(self, verb.get("action")), verb.get("method", "POST"), result)
        return None

    async def _ring(self, verb: twiml.Element, noun: twiml.Element) -> dict[str, str]:
        leg = SimCall(self.sim, "outbound-dial", noun.text, verb.get("callerId") or self.from_)
        leg.parent = self
        events = frozenset(noun.get("statusCallbackEvent").split())
        leg.watch(noun.get("statusCallback"), noun.get("statusCallbackMethod"), events)
        leg.sent_digits += [noun.get("sendDigits")] if noun.get("sendDigits") else []
        self.sim.add(leg)
        self.dialled = leg
        self.changed.set()
        callee = self.sim.callee(noun.text)
        try:
            await leg.ring(callee, float(verb.get("timeout", "30")), self._first)
            if leg.status == "in-progress":
                await self._first(leg._hung_up, leg._redirected, timeout_s=callee.talk_s)
        except _Redirected:
            await leg.finish("completed" if leg.answered_at else "canceled")
            raise
        if leg._redirected.is_set() and leg._next is not None:
            # The far leg was given a document of its own (a conference, say): it lives on by itself.
            leg.task = self.sim.spawn(leg.live(leg._next))
        else:
            await leg.finish("completed" if leg.answered_at else "canceled" if leg.status not in FINAL else leg.status)
        status = "completed" if leg.answered_at else leg.status
        found = {"DialCallStatus": status, "DialCallSid": leg.sid, "DialBridged": str(bool(leg.answered_at)).lower()}
        if leg.answered_at:
            found["DialCallDuration"] = leg.duration()
        elif leg.sip_code:
            found["DialSipResponseCode"] = leg.sip_code
        return found

    async def ring(self, callee: Callee, timeout_s: float, first: Any = None) -> None:
        """Alert the one called: afterwards the status is in-progress, or a final one."""
        wait = first or self._first
        await self.set_status("initiated", "initiated")
        self.sip_code, self.error_code = callee.sip_code, callee.error_code
        if callee.outcome == "failed":
            await self.finish("failed")
            return
        await self.set_status("ringing", "ringing")
        await wait(self._hung_up, timeout_s=timeout_s if callee.outcome == "no-answer" else callee.ring_s)
        if self._hung_up.is_set():
            await self.finish("canceled")
        elif callee.outcome == "answered" and callee.ring_s <= timeout_s:
            await self.set_status("in-progress", "answered")
        else:
            await self.finish("busy" if callee.outcome == "busy" else "no-answer")

    async def finish(self, status: str) -> None:
        """The call is over. Twice does no harm."""
        if self.status in FINAL and self.ended.is_set():
            return
        for caller in self.streams:
            await caller.hang_up()
        if self.status not in FINAL or self.ended_at is None:
            await self.set_status(status, "completed")
        self._hung_up.set()
        self.ended.set()
        self.changed.set()

    async def live(self, document: str) -> None:
        """Execute, then end: the rest of an answered call's life."""
        try:
            await self.execute(document)
        finally:
            if self.rejected:
                final = "busy" if self.rejected == "busy" else "no-answer"
            elif self.error_code and self.answered_at is None:
                final = "failed"
            else:
                final = "completed"
            await self.finish(final)

    async def _join(self, noun: twiml.Element) -> str:
        room = self.sim.rooms.setdefault(noun.text, Room(noun.text))
        room.members.append(self)
        self.conference = noun.text
        starts = noun.get("startConferenceOnEnter", "true") == "true"
        self.changed.set()
        await self._tell_room(noun, room, "participant-join")
        if starts and len(room.members) >= 2 and not room.started.is_set():
            room.started.set()
            await self._tell_room(noun, room, "conference-start")
        try:
            await self._first(room.over)
        finally:
            room.members.remove(self)
            self.conference = ""
            if noun.get("endConferenceOnExit") == "true" or not room.members:
                room.over.set()
                self.sim.rooms.pop(noun.text, None)
            self.changed.set()
        await self._tell_room(noun, room, "participant-leave")
        if room.over.is_set() and not room.members:
            await self._tell_room(noun, room, "conference-end")
        return "completed"

    async def _tell_room(self, noun: twiml.Element, room: Room, event: str) -> None:
        asked = {f"participant-{name}" if name in ("join", "leave") else f"conference-{name}"
                 for name in noun.get("statusCallbackEvent").split()}  # fmt: skip
        if not noun.get("statusCallback") or event not in asked:
            return
        form = {
            "ConferenceSid": room.sid, "FriendlyName": room.name, "AccountSid": self.sim.account_sid,
            "StatusCallbackEvent": event, "Timestamp": format_datetime(datetime.now(UTC)), "CallSid": self.sid,
            "Muted": "false", "Hold": "false",
        }  # fmt: skip
        url = self.sim.absolute(self, noun.get("statusCallback"))
        await self.sim.post(self, url, form, method=noun.get("statusCallbackMethod", "POST"))


@dataclass
class Room:
    """A conference."""

    name: str
    sid: str = field(default_factory=lambda: sid("CF"))
    members: list[SimCall] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
