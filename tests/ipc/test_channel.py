"""Channels between real sockets: order, bounds, and the end of the peer."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from appliance.errors import ChannelClosed
from appliance.ipc.channel import Channel, connect, serve
from appliance.ipc.messages import AnyMessage, Cancel, Hello, Play, Ready, decode, encode
from tests.waiting import LIMIT_S


class Peer:
    """One accepted end, and all it was told."""

    def __init__(self) -> None:
        self.messages: list[AnyMessage] = []
        self.arrived = asyncio.Event()
        self.closed = asyncio.Event()
        self.channel: Channel | None = None

    def accept(self, sock: socket.socket) -> Channel:
        self.channel = Channel(sock, asyncio.get_running_loop(), self._message, self.closed.set)
        return self.channel

    def _message(self, message: AnyMessage) -> None:
        self.messages.append(message)
        self.arrived.set()

    async def wait_for(self, count: int) -> list[AnyMessage]:
        async with asyncio.timeout(LIMIT_S):
            while len(self.messages) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.messages


def test_every_message_survives_the_wire() -> None:
    message = Play(slot=3, generation=9, utterance=2, tts_start=0, tts_end=160, last=True)
    assert decode(encode(message)) == message


async def test_messages_arrive_in_order(tmp_path: Path) -> None:
    peer = Peer()
    listener = await serve(tmp_path / "s", peer.accept)
    channel = await connect(tmp_path / "s", lambda message: None)
    for number in range(500):
        assert channel.send(Cancel(number))
    assert await peer.wait_for(500) == [Cancel(number) for number in range(500)]
    channel.close()
    async with asyncio.timeout(LIMIT_S):
        await peer.closed.wait()
    listener.close()


async def test_garbage_is_dropped_and_the_channel_goes_on(tmp_path: Path) -> None:
    peer = Peer()
    listener = await serve(tmp_path / "s", peer.accept)
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    raw.connect(str(tmp_path / "s"))
    raw.send(b"\xff\x00garbage")
    raw.send(encode(Ready("media")))
    assert await peer.wait_for(1) == [Ready("media")]
    raw.close()
    listener.close()


async def test_a_peer_that_reads_nothing_is_given_up_not_waited_for() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    closed = asyncio.Event()
    channel = Channel(ours, asyncio.get_running_loop(), lambda message: None, closed.set)
    sent = 0
    while channel.send(Hello("x" * 1000, sent)):
        sent += 1
        assert sent < 100_000
    assert channel.closed
    assert closed.is_set()
    theirs.close()


async def test_a_slow_peer_gets_everything() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    channel = Channel(ours, asyncio.get_running_loop(), lambda message: None)
    sent = 0
    while channel.outbox_depth < 100:
        assert channel.send(Hello("x" * 1000, sent))
        sent += 1
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LIMIT_S):
        for number in range(sent):
            assert decode(await loop.sock_recv(theirs, 4096)) == Hello("x" * 1000, number)
    assert channel.outbox_depth == 0
    channel.close()
    theirs.close()


async def test_an_exception_in_a_handler_does_not_end_the_channel(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    seen = asyncio.Event()

    def handler(message: AnyMessage) -> None:
        if isinstance(message, Cancel):
            raise KeyError("boom")
        seen.set()

    channel = Channel(ours, asyncio.get_running_loop(), handler)
    theirs.send(encode(Cancel(1)))
    theirs.send(encode(Ready("x")))
    async with asyncio.timeout(LIMIT_S):
        await seen.wait()
    assert "handling Cancel failed" in caplog.text
    channel.close()
    theirs.close()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(ChannelClosed, match="nobody listens"):
        await connect(tmp_path / "s", lambda message: None, timeout_s=0.01)
