"""The SDP side of one SIP leg: offers and answers on behalf of a media slot."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from appliance.errors import LocalSipError, RemoteSipError
from appliance.signalling.leg import MediaSlot, RtpParams
from appliance.sip.sdp import Agreement, LocalDescription, parse_sdp


class SipMedia:
    """Negotiates for one media slot and connects it.

    Args:
        media: the slot.
        session_id: for the o= line.
        codecs: names allowed on this trunk, best first.
        signalling_host: where media goes when the peer names no address (hold by 0.0.0.0, or a host name).
    """

    def __init__(self, media: MediaSlot, session_id: int, codecs: Sequence[str], signalling_host: str) -> None:
        self.media = media
        self.params: RtpParams | None = None
        self._local = LocalDescription(session_id, media.local_host, media.local_port, codecs)
        self._fallback_host = signalling_host
        self._offered = False

    @property
    def awaits_answer(self) -> bool:
        """Whether an offer of ours has not been answered yet."""
        return self._offered

    def offer(self) -> bytes:
        """Our offer; the answer goes to :meth:`take_answer`."""
        self._offered = True
        return self._local.offer()

    def answer(self, offer: bytes) -> bytes:
        """Answer the peer's offer and connect the slot.

        Raises:
            RemoteSipError: 400 for what is no SDP, 488 where there is nothing in common; nothing has changed then.
        """
        body, agreement = self._local.answer(parse_sdp(offer))
        self._connect(agreement)
        return body

    def take_answer(self, answer: bytes | None) -> RtpParams:
        """Connect the slot as the peer's answer to :meth:`offer` says.

        Raises:
            RemoteSipError: where there is no answer, or it accepts nothing.
            LocalSipError: where nothing was offered.
        """
        if not self._offered:
            raise LocalSipError("an answer without an offer; check awaits_answer first")
        if answer is None:
            raise RemoteSipError("our offer was not answered", status_hint=488)
        self._offered = False
        return self._connect(self._local.accept_answer(parse_sdp(answer)))

    def _connect(self, agreement: Agreement) -> RtpParams:
        host = agreement.remote_host or (self.params.remote_host if self.params else self._fallback_host)
        values = dataclasses.asdict(agreement) | {"remote_host": host}
        params = RtpParams(**values)
        if params != self.params:
            self.params = params
            self.media.connect(params)
        return params
