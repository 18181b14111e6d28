"""Many simulated calls by Twilio at once, and what they have found: the engine of ``appliance bench``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import hmac
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import urljoin

import aiohttp
import numpy as np

from appliance.api.streams import printable
from appliance.cli.carrier_caller import FRAME_S, CarrierCaller, Metronome, Speech
from appliance.cli.stream_caller import TwilioCaller, TwilioStreamOf, connect, sid
from appliance.errors import CarrierError

GREETING_S: Final = 4.0
"""So long is waited for a greeting; then the caller speaks first."""
ANSWER_S: Final = 10.0
"""So long is waited for an answer; then the caller says the next thing."""
QUIET_S: Final = 0.7
"""After so much silence it is the caller's turn."""
MAX_REPLY_S: Final = 60.0
_WEBHOOK_S: Final = 15.0
_MAX_BODY: Final = 65_536
_AFTER_STALL_S: Final = 0.01
_Form = Sequence[tuple[str, str]]


def signature(token: str, url: str, form: _Form) -> str:
    """``X-Twilio-Signature`` of a request: HMAC-SHA1 over the URL and the form's fields in order of their names."""
    text = url + "".join(name + value for name, value in sorted(set(form)))
    return base64.b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def stream_of(document: str) -> tuple[str, dict[str, str], str]:
    """URL and parameters of the ``<Connect><Stream>`` in a TwiML document, and the address to be asked afterwards.

    Raises:
        CarrierError: there is none; the message says what there is instead.
    """
    if "<!" in document.replace("<!--", ""):
        raise CarrierError("the webhook answered with a document type, which is no TwiML")
    try:
        root = ET.fromstring(document)
    except ET.ParseError as error:
        raise CarrierError(f"the webhook's answer is no TwiML: {error}") from None
    noun = root.find("Connect/Stream")
    if noun is None or not noun.get("url"):
        verbs = ", ".join(printable(child.tag) for child in root) or "nothing"
        raise CarrierError(
            f"the webhook answered with {verbs} and not with <Connect><Stream>; is the number on a line?"
        )
    parameters = {found.get("name", ""): found.get("value", "") for found in noun.findall("Parameter")}
    verb = root.find("Connect")
    return noun.get("url", ""), parameters, (verb.get("action", "") if verb is not None else "")


@dataclass(frozen=True)
class Target:
    """Where the calls go: straight to a stream at ``url``, or by a webhook that is signed with ``auth_token``."""

    url: str = ""
    webhook: str = ""
    auth_token: str = field(default="", repr=False)
    account_sid: str = field(default_factory=lambda: sid("AC"))
    to: str = "+4930123456"
    from_: str = "+491711234567"


@dataclass(frozen=True)
class StreamedCall:
    """A call whose stream is open; ``action`` is the address to be told of its end, "" for none."""

    caller: TwilioCaller
    call_sid: str
    action: str


class Number:
    """Somebody who dials a target, over and over. An asynchronous context manager."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Number:
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def dial(self, caller: TwilioCaller | None = None) -> StreamedCall:
        """Call, as ``caller`` where one is given (its ``of`` is replaced).

        Raises:
            CarrierError: the webhook refused, or nobody answers at the stream.
        """
        call_sid, url, action = sid("CA"), self.target.url, ""
        parameters: Mapping[str, str] = {}
        if not url:
            document = await self._post(self.target.webhook, call_sid, "ringing")
            url, parameters, action = stream_of(document)
            action = urljoin(self.target.webhook, action) if action else ""
        caller = caller or TwilioCaller()
        caller.of = TwilioStreamOf(self.target.account_sid, call_sid, parameters)
        headers = {"X-Twilio-Signature": signature(self.target.auth_token, url, ())}
        caller.begin(await connect(url, session=self._http, headers=headers))
        return StreamedCall(caller, call_sid, action)

    async def hang_up(self, call: StreamedCall) -> None:
        """End the call, and tell the box as the carrier does."""
        await call.caller.hang_up()
        if call.action:
            with contextlib.suppress(CarrierError, asyncio.CancelledError):
                await self._post(call.action, call.call_sid, "completed")

    async def _post(self, url: str, call_sid: str, status: str) -> str:
        form = [
            ("CallSid", call_sid), ("AccountSid", self.target.account_sid), ("From", self.target.from_),
            ("To", self.target.to), ("CallStatus", status), ("Direction", "inbound"), ("ApiVersion", "2010-04-01"),
        ]  # fmt: skip
        headers = {"X-Twilio-Signature": signature(self.target.auth_token, url, form)}
        if self._http is None:
            raise CarrierError("the calls have ended")
        try:
            async with self._http.post(
                url, data=aiohttp.FormData(form), headers=headers, timeout=aiohttp.ClientTimeout(total=_WEBHOOK_S)
            ) as reply:
                body = (await reply.content.read(_MAX_BODY)).decode("utf-8", "replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CarrierError(f"no answer from the webhook {url}: {error or type(error).__name__}") from None
        if reply.status == 403:
            raise CarrierError(
                f"{url} refused with 403; is --auth-token the trunk's, and is the address the one in its public_url?"
            )
        if reply.status not in (200, 204):
            raise CarrierError(f"the webhook {url} answered {reply.status}")
        return body


@dataclass
class Found:
    """What the calls found while they were measured. Times in milliseconds.

    ``headroom`` is what was left to be played when the next piece of an utterance arrived; ``late`` how late this
    process's own clock was at worst, which bounds how exact all of it is. ``doubtful`` counts the breaks that ended
    while this process itself did not run; they are no underruns of the box, as far as anybody can tell.
    """

    calls: int
    lost: int
    seconds: float
    speech_min: float
    underruns: int
    doubtful: int
    turns: int
    latency_p50_ms: float
    latency_p95_ms: float
    lead_p50_ms: float
    lead_p99_ms: float
    lead_max_ms: float
    headroom_p1_ms: float
    headroom_min_ms: float
    late_ms: float
    failures: dict[str, int]
    violations: dict[str, int]

    @property
    def underruns_per_min(self) -> float:
        """Underruns per minute of speech heard."""
        return self.underruns / self.speech_min if self.speech_min else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "underruns_per_min": round(self.underruns_per_min, 3)}


class Load:
    """So many calls, each of which speaks, listens to the answer, and speaks again.

    Use as an asynchronous context manager; leaving it hangs up.

    Args:
        speech: what is said, one after the other; each call begins elsewhere in it.
        per_s: how many calls are begun in a second.
    """

    def __init__(self, target: Target, calls: int, speech: Sequence[Speech], per_s: float = 5.0) -> None:
        self.target = target
        self.calls = calls
        self.callers: list[CarrierCaller] = []
        self.failures: Counter[str] = Counter()
        self._speech = list(speech)
        self._per_s = per_s
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving = asyncio.Event()
        self._number = Number(target)

    async def __aenter__(self) -> Load:
        await self._number.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leaving.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(caller.hang_up() for caller in self.callers))
        await self._number.__aexit__()

    async def place(self) -> None:
        """Begin all calls; returns when each is up or has failed."""
        up = []
        for number in range(self.calls):
            placed = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._call(number, placed)))
            up.append(placed.wait())
            await asyncio.sleep(1 / self._per_s)
        await asyncio.gather(*up)

    async def measure(self, seconds: float) -> Found:
        """Let them talk for so long, and say what was found in that time."""
        metronome = Metronome.of_loop()
        metronome.worst_s = 0.0
        gc.disable()  # a collection among so many pieces of audio would take longer than a frame
        try:
            began = time.monotonic()
            await asyncio.sleep(seconds)
            return found_between(self, began, time.monotonic())
        finally:
            gc.enable()

    async def _call(self, number: int, placed: asyncio.Event) -> None:
        try:
            call = await self._number.dial()
        except CarrierError as error:
            self.failures[str(error)] += 1
            return
        finally:
            placed.set()
        self.callers.append(call.caller)
        try:
            await self._talk(call.caller, number)
        finally:
            await self._number.hang_up(call)

    async def _talk(self, caller: CarrierCaller, number: int) -> None:
        with contextlib.suppress(CarrierError):
            await caller.wait_heard(after=0.0, timeout_s=GREETING_S)
        while not caller.ended.is_set():
            with contextlib.suppress(CarrierError):
                await caller.wait_quiet(QUIET_S, MAX_REPLY_S)
                if caller.ended.is_set():
                    return
                ended = await caller.say(self._speech[number % len(self._speech)])
                number += 1
                await caller.wait_heard(after=ended, timeout_s=ANSWER_S)


def found_between(load: Load, began: float, ended: float) -> Found:
    """What the calls of a load found between two times of ``time.monotonic``."""
    gaps, doubtful, played = 0, 0, 0.0
    stalls = list(Metronome.of_loop().stalls)
    turns: list[float] = []
    leads: list[float] = []
    headroom: list[float] = []
    violations: Counter[str] = Counter()
    lost = 0
    for caller in load.callers:
        playout = caller.playout
        for gap in playout.gaps:
            if began <= gap.at < ended:
                over = gap.at + gap.seconds
                asleep = any(start <= over <= end + _AFTER_STALL_S for start, end in stalls)
                gaps, doubtful = gaps + (not asleep), doubtful + asleep
        turns += [first - asked for asked, first in playout.turns if began <= asked and first < ended]
        for came, lead, length in zip(playout.arrivals, playout.leads, playout.lengths, strict=True):
            if began <= came < ended:
                leads.append(lead)
                if lead > length:
                    headroom.append(lead - length)
        played += sum(playout.duration(piece) for piece in playout.pieces if began <= piece.start < ended)
        for what in caller.violations:
            violations[what.partition(":")[0][:120]] += 1
        lost += caller.ended.is_set() and caller.ended_by != "us"

    def at(values: list[float], share: float) -> float:
        return round(float(np.percentile(values, share)) * 1e3, 1) if values else 0.0

    return Found(
        calls=load.calls, lost=lost, seconds=round(ended - began, 1), speech_min=round(played / 60, 2), underruns=gaps,
        doubtful=doubtful,
        turns=len(turns), latency_p50_ms=at(turns, 50), latency_p95_ms=at(turns, 95), lead_p50_ms=at(leads, 50),
        lead_p99_ms=at(leads, 99), lead_max_ms=at(leads, 100), headroom_p1_ms=at(headroom, 1),
        headroom_min_ms=at(headroom, 0), late_ms=round(Metronome.of_loop().worst_s * 1e3, 1),
        failures=dict(load.failures), violations=dict(violations),
    )  # fmt: skip


TOO_LATE_MS: Final = FRAME_S * 1e3
"""A load generator whose clock was later than this has measured itself."""
