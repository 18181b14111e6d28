"""SRTP keys in session descriptions: the a=crypto lines of RFC 4568, with the suites of RFC 7714 §14."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

SUITES: Final = {
    "AES_CM_128_HMAC_SHA1_80": 30,
    "AEAD_AES_128_GCM": 28,
    "AES_CM_128_HMAC_SHA1_32": 30,
}
"""The suites we have, as we offer them, best first, and the octets of master key and salt of each."""

MAX_LINES: Final = 16
"""a=crypto lines of one media section that are looked at."""

_HARMLESS: Final = ("WSH=",)
"""Session parameters that do not change what the packets look like (RFC 4568 §6.3.7)."""


@dataclass(frozen=True, slots=True)
class Crypto:
    """One usable a=crypto line; ``key`` is master key and salt in base64, with its padding."""

    tag: int
    suite: str
    key: str = field(repr=False)

    @property
    def line(self) -> str:
        """The attribute, without line end."""
        return f"a=crypto:{self.tag} {self.suite} inline:{self.key}"

    @property
    def params(self) -> str:
        """Suite and key as media wants them."""
        return f"{self.suite} {self.key}"


def parse_crypto(value: str) -> Crypto | None:
    """The line after ``a=crypto:``; None where it is broken or asks for what we do not do.

    That is another suite, more than one key, a key identifier (MKI), and session parameters that change the packets
    (RFC 4568 §6.3); a line with a parameter one does not know must not be taken (§6.3.8).
    """
    parts = value.split()
    if len(parts) < 3:
        return None
    tag, suite, key_info = parts[0], parts[1].upper(), parts[2]
    if not (tag.isascii() and tag.isdigit() and len(tag) < 10) or suite not in SUITES:
        return None
    if not all(parameter.upper().startswith(_HARMLESS) for parameter in parts[3:]):
        return None
    method, _, key_and_more = key_info.partition(":")
    key, *more = key_and_more.split("|")
    # What may follow is a lifetime (no colon) and an MKI with its length (a colon).
    if method.lower() != "inline" or len(more) > 1 or any(":" in part or ";" in part for part in more):
        return None
    try:
        octets = base64.b64decode(key + "=" * (-len(key) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(octets) != SUITES[suite]:
        return None
    return Crypto(int(tag), suite, base64.b64encode(octets).decode())
