"""The schema of ``appliance.yaml``. Every key has a description: ``docs/configuration.md`` is made of them."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    SerializationInfo,
    StringConstraints,
    model_validator,
)

from appliance.config.marks import Document, dotted
from appliance.config.shipped import shipped_dir
from appliance.config.validation import Section, fault, locate
from appliance.errors import Mistake

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECRET_MARK = "!secret"
CODECS: Final[tuple[Literal["pcmu", "pcma"], ...]] = ("pcmu", "pcma")
MEDIA_PORTS_PER_CALL: Final = 2


def _secret_in(value: Any) -> SecretStr:
    if isinstance(value, SecretStr):
        return value
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return SecretStr(str(value))
    raise fault("must be text", "write `!secret NAME`, and NAME in secrets.yaml")


def _secret_out(value: SecretStr, info: SerializationInfo) -> str:
    return value.get_secret_value() if _reveals(info) else "**********"


def _options_in(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_SECRET_MARK}:
            return SecretStr(str(value[_SECRET_MARK]))
        return {str(key): _options_in(item) for key, item in value.items()}
    return [_options_in(item) for item in value] if isinstance(value, list) else value


def _options_out(value: Any, info: SerializationInfo) -> Any:
    if isinstance(value, SecretStr):
        return {_SECRET_MARK: value.get_secret_value()} if _reveals(info) else "**********"
    if isinstance(value, dict):
        return {key: _options_out(item, info) for key, item in value.items()}
    return [_options_out(item, info) for item in value] if isinstance(value, list) else value


def _reveals(info: SerializationInfo) -> bool:
    return isinstance(info.context, dict) and info.context.get("reveal") is True


def _network(value: Any) -> Any:
    try:
        return ipaddress.ip_network(value if isinstance(value, int) else str(value))
    except ValueError:
        try:
            meant = ipaddress.ip_network(str(value), strict=False)
        except ValueError:
            hint = "write an address or a network such as 10.0.0.0/8"
            raise fault(f"{str(value)!r} is not a network", hint) from None
        raise fault(f"{str(value)!r} has bits set behind its prefix", f"did you mean {meant}?") from None


def _ports(value: Any) -> str:
    low, dash, high = str(value).partition("-")
    if not (dash and low.strip().isdecimal() and high.strip().isdecimal()):
        raise fault(f"{str(value)!r} is not a range of ports", "write it as 16384-18383")
    first, last = int(low), int(high)
    if not 1024 <= first <= last <= 65535:
        raise fault(f"{first}-{last} is not a range of ports between 1024 and 65535", "write it as 16384-18383")
    return f"{first}-{last}"


def _host(value: str) -> str:
    if not value or any(char.isspace() or char in "/@[]" for char in value):
        raise fault(f"{value!r} is not an address", "write a host or IP address alone, with no port")
    return value


def _sip_uri(value: str) -> str:
    if not value.startswith(("sip:", "sips:")) or any(char.isspace() for char in value):
        raise fault(f"{value!r} is not a SIP URI", "write it as sip:host or sip:host:port")
    return value


def _database(value: str) -> str:
    if urlsplit(value).scheme not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        hint = "write sqlite+aiosqlite:///PATH or postgresql+asyncpg://HOST/NAME"
        raise fault("is not the URL of a database the store can use", hint)
    return value


def _unavailable(what: str, value: str, instead: str) -> Exception:
    return fault(f"{what} {value!r} is not available in this version", instead)


def _kind(value: Any) -> Any:
    if value != "sip":
        raise _unavailable("trunk kind", str(value), "use sip")
    return value


def _transport(value: Any) -> Any:
    if value in ("tcp", "tls", "ws", "wss"):
        raise _unavailable("transport", str(value), "use udp")
    return value


def _codec(value: Any) -> Any:
    if value not in CODECS:
        raise _unavailable("codec", str(value), f"use {', '.join(CODECS)}")
    return value


def _srtp(value: Any) -> Any:
    if value in ("required", "optional", "preferred"):
        raise _unavailable("srtp", str(value), "calls on this trunk are not encrypted; write off, or leave it out")
    return "off" if value is False else value


def _register(value: Any) -> Any:
    if value not in (False, "false", "no", "off"):
        hint = "have the peer send calls to this box's address, and list it under allow"
        raise _unavailable("register", str(value).lower(), hint)
    return False


def _no_plugins(value: tuple[str, ...]) -> tuple[str, ...]:
    if value:
        raise _unavailable("plugin", value[0], "leave plugins.enabled empty")
    return value


Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]
Host: TypeAlias = Annotated[str, AfterValidator(_host)]
Secret: TypeAlias = Annotated[SecretStr, PlainValidator(_secret_in), PlainSerializer(_secret_out, when_used="json")]
NetworkField: TypeAlias = Annotated[Network, BeforeValidator(_network)]
Options: TypeAlias = Annotated[
    dict[str, Any], BeforeValidator(_options_in), PlainSerializer(_options_out, when_used="json")
]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86400)]


class SipListener(Section):
    """A socket that SIP peers send to."""

    transport: Annotated[Literal["udp"], BeforeValidator(_transport)] = Field(
        default="udp", description="SIP transport."
    )
    host: Host = Field(default="127.0.0.1", description="Address to bind. 0.0.0.0 for every interface.")
    port: Port = Field(default=5060, description="Port to bind; 0 takes any free one.")


class HttpListener(Section):
    """The socket of webhooks, API, pages, health and metrics."""

    host: Host = Field(default="127.0.0.1", description="Address to bind.")
    port: Port = Field(default=8080, description="Port to bind; 0 takes any free one.")


class MediaListener(Section):
    """The socket of carriers' media WebSockets."""

    host: Host = Field(default="127.0.0.1", description="Address to bind.")
    port: Port = Field(default=8081, description="Port to bind; 0 takes any free one.")


class Listen(Section):
    """Addresses and ports the box binds."""

    sip: tuple[SipListener, ...] = Field(
        default=(SipListener(),), min_length=1, description="SIP sockets, one entry each."
    )
    http: HttpListener = Field(default=HttpListener(), description="Webhooks, API, pages, health and metrics.")
    media: MediaListener = Field(default=MediaListener(), description="Carriers' media WebSockets.")
    rtp_host: Host = Field(default="127.0.0.1", description="Address the calls' RTP sockets are bound to.")
    rtp_ports: Annotated[str, BeforeValidator(_ports)] = Field(
        default="16384-18383", description="First and last RTP port. Two for each call are needed."
    )
    advertised: Host | None = Field(
        default=None,
        description="Address that peers are told in SIP and SDP, where it is not the one bound (behind a NAT).",
    )

    @property
    def rtp_port_range(self) -> tuple[int, int]:
        """First and last RTP port."""
        first, _, last = self.rtp_ports.partition("-")
        return int(first), int(last)


class SipTrunk(Section):
    """A peer that calls come from and go to."""

    kind: Annotated[Literal["sip"], BeforeValidator(_kind)] = Field(description="What the peer speaks.")
    allow: tuple[NetworkField, ...] = Field(
        default=(), description="Source addresses that calls are taken from. A call from anywhere else is refused."
    )
    proxy: Annotated[str, AfterValidator(_sip_uri)] | None = Field(default=None, description="SIP URI of the peer.")
    codecs: tuple[Annotated[Literal["pcmu", "pcma"], BeforeValidator(_codec)], ...] = Field(
        default=CODECS, min_length=1, description="Codecs offered and taken, the preferred one first."
    )
    username: str | None = Field(default=None, description="User name at the peer.")
    password: Secret | None = Field(default=None, description="Password at the peer: `!secret NAME`.")
    register_: Annotated[bool, BeforeValidator(_register)] = Field(
        default=False, alias="register", description="Register with the peer. Not available in this version."
    )
    srtp: Annotated[Literal["off"], BeforeValidator(_srtp)] = Field(
        default="off", description="Encryption of the audio. Not available in this version."
    )
    max_calls: int | None = Field(
        default=None, ge=1, description="Simultaneous calls on this trunk; empty for no own limit."
    )


class Engine(Section):
    """One kind of engine. Keys that are not listed here are the provider's own options."""

    provider: Name = Field(description="Which implementation; `none` for none. `fake` serves tests and benchmarks.")
    workers: int | None = Field(
        default=None, ge=1, le=64, description="Worker processes; empty chooses by the machine."
    )
    timeout_s: Seconds = Field(default=10.0, description="A request that has no answer by then has failed.")
    options: Options = Field(default={}, description="The provider's own keys; they may also stand beside `provider`.")

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        own = {key: value for key, value in data.items() if key in cls.model_fields}
        extra = {key: value for key, value in data.items() if key not in cls.model_fields}
        if extra and isinstance(own.get("options", {}), dict):
            own["options"] = {**own.get("options", {}), **extra}
        return own


class Engines(Section):
    """Who does what with speech and language."""

    vad: Engine = Field(default=Engine(provider="silero"), description="Voice activity: silero or none.")
    denoise: Engine = Field(default=Engine(provider="none"), description="Noise suppression of what the caller says.")
    turn: Engine = Field(default=Engine(provider="smart_turn"), description="Whether the caller has finished.")
    asr: Engine = Field(default=Engine(provider="pocketsphinx"), description="Speech recognition.")
    llm: Engine = Field(default=Engine(provider="none"), description="Language model, for lines with `agent: llm`.")
    tts: Engine = Field(default=Engine(provider="espeak"), description="Speech synthesis.")


class Store(Section):
    """Call records and recordings."""

    url: Annotated[str, AfterValidator(_database)] = Field(
        default="sqlite+aiosqlite:///var/appliance.db",
        repr=False,
        description="SQLAlchemy URL of the database. Below `state_dir`.",
    )
    recordings: Path = Field(default=Path("var/recordings"), description="Folder of the recordings. Below `state_dir`.")
    retention_days: int = Field(default=30, ge=1, description="Age at which records and recordings are deleted.")


class Recording(Section):
    """Recording of calls, for all lines."""

    enabled: bool = Field(default=True, description="false records no call, whatever a line says.")


class Limits(Section):
    """How much the box takes on."""

    max_calls: int = Field(default=200, ge=1, le=2000, description="Simultaneous calls; one more is answered with 503.")
    max_cps: float = Field(default=50.0, gt=0, le=1000, description="New calls per second; more are answered with 503.")
    drain_s: float = Field(
        default=30.0, ge=0, le=86400, description="How long calls may go on once the box is told to stop."
    )


class Media(Section):
    """The audio clock."""

    core: int | None = Field(default=None, ge=0, description="CPU core to pin it to; empty chooses the last one.")
    rtp_timeout_s: Seconds = Field(default=30.0, description="A call whose peer sends no RTP for this long is over.")


class Log(Section):
    """Log lines, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is written."
    )


class Dialplans(Section):
    """Who answers which number."""

    paths: tuple[Path, ...] = Field(
        default_factory=lambda: (shipped_dir("dialplans"),),
        min_length=1,
        description="Folders or files of dialplans, relative to this file.",
    )


class Plugins(Section):
    """Plugins."""

    paths: tuple[Path, ...] = Field(
        default_factory=lambda: (shipped_dir("plugins"),),
        description="Folders or files of plugins, relative to this file.",
    )
    enabled: Annotated[tuple[Name, ...], AfterValidator(_no_plugins)] = Field(
        default=(), description="Plugins to load, by name. Not available in this version."
    )


class Settings(Section):
    """All of ``appliance.yaml``.

    Made by :func:`appliance.config.load_settings`. A child process reads what :meth:`dump_json` wrote with
    ``Settings.model_validate_json``.
    """

    listen: Listen = Field(default=Listen(), description="Addresses and ports the box binds.")
    trunks: dict[Name, SipTrunk] = Field(
        default_factory=lambda: {"local": SipTrunk(kind="sip", allow=(ipaddress.ip_network("127.0.0.0/8"),))},
        description="Peers, by a name that dialplans can match. By default `local`: softphones on this machine.",
    )
    engines: Engines = Field(default=Engines(), description="Speech and language engines.")
    store: Store = Field(default=Store(), description="Call records and recordings.")
    recording: Recording = Field(default=Recording(), description="Recording of calls.")
    limits: Limits = Field(default=Limits(), description="How much the box takes on.")
    media: Media = Field(default=Media(), description="The audio clock.")
    log: Log = Field(default=Log(), description="Log lines.")
    dialplans: Dialplans = Field(default=Dialplans(), description="Who answers which number.")
    plugins: Plugins = Field(default=Plugins(), description="Plugins.")
    state_dir: Path = Field(
        default=Path("var"), description="Folder of what the box writes, relative to the working directory."
    )
    runtime_dir: Path = Field(
        default=Path("var/run"), description="Folder of the box's own sockets. Below `state_dir`."
    )
    models_dir: Path | None = Field(
        default=None,
        description="Folder of model files. By default `$APPLIANCE_MODELS`, or `~/.cache/appliance/models`.",
    )

    _document: Document | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _below_state_dir(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("state_dir"), str | Path):
            return data
        data = dict(data)
        data.setdefault("runtime_dir", Path(data["state_dir"], "run"))
        store = data.get("store", {})
        if isinstance(store, dict):
            url = f"sqlite+aiosqlite:///{Path(data['state_dir'], 'appliance.db')}"
            data["store"] = {"url": url, "recordings": Path(data["state_dir"], "recordings"), **store}
        return data

    def __eq__(self, other: object) -> bool:
        # Where a value was written does not count: a child process has the same settings without the lines.
        return isinstance(other, Settings) and self.dump_json() == other.dump_json()

    __hash__ = None  # type: ignore[assignment]

    def dump_json(self) -> str:
        """All settings as JSON, secrets included: for a child process, never for a file or a log."""
        return self.model_dump_json(by_alias=True, context={"reveal": True})

    def trunk_of(self, address: str) -> str | None:
        """The trunk a source address belongs to: the one with the smallest network that holds it; None for nobody."""
        try:
            source = ipaddress.ip_address(address)
        except ValueError:
            return None
        if isinstance(source, ipaddress.IPv6Address) and source.ipv4_mapped:
            source = source.ipv4_mapped
        found = [
            (network.prefixlen, name)
            for name, trunk in self.trunks.items()
            for network in trunk.allow
            if source.version == network.version and source in network
        ]
        return max(found)[1] if found else None

    def mistake(self, key: str, what: str, hint: str = "") -> Mistake:
        """A mistake about ``key`` (``engines.asr.delay_ms``), found later, at the line where it was written."""
        path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        document = self._document or Document("appliance.yaml")
        return Mistake(*document.origin(locate(document.data, path)), dotted(path), what, hint)


def conflicts(settings: Settings) -> list[tuple[tuple[str | int, ...], str, str]]:
    """What is wrong between settings that are right by themselves: (path, what, hint) each."""
    found: list[tuple[tuple[str | int, ...], str, str]] = []
    first, last = settings.listen.rtp_port_range
    room = len(range(first + first % 2, last, MEDIA_PORTS_PER_CALL))
    if room < settings.limits.max_calls:
        calls = settings.limits.max_calls
        hint = f"make it {first}-{first + MEDIA_PORTS_PER_CALL * calls - 1}, or lower limits.max_calls to {room}"
        if first + MEDIA_PORTS_PER_CALL * calls - 1 > 65535:
            hint = f"begin at a lower port, or lower limits.max_calls to {room}"
        found.append((("listen", "rtp_ports"), f"has room for {room} calls, not for {calls}", hint))
    if settings.engines.denoise.provider != "none":
        what = f"denoise provider {settings.engines.denoise.provider!r} is not available in this version"
        found.append((("engines", "denoise", "provider"), what, "use none"))
    taken: dict[tuple[str, str, int], str] = {}
    sockets: list[tuple[tuple[str | int, ...], str, str, int]] = [
        (("listen", "sip", index, "port"), one.transport, one.host, one.port)
        for index, one in enumerate(settings.listen.sip)
    ]
    sockets += [
        (("listen", "http", "port"), "tcp", settings.listen.http.host, settings.listen.http.port),
        (("listen", "media", "port"), "tcp", settings.listen.media.host, settings.listen.media.port),
    ]
    for path, transport, host, port in sockets:
        other = taken.setdefault((transport, host, port), dotted(path[:-1]))
        if port and other != dotted(path[:-1]):
            found.append((path, f"{host}:{port}/{transport} is already {other}", "choose another port"))
        elif transport == "udp" and first <= port <= last:
            found.append((path, f"{port} is within listen.rtp_ports", "choose a port outside of it"))
    owners: dict[Network, str] = {}
    for name, trunk in settings.trunks.items():
        for index, network in enumerate(trunk.allow):
            owner = owners.setdefault(network, name)
            if owner != name:
                what = f"{network} also belongs to trunk {owner!r}"
                found.append((("trunks", name, "allow", index), what, "a source can only be of one trunk"))
    return found
