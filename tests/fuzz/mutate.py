"""Damages a message in the ways that break parsers: bits, cuts, repeats, numbers out of range, tokens out of place."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

LARGEST = 64 * 1024

TOKENS = tuple(
    token.encode("latin-1")
    for token in (
        "\r\n", "\r\n\r\n", "\n", "\r", "\r\n ", "\x00", " ", "\t", ";", ",", ":", "=", "<", ">", '"', "\\", '"\\"',
        "%", "%00", "%zz", "@", "[", "]", "[::1]", "(", ")", "ÿþ", "Ã©", "Via:", "Content-Length: 0\r\n",
        "Content-Length: 999\r\n", "l: 3\r\n", "CSeq: 1 ACK\r\n", ";tag=", ";branch=z9hG4bK", ";lr", ";rport", "sip:",
        "sips:", "tel:+1", "SIP/2.0", "SIP/2.0 200 OK\r\n", "INVITE sip:a@b SIP/2.0\r\n", "m=audio 0 RTP/AVP 0\r\n",
        "a=rtpmap:0 PCMU/8000\r\n", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:", "c=IN IP4 0.0.0.0\r\n",
        "c=IN IP6 ::1\r\n", "a=ptime:0\r\n", "a=fmtp:101 0-99999\r\n", "--boundary\r\n", "--boundary--",
        "Signal=1\r\n", "Duration=-1\r\n", 'Digest realm="', "nonce=", "qop=auth,auth-int", "Require: 100rel\r\n",
        "Expires: -1\r\n",
    )
)  # fmt: skip
NUMBERS = (
    b"0",
    b"-1",
    b"255",
    b"256",
    b"65535",
    b"65536",
    b"4294967295",
    b"4294967296",
    b"99999999999999999999",
    b"1e9",
)


class Mutator:
    """Makes inputs out of ``seeds``; the same ``chance`` makes the same ones."""

    def __init__(self, seeds: Sequence[bytes], chance: random.Random) -> None:
        self._seeds = [seed for seed in seeds if seed]
        self._chance = chance

    def next(self) -> bytes:
        """One damaged message, of at most :data:`LARGEST` bytes; one in twenty is inflated to about that."""
        chance = self._chance
        data = bytearray(chance.choice(self._seeds))
        for _ in range(chance.choice((1, 1, 2, 3, 5, 8))):
            data = self._step(data)
        if chance.random() < 0.05:
            data = self._inflate(data)
        return bytes(data[:LARGEST])

    def _step(self, data: bytearray) -> bytearray:
        chance = self._chance
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 2, 4, 16, 64, 256)))
        kind = chance.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 4:
            data[at:at] = data[at:end] * chance.choice((1, 2, 50))
        elif kind == 5:
            numbers = list(re.finditer(rb"\d+", data))
            if numbers:
                found = chance.choice(numbers)
                data[found.start() : found.end()] = chance.choice(NUMBERS)
        elif kind == 6:
            lines = bytes(data).split(b"\r\n")
            one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
            lines[one], lines[other] = lines[other], lines[one]
            data = bytearray(b"\r\n".join(lines))
        else:
            other_seed = chance.choice(self._seeds)
            data[at:] = other_seed[chance.randrange(len(other_seed)) :]
        return data[:LARGEST]

    def _inflate(self, data: bytearray) -> bytearray:
        """Repeat one piece until the message is as long as a datagram can be: what is quadratic shows."""
        chance = self._chance
        at = chance.randrange(len(data) + 1)
        if chance.random() < 0.5:
            piece = bytes(data[at : at + chance.choice((1, 3, 20, 100))]) or b"("
        else:
            piece = chance.choice(TOKENS)
        room = LARGEST - len(data)
        data[at:at] = (piece * (room // len(piece) + 1))[: max(0, room)]
        return data
