"""``appliance demo``: a whole call on this machine, told as it happens.

A box is started as an operator would start it, on free loopback ports and with the shipped dialplans. A softphone in
another process calls it over real SIP and RTP and speaks with another synthetic voice. What the caller said is known
here; what the box understood is read from its own record of the call.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from appliance.cli.box import Box, BoxError
from appliance.store.calls import CallReader, CallStore
from appliance.store.records import CallRecord, TurnRecord

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

SCRIPT: Final = ("I'd like to book a table", "a table for two", "half past eight", "that is right")
"""What the caller of the demonstration says to the shipped ``dialplans/reception.yaml``."""
TURNS_WANTED: Final = 3
CALL_TIMEOUT_S: Final = 90.0
_POLL_S: Final = 0.1


@dataclass
class Conversation:
    """The call so far. ``latencies_ms`` are those of the wire, as the softphone measured them, one for each reply."""

    said: list[tuple[float, str]] = field(default_factory=list)
    told: int = 0
    ended: str = ""
    latencies_ms: list[float | None] = field(default_factory=list)
    understood: int = 0
    printed: int = 0
    began: float = field(default_factory=time.monotonic)

    def line(self, who: str, text: str, at: float | None = None) -> None:
        """One line of the conversation; ``at`` is when it happened, if not just now."""
        when = time.monotonic() if at is None else at
        print(f"{when - self.began:6.1f} s  {who:<10} {text}", flush=True)


def add_parser(subparsers: Subparsers) -> None:
    """Add ``demo`` to the main command line."""
    parser = subparsers.add_parser(
        "demo",
        help="a whole call on this machine: a caller speaks, is understood and answered",
        description=__doc__,
    )
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="where record and recording go (default: var/demo/TIME)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when at least three turns were understood and answered, 1 when not."""
    directory = args.directory or Path("var", "demo", time.strftime("%Y%m%d-%H%M%S"))
    return asyncio.run(_demo(directory))


async def _demo(directory: Path) -> int:
    talk = Conversation()
    box = Box(directory)
    print("starting the appliance: it loads its speech models once, for all calls", flush=True)
    try:
        await asyncio.to_thread(box.start)
        talk.line("ready", f"SIP on 127.0.0.1:{box.sip_port}, HTTP on 127.0.0.1:{box.http_port}")
        record = await _converse(box, talk)
    finally:
        code = await asyncio.to_thread(box.stop)
    return _conclude(box, talk, record, code)


async def _converse(box: Box, talk: Conversation) -> CallRecord | None:
    """Let a softphone call and tell both sides of it; the record of the call when it is over."""
    uri = box.uri("reception")
    command = [sys.executable, "-m", "appliance.cli.main", "call", uri, "--json", "--listen"]
    for text in SCRIPT:
        command += ["--say", text]
    talk.line("calling", uri)
    caller = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    if caller.stdout is None or caller.stderr is None:
        raise BoxError("the softphone cannot be listened to")
    reader = await CallStore.open_read_only(f"sqlite+aiosqlite:///{box.database}")
    watching = asyncio.create_task(_watch_record(reader, talk))
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            async for line in caller.stdout:
                _tell_caller(json.loads(line), talk)
            await caller.wait()
        if caller.returncode == 2:
            raise BoxError((await caller.stderr.read()).decode(errors="replace").strip())
        return await _settled(reader, talk)
    except TimeoutError:
        raise BoxError(f"the call was not over after {CALL_TIMEOUT_S:.0f} s:\n{box.log_tail()}") from None
    finally:
        if caller.returncode is None:
            caller.kill()
            await caller.wait()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await reader.close()


def _tell_caller(event: dict[str, Any], talk: Conversation) -> None:
    match event["event"]:
        case "answered":
            talk.line("answered", f"after {event['after_s'] * 1e3:.0f} ms")
        case "speaking":
            talk.said.append((time.monotonic(), event["what"]))
            talk.latencies_ms.append(None)
        case "reply":
            talk.latencies_ms[-1] = event["latency_ms"]
        case "no_reply":
            talk.line("problem", "no reply")
        case "ended":
            talk.ended = "the caller" if event["by"] == "us" else "the agent"


async def _watch_record(reader: CallReader, talk: Conversation) -> None:
    """Tell the turns as they appear on record."""
    while True:
        newest = await reader.recent(1)
        record = await reader.get(newest[0].id) if newest else None
        if record is not None:
            _tell_turns(record, talk)
        await asyncio.sleep(_POLL_S)


def _tell_turns(record: CallRecord, talk: Conversation) -> None:
    for turn in record.turns[talk.printed :]:
        talk.printed += 1
        if turn.by == "voice":
            _tell_what_was_said(talk)
            talk.line("understood", _understanding(turn, talk))
        if turn.agent_text:
            talk.line("agent", turn.agent_text if not turn.interrupted else f"{turn.heard_text} (interrupted)")


def _tell_what_was_said(talk: Conversation) -> None:
    """The caller's words beside what was made of them: the record has a turn when its reply is over."""
    if talk.told < len(talk.said):
        at, text = talk.said[talk.told]
        talk.told += 1
        talk.line("caller", text, at)


def _understanding(turn: TurnRecord, talk: Conversation) -> str:
    """What was understood, how surely, and the latencies of record and wire."""
    parts = [repr(turn.caller_text) if turn.accepted else f"nothing expected ({turn.caller_text!r}?)"]
    if turn.confidence is not None:
        parts.append(f"confidence {turn.confidence:.2f}")
    if turn.latency_ms is not None:
        parts.append(f"answered in {turn.latency_ms:.0f} ms")
        talk.understood += turn.accepted
    return ", ".join(parts)


async def _settled(reader: CallReader, talk: Conversation, timeout_s: float = 5.0) -> CallRecord | None:
    """The record once the call has ended there too."""
    deadline = time.monotonic() + timeout_s
    while True:
        newest = await reader.recent(1)
        record = await reader.get(newest[0].id) if newest else None
        over = record is not None and record.disposition != "in_progress" and record.recording_frames is not None
        if over or time.monotonic() > deadline:
            if record is not None:
                _tell_turns(record, talk)
            return record
        await asyncio.sleep(_POLL_S)


def _conclude(box: Box, talk: Conversation, record: CallRecord | None, code: int) -> int:
    wire = [f"{latency:.0f}" if latency is not None else "none" for latency in talk.latencies_ms]
    if talk.ended:
        talk.line("hung up", f"by {talk.ended}")
    print()
    print(f"{talk.understood} of {len(talk.said)} turns understood and answered")
    print(f"latency on the wire, from the end of speech to the reply: {', '.join(wire)} ms")
    if record is not None:
        slots = ", ".join(f"{name} = {value}" for name, value in record.slots.items())
        print(f"outcome:   {record.disposition}; {slots or 'nothing collected'}")
        print(f"recording: {record.recording_path}")
        print(f"record:    appliance calls show {record.id} --set state_dir={box.directory}")
    print(f"log:       {box.log}")
    if code != 0:
        print(f"the appliance left with {code}; the end of its log:\n{box.log_tail()}")
    return 0 if talk.understood >= TURNS_WANTED and code == 0 else 1
