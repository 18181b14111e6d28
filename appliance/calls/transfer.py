"""Handing a caller on: by REFER where the caller's side can do it, else through the box; and following a peer's REFER.

A transfer never leaves the caller with nobody: until the other side has answered, the caller stays connected to the
box, hears music, and is with the agent again when it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.conversation.brain import Transfer
from appliance.conversation.speaker import Speaker, Voice
from appliance.conversation.utterance import Utterance
from appliance.engines.client import EnginePool
from appliance.errors import DialError, MediaError
from appliance.ipc.messages import LegClosed
from appliance.ipc.rings import AudioRings
from appliance.media.client import MediaClient, MediaLegHandle
from appliance.rtp.dtmf import KeyPresses
from appliance.signalling.leg import Leg, PlacedCall, TransferOutcome, TransferRequest
from appliance.signalling.routes import Attempt, Dialler
from appliance.signalling.trunks import SIP, TrunkTable

logger = logging.getLogger(__name__)

KeyRelay = Callable[[str, str], None]
"""Takes a key, and how it came: "media" or "info"."""

_REFER_MARGIN_S: Final = 10.0
"""A peer's own call to the target may take the time asked for, and this much to report."""

_HAD_RUNG: Final = (408, 480, 486, 487, 600, 603)
"""What a referred call came to where the one called may have heard it ring, or is busy: nobody is rung twice."""

_ANNOUNCE_S: Final = 20.0
_DECLINED: Final = 603
"""What a peer hears whose REFER is not followed, whatever the reason: it is told nothing of what may be dialled."""

_GONE: Final = 480
"""What a peer hears of a call that was answered and ended before the leg could become it."""

_GOODBYE_AFTER_S: Final = 2.0
"""The one who asked for a transfer hangs up by itself; after this long we do."""


@dataclass(frozen=True)
class Voicing:
    """What it takes to say something to the one called."""

    rings: AudioRings
    tts: EnginePool
    voice: Voice
    now: Callable[[], float]


class _OtherLeg:
    """Media's listener for the second leg of a call: it only has to end it, or to say an announcement."""

    def __init__(self, trunks: TrunkTable) -> None:
        self._trunks = trunks
        self.outgoing: PlacedCall | None = None
        self.speaker: Speaker | None = None
        self.said = asyncio.Event()
        self.keys = KeyPresses()
        self.relay: KeyRelay | None = None

    def on_tick(self, at: float, frame: int, level_dbfs: float, speech: float, sent_dbfs: float) -> None:
        """Nobody listens for turns here."""

    def on_digit(self, digit: str, frame: int) -> None:
        self.pressed(digit, "media")

    def pressed(self, digits: str, way: str) -> None:
        """Keys of the one called; each goes on to the caller once."""
        for digit in digits:
            if self.keys.press(digit, way, time.monotonic()) and self.relay is not None:
                self.relay(digit, way)

    def on_playout_started(self, utterance: int, frame: int, at: float) -> None:
        if self.speaker is not None:
            self.speaker.on_playout_started(utterance, frame, at)

    def on_playout_done(self, utterance: int, played: int, frame: int) -> None:
        if self.speaker is not None:
            self.speaker.on_playout_done(utterance, played)

    def on_flushed(self, utterance: int, played: int, frame: int) -> None:
        if self.speaker is not None:
            self.speaker.on_flushed(utterance, played)

    def on_media_timeout(self, silent_s: float) -> None:
        if self.outgoing is not None:
            rule = self._trunks.by_name(self.outgoing.trunk)
            if self.outgoing.held or (rule is not None and rule.media_timeout == "keep"):
                logger.info("call to %s: no RTP for %.0f s; it is kept", self.outgoing.uri, silent_s)
                return
        self._end(f"no RTP for {silent_s:.0f} s")

    def on_media_lost(self) -> None:
        self._end("the media process stopped")

    def on_over(self, utterance: Utterance) -> None:
        self.said.set()

    def _end(self, why: str) -> None:
        if self.outgoing is not None:
            self.outgoing.hangup(why)


def _relay_to(leg: Leg | PlacedCall, media: MediaLegHandle) -> KeyRelay:
    """Keys for one side of a bridge. Media has passed on what it heard, to a side that takes keys through the media."""

    def relay(digit: str, way: str) -> None:
        if not leg.send_digits(digit) and way != "media":
            media.send_digits(digit)

    return relay


class Transfers:
    """Hands callers of the box on. One for all calls.

    Args:
        dialler: places the calls; its router says what may be dialled.
        trunks: who may transfer, and how.
        media: gives the second leg its slot.
        leg_closed: told how the second leg's media was.
    """

    def __init__(
        self,
        dialler: Dialler,
        trunks: TrunkTable,
        media: MediaClient,
        leg_closed: Callable[[LegClosed], None] = lambda closed: None,
    ) -> None:
        self._dialler = dialler
        self._trunks = trunks
        self._media = media
        self._leg_closed = leg_closed

    # --- ours -------------------------------------------------------------------------------------------------------

    async def hand_on(
        self,
        leg: Leg,
        media: MediaLegHandle,
        transfer: Transfer,
        values: Mapping[str, str],
        voicing: Voicing,
        keys_to: Callable[[KeyRelay | None], None] = lambda relay: None,
    ) -> str | None:
        """Hand the caller on, and stay until that is over.

        ``keys_to`` is told where the caller's keys go while both sides are joined in the box, and None afterwards.

        Returns:
            How it ended, in words for the record; None where it failed and the caller is here again.
        """
        rule = self._trunks.by_name(leg.info.trunk)
        how = rule.transfer if rule is not None else "bridge"
        refers = how == "refer" or (how == "auto" and leg.info.can_transfer)
        try:
            attempts = self._dialler.router.attempts(transfer.to, trunk=transfer.trunk)
            target = self._referral(leg, attempts[0]) if refers and not transfer.attended else ""
        except DialError as error:
            logger.warning("call %s not transferred: %s", leg.info.leg_id, error)
            return None
        await leg.settled()
        if target:
            outcome = await _final(leg.transfer(target, None, transfer.timeout_s), transfer.timeout_s)
            if outcome.done:
                return f"transferred to {attempts[0].number}"
            logger.info("call %s: REFER to %s came to %d", leg.info.leg_id, target, outcome.status)
            if how == "refer" or (outcome.taken and outcome.status in _HAD_RUNG):
                return None
            refers = False
        try:
            return await self._through_the_box(leg, media, transfer, attempts, values, voicing, keys_to, refers=refers)
        except (DialError, MediaError) as error:
            logger.info("call %s not transferred: %s", leg.info.leg_id, error)
            return None

    def _referral(self, leg: Leg, attempt: Attempt) -> str:
        """What the caller's side is told to call, a URI or a carrier's number; "" where it is none for its trunk.

        What another trunk leads to is dialled on the account of the caller's only where that says ``transfer: refer``.

        Raises:
            DialError: the caller's trunk may not dial it.
        """
        rule = self._trunks.by_name(leg.info.trunk)
        if attempt.trunk is rule:
            return attempt.uri if rule.kind == SIP else attempt.number
        if rule is None or rule.transfer != "refer":
            return ""
        return self._dialler.router.referral(attempt.number, rule, leg.info.source)

    async def _through_the_box(
        self,
        leg: Leg,
        media: MediaLegHandle,
        transfer: Transfer,
        attempts: list[Attempt],
        values: Mapping[str, str],
        voicing: Voicing,
        keys_to: Callable[[KeyRelay | None], None],
        *,
        refers: bool,
    ) -> str | None:
        """Call the other side, and join both: by REFER with Replaces where the caller's side can, else here."""
        other = _OtherLeg(self._trunks)
        second = await self._media.open_leg(other, rtp=any(attempt.needs_rtp for attempt in attempts))
        outgoing: PlacedCall | None = None
        joined_there = False
        leg.hold()
        media.hold_music(True)
        try:
            outgoing = other.outgoing = await self._dialler.call(
                attempts,
                second,
                values=values,
                display_name=leg.info.calling_name,
                ring_timeout_s=transfer.timeout_s,
            )
            if transfer.announce:
                await _announce(other, second, transfer.announce, voicing)
            if refers and outgoing.trunk == leg.info.trunk and not outgoing.ended:
                outcome = await _final(leg.transfer(outgoing.uri, outgoing, transfer.timeout_s), transfer.timeout_s)
                if outcome.done:
                    joined_there = True
                    return f"transferred to {attempts[0].number}"
            if outgoing.ended:
                return None
            media.hold_music(False)
            leg.resume()
            media.bridge(second)
            other.relay = _relay_to(leg, media)
            outgoing.on_digits = lambda digits: other.pressed(digits, "info")
            keys_to(_relay_to(outgoing, second))
            cause = await outgoing.wait_ended()
            return f"put through to {attempts[0].number}, which ended the call ({cause.code})"
        finally:
            keys_to(None)
            other.relay = None
            media.bridge(None)
            media.hold_music(False)
            if not joined_there:
                leg.resume()
            if outgoing is not None:
                outgoing.hangup("the call is over")
            closed = await second.close()
            if closed is not None:
                self._leg_closed(closed)
            second.release()

    # --- the peer's -------------------------------------------------------------------------------------------------

    def admit(self, leg: Leg, request: TransferRequest) -> list[Attempt]:
        """Accept the REFER of a peer where it may be followed, with :meth:`follow`; else refuse it.

        What may be called is what the box may dial; a peer's REFER opens nothing more. The leg becomes the new call, so
        that one's audio must be of the leg's kind: RTP for RTP.

        Returns:
            The ways to the one to be called; none where it is refused.
        """
        rule = self._trunks.by_name(leg.info.trunk)
        if rule is None or not rule.allow_transfer:
            logger.warning("call %s: trunk %s may not transfer calls", leg.info.leg_id, leg.info.trunk)
            if rule is not None:
                self._trunks.state(rule.name).counters["refused_transfer"] += 1
            request.refuse(_DECLINED)
            return []
        try:
            attempts = self._dialler.router.attempts(request.target)
        except DialError as error:
            logger.warning("call %s: REFER refused: %s", leg.info.leg_id, error)
            self._trunks.state(rule.name).counters["refused_transfer"] += 1
            request.refuse(_DECLINED)
            return []
        alike = [attempt for attempt in attempts if attempt.needs_rtp == leg.needs_rtp]
        if not alike:
            number = attempts[0].number
            logger.warning(
                "call %s: REFER refused: no trunk that leads to %s has its kind of audio", leg.info.leg_id, number
            )
            self._trunks.state(rule.name).counters["refused_transfer"] += 1
            request.refuse(_DECLINED)
            return []
        request.accept()
        return alike

    async def follow(
        self,
        leg: Leg,
        media: MediaLegHandle,
        request: TransferRequest,
        attempts: Sequence[Attempt],
        values: Mapping[str, str],
    ) -> bool:
        """Call whom the far end asks us to call, in its place; whether the leg is that call now.

        The far end may hang up meanwhile: it has done its part.

        Args:
            attempts: from :meth:`admit`.
        """
        try:
            outgoing = await self._dialler.call(
                attempts,
                media,
                values=values,
                headers=request.headers,
                on_ringing=lambda status: request.report(180),
            )
            if outgoing.ended:
                cause = await outgoing.wait_ended()
                raise DialError(f"answered, and gone: {cause.text}", status=_GONE, cause="failed")
        except DialError as error:
            leg.reconnect()
            request.report(error.status)
            return False
        except BaseException:
            leg.reconnect()
            raise
        self._trunks.state(leg.info.trunk).counters["transfers_in"] += 1
        leg.become(outgoing)
        request.report(200)
        asyncio.get_running_loop().call_later(_GOODBYE_AFTER_S, request.goodbye)
        return True


async def _final(done: asyncio.Future[TransferOutcome], timeout_s: float) -> TransferOutcome:
    """What a REFER comes to; 408 where the far end reports nothing."""
    try:
        async with asyncio.timeout(timeout_s + _REFER_MARGIN_S):
            return await done
    except TimeoutError:
        return TransferOutcome(408, taken=True)


async def _announce(other: _OtherLeg, media: MediaLegHandle, text: str, voicing: Voicing) -> None:
    """Tell the one called who is coming; a voice that fails keeps nobody apart."""
    speaker = Speaker(media, voicing.rings, voicing.tts, voicing.voice, voicing.now, other.on_over)
    other.speaker = speaker
    try:
        speaker.say([text])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANNOUNCE_S):
                await other.said.wait()
    finally:
        other.speaker = None
        await speaker.close()
