"""A farm of people, machines and networks to be called: one process, any number of calls at once.

    python -m tests.bench.callees --port 5099 --log calls.jsonl

Who answers is told by the last digit of the number that is dialled (:data:`BY_LAST_DIGIT`). Everything that is seen
goes into the log, a JSON object a line: ``at`` (time.time), ``event`` (invite, ringing, answered, 486 ..., cancelled,
key, said, message, ended), ``number``, ``call_id``, ``caller_id``, ``behaviour``, and how many calls were ``up``
(between INVITE and end) and ``talking``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
import uvloop
from numpy.typing import NDArray

from appliance.audio import g711
from appliance.cli.say import speak
from appliance.rtp.packet import build
from tests.bench.callee_sip import Address, CalleeSip, Dialled

ROOT = Path(__file__).parents[2]

FRAME_S: Final = 0.02
FRAME: Final = 160
SILENCE: Final = b"\xff" * FRAME
HEARD_DBFS: Final = -45.0
"""A frame of the agent's that is louder is sound."""
_BEEP_HZ, _BEEP_S = 1000.0, 0.4
_PCMU: Final = 0
_LOUD: Final = (g711.decode(np.arange(256, dtype=np.uint8), False).astype(np.float64) / 32768) ** 2
_KEY_PACKETS: Final = 8
_TALK_S: Final = 40.0
"""Nobody stays longer than this."""


@dataclass(frozen=True)
class Says:
    """Say a clip, ``after_s`` of waiting."""

    clip: str
    after_s: float = 0.0


@dataclass(frozen=True)
class Presses:
    """Press a key, ``after_s`` of waiting."""

    digit: str
    after_s: float = 0.0


@dataclass(frozen=True)
class Hears:
    """Wait until the agent has said something and been silent for ``quiet_s``; at most ``limit_s``."""

    quiet_s: float = 0.7
    limit_s: float = 15.0


@dataclass(frozen=True)
class Records:
    """Note what is heard until the far end hangs up, or has been silent for ``silent_s``."""

    silent_s: float = 8.0


@dataclass(frozen=True)
class HangsUp:
    """End the call, ``after_s`` of waiting."""

    after_s: float = 0.0


Step = Says | Presses | Hears | Records | HangsUp


@dataclass(frozen=True)
class Behaviour:
    """What one callee does.

    Attributes:
        rings_s: for so long it rings, from the least to the most; which, the number decides.
        status: the final response; 0: none, it rings until it is cancelled.
        script: what is done once answered; at its end the callee waits for the far end to hang up.
        crosses: it answers just as it is cancelled: its 200 crosses the CANCEL.
        early: a clip that is played over and over before any answer, as early media.
    """

    name: str
    rings_s: tuple[float, float] = (0.3, 1.5)
    status: int = 200
    script: tuple[Step, ...] = ()
    crosses: bool = False
    early: str = ""


CLIPS: Final[Mapping[str, tuple[str, str]]] = {
    "hello": ("Hello?", "en-us+m3"),
    "yes": ("Yes please.", "en-us+m3"),
    "no": ("No thank you.", "en-us+m3"),
    "stop": ("Stop calling me.", "en-gb+m7"),
    "greeting": (
        "Hi, you have reached the voicemail of Robert Miller. I am not able to take your call right now. "
        "Please leave your name and number after the tone, and I will call you back.",
        "en-us+m1",
    ),
    "screen": ("Hi, please state your name and why you're calling, and I will see if this person is available.",
               "en-us+f4"),
    "stay": ("Thanks. Please stay on the line.", "en-us+f4"),
}  # fmt: skip

HUMAN: Final = Behaviour("human", script=(Says("hello", 0.3), Hears(), Says("yes", 0.2), Hears()))
BY_LAST_DIGIT: Final[Mapping[str, Behaviour]] = {
    "0": HUMAN,
    "1": HUMAN,
    "2": Behaviour("busy", (0.05, 0.2), 486),
    "3": Behaviour("no answer", status=0),
    "4": Behaviour("declines", (0.5, 1.5), 603),
    "5": Behaviour("no such number", (0.05, 0.2), 404),
    "6": Behaviour("no service", (0.05, 0.2), 503),
    "7": Behaviour("voicemail", (1.0, 2.0), script=(Says("greeting", 0.4), Says("beep", 0.6), Records())),
    "8": Behaviour(
        "screening",
        (0.1, 0.5),
        script=(
            Says("screen", 0.3),
            Hears(),
            Says("stay", 0.3),
            Says("hello", 3.0),
            Hears(),
            Says("yes", 0.2),
            Hears(),
        ),
    ),
    "9": Behaviour("opts out", script=(Says("hello", 0.3), Hears(), Says("stop", 0.2), Hears())),
}
"""Who answers, by the last digit of the number."""
BY_NAME: Final[Mapping[str, Behaviour]] = {
    "crosses": Behaviour("answers as it is cancelled", status=0, crosses=True),
    "vacant": Behaviour("tells that the number is not in service", status=0, early="vacant"),
    "engaged": Behaviour("plays the busy tone", status=0, early="engaged"),
    "hello": Behaviour("says hello and leaves", (0.1, 0.2), script=(Says("hello", 0.1), HangsUp(0.8))),
    "brief": Behaviour("hangs up at once", (0.1, 0.2), script=(HangsUp(0.5),)),
}
"""Those who are called by their names."""
BY_KEYS: Final[Mapping[str, Behaviour]] = {
    **BY_LAST_DIGIT,
    "0": Behaviour("human", script=(Says("hello", 0.3), Hears(), Presses("1", 0.2), Hears())),
    "1": Behaviour("human", script=(Says("hello", 0.3), Hears(), Presses("1", 0.2), Hears())),
    "9": Behaviour("opts out", script=(Says("hello", 0.3), Hears(), Presses("9", 0.2), Hears())),
}
"""The same people, who press keys instead of speaking: for boxes whose recogniser is a fake."""


async def clips() -> dict[str, list[bytes]]:
    """Everything that callees say, in mu-law frames."""
    found: dict[str, list[bytes]] = {}
    for name, (text, voice) in CLIPS.items():
        (pcm,) = await speak([text], voice)
        found[name] = frames_of(pcm)
    found["beep"] = frames_of(tones((_BEEP_HZ,), _BEEP_S))
    sit = [tones((985.2,), 0.38), tones((1370.6,), 0.274), tones((1776.7,), 0.38), np.zeros(8000, np.int16)]
    found["vacant"] = frames_of(np.concatenate(sit))
    found["engaged"] = frames_of(np.concatenate([tones((480.0, 620.0), 0.5), np.zeros(4000, np.int16)]))
    return found


def tones(frequencies_hz: Sequence[float], length_s: float) -> NDArray[np.int16]:
    """Sines together, at -18 dBFS each."""
    t = np.arange(round(length_s * 8000)) / 8000
    return (sum(np.sin(2 * np.pi * hz * t) for hz in frequencies_hz) * 4000).astype(np.int16)


def frames_of(pcm: NDArray[np.int16]) -> list[bytes]:
    """20 ms each, of mu-law."""
    padded = np.concatenate([pcm, np.zeros(-len(pcm) % FRAME, np.int16)])
    payload = g711.encode(padded, False).tobytes()
    return [payload[at : at + FRAME] for at in range(0, len(payload), FRAME)]


@dataclass
class Talk:
    """An answered call's audio. Times are ``loop.time()``."""

    call: Dialled
    ssrc: int
    saying: list[bytes] = field(default_factory=list)
    at: int = 0
    said: asyncio.Event = field(default_factory=asyncio.Event)
    keys: list[bytes] = field(default_factory=list)
    sequence: int = 0
    timestamp: int = 0
    key_at: int = 0
    began_at: float = 0.0
    first_sound_at: float | None = None
    last_sound_at: float | None = None
    sound_frames: int = 0

    def say(self, frames: list[bytes]) -> None:
        self.saying, self.at = frames, 0
        self.said.clear()

    def next_payload(self) -> bytes:
        if self.at < len(self.saying):
            self.at += 1
            return self.saying[self.at - 1]
        self.said.set()
        return SILENCE


class Farm(asyncio.DatagramProtocol):
    """The callees; an asynchronous context manager.

    Args:
        behaviours: by the last digit.
        log: a file for what is seen, or None.
        spoken: from :func:`clips`.
    """

    def __init__(
        self,
        spoken: Mapping[str, list[bytes]],
        behaviours: Mapping[str, Behaviour] = BY_LAST_DIGIT,
        log: TextIO | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._spoken = spoken
        self._behaviours = behaviours
        self._log = log
        self._where = (host, port)
        self._sip = CalleeSip(lambda: self._rtp_address, self._called, self._seen)
        self._rtp: asyncio.DatagramTransport | None = None
        self._rtp_address: Address = ("", 0)
        self._talks: dict[Address, Talk] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pacer: asyncio.Task[None] | None = None
        self._up: set[str] = set()
        self._talking: set[str] = set()
        self.entries: list[dict[str, Any]] = []

    @property
    def port(self) -> int:
        """Of SIP, once it is open."""
        return self._sip.address[1]

    async def __aenter__(self) -> Farm:
        loop = asyncio.get_running_loop()
        self._rtp, _ = await loop.create_datagram_endpoint(lambda: self, (self._where[0], 0))
        self._rtp_address = self._rtp.get_extra_info("sockname")[:2]
        await self._sip.open(*self._where)
        self._pacer = asyncio.create_task(self._pace(), name="pacer")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self._tasks, *([self._pacer] if self._pacer else [])):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sip.close()
        if self._rtp is not None:
            self._rtp.close()

    # --- what is seen -----------------------------------------------------------------------------------------------

    def _seen(self, event: str, call: Dialled, **more: Any) -> None:
        if event == "invite":
            self._up.add(call.call_id)
        elif event == "answered":
            self._talking.add(call.call_id)
        elif event == "ended":
            self._up.discard(call.call_id)
            self._talking.discard(call.call_id)
            more["by"] = call.ended_by
        entry = {
            "at": time.time(),
            "event": event,
            "number": call.number,
            "call_id": call.call_id,
            "caller_id": call.caller_id,
            "behaviour": self._behaviour(call).name,
            "up": len(self._up),
            "talking": len(self._talking),
            **more,
        }
        self.entries.append(entry)
        if self._log is not None:
            self._log.write(json.dumps(entry) + "\n")
            self._log.flush()

    def _behaviour(self, call: Dialled) -> Behaviour:
        return BY_NAME.get(call.number) or self._behaviours.get(call.number[-1:], HUMAN)

    # --- a call -----------------------------------------------------------------------------------------------------

    def _called(self, call: Dialled) -> None:
        task = asyncio.create_task(self._take(call), name=f"callee {call.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, call: Dialled) -> None:
        behaviour = self._behaviour(call)
        least, most = behaviour.rings_s
        rings_s = least + (most - least) * (zlib.crc32(call.number.encode()) % 1000) / 1000
        if behaviour.early:
            self._play_early(call, behaviour.early)
        elif behaviour.status in (0, 200, 603):
            self._sip.respond(call, 180)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rings_s if behaviour.status else 300.0):
                await call.cancelled.wait()
        self._talks.pop(call.remote_rtp, None)
        if call.cancelled.is_set():
            self._seen("cancelled", call)
            self._sip.respond(call, 200 if behaviour.crosses else 487)
            return
        self._sip.respond(call, behaviour.status or 480)
        if behaviour.status == 200:
            await self._talk(call, behaviour)

    def _play_early(self, call: Dialled, clip: str) -> None:
        """Early media: 183 with this side's SDP, and a clip over and over."""
        self._sip.respond(call, 183, early=True)
        talk = self._talks[call.remote_rtp] = Talk(call, zlib.crc32(call.call_id.encode()))
        talk.say(self._spoken[clip] * 20)

    async def _talk(self, call: Dialled, behaviour: Behaviour) -> None:
        loop = asyncio.get_running_loop()
        talk = self._talks[call.remote_rtp] = Talk(call, zlib.crc32(call.call_id.encode()), began_at=loop.time())
        script = asyncio.create_task(self._perform(talk, behaviour.script))
        over = asyncio.create_task(call.over.wait())
        try:
            await asyncio.wait({script, over}, timeout=_TALK_S, return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                await asyncio.wait({over}, timeout=max(1.0, talk.began_at + _TALK_S - loop.time()))
        finally:
            for task in (script, over):
                task.cancel()
            await asyncio.gather(script, over, return_exceptions=True)
            if self._talks.get(call.remote_rtp) is talk:  # a box that was killed has the port again
                del self._talks[call.remote_rtp]
        first = None if talk.first_sound_at is None else round(talk.first_sound_at - talk.began_at, 3)
        self._seen("heard", call, first_sound_after_s=first, sound_s=round(talk.sound_frames * FRAME_S, 2))
        await self._sip.hang_up(call)

    async def _perform(self, talk: Talk, script: Sequence[Step]) -> None:
        for step in script:
            match step:
                case Says(clip, after_s):
                    await asyncio.sleep(after_s)
                    talk.say(self._spoken[clip])
                    await talk.said.wait()
                    self._seen("said", talk.call, clip=clip)
                case Presses(digit, after_s):
                    await asyncio.sleep(after_s)
                    self._press(talk, digit)
                    self._seen("key", talk.call, digit=digit)
                case Hears(quiet_s, limit_s):
                    await self._hear(talk, quiet_s, limit_s)
                case Records(silent_s):
                    before = talk.sound_frames
                    talk.last_sound_at = asyncio.get_running_loop().time()
                    try:
                        await self._hear(talk, silent_s, _TALK_S)
                        await self._sip.hang_up(talk.call)
                    finally:
                        left_s = round((talk.sound_frames - before) * FRAME_S, 2)
                        self._seen("message", talk.call, sound_s=left_s)
                case HangsUp(after_s):
                    await asyncio.sleep(after_s)
                    await self._sip.hang_up(talk.call)

    async def _hear(self, talk: Talk, quiet_s: float, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        while loop.time() < since + limit_s:
            last = talk.last_sound_at
            if last is not None and last >= since and loop.time() - last >= quiet_s:
                return
            await asyncio.sleep(0.05)

    def _press(self, talk: Talk, digit: str) -> None:
        """RFC 4733: an event of 100 ms."""
        event = "0123456789*#".index(digit)
        lengths = [*range(FRAME, 6 * FRAME, FRAME), *[5 * FRAME] * 3]
        ends = [False] * 5 + [True] * 3
        talk.keys = [
            bytes((event, (0x80 if end else 0) | 10)) + length.to_bytes(2, "big")
            for length, end in zip(lengths, ends, strict=True)
        ]

    # --- audio ------------------------------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: Address) -> None:
        talk = self._talks.get(addr)
        if talk is None or len(data) < 12 + FRAME or data[1] & 0x7F != _PCMU:
            return
        energy = float(_LOUD[np.frombuffer(data, np.uint8, FRAME, 12)].mean())
        if energy > 10 ** (HEARD_DBFS / 10):
            now = asyncio.get_running_loop().time()
            talk.sound_frames += 1
            talk.last_sound_at = now
            if talk.first_sound_at is None:
                talk.first_sound_at = now

    async def _pace(self) -> None:
        """A packet of every call each 20 ms, on a grid that does not drift."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += FRAME_S
            wait_s = due - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            elif wait_s < -0.5:
                due = loop.time()
            for remote, talk in list(self._talks.items()):
                self._send(remote, talk)

    def _send(self, remote: Address, talk: Talk) -> None:
        payload = talk.next_payload()
        kind = _PCMU
        at = talk.timestamp
        if talk.keys and talk.call.keys is not None:
            if len(talk.keys) == _KEY_PACKETS:
                talk.key_at = talk.timestamp
            payload, kind, at = talk.keys.pop(0), talk.call.keys, talk.key_at
        assert self._rtp is not None
        self._rtp.sendto(build(kind, talk.sequence, at, talk.ssrc, payload, talk.sequence == 0), remote)
        talk.sequence += 1
        talk.timestamp += FRAME


# --- for other processes ----------------------------------------------------------------------------------------------


class FarmProcess:
    """A farm as a child process; a context manager. ``port`` is where its SIP is."""

    def __init__(self, log: Path, *, keys: bool = False) -> None:
        self.log = log
        command = [
            sys.executable,
            "-m",
            "tests.bench.callees",
            "--log",
            str(log.absolute()),
            *(["--keys"] if keys else []),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.port = 0

    def __enter__(self) -> FarmProcess:
        assert self._process.stdout is not None
        ready = self._process.stdout.readline().split()
        if ready[:1] != ["ready"]:
            raise RuntimeError("the farm of callees did not start")
        self.port = int(ready[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def entries(self) -> list[dict[str, Any]]:
        """What has been seen so far."""
        return list(entries(self.log))


def entries(log: Path) -> Iterator[dict[str, Any]]:
    """What a log holds; a line that is not complete yet is left out."""
    if log.exists():
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def most_in_any_second(log: Sequence[Mapping[str, Any]], window_s: float = 1.0) -> int:
    """The most INVITEs of new calls that came within any ``window_s``."""
    came = sorted(entry["at"] for entry in log if entry["event"] == "invite")
    most = first = 0
    for last, at in enumerate(came):
        while at - came[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_up(log: Sequence[Mapping[str, Any]]) -> int:
    """The most calls between INVITE and end at once."""
    return max((entry["up"] for entry in log), default=0)


def dialled(log: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """How often each number was called."""
    return Counter(entry["number"] for entry in log if entry["event"] == "invite")


async def _serve(arguments: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    spoken = await clips()
    behaviours = BY_KEYS if arguments.keys else BY_LAST_DIGIT
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(arguments.log.open("a")) if arguments.log is not None else None
        async with Farm(spoken, behaviours, log, host=arguments.host, port=arguments.port) as farm:
            print(f"ready {farm.port}", flush=True)
            await stopping.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="of SIP; 0 takes any free one")
    parser.add_argument("--log", type=Path, help="file for what is seen")
    parser.add_argument("--keys", action="store_true", help="people press keys instead of speaking")
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
