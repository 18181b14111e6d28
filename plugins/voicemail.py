"""Sends what callers have said on by e-mail: the words, what was noted, and the recording.

A message is on disk before it is sent, and stays there until a mail server has taken it: it survives a restart.

Pages: docs/plugins/voicemail.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import smtplib
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr

from appliance.api import Box, Call, PluginValues, hookimpl

API = 1
SUMMARY = "Sends recordings and transcripts of calls by e-mail."

logger = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
_FIRST_AGAIN_S = 5.0
_LAST_AGAIN_S = 1800.0
_GIVE_UP_S = 3 * 86400.0
_MOST_WAITING = 1000
_TO_LINE = "X-Appliance-Line"


class Server(PluginValues):
    """The mail server that takes the messages.

    Attributes:
        host: its name.
        port: by default 465 with `tls`, else 587.
        security: `starttls`, `tls`, or `none` for one on this machine.
        username, password: where it wants them; the password as `!secret NAME`.
    """

    host: str
    port: int = Field(default=0, ge=0, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password: SecretStr = SecretStr("")


class Values(PluginValues):
    """What an operator may write below `voicemail`.

    Attributes:
        to: who gets the messages.
        sender: the address they come from.
        server: the mail server.
        only_with: the name of a slot: only calls that have it are sent on. "" sends every call in which the caller
            said something, or that was recorded.
        subject: of the message; `{caller}`, `{line}` and `{name}` (the slot `message.name`) stand for these.
        attach: whether the recording is attached.
        max_attachment_mb: a longer recording is not attached; the message says where it is.
    """

    to: tuple[str, ...] = Field(min_length=1)
    sender: str = Field(pattern=r"^[^@\s<>]+@[^@\s<>]+$")
    server: Server
    only_with: str = ""
    subject: str = "A message from {caller}"
    attach: bool = True
    max_attachment_mb: float = Field(default=10.0, gt=0, le=100)


class Outbox:
    """Messages on disk, and the task that sends them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: dict[str, Server] = {}
        self._more = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._again: dict[Path, tuple[float, float]] = {}
        self._task: asyncio.Task[None] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        self._task = self._loop.create_task(self._run(), name="voicemail outbox")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def take(self, name: str, message: EmailMessage) -> None:
        """Write a message down; it is sent as soon as its server takes it. One of the same name is kept as it is."""
        path = self._folder / f"{name}.eml"
        if path.exists() or len(list(self._folder.glob("*.eml"))) >= _MOST_WAITING:
            logger.error("message %s is not kept: it is there already, or too many wait", name)
            return
        draft = path.with_suffix(".part")
        with draft.open("wb") as file:
            file.write(message.as_bytes(policy=policy.SMTP))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)

    def wake(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._more.set)

    async def _run(self) -> None:
        while True:
            self._more.clear()
            due = await self._send_all()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), due)

    async def _send_all(self) -> float:
        """Send what is due; how many seconds until something else is."""
        now = asyncio.get_running_loop().time()
        for path in sorted(self._folder.glob("*.eml")):
            at, pause = self._again.get(path, (0.0, _FIRST_AGAIN_S))
            if at > now:
                continue
            try:
                sent = await asyncio.to_thread(_send, path)
            except (OSError, smtplib.SMTPException, ValueError) as error:
                sent = False
                logger.warning("message %s is tried again in %.0f s: %s", path.stem, pause, error)
            if sent or await asyncio.to_thread(_is_old, path):
                self._again.pop(path, None)
                await asyncio.to_thread(_put_away, path, sent)
            else:
                now = asyncio.get_running_loop().time()
                self._again[path] = (now + pause, min(2 * pause, _LAST_AGAIN_S))
        waiting = [at for at, _ in self._again.values()]
        return max(0.1, min(waiting) - now) if waiting else 3600.0


_values: dict[str, Values] = {}
_outbox: list[Outbox] = []


@hookimpl
def appliance_configure(values: Values, line: str) -> None:
    _values[line] = values


@hookimpl
async def appliance_started(box: Box) -> None:
    outbox = Outbox(Path(box.state_dir) / "outbox")
    _outbox.append(outbox)
    outbox.begin()


@hookimpl
async def appliance_stopping() -> None:
    for outbox in _outbox:
        await outbox.close()


@hookimpl
def appliance_record_stored(call: Call, record: Mapping[str, Any]) -> None:
    values: Values = call.values
    message = message_of(call, record, values)
    if message is not None and _outbox:
        message[_TO_LINE] = call.line
        _outbox[-1].take(call.call_id, message)
        _outbox[-1].wake()


def message_of(call: Call, record: Mapping[str, Any], values: Values) -> EmailMessage | None:
    """The message about a call; None for a call that is not sent on."""
    slots = record.get("slots") or {}
    turns = [turn for turn in record.get("turns") or () if turn.get("caller_text") or turn.get("heard_text")]
    said = any(turn.get("caller_text") for turn in turns)
    recording = record.get("recording_path") or ""
    if (values.only_with and values.only_with not in slots) or not (said or recording or values.only_with):
        return None
    caller = _line_of(call.caller or "a withheld number")
    name = _line_of(str(slots.get("message.name", "")))
    message = EmailMessage(policy=policy.SMTP)
    message["Subject"] = _filled(values.subject, caller=caller, line=call.line, name=name)[:200]
    message["From"] = values.sender
    message["To"] = ", ".join(values.to)
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=values.sender.rpartition("@")[2])
    lines = [f"Caller: {caller}", f"Line: {call.line}", f"Called: {_line_of(call.called)}", f"Call: {call.call_id}"]
    lines += [f"{_line_of(str(key))}: {_line_of(str(value))}" for key, value in slots.items()]
    for turn in turns:
        lines += ["", f"Caller: {turn['caller_text']}"] if turn.get("caller_text") else [""]
        lines += [f"Agent: {turn['heard_text']}"] if turn.get("heard_text") else []
    audio, remark = _audio(Path(recording), values) if recording and values.attach else (b"", "")
    message.set_content("\n".join([*lines, *(["", remark] if remark else [])]) + "\n")
    if audio:
        message.add_attachment(audio, maintype="audio", subtype="wav", filename=f"{call.call_id}.wav")
    return message


def _audio(path: Path, values: Values) -> tuple[bytes, str]:
    """The recording, or why it is not there."""
    try:
        if path.stat().st_size > values.max_attachment_mb * 1_000_000:
            return b"", f"The recording is too long for a message: {path}"
        return path.read_bytes(), ""
    except OSError as error:
        return b"", f"The recording {path} cannot be read: {error.strerror}"


def _line_of(text: str) -> str:
    """One line: nothing that a caller's network says begins another header."""
    return " ".join(text.split())[:500]


def _filled(template: str, **values: str) -> str:
    for name, value in values.items():
        template = template.replace("{" + name + "}", value)
    return template


def _server_of(line: str) -> Server:
    """The server of a line's messages; the box's for one that has no values of its own."""
    values = _values.get(line) or _values.get("") or next(iter(_values.values()))
    return values.server


def _send(path: Path) -> bool:
    """Hand one message to its server, which then has it.

    Raises:
        OSError, SMTPException: it does not take it now.
    """
    try:
        with path.open("rb") as file:
            message = BytesParser(policy=policy.SMTP).parse(file)
    except FileNotFoundError:
        return False
    server = _server_of(message[_TO_LINE] or "")
    del message[_TO_LINE]
    kind = smtplib.SMTP_SSL if server.security == "tls" else smtplib.SMTP
    more: dict[str, Any] = {"context": ssl.create_default_context()} if server.security == "tls" else {}
    port = server.port or (465 if server.security == "tls" else 587)
    with kind(server.host, port, timeout=_TIMEOUT_S, **more) as client:
        if server.security == "starttls":
            client.starttls(context=ssl.create_default_context())
        if server.username:
            client.login(server.username, server.password.get_secret_value())
        client.send_message(message)
    return True


def _is_old(path: Path) -> bool:
    return path.exists() and time.time() - path.stat().st_mtime > _GIVE_UP_S


def _put_away(path: Path, sent: bool) -> None:
    if sent:
        path.unlink(missing_ok=True)
        return
    logger.error(
        "message %s could not be sent in %.0f days; it stays as %s.undelivered", path, _GIVE_UP_S / 86400, path
    )
    path.rename(path.with_suffix(".undelivered"))
