"""``appliance call``: a softphone on the command line.

It dials, listens, and says one thing after the other, each once the agent has stopped speaking. Times are seconds
since the answer; a turn's latency runs from the end of the caller's speech to the first packet of the agent's reply,
both at this softphone's socket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from appliance.cli.dialler import SipDialler, local_host_towards
from appliance.cli.rtp_stream import Pcm
from appliance.cli.say import CALLER_VOICE, speak
from appliance.cli.softphone import CallOver, NothingHeard, Softphone, read_wav

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

REPLY_TIMEOUT_S = 12.0
LISTEN_S = 30.0


@dataclass(frozen=True)
class Utterance:
    """Something to say: its name for people, and its audio (int16, 8 kHz)."""

    name: str
    pcm: Pcm


class Narrator:
    """Tells what happens as it happens: lines for people, or JSON objects for programs."""

    def __init__(self, as_json: bool, out: TextIO) -> None:
        self._json = as_json
        self._out = out
        self.began = time.time()

    def say(self, event: str, text: str, at: float | None = None, **more: Any) -> None:
        """One event. ``at`` is CLOCK_REALTIME, now when None; ``text`` is the line for people."""
        seconds = (time.time() if at is None else at) - self.began
        if self._json:
            line = json.dumps({"event": event, "at_s": round(seconds, 3), **more})
        else:
            line = f"{seconds:7.2f}  {text}"
        print(line, file=self._out, flush=True)


def add_parser(subparsers: Subparsers) -> None:
    """Add ``call`` to the main command line."""
    parser = subparsers.add_parser(
        "call",
        help="a softphone: dial a SIP URI, speak or play a file, listen",
        description=__doc__,
        epilog='Example: appliance call sip:100@127.0.0.1 --say "I would like to book a table" --say "for four people"',
    )
    parser.add_argument("uri", metavar="URI", help="whom to call, such as sip:100@127.0.0.1:5060")
    parser.add_argument("--wav", action=_Script, metavar="FILE", help="say this recording (16-bit WAV of any rate)")
    parser.add_argument("--say", action=_Script, metavar="TEXT", help="say this text, with a synthetic voice")
    parser.add_argument("--digits", action=_Script, metavar="KEYS", help="press these keys")
    parser.add_argument(
        "--listen",
        action="store_true",
        help="after the script, stay until the other side hangs up, at most 30 s; without a script it always does",
    )
    parser.add_argument("--duration", type=float, metavar="S", help="hang up after this many seconds, whatever happens")
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep what was heard as a WAV file")
    parser.add_argument("--voice", default=CALLER_VOICE, help=f"voice of --say (default: {CALLER_VOICE})")
    parser.add_argument("--timeout", type=float, default=20.0, metavar="S", help="wait this long for the answer")
    parser.add_argument("--json", action="store_true", help="print one JSON object per event")
    parser.set_defaults(run=run, script=[])


class _Script(argparse.Action):
    """``--wav``, ``--say`` and ``--digits`` make one script, in the order given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        namespace.script = [*namespace.script, (self.dest, values)]


def run(args: argparse.Namespace) -> int:
    """Make the call: 0 when it was answered and every utterance got a reply, 1 when one did not."""
    return asyncio.run(_call(args))


async def _call(args: argparse.Namespace) -> int:
    script = await _prepare(args.script, args.voice)
    host = local_host_towards(args.uri)
    narrator = Narrator(args.json, sys.stdout)
    async with SipDialler(host) as dialler, Softphone(dialler, host) as phone:
        narrator.say("dialling", f"dialling {args.uri}", uri=args.uri)
        await phone.dial(args.uri, args.timeout)
        narrator.say(
            "answered", "answered", at=phone.answered_at, after_s=round(phone.answered_at - phone.dialled_at, 3)
        )
        narrator.began = phone.answered_at
        try:
            async with asyncio.timeout(args.duration):
                missed = await _converse(phone, script, narrator, listen=args.listen or not script)
        except TimeoutError:
            missed = 0
        except CallOver:
            missed = 1 if script else 0
        by = "us" if not phone.ended else await phone.wait_hangup(0.1)
        await phone.hangup()
        narrator.say("ended", f"call over, ended by {by}", by=by)
    for start, end in phone.heard():
        narrator.say("heard", f"agent spoke until {end:.2f}", at=narrator.began + start, until_s=round(end, 3))
    if args.save is not None:
        phone.save(args.save)
        narrator.say("saved", f"what was heard is in {args.save}", path=str(args.save))
    return 1 if missed else 0


async def _prepare(script: list[tuple[str, str]], voice: str) -> list[Utterance | str]:
    """The script with its audio made; keys stay text."""
    texts = [value for kind, value in script if kind == "say"]
    spoken = iter(await speak(texts, voice) if texts else [])
    found: list[Utterance | str] = []
    for kind, value in script:
        if kind == "say":
            found.append(Utterance(value, next(spoken)))
        elif kind == "wav":
            found.append(Utterance(value, read_wav(Path(value))))
        else:
            found.append(value)
    return found


async def _converse(phone: Softphone, script: list[Utterance | str], narrator: Narrator, *, listen: bool) -> int:
    """Play the script; gives how many utterances got no reply."""
    missed = 0
    with contextlib.suppress(CallOver):
        for item in script:
            with contextlib.suppress(NothingHeard):
                await phone.wait_agent_silent(REPLY_TIMEOUT_S)
            began = time.time()
            if isinstance(item, str):
                phone.send_digits(item)
                narrator.say("pressed", f"pressed {item}", keys=item)
                continue
            narrator.say("speaking", f"saying {item.name!r}", what=item.name)
            speech_end = await phone.play(item.pcm)
            try:
                turn = await phone.wait_reply(speech_end, REPLY_TIMEOUT_S)
            except NothingHeard as error:
                missed += 1
                narrator.say("no_reply", str(error))
                continue
            narrator.say(
                "reply", f"reply after {turn.latency_s * 1e3:.0f} ms", at=turn.reply_at,
                latency_ms=round(turn.latency_s * 1e3, 1), spoke_s=round(speech_end - began, 3),
            )  # fmt: skip
        if listen:
            with contextlib.suppress(NothingHeard):
                await phone.wait_hangup(LISTEN_S if script else 86400.0)
        elif script:
            with contextlib.suppress(NothingHeard):
                await phone.wait_agent_silent(REPLY_TIMEOUT_S, quiet_s=1.0)
    return missed
