"""What carriers and PBXs say about a call beside who calls whom, read into bounded, printable values.

All of it is what a peer claims. A header that cannot be read is left out: none of them is worth refusing a call for.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.config.trunks import VARIABLE
from appliance.errors import RemoteSipError
from appliance.sip.headers import NameAddr, parse_params, split_quoted, split_values
from appliance.sip.message import Headers
from appliance.sip.uri import SipUri, printable, unescape

MAX_ENTRIES: Final = 10
MAX_VALUE: Final = 1024
MAX_IDENTITY: Final = 8192


@dataclass(frozen=True, slots=True)
class Diversion:
    """One number the call was sent on from (RFC 5806, RFC 7044), and why, in the header's own word."""

    number: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request was sent (RFC 3326): ``protocol`` "SIP" or "Q.850", its ``cause``, and words."""

    protocol: str
    cause: int
    text: str = ""

    def __str__(self) -> str:
        """As it stands in the header; words that would have to be escaped there are left out."""
        text = f';text="{self.text}"' if self.text and not set(self.text) & set('"\\') else ""
        return f"{self.protocol};cause={self.cause}{text}"


@dataclass(frozen=True, slots=True)
class Passport:
    """What an Identity header claims (RFC 8224, RFC 8588). Nothing of it has been verified here.

    ``attest`` is "A", "B" or "C", "" where it is not given; ``issued_at`` is in seconds since 1970; ``token`` is the
    whole signed text and ``certificate`` the URL of who signed it, for whoever verifies.
    """

    attest: str
    origin: str
    destinations: tuple[str, ...]
    issued_at: int
    certificate: str
    token: str


@dataclass(frozen=True, slots=True)
class CallHeaders:
    """Attributes:
    asserted: the caller's numbers or names as the network vouches for them (P-Asserted-Identity, RFC 3325).
    asserted_name: the display name given there.
    privacy: what is to be withheld, such as "id" (RFC 3323).
    diversions: whom the call was meant for before us, the latest first (Diversion, else History-Info).
    reasons: of the Reason header.
    user_to_user: data of the caller's system as it was written, its encoding after ``;`` included (RFC 7433).
    verstat: the network's verdict on the caller's number, such as "TN-Validation-Passed"; "" where none is given.
    identity: of the Identity headers.
    """

    asserted: tuple[str, ...] = ()
    asserted_name: str = ""
    privacy: tuple[str, ...] = ()
    diversions: tuple[Diversion, ...] = ()
    reasons: tuple[Reason, ...] = ()
    user_to_user: str = ""
    verstat: str = ""
    identity: tuple[Passport, ...] = ()


def read_headers(headers: Headers) -> CallHeaders:
    """Everything there is of it in a request. Never raises, whatever the headers hold."""
    asserted = _addresses(headers, "p-asserted-identity")
    from_ = _addresses(headers, "from")
    diverted = _addresses(headers, "diversion")
    return CallHeaders(
        asserted=tuple(number for address in asserted if (number := address.number)),
        asserted_name=next((printable(address.display) for address in asserted if address.display), ""),
        privacy=_privacy(headers),
        diversions=(
            tuple(Diversion(address.number, _word(address.params.get("reason"))) for address in diverted)
            or _history(headers)
        ),
        reasons=tuple(_reasons(headers)),
        user_to_user=printable(next(iter(headers.get_all("user-to-user")), ""), MAX_VALUE),
        verstat=next((found for address in (*asserted, *from_) if (found := _verstat(address))), ""),
        identity=tuple(_passports(headers)),
    )


def named_headers(headers: Headers, names: Iterable[str]) -> dict[str, str]:
    """The headers an operator asked for, by the operator's spelling of the name; absent ones are left out."""
    found = {name: ", ".join(headers.get_all(name)[:MAX_ENTRIES]) for name in names if name in headers}
    return {name: printable(value, MAX_VALUE) for name, value in found.items()}


def fill(templates: Iterable[tuple[str, str]], values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Headers to send: each template with its ``${name}`` filled in; one that comes out empty is left out.

    Values are printable and without line breaks afterwards, whatever they held, and are never read as templates.
    """
    made = []
    for name, template in templates:
        text = VARIABLE.sub(lambda match: printable(values.get(match[1], ""), MAX_VALUE), template)
        text = printable(text, MAX_VALUE).strip()
        if text:
            made.append((name, text))
    return made


def _privacy(headers: Headers) -> tuple[str, ...]:
    values = (headers.get("privacy") or "")[:MAX_VALUE].replace(",", ";").split(";")[:MAX_ENTRIES]
    return tuple(word for value in values if (word := _word(value).lower()))


def _lines(headers: Headers, name: str) -> list[str]:
    return [line[: MAX_VALUE * 4] for line in headers.get_all(name)[:MAX_ENTRIES]]


def _addresses(headers: Headers, name: str) -> list[NameAddr]:
    found: list[NameAddr] = []
    for line in _lines(headers, name):
        try:
            values = split_values([line])
        except RemoteSipError:
            continue
        for value in values[: MAX_ENTRIES - len(found)]:
            try:
                found.append(NameAddr.parse(value))
            except RemoteSipError:
                continue
    return found


def _history(headers: Headers) -> tuple[Diversion, ...]:
    """The targets before the last one, the latest first; the reason is the cause within the entry's URI."""
    entries = []
    for address in _addresses(headers, "history-info"):
        uri, _, embedded = address.uri.partition("?")
        try:
            parsed = SipUri.parse(uri)
        except RemoteSipError:
            continue
        cause = parsed.param("cause") or _cause_of(embedded)
        entries.append(Diversion(parsed.number, _word(cause)))
    return tuple(entries[-2::-1])


def _cause_of(embedded: str) -> str:
    """The cause within ``Reason=SIP%3Bcause%3D302``."""
    for part in embedded.split("&"):
        name, _, value = part.partition("=")
        if name.lower() == "reason":
            found = re.search(r"cause=(\d{1,3})", unescape(value))
            return found[1] if found else ""
    return ""


def _reasons(headers: Headers) -> list[Reason]:
    found = []
    for line in _lines(headers, "reason"):
        try:
            for value in split_values([line])[:MAX_ENTRIES]:
                protocol, *rest = split_quoted(value, ";")
                params = parse_params(rest)
                cause = params.get("cause") or "0"
                number = int(cause) if cause.isascii() and cause.isdecimal() and len(cause) < 6 else 0
                found.append(Reason(_word(protocol), number, printable((params.get("text") or "").strip('"'), 200)))
        except RemoteSipError:
            continue
    return found[:MAX_ENTRIES]


def _verstat(address: NameAddr) -> str:
    """It stands among the parameters of the number (``sip:+1202...;verstat=...@host``), or of the URI or header."""
    try:
        uri = address.sip_uri()
    except RemoteSipError:
        return ""
    within = uri.param("verstat") or address.params.get("verstat") or ""
    for part in uri.user.split(";")[1:]:
        name, _, value = part.partition("=")
        if name.lower() == "verstat":
            within = value
    return _word(within)


def _passports(headers: Headers) -> list[Passport]:
    found = []
    for line in headers.get_all("identity")[:4]:
        if len(line) > MAX_IDENTITY:
            continue
        token, *rest = line.split(";")
        try:
            params = parse_params(part.strip() for part in rest)
        except RemoteSipError:
            params = {}
        claims = _claims(token.strip())
        if claims is None:
            continue
        info = (params.get("info") or "").strip()
        found.append(
            Passport(
                attest=_text(claims.get("attest"), 1),
                origin=_number_of(claims.get("orig")),
                destinations=tuple(_numbers_of(claims.get("dest"))),
                issued_at=claims["iat"] if isinstance(claims.get("iat"), int) else 0,
                certificate=printable(info.removeprefix("<").removesuffix(">"), 500),
                token=token.strip(),
            )
        )
    return found


def _claims(token: str) -> dict[str, Any] | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _text(value: object, limit: int) -> str:
    return printable(value, limit) if isinstance(value, str) else ""


def _number_of(value: object) -> str:
    return next(iter(_numbers_of(value)), "")


def _numbers_of(value: object) -> list[str]:
    """``{"tn": "1202..."}`` or ``{"tn": ["1202...", ...]}``; a ``uri`` where there is no number."""
    if not isinstance(value, dict):
        return []
    given = value.get("tn") or value.get("uri")
    items = given if isinstance(given, list) else [given]
    return [text for item in items[:MAX_ENTRIES] if (text := _text(item, 128))]


def _word(text: str | None) -> str:
    return printable((text or "").strip().strip('"'), 64)
