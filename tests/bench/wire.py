"""Callers of a box by Twilio's protocol or by SIP, what they are sent back as echo, and what they heard when."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np

from appliance.cli.bench import trunk_of
from appliance.cli.box import HOST, Box
from appliance.cli.carrier_caller import FRAME_S, CarrierCaller, Message, Metronome
from appliance.cli.carrier_load import Number, Target
from appliance.cli.playout import Playout, Run
from appliance.cli.stream_caller import TwilioCaller, sid
from tests.bench.rtp_caller import RtpCaller, between
from tests.bench.uac import BareUac

Over = Literal["twilio", "sip"]
OVER: Final[tuple[Over, ...]] = ("twilio", "sip")

JOIN_S: Final = 0.05
"""A silence up to so long is no break in a sound."""
_LONGEST_PIECE_S: Final = 1.0


@dataclass(frozen=True)
class Echo:
    """What a caller hears comes back this much quieter, and this long after it was played."""

    gain_db: float
    delay_s: float


class _Echoing(CarrierCaller):
    """What is played is also said, in a way."""

    echo: Echo | None = None

    def audio(self, payload: bytes, number: int) -> list[Message]:
        if self.echo is None or self._clock is None:
            return super().audio(payload, number)
        since = self._clock + (number - 1) * FRAME_S - self.echo.delay_s
        heard = between(self.playout, since, since + FRAME_S, _LONGEST_PIECE_S)
        if not heard.any():
            return super().audio(payload, number)
        both = self.codec.decode(payload) + heard * 10 ** (self.echo.gain_db / 20)
        return super().audio(self.codec.encode(np.clip(np.rint(both), -32768, 32767).astype(np.int16)), number)


class _TwilioEchoing(_Echoing, TwilioCaller):
    pass


class _SipEchoing(_Echoing, RtpCaller):
    pass


class Exchange:
    """Places calls to one box, or to a Media Streams server at ``url``. An asynchronous context manager."""

    def __init__(self, box: Box | None = None, url: str = "") -> None:
        self._box = box
        target = Target(url=url)
        if box is not None and "twilio" in _trunks(box):
            trunk = _trunks(box)["twilio"]
            webhook = f"http://{HOST}:{box.http_port}/twilio/voice"
            target = Target("", webhook, trunk["auth_token"], trunk["account_sid"])
        self._target = target
        self._stack = contextlib.AsyncExitStack()
        self._uac: BareUac | None = None

    async def __aenter__(self) -> Self:
        if self._box is not None:
            self._uac = await self._stack.enter_async_context(BareUac((HOST, self._box.sip_port)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def call(self, over: Over, number: str = "", echo: Echo | None = None) -> AsyncIterator[CarrierCaller]:
        """A call to ``number`` that has been answered; hung up at the end.

        Raises:
            CallFailed, CarrierError: refused.
        """
        if over == "sip":
            assert self._box is not None and self._uac is not None
            phone = _SipEchoing()
            phone.echo = echo
            await phone.dial(self._uac, self._box.uri(number))
            try:
                yield phone
            finally:
                await phone.hang_up()
            return
        to = number or self._target.to
        here = Target(self._target.url, self._target.webhook, self._target.auth_token, self._target.account_sid, to)
        async with Number(here) as line:
            caller = _TwilioEchoing()
            caller.echo = echo
            call = await line.dial(caller)
            try:
                yield caller
            finally:
                await line.hang_up(call)


def callable_by_both(box: Box, media_url: str = "") -> Box:
    """Give ``box``, which has not been started, a trunk of either kind; Twilio's streams come by ``media_url``."""
    trunks: dict[str, Any] = {"local": {"kind": "sip", "allow": ["127.0.0.0/8"]}}
    twilio = trunk_of(sid("AC"), sid(""), box.http_port)
    if media_url:
        twilio["twilio"]["media_url"] = media_url
    box.settings["trunks"] = {**trunks, **twilio}
    return box


def call_id(caller: CarrierCaller) -> str:
    """What the record has as ``protocol_call_id``."""
    if isinstance(caller, TwilioCaller):
        return caller.of.call_sid
    return caller.call_id if isinstance(caller, RtpCaller) else ""


def _trunks(box: Box) -> dict[str, Any]:
    found = box.settings.get("trunks")
    return found if isinstance(found, dict) else {}


# --- what was heard ---------------------------------------------------------------------------------------------------


def sounds(playout: Playout, since: float = 0.0, until: float = float("inf"), join_s: float = JOIN_S) -> list[Run]:
    """Stretches of sound that began within [since, until), silences up to ``join_s`` included.

    One that had begun before ``since`` is there with its beginning.
    """
    found: list[Run] = []
    for piece in reversed(playout.pieces):
        end = piece.start + playout.duration(piece)
        if end < min(since, found[-1].start if found else since) - join_s:
            break
        if not piece.loud or piece.start >= until:
            continue
        if found and found[-1].start - end <= join_s:
            found[-1] = Run(piece.start, max(end, found[-1].end))
        else:
            found.append(Run(piece.start, end))
    return [run for run in reversed(found) if run.end > since]


def silences(runs: Sequence[Run], since: float, until: float) -> list[Run]:
    """What is left of [since, until) between the sounds."""
    found: list[Run] = []
    at = since
    for run in runs:
        if run.start > at:
            found.append(Run(at, min(run.start, until)))
        at = max(at, run.end)
        if at >= until:
            return found
    if at < until:
        found.append(Run(at, until))
    return found


def stood_still(since: float, until: float) -> bool:
    """Whether this process itself was not run for a while in between, so that its times are not to be trusted."""
    return any(start < until and end > since for start, end in Metronome.of_loop().stalls)
