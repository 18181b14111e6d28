"""A bare SIP caller that shares no protocol code with the appliance: text out, text in, a timer per request.

It does what RFC 3261 asks of a user-agent client over UDP and no more: retransmits requests until answered, ACKs
every final response to its INVITE, answers BYE. One socket serves any number of calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.cli.rtp_stream import Codecs
from appliance.cli.softphone import Answered, CallFailed

T1_S = 0.5
T2_S = 4.0
_counter = itertools.count(1)


@dataclass
class UacStats:
    """What the peer did that a peer need not do."""

    repeated_finals: int = 0
    unexpected: list[str] = field(default_factory=list)
    requests_sent_again: int = 0


def header(message: str, name: str) -> str:
    """The first value of a header, or an empty string."""
    found = re.search(rf"^{name}\s*:\s*(.*?)\s*$", message, re.MULTILINE | re.IGNORECASE)
    return found.group(1) if found else ""


class BareCall:
    """A call that this side placed."""

    def __init__(self, uac: BareUac, uri: str, rtp: tuple[str, int]) -> None:
        number = next(_counter)
        self.uac = uac
        self.uri = uri
        self.rtp = rtp
        host, port = uac.advertised
        self.address = f"{host}:{port}"
        self.call_id = f"bare-{uac.token}-{number}@{uac.host}"
        self.branch = f"z9hG4bK-{uac.token}-{number}"
        self.local = f"<sip:{uac.user}@{self.address}>;tag=t{number}"
        self.remote = f"<{uri}>"
        self.target = uri
        self.sequence = 1
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.final: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.bye_answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.answer = Answered(("", 0), Codecs())
        self.ack = ""
        self.sent_at = 0.0
        self.trying_at = 0.0
        self.ringing_at = 0.0
        self.answered_at = 0.0

    def request(self, method: str, body: str = "", branch: str = "", sequence: int = 0) -> str:
        lines = [
            f"{method} {self.target} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address};branch={branch or self.branch};rport",
            "Max-Forwards: 70",
            f"From: {self.local}",
            f"To: {self.remote}",
            f"Call-ID: {self.call_id}",
            f"CSeq: {sequence or self.sequence} {method}",
        ]
        if method == "INVITE":
            lines += [
                f"Contact: <sip:{self.uac.user}@{self.address}>",
                "Content-Type: application/sdp",
            ]
        lines += [f"Content-Length: {len(body)}", "", body]
        return "\r\n".join(lines)

    def offer(self) -> str:
        host, port = self.rtp
        return (
            f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
            "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
        )

    async def invite(self, timeout_s: float) -> None:
        self.sent_at = time.time()
        try:
            await self.uac.send_until(
                self.request("INVITE", self.offer()), self.final, timeout_s, hushed=lambda: self.trying_at > 0
            )
        except TimeoutError:
            raise CallFailed(408, "no final response") from None
        status, reason = self.final.result()
        if status >= 300:
            raise CallFailed(status, reason)

    async def hangup(self) -> None:
        if self.ended.done():
            return
        self.ended.set_result("us")
        self.sequence += 1
        bye = self.request("BYE", branch=f"{self.branch}-bye")
        with contextlib.suppress(TimeoutError):
            await self.uac.send_until(bye, self.bye_answered, 32.0)
        if not self.bye_answered.done():
            self.uac.stats.unexpected.append(f"{self.call_id}: BYE not answered")
        self.uac.forget(self)

    def response(self, status: int, reason: str, message: str) -> None:
        method = header(message, "CSeq").split()[-1]
        if method == "BYE":
            if status >= 200 and not self.bye_answered.done():
                self.bye_answered.set_result(status)
            return
        now = time.time()
        if status < 200:
            self.trying_at = self.trying_at or now
            if status == 180:
                self.ringing_at = self.ringing_at or now
            return
        if self.final.done():
            self.uac.stats.repeated_finals += 1
            self.uac.send(self.ack)
            return
        self.remote = header(message, "To")
        if status < 300:
            self.answered_at = now
            contact = header(message, "Contact")
            self.target = contact.partition("<")[2].partition(">")[0] or contact or self.uri
            self.answer = parse_answer(message.partition("\r\n\r\n")[2])
            self.ack = self.request("ACK", branch=f"{self.branch}-ack")
        else:
            self.target = self.uri
            self.ack = self.request("ACK")
        self.uac.send(self.ack)
        self.final.set_result((status, reason))

    def peer_hung_up(self) -> None:
        if not self.ended.done():
            self.ended.set_result("them")


class BareUac(asyncio.DatagramProtocol):
    """The socket. ``async with BareUac(peer) as uac: call = await uac.dial(...)``.

    Args:
        peer: where every request goes (the box, or a relay in front of it).
        user: the user part of From.
        host: address to bind.
    """

    def __init__(self, peer: tuple[str, int], user: str = "caller", host: str = "127.0.0.1") -> None:
        self.peer = peer
        self.user = user
        self.host = host
        self.advertised = (host, 0)
        """Address in Via and Contact: the socket's own, or that of a relay which the box shall send to."""
        self.token = f"{time.time_ns():x}"
        self.stats = UacStats()
        self.calls: dict[str, BareCall] = {}
        self._over: dict[str, None] = {}
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> BareUac:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, (self.host, 0))
        self.advertised = self._transport.get_extra_info("sockname")[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()
            await asyncio.sleep(0)

    async def dial(self, uri: str, rtp: tuple[str, int], timeout_s: float) -> BareCall:
        call = BareCall(self, uri, rtp)
        self.calls[call.call_id] = call
        try:
            await call.invite(timeout_s)
        except BaseException:
            self.forget(call)
            raise
        return call

    def forget(self, call: BareCall) -> None:
        self.calls.pop(call.call_id, None)
        self._over[call.call_id] = None

    def send(self, message: str) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(message.encode(), self.peer)

    async def send_until(
        self,
        message: str,
        answered: asyncio.Future[object],
        timeout_s: float,
        hushed: Callable[[], bool] = lambda: False,
    ) -> None:
        """Send, and again after T1, 2 T1, 4 T1... until ``answered``; not again once ``hushed``.

        Raises:
            TimeoutError: not answered within ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        interval = T1_S
        self.send(message)
        while not answered.done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            await asyncio.wait([answered], timeout=min(interval, left))
            if not answered.done() and not hushed():
                self.stats.requests_sent_again += 1
                self.send(message)
            interval = min(2 * interval, T2_S) if not message.startswith("INVITE") else 2 * interval

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        message = data.decode(errors="replace")
        call_id = header(message, "Call-ID")
        call = self.calls.get(call_id)
        if message.startswith("SIP/2.0 "):
            _, status, reason = (message.split("\r\n", 1)[0] + "  ").split(" ", 2)
            if call is not None:
                call.response(int(status), reason.strip(), message)
            elif call_id not in self._over:
                self.stats.unexpected.append(f"response {status} for unknown {call_id}")
            return
        method = message.split(" ", 1)[0]
        if method == "BYE" and (call is not None or call_id in self._over):
            self._reply(message, "200 OK", addr)
            if call is not None:
                call.peer_hung_up()
                self.forget(call)
        elif method != "ACK":
            self.stats.unexpected.append(f"request {method} for {call_id}")
            self._reply(message, "481 Call/Transaction Does Not Exist", addr)

    def _reply(self, request: str, status: str, addr: tuple[str, int]) -> None:
        vias = re.findall(r"^Via\s*:.*$", request, re.MULTILINE | re.IGNORECASE)
        lines = [f"SIP/2.0 {status}", *(via.strip() for via in vias)]
        lines += [f"{name}: {header(request, name)}" for name in ("From", "To", "Call-ID", "CSeq")]
        if self._transport is not None:
            self._transport.sendto(("\r\n".join([*lines, "Content-Length: 0", "", ""])).encode(), addr)


def parse_answer(sdp: str) -> Answered:
    """Address, codec and telephone-event of an SDP answer with one audio stream."""
    host = re.search(r"^c=IN IP4 (\S+)", sdp, re.MULTILINE)
    media = re.search(r"^m=audio (\d+) \S+ ([\d ]+)", sdp, re.MULTILINE)
    if host is None or media is None:
        raise CallFailed(488, "the answer has no audio")
    formats = [int(word) for word in media.group(2).split()]
    event = re.search(r"^a=rtpmap:(\d+) telephone-event/8000", sdp, re.MULTILINE)
    keys = int(event.group(1)) if event else None
    codec = next(word for word in formats if word != keys)
    return Answered((host.group(1), int(media.group(1))), Codecs(codec, keys))
