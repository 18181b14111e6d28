"""Calls by Twilio: its webhooks, and what is asked of its API. docs/twilio.md says how to set it up.

A call that comes is a request to ``/voice``; it waits until the box has decided, which the caller hears as ringing. A
call that the box places is asked for with a key of ours, and only the first call that comes back with this key to
``/answer`` gets its audio: a request that was sent twice, because its answer was lost, is never two conversations.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from aiohttp import web

from appliance.api import CallRequest, CarrierBox, CarrierCall, DialError, IncomingCall, StreamOffer
from appliance.api.streams import printable
from appliance.signalling import twilio_twiml as twiml
from appliance.signalling.twilio_calls import TwilioCall, ring_seconds
from appliance.signalling.twilio_options import TwilioOptions
from appliance.signalling.twilio_rest import TwilioApi
from appliance.signalling.twilio_status import OVER, UNDER_WAY, UNSURE
from appliance.signalling.twilio_webhooks import Form, Webhooks

__all__ = ["TwilioCarrier", "TwilioOptions"]

logger = logging.getLogger(__name__)

KIND: Final = "twilio"
ANSWER_TIMEOUT_S: Final = 10.0
"""Twilio waits 15 s for an answer."""

_GOODBYE_S: Final = 2.0
_PLACE_LIMIT_S: Final = 15.0
_MAX_CALLS: Final = 8192
_KEEP_S: Final = 30.0
"""A call that is over is remembered this long: its webhooks may come late or twice."""

_SWEEP_EVERY_S: Final = 10.0
_EVENTS: Final = ["initiated", "ringing", "answered", "completed"]
_WITHHELD: Final = {"+266696687", "+7378742833", "+2562533", "+8566696", "+86282452253"}
"""What Twilio gives for a number that it was not given: letters on a telephone's keys."""

_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")
_ADDRESSES: Final = ("sip:", "sips:", "client:")
_VERDICTS: Final = ("TN-Validation-Passed", "TN-Validation-Failed", "No-TN-Validation")
"""Twilio's have the attestation's letter behind them, and more."""

_SIP_HEADER: Final = "SipHeader_"
_OFFERED: Final = (
    "StirVerstat",
    "CallerName",
    "ForwardedFrom",
    "CalledVia",
    "FromCountry",
    "FromState",
    "FromCity",
    "FromZip",
    "ToCountry",
    "SipCallId",
    "SipDomain",
)
_MAX_OFFERED: Final = 40


class TwilioCarrier:
    """The calls of one trunk."""

    def __init__(self, options: TwilioOptions, box: CarrierBox, *, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        token = options.auth_token.get_secret_value()
        self._options = options
        self._box = box
        self._answer_timeout_s = answer_timeout_s
        self._now = asyncio.get_running_loop().time
        self._webhooks = Webhooks(box.trunk, options.account_sid, token, options.public_url, self._now)
        self._token = token
        self._api: TwilioApi | None = None
        self._calls: dict[str, TwilioCall] = {}
        self._by_key: dict[str, TwilioCall] = {}
        self._done_at: dict[TwilioCall, float] = {}
        self._swept_at = self._now()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the box ---------------------------------------------------------------------------------------------------

    def routes(self) -> Sequence[web.RouteDef]:
        return [
            web.post("/voice", self._voice),
            web.post("/answer", self._answer),
            web.post("/action", self._action),
            web.post("/dialed", self._dialed),
            web.post("/called", self._called),
            web.post("/status", self._status),
            web.post("/stream", self._stream),
            web.post("/amd", self._amd),
        ]

    async def start(self) -> None:
        """Nothing is asked before there is a call."""

    async def close(self) -> None:
        """What is still to be told Twilio is told, for a moment."""
        until = self._now() + _GOODBYE_S
        while self._tasks and (left_s := until - self._now()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)
        late = tuple(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def offered(self, offer: StreamOffer) -> None:
        self._box.refuse(offer, "Twilio's streams are asked for by its webhooks")

    def stream_url(self, token: str) -> str:
        """The same for every token: Twilio carries that as a parameter."""
        return f"{self._options.media_origin(self._box.media_port)}/{KIND}/media"

    async def place(self, request: CallRequest) -> CarrierCall:
        call = self._by_key.get(request.key)
        if call is None:
            if not request.caller_id:
                text = f"trunk {self._box.trunk!r} has no caller_id; set it to a number of the account"
                raise DialError(text, status=403, cause="caller_id")
            if not self._room():
                raise DialError("the trunk has too many calls at Twilio", status=503, cause="no_room")
            call = TwilioCall.to_place(self, request)
            self._by_key[request.key] = call
            call.placing = asyncio.create_task(self._ask_for(call, request))
        elif call.done:
            raise DialError("a call with this key has been placed, and is over", status=487, cause="duplicate")
        assert call.placing is not None
        try:
            await asyncio.shield(call.placing)
        except asyncio.CancelledError:
            if not call.placing.done():
                call.hung_up = True
                self._tasks.add(call.placing)
                call.placing.add_done_callback(self._abandoned)
            raise
        return call

    # --- what calls need (Host) ------------------------------------------------------------------------------------

    @property
    def account(self) -> str:
        return self._options.account_sid

    @property
    def api(self) -> TwilioApi:
        if self._api is None:
            self._api = TwilioApi(self._options.account_sid, self._token, self._options.api_url, self._box.http)
        return self._api

    def url(self, path: str, **query: str | int) -> str:
        asked = f"?{urlencode(query)}" if query else ""
        return f"{self._options.public_url}/{KIND}/{quote(self._box.trunk, safe='')}{path}{asked}"

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- placing ---------------------------------------------------------------------------------------------------

    async def _ask_for(self, call: TwilioCall, request: CallRequest) -> None:
        options = self._options
        key = {"key": request.key}
        parameters: dict[str, object] = {
            "to": request.number,
            "from_": request.caller_id,
            "url": self.url("/answer", **key),
            "method": "POST",
            "status_callback": self.url("/status", **key),
            "status_callback_method": "POST",
            "status_callback_event": _EVENTS,
            "timeout": ring_seconds(request.ring_timeout_s),
        }
        if options.machine_detection != "off":
            detection = {"enable": "Enable", "detect_message_end": "DetectMessageEnd"}[options.machine_detection]
            parameters |= {
                "machine_detection": detection,
                "machine_detection_timeout": options.machine_detection_timeout_s,
                "async_amd": "true",
                "async_amd_status_callback": self.url("/amd", **key),
                "async_amd_status_callback_method": "POST",
            }
        try:
            call_id = await self.api.create(call.named, min(request.ring_timeout_s, _PLACE_LIMIT_S), **parameters)
        except DialError as error:
            if call.named.is_set():
                return
            call.hung_up = True  # should there be a call all the same, it is ended when it is heard of
            if error.cause != UNSURE:
                del self._by_key[request.key]
            raise
        if call_id is not None:
            self._is_the_one(call, call_id)
        if call.hung_up:
            self.background(self.api.end(call.call_id))

    def _abandoned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.info("trunk %s: a call that nobody waits for: %s", self._box.trunk, task.exception())

    def _is_the_one(self, call: TwilioCall, call_id: str) -> bool:
        """Whether ``call_id`` is what the call of this key is: the first that is heard of. Any other is ended."""
        if not call.call_id:
            call.call_id = call_id
            self._calls[call_id] = call
            call.named.set()
            return True
        if call.call_id == call_id:
            return True
        if call.strange(call_id):
            logger.warning("call %s: Twilio placed it twice; the other one, %s, is ended", call.call_id, call_id)
            self.background(self.api.end(call_id))
        return False

    # --- webhooks --------------------------------------------------------------------------------------------------

    async def _voice(self, request: web.Request) -> web.Response:
        """A call has come: what now?"""
        form = await self._webhooks.form(request)
        call_id = form["CallSid"]
        call = self._calls.get(call_id)
        if call is None:
            if form.get("CallStatus") in OVER:
                return _document(twiml.hangup())
            if not self._room():
                logger.error("trunk %s: refused: more than %d calls are known", self._box.trunk, _MAX_CALLS)
                return _document(twiml.reject(503))
            incoming = _incoming(form, self._box.client_of(request))
            call = self._calls[call_id] = TwilioCall(self, call_id, _shown(form, self._box.caller_id))
            call.box_call = self._box.admit(call, incoming)
        return _document(await call.first_document(self._answer_timeout_s))

    async def _answer(self, request: web.Request) -> web.Response:
        """A call that we placed has been answered: what now?"""
        form = await self._webhooks.form(request)
        call = self._by_key.get(request.query.get("key", ""))
        if call is None or not self._is_the_one(call, form["CallSid"]):
            return _document(twiml.hangup())
        return _document(call.answered(form))

    async def _action(self, request: web.Request) -> web.Response:
        """A stream has ended: what now?"""
        form = await self._webhooks.form(request)
        call = self._calls.get(form["CallSid"])
        return _document(call.stream_ended(form, request.query.get("n", "")) if call else twiml.hangup())

    async def _dialed(self, request: web.Request) -> web.Response:
        """The target of a transfer has gone, or never came: what now?"""
        form = await self._webhooks.form(request)
        call = self._calls.get(form["CallSid"])
        return _document(call.transfer_ended(form, request.query.get("n", "")) if call else twiml.hangup())

    async def _called(self, request: web.Request) -> web.Response:
        """What becomes of the call to the target of a transfer."""
        form = await self._webhooks.form(request)
        call = self._calls.get(request.query.get("call", ""))
        if call is not None and form.get("CallStatus") == "in-progress":
            call.target_answered(request.query.get("n", ""))
        return web.Response(status=204)

    async def _status(self, request: web.Request) -> web.Response:
        """What becomes of a call."""
        form = await self._webhooks.form(request)
        key = request.query.get("key")
        if key is None:
            call = self._calls.get(form["CallSid"])
        else:
            call = self._by_key.get(key)
            if call is not None and not self._is_the_one(call, form["CallSid"]):
                call = None
            elif call is not None and call.hung_up and not call.over and form.get("CallStatus") in UNDER_WAY:
                self.background(self.api.end(call.call_id))
        if call is not None:
            call.told(form)
        return web.Response(status=204)

    async def _stream(self, request: web.Request) -> web.Response:
        """What becomes of a stream."""
        form = await self._webhooks.form(request)
        if form.get("StreamEvent") == "stream-error":
            logger.warning(
                "call %s: Twilio says of its stream: %s; see that %s reaches listen.media",
                form["CallSid"],
                printable(form.get("StreamError", "an error"))[:120],
                self.stream_url(""),
            )
        return web.Response(status=204)

    async def _amd(self, request: web.Request) -> web.Response:
        """What machine detection says."""
        form = await self._webhooks.form(request)
        call = self._by_key.get(request.query.get("key", ""))
        if call is not None and call.call_id == form["CallSid"]:
            call.machine_detected(printable(form.get("AnsweredBy", "unknown"))[:40])
        return web.Response(status=204)

    # --- what is remembered ----------------------------------------------------------------------------------------

    def _room(self) -> bool:
        """Whether another call can be known; calls that have been over for a while are forgotten."""
        now = self._now()
        if now - self._swept_at >= _SWEEP_EVERY_S or len(self._calls) + len(self._by_key) >= _MAX_CALLS:
            self._swept_at = now
            known = {*self._calls.values(), *self._by_key.values()}
            self._done_at = {call: self._done_at.get(call, now) for call in known if call.done}
            old = {call for call, since in self._done_at.items() if now - since >= _KEEP_S}
            self._calls = {name: call for name, call in self._calls.items() if call not in old}
            self._by_key = {key: call for key, call in self._by_key.items() if call not in old}
        return len(self._calls) + len(self._by_key) < _MAX_CALLS


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except DialError as error:
        logger.warning("%s", error)


def _document(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/xml")


def _incoming(form: Form, source: str) -> IncomingCall:
    return IncomingCall(
        call_id=form["CallSid"],
        called=_party(form.get("To", "")),
        calling=_party(form.get("From", "")),
        calling_name=printable(form.get("CallerName", "")),
        source=source,
        offered=_offered(form),
        verstat=next((word for word in _VERDICTS if form.get("StirVerstat", "").startswith(word)), ""),
        diverted=_party(form.get("ForwardedFrom", "")),
    )


def _shown(form: Form, caller_id: str) -> str | None:
    """What a transfer's target sees: None for the caller's own number; else one that Twilio takes, "" for none.

    Who calls from a SIP domain or a client may write what it likes as the called number; of a telephone's it is ours.
    """
    calling, called = form.get("From", ""), form.get("To", "")
    if _E164.fullmatch(calling) and calling not in _WITHHELD:
        return None
    if _E164.fullmatch(called) and not calling.startswith(_ADDRESSES):
        return called
    return caller_id if _E164.fullmatch(caller_id) else ""


def _party(text: str) -> str:
    """A number or a name, without what says where."""
    bare = printable(text)
    if bare in _WITHHELD:
        return "anonymous"
    if bare.startswith(("sip:", "sips:")):
        return bare.partition(":")[2].partition("@")[0].partition(";")[0]
    return bare.removeprefix("client:")


def _offered(form: Mapping[str, str]) -> dict[str, str]:
    """What the network says besides, by Twilio's names, and headers of SIP by their own."""
    found = {name: printable(form[name]) for name in _OFFERED if form.get(name)}
    for name, value in form.items():
        if len(found) >= _MAX_OFFERED:
            break
        header = printable(name.removeprefix(_SIP_HEADER))[:64]
        if name.startswith(_SIP_HEADER) and header and header not in found:
            found[header] = printable(value)
    return found
