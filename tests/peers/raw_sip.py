"""SIP as bytes: what no stack would send, and the plain request that tells whether the box still answers."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.waiting import LIMIT_S

HOST = "127.0.0.1"
_PCMU_OFFER = "m=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"


def sdp(media: str = _PCMU_OFFER) -> str:
    """An offer with these media lines."""
    return f"v=0\r\no=- 1 1 IN IP4 {HOST}\r\ns=-\r\nc=IN IP4 {HOST}\r\nt=0 0\r\n{media}"


class RawSip:
    """A UDP socket towards the box."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((HOST, 0))
        self._socket.connect((HOST, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(
        self,
        method: str,
        user: str = "1004",
        body: str = "",
        call_id: str = "",
        headers: Sequence[str] = (),
        calling: str = "raw",
    ) -> bytes:
        """A request of a call of its own; ``headers`` as ``Name: value``."""
        host, port = self._socket.getsockname()
        call_id = call_id or secrets.token_hex(8)
        lines = [
            f"{method} sip:{user}@{HOST} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{call_id};rport",
            "Max-Forwards: 70",
            f"From: <sip:{calling}@{host}:{port}>;tag={call_id}",
            f"To: <sip:{user}@{HOST}>",
            f"Call-ID: {call_id}",
            f"CSeq: 1 {method}",
            f"Contact: <sip:raw@{host}:{port}>",
            *headers,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", body]).encode()

    async def send(self, datagram: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, datagram)

    async def status(
        self, method: str, user: str = "1004", body: str = "", headers: Sequence[str] = (), calling: str = "raw"
    ) -> int:
        """The final status of a request that is sent once; an INVITE's refusal is acknowledged.

        Raises:
            TimeoutError: no answer within :data:`LIMIT_S`.
        """
        call_id = secrets.token_hex(8)
        await self.send(self.request(method, user, body, call_id, headers, calling))
        async with asyncio.timeout(LIMIT_S):
            while True:
                answer = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
                status = int(answer.split(b" ", 2)[1])
                if call_id.encode() in answer and status >= 200:
                    break
        if method == "INVITE":
            await self.send(self.request("ACK", user, call_id=call_id, calling=calling))
        return status
