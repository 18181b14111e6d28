"""Control's side of the media process, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from appliance.ipc.channel import Channel, serve
from appliance.media import client as media_client
from appliance.media.client import MediaClient
from tests.waiting import LIMIT_S


async def test_media_that_was_away_for_long_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_client, "_RECONNECT_S", 0.01)
    connected = asyncio.Event()
    given_up = asyncio.Event()
    monkeypatch.setattr(media_client.logger, "error", lambda *_: given_up.set())

    def accept(connection: socket.socket) -> Channel:
        connected.set()
        return Channel(connection, asyncio.get_running_loop(), lambda _: None)

    media = await serve(tmp_path / "media.sock", accept)
    client = MediaClient(tmp_path, 1, "127.0.0.1")
    async with asyncio.timeout(LIMIT_S):
        await client.start()
        await connected.wait()
        connected.clear()
        media.close()
        await given_up.wait()
        media = await serve(tmp_path / "media.sock", accept)
        await connected.wait()
    await client.stop()
    media.close()
