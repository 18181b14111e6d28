"""Twilio as a box sees it: webhooks that are signed, TwiML that is executed, streams, status callbacks, the REST API.

``TwilioSim`` is one account. ``await sim.call(to, from_)`` lets a caller dial a number of the account; calls that the
box places by the API ring at the :class:`Callee` of their number. What the box does against the documents is kept in
``sim.mistakes``, and in ``violations`` of each stream: a test that ends well looks at both, by :meth:`check`.

Sources: Twilio's documents "TwiML for Programmable Voice", "Call resource", "Media Streams", "Security".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Literal
from urllib.parse import urlencode, urljoin

import aiohttp
from aiohttp import web

from appliance.cli.stream_caller import TwilioCaller, sid
from tests.carriers import twiml
from tests.carriers.sim_account import SimAccount
from tests.carriers.twilio_call import FINAL, Callee, Room, Sent, SimCall, signature

WEBHOOK_TIMEOUT_S = 15.0
_STATUS_EVENTS = frozenset({"initiated", "ringing", "answered", "completed"})
_CREATE = frozenset(
    re.findall(
        r"\w+",
        "To From Url Twiml ApplicationSid Method FallbackUrl FallbackMethod StatusCallback StatusCallbackEvent "
        "StatusCallbackMethod SendDigits Timeout Record MachineDetection MachineDetectionTimeout "
        "MachineDetectionSpeechThreshold MachineDetectionSpeechEndThreshold MachineDetectionSilenceTimeout AsyncAmd "
        "AsyncAmdStatusCallback AsyncAmdStatusCallbackMethod CallerId CallReason CallToken TimeLimit Trim Byoc "
        "RecordingChannels RecordingStatusCallback RecordingStatusCallbackMethod RecordingStatusCallbackEvent "
        "RecordingTrack SipAuthUsername SipAuthPassword",
    )
)
_UPDATE = frozenset(
    re.findall(
        r"\w+",
        "Url Method Status FallbackUrl FallbackMethod StatusCallback StatusCallbackMethod Twiml TimeLimit",
    )
)

Fault = Literal["429", "500", "503", "timeout", "lost", "reset"]


class TwilioSim(SimAccount[TwilioCaller]):
    """One account at Twilio. An asynchronous context manager; ``api_url`` is its REST API.

    Args:
        voice_url: the "A call comes in" webhook of its numbers, as the box's ``public_url`` writes it.
        status_url: their "Call status changes" webhook, "" for none.
        reach: see :class:`SimAccount`.
        headers: sent with every webhook, as that proxy would.
        tls_only: refuse streams that are not wss, as Twilio does.

    Attributes:
        calls: by CallSid.
        requests: (method, path, form) of each request to the API.
    """

    def __init__(
        self,
        voice_url: str = "",
        *,
        status_url: str = "",
        account_sid: str = "",
        auth_token: str = "",
        reach: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        tls_only: bool = False,
    ) -> None:
        super().__init__(reach)
        self.account_sid = account_sid or sid("AC")
        self.auth_token = auth_token or sid("")
        self.voice_url = voice_url
        self.status_url = status_url
        self.headers = dict(headers or {})
        self.tls_only = tls_only
        self.calls: dict[str, SimCall] = {}
        self.callees: dict[str, Callee] = {}
        self.rooms: dict[str, Room] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.webhooks: list[Sent] = []
        self._faults: deque[Fault] = deque()
        self._lost: set[int] = set()
        self._closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        base = "/2010-04-01/Accounts/{account}/Calls"
        return [
            web.post(f"{base}.json", self._create),
            web.get(f"{base}.json", self._list),
            web.post(f"{base}/{{call}}.json", self._update),
            web.get(f"{base}/{{call}}.json", self._fetch),
        ]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        await super().__aexit__(kind, error, trace)

    # What tests do.

    async def call(self, to: str, from_: str, *, caller_name: str = "", **fields: str) -> SimCall:
        """A person dials ``to``, a number of this account; gives the call at once, its webhook on the way.

        ``fields`` are laid over the form of every webhook about it.
        """
        more = {"StirVerstat": "TN-Validation-Passed-A"} | ({"CallerName": caller_name} if caller_name else {})
        call = SimCall(self, "inbound", to, from_, **more | fields)
        call.status = "ringing"
        call.watch(self.status_url, "POST", frozenset({"completed"}))
        self.add(call)
        call.task = self.spawn(self._inbound(call))
        return call

    def fail(self, fault: Fault, times: int = 1) -> None:
        """What the next requests to the API meet.

        "timeout" is not done and not answered; "lost" is done and not answered; "reset" breaks the connection.
        """
        self._faults.extend([fault] * times)

    # What calls ask for.

    def callee(self, number: str) -> Callee:
        return self.callees.get(number, Callee())

    def add(self, call: SimCall) -> None:
        self.calls[call.sid] = call

    def mistake(self, what: str) -> None:
        self.mistakes.append(what)

    def absolute(self, call: SimCall, url: str) -> str:
        """A URL of TwiML, which may be relative to the document's."""
        return urljoin(call.more.get("_base") or self.voice_url, url)

    async def post(self, call: SimCall, url: str, form: Mapping[str, str], *, method: str = "POST") -> Sent:
        """Send one signed webhook."""
        shown = {name: value for name, value in form.items() if not name.startswith("_")}
        body = list(shown.items())
        url = self.absolute(call, url)
        if method == "GET":
            url += ("&" if "?" in url else "?") + urlencode(body)
            body = []
        headers = {
            "X-Twilio-Signature": signature(self.auth_token, url, body), "User-Agent": "TwilioProxy/1.1",
            "I-Twilio-Idempotency-Token": sid(""), "Accept": "*/*", **self.headers,
        }  # fmt: skip
        status, text, kind = 0, "", ""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            timeout = aiohttp.ClientTimeout(total=WEBHOOK_TIMEOUT_S)
            data = aiohttp.FormData(body) if method == "POST" else None
            async with self.http.request(
                method, self.reached(url), data=data, headers=headers, timeout=timeout, allow_redirects=False
            ) as reply:
                text = await reply.text()
                status, kind = reply.status, reply.content_type
        sent = Sent(time.monotonic(), url, shown, status, text)
        call.webhooks.append(sent)
        self.webhooks.append(sent)
        call.changed.set()
        if status == 200 and text and kind not in ("text/xml", "application/xml", "text/html"):
            self.mistake(f"{url}: answered with {kind}, which is no TwiML (12300)")
        if status >= 500:
            self.mistake(f"{url}: answered {status} (11200)")
        return sent

    def document(self, call: SimCall, sent: Sent) -> None:
        """Hold the answer of a webhook that must be TwiML to being so.

        Raises:
            BadTwiml: it is not; the call fails with 11200.
        """
        if sent.status != 200:
            raise twiml.BadTwiml(f"{sent.url} answered {sent.status}: {sent.body[:200]!r} (11200)")

    # The lives of calls.

    async def _inbound(self, call: SimCall) -> None:
        sent = await self.post(call, self.voice_url, call.form())
        if sent.status != 200:
            call.error_code = "11200"
            await call.finish("failed")
            return
        await call.live(sent.body)

    async def _outbound(self, call: SimCall, form: Mapping[str, str]) -> None:
        callee = self.callee(call.to)
        await call.ring(callee, float(form.get("Timeout", "60")))
        if call.status != "in-progress":
            return
        if callee.talk_s is not None:
            asyncio.get_running_loop().call_later(callee.talk_s, call.complete)
        wants = form.get("MachineDetection")
        if wants and form.get("AsyncAmd", "false").lower() == "true":
            self.spawn(self._detect(call, callee, form))
        elif wants:
            await asyncio.sleep(callee.amd_s)
            call.answered_by = callee.answered_by
        document = form.get("Twiml", "")
        if not document:
            sent = await self.post(call, form["Url"], call.form(), method=form.get("Method", "POST"))
            if sent.status != 200:
                self.mistake(f"{sent.url}: answered {sent.status}")
                await call.finish("failed")
                return
            document = sent.body
        await call.live(document)

    async def _detect(self, call: SimCall, callee: Callee, form: Mapping[str, str]) -> None:
        await asyncio.sleep(callee.amd_s)
        url = form.get("AsyncAmdStatusCallback", "")
        if call.ended.is_set() or not url:
            return
        call.answered_by = callee.answered_by
        told = {
            "CallSid": call.sid, "AccountSid": self.account_sid, "AnsweredBy": callee.answered_by,
            "MachineDetectionDuration": str(round(callee.amd_s * 1000)),
        }  # fmt: skip
        await self.post(call, url, told, method=form.get("AsyncAmdStatusCallbackMethod", "POST"))

    # The REST API.

    async def _request(self, request: web.Request) -> tuple[dict[str, str], list[tuple[str, str]], web.Response | None]:
        pairs = [(name, str(value)) for name, value in (await request.post()).items()]
        form = dict(pairs)
        self.requests.append((request.method, request.path, form))
        fault = self._faults.popleft() if self._faults else ""
        if fault == "429":
            return form, pairs, _refused(429, 20429, "Too Many Requests", {"Retry-After": "1"})
        if fault in ("500", "503"):
            return form, pairs, _refused(int(fault), 20500, "Internal Server Error")
        if fault == "timeout":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), 60.0)
            return form, pairs, _refused(504, 0, "")
        if fault == "reset":
            if request.transport is not None:
                request.transport.abort()
            return form, pairs, _refused(500, 0, "")
        expected = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            return form, pairs, _refused(401, 20003, "Authenticate")
        if request.match_info["account"] != self.account_sid:
            return form, pairs, _refused(404, 20404, "The requested resource was not found")
        if fault == "lost":
            self._lost.add(id(request))
        return form, pairs, None

    async def _reply(self, request: web.Request, status: int, body: object) -> web.Response:
        if id(request) in self._lost:
            self._lost.discard(id(request))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), 60.0)
        return web.json_response(body, status=status)

    async def _create(self, request: web.Request) -> web.Response:
        form, pairs, refusal = await self._request(request)
        if refusal is not None:
            return refusal
        unknown = sorted(set(form) - _CREATE)
        if unknown:
            self.mistake(f"create: unknown parameters {unknown}")
        events = [value for name, value in pairs if name == "StatusCallbackEvent"]
        if set(events) - _STATUS_EVENTS:
            self.mistake(f"create: StatusCallbackEvent {events}; each of {sorted(_STATUS_EVENTS)} is given by itself")
        if not form.get("To"):
            return _refused(400, 21201, "No 'To' number is specified")
        if not form.get("From"):
            return _refused(400, 21213, "'From' parameter is required")
        if not form["To"].startswith(("+", "sip:", "client:")) or (
            form["To"][0] == "+" and not form["To"][1:].isdigit()
        ):
            return _refused(400, 21211, f"Invalid 'To' Phone Number: {form['To']}")
        if not (form.get("Url") or form.get("Twiml")):
            return _refused(400, 21205, "Url parameter is required")
        if len(form.get("Twiml", "")) > twiml.MAX_INLINE:
            return _refused(400, 21603, "Twiml is longer than 4000 characters")
        if form.get("MachineDetection", "Enable") not in ("Enable", "DetectMessageEnd"):
            self.mistake(f"create: MachineDetection {form['MachineDetection']!r}")
        call = SimCall(self, "outbound-api", form["To"], form["From"])
        call.watch(form.get("StatusCallback", ""), form.get("StatusCallbackMethod", "POST"), frozenset(events))
        if form.get("Url"):
            call.more["_base"] = form["Url"]
        self.add(call)
        call.task = self.spawn(self._outbound(call, form))
        return await self._reply(request, 201, call.resource())

    async def _update(self, request: web.Request) -> web.Response:
        form, _, refusal = await self._request(request)
        if refusal is not None:
            return refusal
        if set(form) - _UPDATE:
            self.mistake(f"update: unknown parameters {sorted(set(form) - _UPDATE)}")
        call = self.calls.get(request.match_info["call"])
        if call is None:
            return _refused(404, 20404, f"The requested resource {request.path} was not found")
        status = form.get("Status", "")
        if status not in ("", "completed", "canceled"):
            return _refused(400, 21222, f"Invalid status: {status}")
        if call.status in FINAL:
            return _refused(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == "completed" or (status == "canceled" and call.answered_at is None):
            call.complete()
        elif form.get("Twiml") or form.get("Url"):
            if call.answered_at is None:
                return _refused(400, 21220, "Call is not in-progress. Cannot redirect.")
            if len(form.get("Twiml", "")) > twiml.MAX_INLINE:
                return _refused(400, 21603, "Twiml is longer than 4000 characters")
            if form.get("Twiml"):
                try:
                    twiml.parse(form["Twiml"], tls_only=self.tls_only)
                except twiml.BadTwiml as error:
                    self.mistake(f"update: TwiML: {error}")
                    return _refused(400, 12100, f"Document parse failure: {error}")
                call.redirect(form["Twiml"])
            else:
                self.spawn(self._redirect(call, form["Url"], form.get("Method", "POST")))
        return await self._reply(request, 200, call.resource())

    async def _redirect(self, call: SimCall, url: str, method: str) -> None:
        sent = await self.post(call, url, call.form(), method=method)
        call.redirect(sent.body)

    async def _fetch(self, request: web.Request) -> web.Response:
        _, _, refusal = await self._request(request)
        if refusal is not None:
            return refusal
        call = self.calls.get(request.match_info["call"])
        if call is None:
            return _refused(404, 20404, f"The requested resource {request.path} was not found")
        return await self._reply(request, 200, call.resource())

    async def _list(self, request: web.Request) -> web.Response:
        _, _, refusal = await self._request(request)
        if refusal is not None:
            return refusal
        wanted = {"Status": "status", "To": "to", "From": "from_"}
        parent = request.query.get("ParentCallSid")
        found = [
            call.resource()
            for call in self.calls.values()
            if parent in (None, call.parent and call.parent.sid)
            and all(getattr(call, own) == request.query[name] for name, own in wanted.items() if name in request.query)
        ]
        page = {
            "calls": found[:1000], "end": len(found), "first_page_uri": request.path, "next_page_uri": None, "page": 0,
            "page_size": 1000, "previous_page_uri": None, "start": 0, "uri": request.path,
        }  # fmt: skip
        return await self._reply(request, 200, page)


def _refused(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {
        "code": code, "message": message, "more_info": f"https://www.twilio.com/docs/errors/{code}", "status": status
    }  # fmt: skip
    return web.Response(status=status, text=json.dumps(body), content_type="application/json", headers=headers)
