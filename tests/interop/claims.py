"""What the box promises of SIP and RTP, a line each, and the mark that says which test proves which line.

``docs/sip.md`` is made of these (:mod:`tests.interop.table`): a line without a test that ran and passed says so there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])

CLAIMS: dict[str, tuple[str, ...]] = {
    "Signalling": (
        "transactions: a call set up and torn down over UDP, answers to where rport says",
        "transactions: a lost ACK, the 200 again until it comes",
        "transport: TCP, several calls on one connection",
        "transport: TLS, the box's certificate checked by the peer",
        "transport: TLS, a wrong certificate refused by the box",
        "transport: IPv6",
        "transport: a request too long for a datagram moved to TCP",
        "transport: NAPTR, SRV and address records, the next server where one is dead",
        "transport: keep-alive of a connection (RFC 5626)",
        "transport: an advertised address in Contact and SDP",
        "transport: certificates reloaded without dropping calls",
        "UAC: answered call, BYE from either side",
        "UAC: early media (183)",
        "UAC: forked 18x and 2xx, the losers ACKed and BYEd",
        "UAC: CANCEL while it rings",
        "UAC: a 200 that crosses the CANCEL",
        "UAC: redirected (3xx) within limits",
        "UAC: digest 401 and 407, MD5",
        "UAC: digest, SHA-256",
        "UAC: digest, stale nonce",
        "UAC: digest, nextnonce",
        "UAC: routes over several trunks, failover on 503",
        "UAC: no failover after 486 and 603",
        "UAS: digest challenge",
        "UAS: strangers refused",
        "UAS: an unknown extension in Require (420)",
        "UAS: methods not served (405, 501) told what is allowed",
        "UAS: Max-Forwards used up (483)",
        "UAS: merged requests (482)",
        "UAS: CANCEL of a call that rings",
        "REGISTER client: challenge, refresh, unregister at stop",
        "REGISTER client: 423 and Min-Expires",
        "REGISTER client: failover to the next proxy",
        "OPTIONS: answered",
        "OPTIONS: sent to qualify a trunk, its state in the metrics",
        "in dialog: re-INVITE received with SDP",
        "in dialog: re-INVITE received without SDP",
        "in dialog: UPDATE received with and without SDP",
        "in dialog: UPDATE or re-INVITE sent",
        "in dialog: hold and resume by sendonly, inactive and c=0.0.0.0",
        "in dialog: glare, 491 and back-off",
        "in dialog: delayed offer",
        "in dialog: T.38 answered 488, the call kept",
        "in dialog: PRACK and 100rel, box answers the call",
        "in dialog: PRACK and 100rel, box places the call",
        "in dialog: session timer, box refreshes",
        "in dialog: session timer, peer refreshes",
        "in dialog: session timer, interval too small (422, Min-SE)",
        "in dialog: INFO",
        "transfer: REFER received, denied by default",
        "transfer: REFER received and carried out, NOTIFY progress",
        "transfer: REFER sent, blind",
        "transfer: REFER sent, attended (Replaces)",
        "transfer: INVITE with Replaces received",
        "transfer: two legs bridged in the box",
        "headers: P-Asserted-Identity, Diversion, History-Info, verstat and X-headers in, calls routed by them",
        "headers: Privacy, Reason, User-to-User, P-Asserted-Identity and X-headers out by configuration",
        "protection: call-rate limit, 503 and Retry-After",
        "protection: concurrent calls of a trunk, 503 and Retry-After",
        "protection: scanner signatures dropped",
        "protection: REGISTER to the box refused",
        "protection: toll fraud, a number outside the allowed prefixes",
        "protection: toll fraud, a REFER to a premium number and an INVITE to be relayed",
        "proxy: Record-Route followed",
        "proxy: a forked call answered once",
        "proxy: a failing branch, the call set up on the other",
        "torture: the messages of RFC 4475",
    ),
    "Media": (
        "PCMU",
        "PCMA",
        "G.722",
        "Opus",
        "ptime: 10 to 60 ms",
        "payload types mapped per direction",
        "re-negotiation in mid-call",
        "comfort noise (RFC 3389)",
        "jitter, loss, duplicates and reordering",
        "SSRC change, timestamp jump, sequence wrap",
        "DTMF by RFC 4733 received",
        "DTMF by INFO received",
        "DTMF by RFC 4733 sent: durations, the end three times",
        "DTMF by INFO sent",
        "DTMF in band received",
        "each key counted once, however many ways it comes",
        "SRTP by SDES: calls to the box",
        "SRTP by SDES: calls from the box",
        "SRTP by SDES: plain RTP refused where SRTP is required",
        "latching: a stranger is not taken for the caller",
        "RTCP sender and receiver reports",
        "MOS in the call's record",
        "media time-out",
        "RTP ports used up: 503",
    ),
}  # fmt: skip
"""The lines, by chapter, in the order of the page."""


def proves(*claims: str) -> Callable[[Test], Test]:
    """Say of a test which lines it proves: ``@proves("Media: PCMU")``.

    Raises:
        ValueError: a line that :data:`CLAIMS` does not have.
    """
    for claim in claims:
        chapter, _, line = claim.partition(": ")
        if line not in CLAIMS.get(chapter, ()):
            raise ValueError(f"{claim!r} is not among the lines of tests/interop/claims.py; add it there")

    def mark(test: Test) -> Test:
        test.__proves__ = claims  # type: ignore[attr-defined]
        return test

    return mark
