"""The SDP side of one SIP leg: offers and answers on behalf of a media slot."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence

from appliance.errors import LocalSipError, RemoteSipError
from appliance.rtp_params import RtpParams
from appliance.signalling.leg import RtpSlot
from appliance.signalling.trunks import TrunkRule
from appliance.sip.offer_answer import LocalDescription, MediaPolicy, check_offer
from appliance.sip.sdp import parse_sdp


def media_policy(trunk: TrunkRule) -> MediaPolicy:
    """What may be agreed on with the peers of a trunk."""
    return MediaPolicy(trunk.codecs, trunk.srtp, trunk.ptime_ms, trunk.dtmf, trunk.comfort_noise)


def check_sdp_offer(offer: bytes, policy: MediaPolicy | Sequence[str], host: str = "") -> None:
    """Tell whether an offer can be answered, before there is a media slot; ``host`` is where slots receive.

    Raises:
        RemoteSipError: 400 or 413 for what is no SDP, 488 where there is nothing in common.
    """
    check_offer(parse_sdp(offer), policy, host)


class SipMedia:
    """Negotiates for one media slot and connects it.

    Args:
        media: the slot.
        session_id: for the o= line.
        policy: what may be agreed on (:func:`media_policy`); a bare list of codecs, best first, for plain RTP.
        signalling_host: where media goes when the peer names no address (hold by 0.0.0.0, or a host name).
    """

    def __init__(
        self, media: RtpSlot, session_id: int, policy: MediaPolicy | Sequence[str], signalling_host: str
    ) -> None:
        self.media = media
        self.params: RtpParams | None = None
        self._local = LocalDescription(
            session_id, media.local_host, media.local_port, policy, random_octets=secrets.token_bytes
        )
        self._fallback_host = signalling_host
        self._offered = False
        self._early = False
        self._direction = "sendrecv"

    @property
    def awaits_answer(self) -> bool:
        """Whether an offer of ours has not been answered yet."""
        return self._offered

    @property
    def holding(self) -> bool:
        """Whether the call is on hold by us; it is once the peer has answered."""
        return self._direction != "sendrecv"

    @property
    def held(self) -> bool:
        """Whether the peer has put the call on hold: it does not want to hear us, or anybody."""
        return self.params is not None and not self.params.send and self._direction in ("sendrecv", "sendonly")

    def offer(self) -> bytes:
        """Our offer of the session as it is to be; the answer goes to :meth:`take_answer`."""
        self._offered, self._early = True, False
        return self._local.offer()

    def hold_offer(self, *, music: bool = True) -> bytes:
        """An offer that puts the call on hold: sendonly, for music, or inactive (RFC 3264 §8.4)."""
        self._local.direction = "sendonly" if music else "inactive"
        return self.offer()

    def resume_offer(self) -> bytes:
        """An offer that takes the call off hold."""
        self._local.direction = "sendrecv"
        return self.offer()

    def offer_refused(self) -> None:
        """The peer refused our offer: the session goes on as it was."""
        self._offered = False
        self._local.direction = self._direction

    def answer(self, offer: bytes) -> bytes:
        """Answer the peer's offer and connect the slot.

        Raises:
            RemoteSipError: 400 for what is no SDP, 488 where there is nothing in common; nothing has changed then.
        """
        body, agreed = self._local.answer(parse_sdp(offer))
        self._connect(agreed)
        return body

    def take_early(self, answer: bytes) -> RtpParams:
        """Connect the slot as an answer in a provisional response says, for early media; another may follow it.

        Raises:
            RemoteSipError: where it accepts nothing.
            LocalSipError: where nothing was offered.
        """
        params = self._take(answer)
        self._early = True
        return params

    def take_answer(self, answer: bytes | None) -> RtpParams:
        """Connect the slot as the peer's answer to :meth:`offer` says.

        None stands for a final response without an answer: that is right where a provisional one had brought it.

        Raises:
            RemoteSipError: where there is no answer, or it accepts nothing.
            LocalSipError: where nothing was offered.
        """
        known = self.params if answer is None and self._early else None
        params = known or self._take(answer)
        self._offered = self._early = False
        self._direction = self._local.direction
        return params

    def _take(self, answer: bytes | None) -> RtpParams:
        if not self._offered:
            raise LocalSipError("an answer without an offer; check awaits_answer first")
        if answer is None:
            raise RemoteSipError("our offer was not answered", status_hint=488)
        return self._connect(self._local.accept_answer(parse_sdp(answer)))

    def _connect(self, agreed: RtpParams) -> RtpParams:
        host = agreed.remote_host or (self.params.remote_host if self.params else self._fallback_host)
        if ":" in host and ":" not in self.media.local_host:
            raise RemoteSipError(f"media to {host} cannot leave from an IPv4 address", status_hint=488)
        params = dataclasses.replace(agreed, remote_host=host)
        if params != self.params:
            self.params = params
            self.media.connect(params)
        return params
