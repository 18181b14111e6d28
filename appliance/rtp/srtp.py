"""One direction of SRTP (RFC 3711) with keys from SDP (RFC 4568), over libsrtp.

Encrypting and checking are libsrtp's; this module turns the negotiated suite and key into its terms, bounds what an
authenticated peer can make it remember, and lets nothing out but :class:`~appliance.errors.RtpError`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from pylibsrtp import Error, Policy, Session

from appliance.errors import RtpError

SUITES: Final = {
    "AES_CM_128_HMAC_SHA1_80": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    "AES_CM_128_HMAC_SHA1_32": (Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 30),
    "AEAD_AES_128_GCM": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
}
"""Suite name of the crypto attribute to (libsrtp's profile, bytes of master key and salt together)."""

_REPLAY_WINDOW: Final = 256
_MAX_STREAMS: Final = 8
_REPLAYED: Final = frozenset({"replay check failed (bad index)", "replay check failed (index too old)"})


class SrtpContext:
    """Protects or checks the packets of one direction.

    Args:
        keying: suite, a blank, and master key and salt in base64, as in the ConnectLeg message.
        inbound: True for what comes, False for what leaves.

    Attributes:
        failures: packets that did not authenticate, or were no SRTP.
        replayed: packets that had come before.

    Raises:
        RtpError: the suite is none of ours, or the key has the wrong length.
    """

    __slots__ = ("_last", "_session", "_streams", "failures", "keying", "replayed")

    def __init__(self, keying: str, *, inbound: bool) -> None:
        suite, _, encoded = keying.partition(" ")
        if suite not in SUITES:
            raise RtpError(f"no SRTP suite {suite!r}; use one of {', '.join(SUITES)}")
        profile, size = SUITES[suite]
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise RtpError(f"the SRTP key for {suite} is not base64") from None
        if len(key) != size:
            raise RtpError(f"the SRTP key for {suite} has {len(key)} bytes; it takes {size}")
        policy = Policy(
            key=key,
            ssrc_type=Policy.SSRC_ANY_INBOUND if inbound else Policy.SSRC_ANY_OUTBOUND,
            srtp_profile=profile,
        )
        policy.window_size = _REPLAY_WINDOW
        self.keying = keying
        self.failures = 0
        self.replayed = 0
        self._session = Session(policy)
        self._last = b""
        self._streams: dict[bytes, None] = {}

    def protect(self, packet: bytes) -> bytes:
        """The SRTP packet of an RTP packet.

        Raises:
            RtpError: it is longer than the largest datagram we send, or its number has been used before.
        """
        try:
            secret: bytes = self._session.protect(packet)
        except (Error, ValueError) as error:
            self.failures += 1
            raise RtpError(f"a packet was not encrypted: {error}") from error
        return secret

    def unprotect(self, packet: bytes) -> bytes:
        """The RTP packet in an SRTP packet.

        Raises:
            RtpError: it does not authenticate, is a replay, or is no SRTP at all. ``failures`` or ``replayed`` says
                which.
        """
        try:
            plain: bytes = self._session.unprotect(packet)
        except (Error, ValueError) as error:
            raise self._refused(error) from error
        ssrc = plain[8:12]
        if ssrc != self._last:
            self._other_stream(ssrc)
        return plain

    def protect_rtcp(self, packet: bytes) -> bytes:
        """The SRTCP packet of a compound RTCP packet; errors as :meth:`protect`."""
        try:
            secret: bytes = self._session.protect_rtcp(packet)
        except (Error, ValueError) as error:
            self.failures += 1
            raise RtpError(f"a report was not encrypted: {error}") from error
        return secret

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        """The compound RTCP packet in an SRTCP packet; errors as :meth:`unprotect`."""
        try:
            plain: bytes = self._session.unprotect_rtcp(packet)
        except (Error, ValueError) as error:
            raise self._refused(error) from error
        if (ssrc := plain[4:8]) != self._last:
            self._other_stream(ssrc)
        return plain

    def _refused(self, error: Exception) -> RtpError:
        if str(error) in _REPLAYED:
            self.replayed += 1
        else:
            self.failures += 1
        return RtpError(f"not an SRTP packet of this call: {error}")

    def _other_stream(self, ssrc: bytes) -> None:
        """libsrtp keeps state for every SSRC that has authenticated: let it forget the one unheard of for longest.

        A stream that is forgotten begins anew with rollover counter 0 (RFC 3711 §3.3.1), so that the one in use must
        stay: once its numbers have wrapped, nothing of it would authenticate again.
        """
        self._last = ssrc
        streams = self._streams
        if ssrc in streams:
            del streams[ssrc]
        elif len(streams) >= _MAX_STREAMS:
            oldest = next(iter(streams))
            del streams[oldest]
            self._session.remove_stream(int.from_bytes(oldest, "big"))
        streams[ssrc] = None
