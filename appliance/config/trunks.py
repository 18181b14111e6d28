"""The schema of ``listen``'s sockets, ``trunks`` and ``routes``: who the box talks with, and who may be called."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from appliance.config.fields import (
    Host,
    Language,
    Name,
    Network,
    NetworkField,
    Options,
    Port,
    Region,
    Secret,
    WholeNumber,
    gathered,
    unavailable,
)
from appliance.config.validation import ITEM, Section, fault, nearest, short_form

Codec: TypeAlias = Literal["pcmu", "pcma", "g722", "opus"]
NumberKind: TypeAlias = Literal["premium", "emergency", "shared_cost", "satellite"]
KeyPath: TypeAlias = tuple[str | int, ...]

DEFAULT_CODECS: Final[tuple[Codec, ...]] = ("pcmu", "pcma")
LOWEST_SESSION_TIMER_S: Final = 90
"""RFC 4028 §5: no side may ask for less."""

VARIABLE: Final = re.compile(r"\$\{\s*([^{}|]*?)\s*\}")
"""A variable in a header's template."""
NETWORK_VARIABLES: Final = (
    "caller.asserted",
    "caller.asserted_name",
    "caller.verstat",
    "caller.privacy",
    "diverted.number",
    "call.reason",
    "call.user_to_user",
)
"""What the network says about a call, in dialplans and in headers of calls placed."""
_VARIABLES: Final = frozenset(("caller.number", "called.number", "call.id", "line.name", *NETWORK_VARIABLES))
_SIP_URI = re.compile(r"sips?:(?:.+@)?(\[[^]]*\]|[A-Za-z0-9._+-]+)(?::([^;?@]*))?((?:;[^;=?@]+(?:=[^;?@]*)?)*)")
_SEPARATORS = str.maketrans("", "", " -().\t/")
_TOKEN = re.compile(r"[A-Za-z0-9!%*_+`'~.-]{1,64}")
_OWN_HEADERS: Final = frozenset(
    """
    via from to call-id cseq contact max-forwards route record-route content-length content-type authorization
    proxy-authorization require supported allow session-expires min-se replaces refer-to referred-by rack rseq
    v f t i m l c k x r b
    """.split()  # noqa: SIM905 - a list of forty strings is not easier to read
)
"""Headers that the protocol itself writes; a template for one of them would break calls."""


@short_form()
def _transport(value: Any) -> Any:
    if value in ("ws", "wss"):
        raise unavailable("transport", str(value), "use udp, tcp or tls")
    return value


@short_form({"const": False})
def _off(value: Any) -> Any:
    return "off" if value is False else value


@short_form(ITEM)
def one_or_many(value: Any) -> Any:
    """A list, also where one item was written alone."""
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


def _sip_uri(value: str) -> str:
    """A URI that ``appliance.sip.uri.SipUri`` can read: what it refuses is refused here, with its line in the file."""
    parts = _SIP_URI.fullmatch(value)
    if parts is None or any(char.isspace() or not char.isprintable() or char in "<>\"'" for char in value):
        raise fault(f"{value!r} is not a SIP URI", "write it as sip:host, sip:host:port or sip:host;transport=tls")
    host, port, parameters = parts.groups()
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise fault(f"{host!r} is not an IPv6 address", "write it as sip:[2001:db8::1]") from None
    if port is not None and not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) <= 65535):
        raise fault(f"{port!r} is not a port", "write one from 1 to 65535, or leave it out")
    for parameter in parameters.split(";")[1:]:
        name, _, given = parameter.partition("=")
        if name.lower() == "transport" and given not in ("udp", "tcp", "tls"):
            raise fault(f"{given!r} is not a SIP transport", "write transport=udp, transport=tcp or transport=tls")
    return value


def _prefix(value: str) -> str:
    bare = value.removesuffix("*")
    if not value or "*" in bare[1:] or any(char.isspace() for char in value):
        raise fault(f"{value!r} is not the beginning of a number", "write it as +49 or 0800; '*' stands for any number")
    return value


def _ptime(value: int) -> int:
    if value not in range(10, 61, 10):
        raise fault(f"must be 10, 20, 30, 40, 50 or 60, not {value}")
    return value


def _timer(value: int) -> int:
    if value and value < LOWEST_SESSION_TIMER_S:
        raise fault(f"must be 0 (off) or at least {LOWEST_SESSION_TIMER_S}, not {value}", "1800 is usual")
    return value


def _header(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise fault(f"{value!r} is not the name of a header", "write it as X-Account")
    return value


def _own_header(value: str) -> str:
    if _header(value).lower() in _OWN_HEADERS:
        raise fault(f"{value!r} is written by the protocol itself", "leave it out")
    return value


def _template(value: str) -> str:
    if any(not char.isprintable() for char in value):
        raise fault("holds a line break or a control character", "write it on one line")
    return value


def _prepended(value: str) -> str:
    if not re.fullmatch(r"\+?[0-9*#]{0,16}", value):
        raise fault(f"{value!r} cannot begin a number", "write digits, * and #, with + in front if at all, up to 16")
    return value


Prefixes: TypeAlias = Annotated[tuple[Annotated[str, AfterValidator(_prefix)], ...], BeforeValidator(one_or_many)]


class SipListener(Section):
    """A socket that SIP peers send to."""

    transport: Annotated[Literal["udp", "tcp", "tls"], BeforeValidator(_transport)] = Field(
        default="udp", description="SIP transport."
    )
    host: Host = Field(default="127.0.0.1", description="Address to bind. 0.0.0.0 for every interface.")
    port: Port = Field(default=5060, description="Port to bind; 0 takes any free one. TLS commonly uses 5061.")
    cert: Path | None = Field(default=None, description="With tls: the certificate chain, a PEM file.")
    key: Path | None = Field(default=None, description="With tls: its private key, a PEM file.")


class TrunkTls(Section):
    """Certificates for TLS towards a trunk."""

    ca: Path | None = Field(
        default=None, description="PEM file of the authorities trusted; without it, those of the system."
    )
    cert: Path | None = Field(default=None, description="Our certificate, where the peer asks for one: a PEM file.")
    key: Path | None = Field(default=None, description="Its private key, a PEM file.")
    verify: bool = Field(default=True, description="false takes any certificate: for a laboratory only.")


class StreamListener(Section):
    """A TCP socket for the streams of a kind of trunk that does not come by WebSocket."""

    kind: Name = Field(description="Kind of the trunks whose streams come here, such as `audiosocket`.")
    host: Host = Field(default="127.0.0.1", description="Address to bind.")
    port: Port = Field(description="Port to bind; 0 takes any free one. AudioSocket commonly uses 9092.")


class Trunk(Section):
    """What every trunk has, whatever it speaks."""

    kind: Name = Field(
        description="What the peer speaks: `sip`, or the kind of a carrier.", examples=["kind: sip", "kind: twilio"]
    )
    allow: Annotated[tuple[NetworkField, ...], BeforeValidator(one_or_many)] = Field(
        default=(),
        description="Source addresses that calls are taken from. A call from anywhere else is refused; one that a "
        "carrier's webhook has asked for is known by its signature and a secret instead.",
    )
    max_calls: int | None = Field(
        default=None, ge=1, description="Simultaneous calls on this trunk, both ways; empty for no own limit."
    )
    max_cps: float | None = Field(
        default=None, gt=0, le=1000, description="New calls per second on this trunk; empty for no own limit."
    )
    allow_prefixes: Prefixes = Field(
        default=(),
        max_length=1000,
        description="Beginnings of the numbers, and whole names, that may be dialled; empty: none. `*`: any.",
    )
    allow_kinds: Annotated[tuple[NumberKind, ...], BeforeValidator(one_or_many)] = Field(
        default=(), description="Costly or special numbers that may be dialled if a prefix fits; all others are not."
    )
    region: Region | None = Field(
        default=None,
        description="Country whose numbers come and are dialled without a country code, such as `DE`. Without it, "
        "costly numbers are known by their country code only.",
    )
    language: Language | None = Field(
        default=None, description="What those who call on this trunk speak, for `match.language` of lines."
    )
    caller_id: str | None = Field(default=None, max_length=64, description="Number or name shown to those called.")
    caller_ids: Annotated[tuple[WholeNumber, ...], BeforeValidator(one_or_many)] = Field(
        default=(),
        max_length=10_000,
        description="Numbers that are the operator's own to show on this trunk, as `+12025550100`. A campaign shows no "
        "others.",
    )
    headers_in: Annotated[tuple[Annotated[str, AfterValidator(_header)], ...], BeforeValidator(one_or_many)] = Field(
        default=(),
        max_length=32,
        description="What comes with a call, by name, that is offered to the dialplan and kept on record: headers of "
        "SIP, or what a carrier says besides (its page lists the names).",
    )
    transfer: Literal["auto", "refer", "bridge"] = Field(
        default="auto",
        description="How the box hands a call of this trunk on. auto: the carrier connects the caller where it can "
        "and the number goes by this trunk, else the box stays between them; refer: the carrier does, also where "
        "routes send the number elsewhere, if this trunk may dial it; bridge: through the box.",
    )
    media_timeout: Literal["end", "keep"] = Field(
        default="end",
        description="What follows when no audio comes for `media.rtp_timeout_s`: end the call, or keep it.",
    )


class SipTrunk(Trunk):
    """A peer that calls come from and go to by SIP."""

    tag: ClassVar[str] = "<sip>"
    KIND: ClassVar[str] = "sip"

    kind: Literal["sip"] = Field(description="What the peer speaks.")
    allow: Annotated[tuple[NetworkField, ...], BeforeValidator(one_or_many)] = Field(
        default=(),
        description="Source addresses that calls are taken from; with `register: true` also the server that the trunk "
        "is registered with, by the same transport. A call from anywhere else is refused.",
    )
    caller_id: str | None = Field(
        default=None, max_length=64, description="Number or name shown to those called; empty: `username`."
    )
    transfer: Literal["auto", "refer", "bridge"] = Field(
        default="auto",
        description="How the box hands a call of this peer on. auto: REFER where the peer can and the number goes by "
        "this trunk, else through the box; refer: by REFER, also of numbers that routes send elsewhere, if this trunk "
        "may dial them; bridge: through the box.",
    )
    media_timeout: Literal["end", "keep"] = Field(
        default="end", description="What follows when no RTP comes for `media.rtp_timeout_s`: end the call, or keep it."
    )
    proxy: Annotated[tuple[Annotated[str, AfterValidator(_sip_uri)], ...], BeforeValidator(one_or_many)] = Field(
        default=(),
        max_length=8,
        description="SIP URI of the peer, or several, tried in this order. `;transport=tcp` or `tls` where not UDP.",
    )
    tls: TrunkTls = Field(default=TrunkTls(), description="Certificates, where the transport is TLS.")
    username: str | None = Field(default=None, description="User name at the peer.")
    password: Secret | None = Field(default=None, description="Password at the peer: `!secret NAME`.")
    register_: bool = Field(
        default=False, alias="register", description="Register with the peer, so that it sends calls here."
    )
    register_interval_s: int = Field(
        default=600, ge=60, le=86400, description="How long a registration is asked to last; it is renewed earlier."
    )
    auth: Literal["none", "challenge", "challenge-sha-256"] = Field(
        default="none",
        description="challenge: calls from the peer must know `username` and `password` (digest), beside `allow`; "
        "challenge-sha-256 does not take MD5 for it.",
    )
    qualify_s: float = Field(
        default=0, ge=0, le=3600, description="Ask the peer this often whether it is there (OPTIONS); 0 never."
    )
    codecs: Annotated[tuple[Codec, ...], BeforeValidator(one_or_many)] = Field(
        default=DEFAULT_CODECS, min_length=1, description="Codecs offered and taken, the preferred one first."
    )
    srtp: Annotated[Literal["off", "optional", "required"], BeforeValidator(_off)] = Field(
        default="off", description="Encryption of the audio (SDES). required refuses what is not encrypted."
    )
    ptime_ms: Annotated[int, AfterValidator(_ptime)] = Field(
        default=20, description="Audio in a packet of ours, in ms, where the peer asks for nothing else."
    )
    dtmf: Literal["auto", "rfc4733", "info", "inband"] = Field(
        default="auto",
        description="How keys are sent and understood; auto: RFC 4733 where agreed, else what comes.",
    )
    comfort_noise: bool = Field(default=False, description="Offer and understand comfort noise (RFC 3389).")
    session_timer_s: Annotated[int, Field(ge=0, le=86400), AfterValidator(_timer)] = Field(
        default=0, description="Session timer asked for (RFC 4028); 0 asks for none and follows the peer's."
    )
    allow_transfer: bool = Field(
        default=False, description="Whether this peer may transfer calls (REFER, and INVITE with Replaces)."
    )
    headers_out: dict[Annotated[str, AfterValidator(_own_header)], Annotated[str, AfterValidator(_template)]] = Field(
        default={},
        max_length=32,
        description="Headers added to calls placed: name to text, with `${caller.number}`, `${called.number}`, "
        "`${call.id}`, `${line.name}`, `${header.NAME}`, and what the network says about the call "
        f"({', '.join(f'`${{{name}}}`' for name in NETWORK_VARIABLES)}). One that comes out empty is left out.",
    )


class CarrierTrunk(Trunk):
    """A carrier, a PBX or the browser phone. Keys that are not listed here are the kind's own, see below."""

    tag: ClassVar[str] = "<carrier>"
    KIND: ClassVar[str] = "..."
    takes_more: ClassVar[bool] = True

    options: Options = Field(default={}, description="The kind's own keys; they may also stand beside `kind`.")

    @model_validator(mode="before")
    @classmethod
    @short_form()
    def _gather_options(cls, data: Any) -> Any:
        return gathered(data, cls) if isinstance(data, dict) else data


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return SipTrunk.tag if kind == "sip" else CarrierTrunk.tag


AnyTrunk: TypeAlias = Annotated[
    Annotated[SipTrunk, Tag(SipTrunk.tag)] | Annotated[CarrierTrunk, Tag(CarrierTrunk.tag)], Discriminator(_tag)
]


class Route(Section):
    """Which trunks a number is dialled by."""

    to: Prefixes = Field(default=("*",), min_length=1, description="Beginnings of the numbers; `*` for any.")
    trunks: Annotated[tuple[Name, ...], BeforeValidator(one_or_many)] = Field(
        min_length=1, max_length=8, description="Trunks by name, tried in this order."
    )
    strip: int = Field(default=0, ge=0, le=16, description="Characters taken off the beginning of the number.")
    prepend: Annotated[str, AfterValidator(_prepended)] = Field(
        default="", description="Put before the number, after stripping."
    )


Conflict: TypeAlias = tuple[KeyPath, str, str]


def listener_conflicts(listeners: tuple[SipListener, ...]) -> Iterator[Conflict]:
    """What is wrong within one of ``listen.sip``."""
    for index, one in enumerate(listeners):
        path: KeyPath = ("listen", "sip", index)
        if one.transport == "tls" and (one.cert is None or one.key is None):
            yield path, "tls needs a certificate and its key", "add cert: and key:, each the path of a PEM file"
        elif one.transport != "tls" and (one.cert is not None or one.key is not None):
            yield path, f"{one.transport} has no certificate", "remove cert and key, or set transport: tls"


def stream_conflicts(listeners: tuple[StreamListener, ...], trunks: Mapping[str, Trunk]) -> Iterator[Conflict]:
    """What is wrong between ``listen.streams`` and the trunks."""
    kinds = {trunk.kind: None for trunk in trunks.values() if trunk.kind != "sip"}
    for index, one in enumerate(listeners):
        path: KeyPath = ("listen", "streams", index, "kind")
        if one.kind == "sip":
            yield path, "SIP has sockets of its own", "list it under listen.sip"
        elif one.kind not in kinds:
            yield path, f"no trunk is of kind {one.kind!r}", nearest(one.kind, kinds) or "add one under trunks"


def trunk_conflicts(trunks: Mapping[str, Trunk], routes: tuple[Route, ...]) -> Iterator[Conflict]:
    """What is wrong within one trunk, and between trunks and routes."""
    owners: dict[tuple[str, Network], str] = {}
    for name, trunk in trunks.items():
        path: KeyPath = ("trunks", name)
        for index, network in enumerate(trunk.allow):
            owner = owners.setdefault((trunk.kind, network), name)
            if owner != name:
                what = f"{network} also belongs to trunk {owner!r}"
                yield (*path, "allow", index), what, f"a source can only be of one trunk of kind {trunk.kind}"
        national = [prefix for prefix in trunk.allow_prefixes if prefix.startswith(("0", "*"))]
        if national and trunk.region is None:
            what = f"{national[0]!r} lets numbers without a country code be dialled, and costly ones would not be known"
            yield (*path, "allow_prefixes"), what, "set region: to the country whose numbers these are"
        if isinstance(trunk, SipTrunk):
            yield from _sip_conflicts(trunk, path)
    for number, route in enumerate(routes):
        for index, name in enumerate(route.trunks):
            path = ("routes", number, "trunks", index)
            if name not in trunks:
                yield path, f"there is no trunk {name!r}", f"known: {', '.join(trunks)}"
            elif not _callable(trunks[name]):
                yield path, f"trunk {name!r} cannot be called", f"add trunks.{name}.proxy"
            elif not trunks[name].allow_prefixes:
                what = f"trunk {name!r} may dial no number"
                yield path, what, f"list what it may under trunks.{name}.allow_prefixes"
        used = [trunks[name] for name in route.trunks if name in trunks and trunks[name].allow_prefixes]
        if len(used) == len(route.trunks) and not any(_may_dial(trunk, route) for trunk in used):
            what = "no number of this route may be dialled: its trunks' allow_prefixes list none"
            hint = (
                f"list their beginning under trunks.{route.trunks[0]}.allow_prefixes, as it is before strip and prepend"
            )
            if route.prepend.startswith("+"):
                hint += ", and what prepend makes of it"
            yield ("routes", number, "to"), what, hint


def _sip_conflicts(trunk: SipTrunk, path: KeyPath) -> Iterator[Conflict]:
    if trunk.register_ and not (trunk.proxy and trunk.username):
        yield (*path, "register"), "needs to know where, and as whom", "add proxy: and username:"
    if trunk.auth != "none" and (not trunk.username or trunk.password is None):
        yield (*path, "auth"), "challenge needs something to check", "add username: and password:"
    if trunk.qualify_s and not trunk.proxy:
        yield (*path, "qualify_s"), "there is nobody to ask", "add proxy:"
    for header, template in trunk.headers_out.items():
        for variable in VARIABLE.findall(template):
            if variable not in _VARIABLES and not variable.startswith("header."):
                hint = f"known: {', '.join(sorted(_VARIABLES))}, header.NAME"
                yield (*path, "headers_out", header), f"${{{variable}}} stands for nothing", hint
    if (trunk.tls.cert is None) != (trunk.tls.key is None):
        yield (*path, "tls"), "cert and key go together", "add the other one"


def _callable(trunk: Trunk) -> bool:
    """Whether calls can go there, as far as the schema knows: a carrier says of itself that it places none."""
    return not isinstance(trunk, SipTrunk) or bool(trunk.proxy)


def _may_dial(trunk: Trunk, route: Route) -> bool:
    """Whether the trunk may dial any number of the route; False only where it surely may not."""

    def listed(beginning: str) -> bool:
        return any(_may_begin_alike(beginning, prefix, trunk.region) for prefix in trunk.allow_prefixes)

    gets_country_code = route.prepend.startswith("+") and trunk.region is None
    return any(
        listed(to) and (not gets_country_code or to.startswith(("+", "*")) or listed(route.prepend)) for to in route.to
    )


def _may_begin_alike(to: str, prefix: str, region: str | None) -> bool:
    if "*" in (to, prefix):
        return True
    ours, theirs = (one.removesuffix("*").translate(_SEPARATORS) for one in (to, prefix))
    if theirs.startswith("+") and not ours.startswith("+"):
        return region is not None
    return ours.startswith(theirs) or theirs.startswith(ours)
