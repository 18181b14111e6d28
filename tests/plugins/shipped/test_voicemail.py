"""The plugin ``voicemail`` with a real mail server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from appliance.cli.box import free_port
from appliance.testing import uses

ADDRESSES = {"to": ["desk@example.com"], "sender": "box@example.com"}


class Sink:
    """Keeps what it is sent; refuses as many messages as ``busy`` says."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.busy = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.busy:
            self.busy -= 1
            return "451 try again later"
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


@pytest.fixture
def sink() -> Iterator[tuple[Sink, int]]:
    keeper = Sink()
    port = free_port()
    controller = Controller(keeper, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield keeper, port
    finally:
        controller.stop()


def server(port: int) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "security": "none"}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(3600):
        while not condition():
            await asyncio.sleep(0.5)


async def test_words_notes_and_recording_are_sent_and_tried_again(
    scripted_call: Any, sink: tuple[Sink, int], tmp_path: Path
) -> None:
    keeper, port = sink
    keeper.busy = 2
    call = await scripted_call(
        {"record": True},
        plugins={"voicemail": {**ADDRESSES, "server": server(port), "subject": "{name} on {line}, {caller}"}},
        state_dir=tmp_path,
        caller="+15551234567",
        model={"umbrella": [uses("take_message", message="Lost an umbrella.", name="Ann\nX-Bad: yes"), "Noted."]},
    )
    await call.says("I lost my umbrella")
    await call.hangs_up()
    await until(lambda: bool(keeper.messages))
    (message,) = keeper.messages
    assert message["Subject"] == "Ann X-Bad: yes on test, +15551234567"
    assert (message["To"], message["From"], message["X-Bad"]) == ("desk@example.com", "box@example.com", None)
    assert message["X-Appliance-Line"] is None
    text = message.get_body().get_content()
    assert "Caller: I lost my umbrella" in text
    assert "message: Lost an umbrella." in text
    (audio,) = message.iter_attachments()
    assert (audio.get_content_type(), audio.get_filename()) == ("audio/wav", "call-1.wav")
    assert audio.get_content()[:4] == b"RIFF"
    outbox = tmp_path / "plugins" / "voicemail" / "outbox"
    await until(lambda: not list(outbox.glob("*")))


async def test_only_calls_with_a_message_are_sent_where_the_operator_wants_it(
    scripted_call: Any, sink: tuple[Sink, int], tmp_path: Path
) -> None:
    keeper, port = sink
    values = {**ADDRESSES, "server": server(port), "only_with": "message"}
    call = await scripted_call(plugins={"voicemail": values}, model={"hello": "Hello."}, state_dir=tmp_path)
    await call.says("hello")
    await call.hangs_up()
    assert list((tmp_path / "plugins" / "voicemail" / "outbox").iterdir()) == []
    assert keeper.messages == []


async def test_a_message_outlives_the_plugin_host(scripted_call: Any, sink: tuple[Sink, int], tmp_path: Path) -> None:
    keeper, port = sink
    keeper.busy = 1
    values = {**ADDRESSES, "server": server(port)}
    call = await scripted_call(plugins={"voicemail": values}, model={"hello": "Hello."}, state_dir=tmp_path)
    await call.says("hello")
    await call.hangs_up()
    await until(lambda: keeper.busy == 0)
    await call.close()
    assert keeper.messages == []
    await scripted_call(plugins={"voicemail": values}, state_dir=tmp_path)
    await until(lambda: bool(keeper.messages))
