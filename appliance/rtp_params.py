"""What the two sides of a call agreed on for its media."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RtpParams:
    """Where media goes, and as what, seen from here: what signalling agrees on and media is told.

    ``remote_host`` is "" only where the peer named no address that media can be sent to (hold by 0.0.0.0, or a host
    name) and nobody has put a better one in its place. ``codec`` is "pcmu", "pcma", "g722" or "opus". Payload types are
    mapped per direction: ``payload_type`` is the number in the packets that leave, ``payload_type_in`` the one in those
    that come (-1: the same). ``alternative_in`` is that of the other G.711 law, where the peer may send either of the
    two whenever it likes; -1 where it may not. The ``dtmf_payload_type`` pair is for telephone-event (-1 for the first:
    not negotiated), whose clock is ``dtmf_clock_hz``; ``cn_payload_type`` is comfort noise (RFC 3389) both ways, -1
    where it was not negotiated.

    ``ptime_ms`` is the length of the packets that leave; what comes may have any. ``send`` false: silence is sent to
    keep the path open, but no speech (hold). ``receive`` false: what comes is not listened to.

    ``srtp_tx`` and ``srtp_rx`` are the crypto suite of RFC 4568 or 7714, a blank, and key and salt in base64; "" for
    plain RTP in that direction. ``dtmf`` is how keys are sent and heard: "rfc4733", "inband" (tones), "info"
    (media takes no part in it) or "auto" (events where they were negotiated, tones otherwise). ``rtcp_mux``: RTCP
    shares the RTP port (RFC 5761); otherwise it goes to ``rtcp_port``, 0 for the one above ``remote_port``.
    """

    remote_host: str
    remote_port: int
    codec: str
    payload_type: int
    dtmf_payload_type: int
    ptime_ms: int = 20
    send: bool = True
    receive: bool = True
    payload_type_in: int = -1
    dtmf_payload_type_in: int = -1
    dtmf_clock_hz: int = 8000
    cn_payload_type: int = -1
    dtmf: str = "rfc4733"
    srtp_tx: str = field(default="", repr=False)
    srtp_rx: str = field(default="", repr=False)
    rtcp_port: int = 0
    rtcp_mux: bool = False
    alternative_in: int = -1
