"""``appliance bench``: how many calls this box holds, with simulated callers that speak a carrier's own protocol.

Each caller speaks, plays what it hears as the carrier would, and speaks again when it has been answered. An underrun
is a break within what was being said; the lead is how much audio the box has sent ahead of the playing. Without
``--url`` or ``--webhook`` a box of its own is started here, with stand-ins for the speech engines and the model, so
that what is measured is the appliance.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from appliance.cli.box import HOST, Box
from appliance.cli.carrier_caller import Speech
from appliance.cli.carrier_load import TOO_LATE_MS, Found, Load, Target
from appliance.cli.playout import Codec, Pcm
from appliance.cli.say import speak
from appliance.cli.softphone import read_wav
from appliance.cli.stream_caller import sid
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

TOKEN_VARIABLE: Final = "TWILIO_AUTH_TOKEN"
SENTENCES: Final = (
    "I would like to make an appointment for Tuesday at three.",
    "The second one sounds better to me than the first.",
    "Could you tell me when you are open on Saturday?",
)
REPLY: Final = (
    "Sure, I can help you with that. Your appointment is confirmed for Tuesday at three. Is there anything else?"
)
MAX_CALLS: Final = 1000


def add_parser(subparsers: Subparsers) -> None:
    """Add ``bench`` to the main command line."""
    parser = subparsers.add_parser(
        "bench",
        help="place many simulated calls by a carrier's protocol and tell how they went",
        description=__doc__,
        epilog="Example: appliance bench --carrier twilio --calls 24 --seconds 60",
    )
    parser.add_argument("--carrier", choices=["twilio"], default="twilio", help="whose protocol (default: twilio)")
    parser.add_argument("--calls", type=int, default=10, metavar="N", help="calls at a time (default: 10)")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="measure for so long (default: 30)")
    parser.add_argument(
        "--rate", type=float, default=5.0, metavar="N", help="begin so many calls a second (default: 5)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--webhook", metavar="URL", help="the voice webhook of a running box, as in its public_url")
    where.add_argument("--url", metavar="WS_URL", help="a Media Streams server, called without a webhook")
    parser.add_argument(
        "--auth-token", metavar="TOKEN", help=f"the trunk's auth_token (better: in the environment, {TOKEN_VARIABLE})"
    )
    parser.add_argument("--account-sid", metavar="AC...", help="the trunk's account_sid, for --webhook")
    parser.add_argument("--to", default="+4930123456", metavar="NUMBER", help="the number that is called")
    parser.add_argument("--from", dest="from_", default="+491711234567", metavar="NUMBER", help="the caller's number")
    parser.add_argument(
        "--wav", action="append", type=Path, metavar="FILE", help="say this (16-bit WAV); may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when every call held and nothing broke the protocol, 1 when not."""
    if not 1 <= args.calls <= MAX_CALLS:
        raise ApplianceError(f"--calls {args.calls}: between 1 and {MAX_CALLS}")
    if args.seconds <= 0 or args.rate <= 0:
        raise ApplianceError("--seconds and --rate must be more than 0")
    token = args.auth_token or os.environ.get(TOKEN_VARIABLE, "")
    if args.webhook and not (token and args.account_sid):
        raise ApplianceError(
            f"--webhook needs the trunk's --account-sid and, in {TOKEN_VARIABLE}, its auth_token: webhooks are signed"
        )
    return asyncio.run(_bench(args, token))


async def _bench(args: argparse.Namespace, token: str) -> int:
    codec = Codec("pcmu")
    speech = [Speech.of(pcm, codec) for pcm in await _sentences(args.wav or [])]
    _say(args, f"{args.calls} calls by {args.carrier}, {args.rate:g} a second")
    async with contextlib.AsyncExitStack() as stack:
        if args.url or args.webhook:
            target = Target(
                args.url or "", args.webhook or "", token, args.account_sid or sid("AC"), args.to, args.from_
            )
        else:
            _say(args, "starting a box of its own, with stand-ins for the engines")
            target = await stack.enter_async_context(_own_box(args))
        load = await stack.enter_async_context(Load(target, args.calls, speech, args.rate))
        await load.place()
        _say(args, f"{len(load.callers)} calls are up; measuring for {args.seconds:g} s")
        found = await load.measure(args.seconds)
    if args.json:
        print(json.dumps(found.as_dict()))
    else:
        print("\n".join(lines_of(found)))
    return 0 if not found.failures and not found.violations and not found.lost else 1


def lines_of(found: Found) -> list[str]:
    """The result for people."""
    up = found.calls - sum(found.failures.values())
    latency = f"p50 {found.latency_p50_ms:.0f} ms, p95 {found.latency_p95_ms:.0f} ms ({found.turns} turns)"
    lead = f"p50 {found.lead_p50_ms:.0f} ms, p99 {found.lead_p99_ms:.0f} ms, most {found.lead_max_ms:.0f} ms"
    left = f"p1 {found.headroom_p1_ms:.0f} ms, least {found.headroom_min_ms:.0f} ms"
    lines = [
        f"calls         {up} of {found.calls} up, {found.lost} lost",
        f"heard         {found.speech_min:.1f} min of speech in {found.seconds:.0f} s",
        f"underruns     {found.underruns}, {found.underruns_per_min:.2f} per minute of speech",
        f"turn latency  {latency if found.turns else 'no turn was answered'}",
        f"lead          {lead}",
        f"headroom      {left} left to be played when more came",
    ]
    lines += [f"failed        {count} x {what}" for what, count in found.failures.items()]
    lines += [f"protocol      {count} x {what}" for what, count in found.violations.items()]
    if found.doubtful or found.late_ms > TOO_LATE_MS:
        lines.append(
            f"doubtful      the callers themselves were up to {found.late_ms:.0f} ms late, which made {found.doubtful} "
            "breaks more; run them on another machine, or fewer of them"
        )
    return lines


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.json:
        print(text, file=sys.stderr, flush=True)


async def _sentences(paths: list[Path]) -> list[Pcm]:
    if not paths:
        return await speak(SENTENCES)
    try:
        return [read_wav(path) for path in paths]
    except (OSError, EOFError, ValueError) as error:
        raise ApplianceError(f"--wav: {error}") from None


@contextlib.asynccontextmanager
async def _own_box(args: argparse.Namespace) -> AsyncIterator[Target]:
    """A box on loopback, whose number is at a Twilio that is nobody but us."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        token, account = sid(""), sid("AC")
        box = Box(folder / "box", own_settings(folder, args.calls))
        box.settings["trunks"] = trunk_of(account, token, box.http_port)
        try:
            await asyncio.to_thread(box.start)
            webhook = f"http://{HOST}:{box.http_port}/twilio/voice"
            yield Target("", webhook, token, account, args.to, args.from_)
        finally:
            await asyncio.to_thread(box.stop)


def trunk_of(account: str, token: str, http_port: int) -> dict[str, Any]:
    """The trunk of a box that is called from this machine; its API is never asked."""
    return {
        "twilio": {
            "kind": "twilio", "account_sid": account, "auth_token": token, "api_url": f"http://{HOST}:9",
            "public_url": f"http://{HOST}:{http_port}",
        }
    }  # fmt: skip


def own_settings(folder: Path, calls: int) -> dict[str, object]:
    """A line that answers whatever is said, by engines that cost nothing but their usual delays."""
    line = {
        "name": "bench",
        "greeting": "Good morning.",
        "no_input": {"after_s": 600},
        "reject_unexpected": False,
        "no_match": {"prompts": [REPLY], "retries": 1, "then": "listen"},
        "flow": {"listen": {"ask": REPLY, "expect": {"any": ["yes please"]}, "next": "listen"}},
    }
    plans = folder / "dialplans"
    plans.mkdir(parents=True)
    (plans / "bench.yaml").write_text(yaml.safe_dump(line, sort_keys=False))
    return {
        "dialplans.paths": [str(plans)],
        "engines.asr": {"provider": "fake", "delay_ms": 100, "text": "yes please"},
        "engines.tts": {"provider": "fake", "first_audio_ms": 100, "chunk_ms": 20},
        "limits.max_calls": calls + 10,
        "limits.max_cps": 300,
        "limits.streams_per_address": calls + 10,
        "limits.drain_s": 5,
        "log.level": "warning",
    }
