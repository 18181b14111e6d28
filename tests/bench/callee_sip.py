"""The SIP of callees: a bare user-agent server that shares no protocol code with the appliance.

It does what RFC 3261 asks of one over UDP: answers each INVITE once, sends a final response until its ACK comes, takes
CANCEL, BYE, re-INVITE and OPTIONS, and hangs up by BYE. One socket serves any number of calls.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

T1_S: Final = 0.5
T2_S: Final = 4.0
_GIVE_UP_S: Final = 32.0
REASONS: Final = {
    100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 404: "Not Found", 480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist", 486: "Busy Here", 487: "Request Terminated", 500: "Server Internal Error",
    503: "Service Unavailable", 603: "Decline",
}  # fmt: skip
Address = tuple[str, int]


def header(message: str, name: str) -> str:
    """The first value of a header, or an empty string."""
    found = re.search(rf"^{name}\s*:\s*(.*?)\s*$", message, re.MULTILINE | re.IGNORECASE)
    return found.group(1) if found else ""


def user_of(value: str) -> str:
    """The user part of the URI in a header or request line."""
    found = re.search(r"sips?:([^@;>\s]*)@", value)
    return found.group(1).replace("%2B", "+") if found else ""


@dataclass
class Dialled:
    """A call to this side.

    Attributes:
        number: the one that was dialled.
        caller_id: the one that was shown.
        remote_rtp: where the caller wants audio.
        keys: the payload type of telephone events at the caller; None for none.
    """

    invite: str
    source: Address
    number: str
    caller_id: str
    call_id: str
    remote_rtp: Address
    keys: int | None
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    state: str = "ringing"
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    acked: asyncio.Event = field(default_factory=asyncio.Event)
    bye_answered: asyncio.Event = field(default_factory=asyncio.Event)
    ended_by: str = ""
    last: str = ""
    invites: int = 1
    acked_after_s: float = 0.0


class CalleeSip(asyncio.DatagramProtocol):
    """The socket.

    Args:
        rtp: the address of this side's audio, for SDP.
        on_call: told of each new call; it must answer by :meth:`respond`.
        on_event: told what is seen of a call: a word and the call.
    """

    def __init__(
        self, rtp: Callable[[], Address], on_call: Callable[[Dialled], None], on_event: Callable[[str, Dialled], None]
    ) -> None:
        self._rtp = rtp
        self._on_call = on_call
        self._on_event = on_event
        self._transport: asyncio.DatagramTransport | None = None
        self.calls: dict[str, Dialled] = {}
        self._over: dict[str, Dialled] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.address: Address = ("", 0)

    async def open(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, (host, port))
        self.address = self._transport.get_extra_info("sockname")[:2]

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()

    # --- what comes -----------------------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: Address) -> None:
        message = data.decode(errors="replace")
        call_id = header(message, "Call-ID")
        call = self.calls.get(call_id) or self._over.get(call_id)
        if message.startswith("SIP/2.0 "):
            if call is not None and header(message, "CSeq").endswith("BYE"):
                call.bye_answered.set()
            return
        method = message.split(" ", 1)[0]
        match method:
            case "INVITE" if call is None:
                self._begin(message, addr)
            case "INVITE" if call is not None and header(message, "To").find("tag=") < 0:
                call.invites += 1
                if call.last:
                    self._send(call.last, call.source)
            case "INVITE" if call is not None:
                self._send(self._response(200, message, call, self._sdp(call)), addr)
            case "ACK":
                if call is not None:
                    call.acked.set()
            case "CANCEL":
                self._send(self._response(200 if call is not None else 481, message, call), addr)
                if call is not None and call.state == "ringing":
                    call.cancelled.set()
            case "BYE":
                self._send(self._response(200 if call is not None else 481, message, call), addr)
                if call is not None:
                    self._end(call, "them")
            case _:
                self._send(self._response(200, message, call), addr)

    def _begin(self, invite: str, source: Address) -> None:
        sdp = invite.partition("\r\n\r\n")[2]
        host = re.search(r"^c=IN IP4 (\S+)", sdp, re.MULTILINE)
        media = re.search(r"^m=audio (\d+)", sdp, re.MULTILINE)
        keys = re.search(r"^a=rtpmap:(\d+) telephone-event/8000", sdp, re.MULTILINE)
        call = Dialled(
            invite,
            source,
            user_of(invite.split("\r\n", 1)[0]),
            user_of(header(invite, "From")),
            header(invite, "Call-ID"),
            (host.group(1) if host else source[0], int(media.group(1)) if media else 0),
            int(keys.group(1)) if keys else None,
        )
        self.calls[call.call_id] = call
        self.respond(call, 100)
        self._on_event("invite", call)
        self._on_call(call)

    # --- what leaves ----------------------------------------------------------------------------------------------

    def respond(self, call: Dialled, status: int, *, early: bool = False) -> None:
        """Answer the INVITE; ``early``: with SDP although it is provisional."""
        if call.state != "ringing":
            return
        body = self._sdp(call) if status == 200 or early else ""
        call.last = self._response(status, call.invite, call, body)
        self._send(call.last, call.source)
        if status >= 200:
            call.state = "answered" if status == 200 else "refused"
            self._on_event(call.state if status == 200 else str(status), call)
            self._keep(self._until_acked(call))
        elif status > 100:
            self._on_event("ringing", call)

    async def hang_up(self, call: Dialled) -> None:
        """End an answered call."""
        if call.state != "answered" or call.over.is_set():
            return
        self._end(call, "us")
        target = re.search(r"<([^>]*)>", header(call.invite, "Contact"))
        host, port = self.address
        lines = [
            f"BYE {target.group(1) if target else f'sip:{call.source[0]}:{call.source[1]}'} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{secrets.token_hex(6)};rport",
            "Max-Forwards: 70",
            f"From: {header(call.invite, 'To')};tag={call.tag}",
            f"To: {header(call.invite, 'From')}",
            f"Call-ID: {call.call_id}",
            "CSeq: 1 BYE",
        ]
        bye = "\r\n".join([*lines, "Content-Length: 0", "", ""])
        self._keep(self._until(bye, call.bye_answered, call.source))

    def _end(self, call: Dialled, by: str) -> None:
        if not call.over.is_set():
            call.ended_by = by
            call.over.set()
            self._on_event("ended", call)
            self.calls.pop(call.call_id, None)
            self._over[call.call_id] = call

    async def _until_acked(self, call: Dialled) -> None:
        await self._until(call.last, call.acked, call.source, resend_only=True)
        if call.state == "refused":
            self._end(call, "us")

    async def _until(self, message: str, done: asyncio.Event, to: Address, *, resend_only: bool = False) -> None:
        """Send, and again after T1, 2 T1 ... until it is ``done``."""
        if not resend_only:
            self._send(message, to)
        waited, interval = 0.0, T1_S
        while waited < _GIVE_UP_S:
            try:
                async with asyncio.timeout(interval):
                    await done.wait()
                return
            except TimeoutError:
                waited += interval
                interval = min(2 * interval, T2_S)
                self._send(message, to)

    def _keep(self, what: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _response(self, status: int, request: str, call: Dialled | None, body: str = "") -> str:
        head = request.partition("\r\n\r\n")[0]
        copied = re.findall(r"^(?:Via|Record-Route)\s*:.*$", head, re.MULTILINE | re.IGNORECASE)
        to = header(head, "To")
        if status > 100 and "tag=" not in to and call is not None:
            to += f";tag={call.tag}"
        host, port = self.address
        lines = [
            f"SIP/2.0 {status} {REASONS.get(status, 'Status')}",
            *(line.strip() for line in copied),
            f"From: {header(head, 'From')}",
            f"To: {to}",
            f"Call-ID: {header(head, 'Call-ID')}",
            f"CSeq: {header(head, 'CSeq')}",
            f"Contact: <sip:callee@{host}:{port}>",
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body])

    def _sdp(self, call: Dialled) -> str:
        host, port = self._rtp()
        keys = f"a=rtpmap:{call.keys} telephone-event/8000\r\na=fmtp:{call.keys} 0-16\r\n" if call.keys else ""
        formats = f"0 {call.keys}" if call.keys else "0"
        return (
            f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\n"
            f"a=rtpmap:0 PCMU/8000\r\n{keys}a=ptime:20\r\na=sendrecv\r\n"
        )

    def _send(self, message: str, to: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(message.encode(), to)
