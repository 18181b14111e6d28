"""The schema of ``appliance.yaml``. Every key has a description: ``docs/configuration.md`` is made of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    model_validator,
)

from appliance.config.egress import HostPattern, address_mistakes, engine_mistakes
from appliance.config.fields import (
    Address,
    Host,
    Name,
    NetworkField,
    Options,
    PluginValues,
    Port,
    Region,
    Seconds,
    Secret,
    gathered,
)
from appliance.config.marks import Document, dotted
from appliance.config.mcp import MCP_PLUGIN, McpServer
from appliance.config.shipped import shipped_dir
from appliance.config.trunks import (
    AnyTrunk,
    CarrierTrunk,
    Route,
    SipListener,
    SipTrunk,
    StreamListener,
    listener_conflicts,
    one_or_many,
    stream_conflicts,
    trunk_conflicts,
)
from appliance.config.validation import Section, fault, locate, short_form
from appliance.errors import Mistake

MEDIA_PORTS_PER_CALL: Final = 2
_MIN_TOKEN: Final = 16
_LOOPBACK: Final = ipaddress.ip_network("127.0.0.0/8")


@short_form()
def _ports(value: Any) -> str:
    low, dash, high = str(value).partition("-")
    if not (dash and low.strip().isdecimal() and high.strip().isdecimal()):
        raise fault(f"{str(value)!r} is not a range of ports", "write it as 16384-18383")
    first, last = int(low), int(high)
    if not 1024 <= first <= last <= 65535:
        raise fault(f"{first}-{last} is not a range of ports between 1024 and 65535", "write it as 16384-18383")
    return f"{first}-{last}"


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no address of HTTP; write it as http://127.0.0.1:4318/v1/traces")
    return value


def _database(value: str) -> str:
    if urlsplit(value).scheme not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        hint = "write sqlite+aiosqlite:///PATH or postgresql+asyncpg://HOST/NAME"
        raise fault("is not the URL of a database the store can use", hint)
    return value


def _shipped_trunks() -> dict[str, SipTrunk | CarrierTrunk]:
    return {
        "local": SipTrunk(kind="sip", allow=(_LOOPBACK,)),
        "phone": CarrierTrunk(kind="browser", allow=(_LOOPBACK,)),
    }


class HttpListener(Section):
    """The socket of webhooks, API, pages, health and metrics."""

    host: Host = Field(default="127.0.0.1", description="Address to bind.")
    port: Port = Field(default=8080, description="Port to bind; 0 takes any free one.")


class MediaListener(Section):
    """The socket of carriers' media WebSockets; bound where there is a trunk of another kind than sip."""

    host: Host = Field(default="127.0.0.1", description="Address to bind.")
    port: Port = Field(default=8081, description="Port to bind; 0 takes any free one.")


@short_form()
def _tokens(value: Any) -> Any:
    return [value] if not isinstance(value, list | tuple) else value


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _MIN_TOKEN:
        raise fault(f"is shorter than {_MIN_TOKEN} characters", "make one with `openssl rand -hex 24`")
    return value


class Api(Section):
    """The HTTP API below `/api/`."""

    tokens: Annotated[tuple[Annotated[Secret, AfterValidator(_long_enough)], ...], BeforeValidator(_tokens)] = Field(
        default=(),
        max_length=32,
        description="Whoever knows one may use the API and the commands that ask it: `!secret NAME`, or a list. "
        "Without any, it is off.",
    )


class Listen(Section):
    """Addresses and ports the box binds."""

    sip: tuple[SipListener, ...] = Field(
        default=(SipListener(),), min_length=1, description="SIP sockets, one entry each."
    )
    http: HttpListener = Field(default=HttpListener(), description="Health, metrics and the state of the trunks.")
    media: MediaListener = Field(default=MediaListener(), description="Carriers' media WebSockets.")
    streams: tuple[StreamListener, ...] = Field(
        default=(), max_length=16, description="TCP sockets for the audio of PBXs that use no WebSocket."
    )
    proxies: Annotated[tuple[NetworkField, ...], BeforeValidator(one_or_many)] = Field(
        default=(),
        max_length=64,
        description="Addresses of the reverse proxies in front of `http` and `media`: whom they forward for "
        "(`X-Forwarded-For`) is believed, and nobody else.",
    )
    rtp_host: Host = Field(default="127.0.0.1", description="Address the calls' RTP sockets are bound to.")
    rtp_ports: Annotated[str, BeforeValidator(_ports)] = Field(
        default="16384-18383", description="First and last RTP port. Two for each call are needed."
    )
    advertised: Address | None = Field(
        default=None,
        description="IP address that peers are told in SIP and SDP, where it is not the one bound (behind a NAT, or "
        "bound to 0.0.0.0).",
    )

    @property
    def rtp_port_range(self) -> tuple[int, int]:
        """First and last RTP port."""
        first, _, last = self.rtp_ports.partition("-")
        return int(first), int(last)


class Engine(Section):
    """One kind of engine. Keys that are not listed here are the provider's own options."""

    takes_more: ClassVar[bool] = True

    provider: Name = Field(description="Which implementation; `none` for none. `fake` serves tests and benchmarks.")
    workers: int | None = Field(
        default=None, ge=1, le=64, description="Worker processes; empty chooses by the machine."
    )
    timeout_s: Seconds = Field(default=10.0, description="A request that has no answer by then has failed.")
    options: Options = Field(default={}, description="The provider's own keys; they may also stand beside `provider`.")

    @model_validator(mode="before")
    @classmethod
    @short_form()
    def _gather_options(cls, data: Any) -> Any:
        return gathered(data, cls) if isinstance(data, dict) else data


class FallbackSpeech(Section):
    """Who speaks while the synthesiser cannot. Keys that are not listed here are the provider's own options."""

    takes_more: ClassVar[bool] = True
    provider: Name = Field(description="Which implementation; in its own voice for the line's language.")
    first_audio_s: Seconds = Field(
        default=1.5, description="Without audio after so long it takes over; and then for 15 s, after any failure."
    )
    options: Options = Field(default={}, description="The provider's own keys; they may also stand beside `provider`.")

    @model_validator(mode="before")
    @classmethod
    @short_form({"type": "string"})
    def _gather_options(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"provider": data}
        return gathered(data, cls) if isinstance(data, dict) else data


class SpeechEngine(Engine):
    """Speech synthesis. Keys that are not listed here are the provider's own options."""

    cache_mb: float = Field(
        default=32.0, ge=0, le=4096, description="Memory of each worker for phrases already spoken; 1 MB is a minute."
    )
    fallback: FallbackSpeech = Field(
        default=FallbackSpeech(provider="espeak"),
        description="Who speaks while `provider` cannot: a provider, or a mapping with the keys below; `none` for "
        "nobody.",
    )


EngineName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,24}$")]


class NamedEngines(Section):
    """Engines beside those that all lines have, for lines that name them (`engines` of a line); each has workers."""

    asr: dict[EngineName, Engine] = Field(default={}, max_length=8, description="Speech recognition, by name.")
    llm: dict[EngineName, Engine] = Field(default={}, max_length=8, description="Language models, by name.")
    tts: dict[EngineName, SpeechEngine] = Field(default={}, max_length=8, description="Speech synthesis, by name.")


class Engines(Section):
    """Who does what with speech and language."""

    vad: Engine = Field(default=Engine(provider="silero"), description="Voice activity: silero or none.")
    denoise: Engine = Field(
        default=Engine(provider="none"),
        description="Noise suppression, for lines that do not choose: webrtc, rnnoise or none. See docs/noise.md.",
    )
    turn: Engine = Field(default=Engine(provider="smart_turn"), description="Whether the caller has finished.")
    asr: Engine = Field(default=Engine(provider="pocketsphinx"), description="Speech recognition.")
    llm: Engine = Field(default=Engine(provider="none"), description="Language model, for lines with `agent: llm`.")
    speech: Engine = Field(
        default=Engine(provider="none"),
        description="Hears and speaks by itself, for lines with `agent: realtime`. Has no use for `timeout_s`.",
    )
    tts: SpeechEngine = Field(default=SpeechEngine(provider="espeak"), description="Speech synthesis.")
    named: NamedEngines = Field(
        default=NamedEngines(), description="Others, for lines that name them: `named: {llm: {clever: {...}}}`."
    )

    def of(self, kind: str, name: str = "") -> Engine:
        """The engine of that kind and name; "" for the one that all lines have that name none.

        Raises:
            KeyError: there is none of that name.
        """
        chosen: Engine = getattr(self.named, kind)[name] if name else getattr(self, kind)
        return chosen

    def voice(self, name: str = "") -> SpeechEngine:
        """:meth:`of` the synthesisers."""
        return self.named.tts[name] if name else self.tts

    def all_named(self) -> Iterator[tuple[str, str]]:
        """Kind and name of each that has a name."""
        for kind in NamedEngines.model_fields:
            for name in getattr(self.named, kind):
                yield kind, name


class Store(Section):
    """Call records and recordings."""

    url: Annotated[str, AfterValidator(_database)] = Field(
        default="sqlite+aiosqlite:///var/appliance.db",
        repr=False,
        description="SQLAlchemy URL of the database. Below `state_dir`.",
    )
    box: Annotated[str, StringConstraints(max_length=64)] = Field(
        default="",
        description="Name of this box where several share the database, another on each; the host's name if empty.",
    )
    recordings: Path = Field(default=Path("var/recordings"), description="Folder of the recordings. Below `state_dir`.")
    retention_days: int = Field(default=30, ge=1, description="Age at which records and recordings are deleted.")


class Recording(Section):
    """Recording of calls, for all lines."""

    enabled: bool = Field(default=True, description="false records no call, whatever a line says.")


class Limits(Section):
    """How much the box takes on."""

    max_calls: int = Field(
        default=200,
        ge=1,
        le=2000,
        description="Simultaneous calls; one more is answered with 503. A caller put through by the box takes two.",
    )
    max_cps: float = Field(
        default=50.0,
        gt=0,
        le=300,
        description="New calls per second; more are answered with 503. Whatever this says, one address may begin 100 "
        "calls a second, and all together 300.",
    )
    streams_per_address: int = Field(
        default=200,
        ge=1,
        le=10_000,
        description="Media connections of one address at a time (`listen.media`, `listen.streams`); more are closed.",
    )
    drain_s: float = Field(
        default=30.0, ge=0, le=86400, description="How long calls may go on once the box is told to stop."
    )


class Media(Section):
    """The audio clock."""

    core: int | None = Field(default=None, ge=0, description="CPU core to pin it to; empty chooses the last one.")
    rtp_timeout_s: Seconds = Field(
        default=30.0, description="A call whose peer sends no RTP for this long is over; see trunks' `media_timeout`."
    )
    hold_music: Path | None = Field(
        default=None, description="What callers on hold hear: a WAV file, looped. Without one, a quiet melody."
    )


class Log(Section):
    """Log lines, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is written."
    )


class Traces(Section):
    """Spans of calls, turns, tools and hooks, for OpenTelemetry. Needs the extra `appliance[traces]`."""

    endpoint: Annotated[str, AfterValidator(_http_url)] | None = Field(
        default=None,
        description="Where spans are sent by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`: a collector, "
        "which adds what a service beyond it wants to know. Nothing that was said is in them, and nobody's number. "
        "Unset: no spans.",
    )


class Dialplans(Section):
    """Who answers which number."""

    paths: tuple[Path, ...] = Field(
        default_factory=lambda: (shipped_dir("dialplans"),),
        min_length=1,
        description="Folders or files of dialplans, relative to this file.",
    )
    region: Region | None = Field(
        default=None,
        description="Country that numbers without country code are from, such as `DE`, where neither the line nor the "
        "trunk says; see docs/dialplans.md.",
    )
    watch: bool = Field(
        default=True,
        description="Whether dialplans, plugins and the files that they name are read again once one has changed. "
        "Without it: on SIGHUP and `appliance reload`.",
    )


class Plugins(Section):
    """Plugins: Python files and packages, and YAML files. [Plugins](plugins/README.md) has the whole of it."""

    paths: tuple[Path, ...] = Field(
        default_factory=lambda: (shipped_dir("plugins"),),
        description="Folders or files of plugins, relative to this file. The shipped ones are found besides.",
    )
    enabled: PluginValues = Field(
        default={},
        description="Plugins of every line: a list of names, or a mapping of each name to the plugin's values. A line "
        "names others under its own `plugins`.",
    )
    memory_mb: int = Field(
        default=1024,
        ge=128,
        le=65536,
        description="Address space that all Python plugins share; more is refused to them as MemoryError.",
    )
    hang_s: float = Field(
        default=1.0,
        ge=0.1,
        le=60,
        description="The plugin host is killed and started again when it gives no sign of life for so long.",
    )
    media: tuple[Name, ...] = Field(
        default=(),
        description="Plugins whose noise suppression, voice detectors and carriers may run in the box's own processes, "
        "beside the audio: trusted not to be slow, for every call stutters with them.",
    )
    allow_hosts: tuple[HostPattern, ...] = Field(
        default=(),
        max_length=1000,
        description="Hosts in private networks, or on this machine, that every YAML plugin may speak to, beside its "
        "own `allow_hosts`.",
    )
    mcp: dict[Name, McpServer] = Field(
        default={}, max_length=20, description="MCP servers whose tools the language models of lines may use, by name."
    )

    @property
    def chosen(self) -> dict[str, dict[str, Any]]:
        """``enabled``, and the plugin of MCP servers where there are any."""
        if not self.mcp:
            return self.enabled
        servers = {name: server.model_dump(exclude_unset=True) for name, server in self.mcp.items()}
        return {**self.enabled, MCP_PLUGIN: {**self.enabled.get(MCP_PLUGIN, {}), "servers": servers}}


class Settings(Section):
    """All of ``appliance.yaml``.

    Made by :func:`appliance.config.load_settings`. A child process reads what :meth:`dump_json` wrote with
    ``Settings.model_validate_json``.
    """

    listen: Listen = Field(default=Listen(), description="Addresses and ports the box binds.")
    trunks: dict[Name, AnyTrunk] = Field(
        default_factory=_shipped_trunks,
        description="Peers, by a name that dialplans can match. By default `local`, softphones on this machine, and "
        "`phone`, browsers on it.",
    )
    routes: tuple[Route, ...] = Field(
        default=(),
        max_length=200,
        description="Which trunks numbers are dialled by; the first that fits. None: no dialling.",
    )
    engines: Engines = Field(default=Engines(), description="Speech and language engines.")
    store: Store = Field(default=Store(), description="Call records and recordings.")
    recording: Recording = Field(default=Recording(), description="Recording of calls.")
    limits: Limits = Field(default=Limits(), description="How much the box takes on.")
    media: Media = Field(default=Media(), description="The audio clock.")
    log: Log = Field(default=Log(), description="Log lines.")
    traces: Traces = Field(default=Traces(), description="Spans for OpenTelemetry.")
    api: Api = Field(default=Api(), description="The HTTP API.")
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

    egress: tuple[HostPattern, ...] | None = Field(
        default=None,
        max_length=1000,
        description="Hosts that engines, the database, HTTP tools, webhooks, MCP servers and connections of Python "
        "plugins may be at: `api.example.com`, `*.example.com`, an address or a network. Empty list: nothing of a call "
        "leaves the box but the call. Unset: engines are where they are configured, tools and webhooks at any public "
        "host, plugins connect to any.",
    )
    secrets_file: Path | None = Field(
        default=None,
        description="File in which `!secret NAME` of dialplans and plugins is looked up. By default `secrets.yaml` "
        "beside this file, where that of this file always is.",
    )

    _document: Document | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    @short_form()
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

    @property
    def sip_trunks(self) -> dict[str, SipTrunk]:
        """The trunks of kind sip."""
        return {name: trunk for name, trunk in self.trunks.items() if isinstance(trunk, SipTrunk)}

    @property
    def carrier_trunks(self) -> dict[str, CarrierTrunk]:
        """All others."""
        return {name: trunk for name, trunk in self.trunks.items() if isinstance(trunk, CarrierTrunk)}

    def dump_json(self) -> str:
        """All settings as JSON, secrets included: for a child process, never for a file or a log."""
        return self.model_dump_json(by_alias=True, context={"reveal": True})

    def mistake(self, key: str, what: str, hint: str = "") -> Mistake:
        """A mistake about ``key`` (``engines.asr.delay_ms``), found later, at the line where it was written."""
        path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        document = self._document or Document("appliance.yaml")
        written = locate(document.data, path)
        gathered_from = (*written, "options", *path[len(written) :])
        if len(written) < len(path) and locate(document.data, gathered_from) == gathered_from:
            path = written = gathered_from
        return Mistake(*document.origin(written), dotted(path), what, hint)


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
    if settings.engines.tts.provider == "none":
        found.append((("engines", "tts", "provider"), "is none: nothing could be said", "set one, espeak for instance"))
    found += _unreachable_audio(settings)
    engines: dict[tuple[str, ...], Engine] = {
        (kind,): engine for kind, engine in settings.engines if isinstance(engine, Engine)
    }
    engines |= {("named", *one): settings.engines.of(*one) for one in settings.engines.all_named()}
    for key, engine in engines.items():
        if key[0] == "named" and engine.provider == "none":
            found.append((("engines", *key, "provider"), "is none: a line that names it has nobody", "set one"))
    found += engine_mistakes(engines, settings.egress)
    urls: dict[tuple[str | int, ...], str] = {
        ("plugins", "mcp", name, "url"): server.url for name, server in settings.plugins.mcp.items() if server.url
    }
    urls["store", "url"] = settings.store.url
    if settings.traces.endpoint is not None:
        urls["traces", "endpoint"] = settings.traces.endpoint
    found += address_mistakes(urls, settings.egress)
    taken: dict[tuple[str, str, int], str] = {}
    sockets: list[tuple[tuple[str | int, ...], str, str, int]] = [
        (("listen", "sip", index, "port"), "udp" if one.transport == "udp" else "tcp", one.host, one.port)
        for index, one in enumerate(settings.listen.sip)
    ]
    sockets.append((("listen", "http", "port"), "tcp", settings.listen.http.host, settings.listen.http.port))
    if settings.carrier_trunks:
        media = settings.listen.media
        sockets.append((("listen", "media", "port"), "tcp", media.host, media.port))
    for index, stream in enumerate(settings.listen.streams):
        sockets.append((("listen", "streams", index, "port"), "tcp", stream.host, stream.port))
    for path, transport, host, port in sockets:
        other = taken.setdefault((transport, host, port), dotted(path[:-1]))
        if port and other != dotted(path[:-1]):
            found.append((path, f"{host}:{port}/{transport} is already {other}", "choose another port"))
        elif transport == "udp" and first <= port <= last:
            found.append((path, f"{port} is within listen.rtp_ports", "choose a port outside of it"))
    found += listener_conflicts(settings.listen.sip)
    found += stream_conflicts(settings.listen.streams, settings.trunks)
    found += trunk_conflicts(settings.trunks, settings.routes)
    return found


def _unreachable_audio(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Peers would be told an address for the audio that they cannot send to."""
    listen = settings.listen
    if listen.advertised is not None:
        return
    bound = _literal(listen.rtp_host)
    if bound is None:
        return
    path = ("listen", "rtp_host")
    if bound.is_unspecified:
        what = f"peers cannot be told {bound} as the address of the audio"
        yield path, what, "set listen.advertised, or rtp_host to one address of this machine"
    elsewhere = [one.host for one in listen.sip if (host := _literal(one.host)) is None or not host.is_loopback]
    if bound.is_loopback and elsewhere:
        what = f"is {bound}, which peers that call {elsewhere[0]} cannot reach"
        yield path, what, "set it to an address of this machine, or to 0.0.0.0 and listen.advertised"


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
