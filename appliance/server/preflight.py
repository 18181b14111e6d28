"""What can be seen to be wrong before any process is started: said at once, all of it, with the remedy.

The processes check again for themselves; this only spares the operator a start that takes seconds and fails with the
first problem it meets.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from appliance.config import Settings
from appliance.engines.builtin import provider_registry
from appliance.errors import ModelFileError
from appliance.models.store import ModelStore, model_directory
from appliance.plugins.registry import KINDS


def problems(settings: Settings) -> list[str]:
    """Ports that cannot be bound and model files that are missing or corrupt; one line each."""
    return [*_sockets(settings), *_models(settings)]


def _sockets(settings: Settings) -> Iterator[str]:
    for number, sip in enumerate(settings.listen.sip):
        kind = socket.SOCK_DGRAM if sip.transport == "udp" else socket.SOCK_STREAM
        yield from _unbindable("SIP", sip.host, sip.port, kind, f"listen.sip.{number}")
    http = settings.listen.http
    yield from _unbindable("HTTP", http.host, http.port, socket.SOCK_STREAM, "listen.http")
    if not settings.carrier_trunks:
        return
    media = settings.listen.media
    yield from _unbindable("media streams", media.host, media.port, socket.SOCK_STREAM, "listen.media")
    for number, one in enumerate(settings.listen.streams):
        yield from _unbindable(
            f"{one.kind} streams", one.host, one.port, socket.SOCK_STREAM, f"listen.streams.{number}"
        )


def _unbindable(what: str, host: str, port: int, kind: socket.SocketKind, key: str) -> Iterator[str]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    protocol = "udp" if kind is socket.SOCK_DGRAM else "tcp"
    try:
        with socket.socket(family, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            if kind is socket.SOCK_STREAM:
                probe.listen()
    except OSError as error:
        reason = error.strerror or str(error)
        yield f"cannot listen for {what} on {host}:{port}/{protocol}: {reason}; {_remedy(error, key)}"


def _remedy(error: OSError, key: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"stop the program that has it, or set another {key}.port"
    if error.errno == errno.EACCES:
        return f"allow CAP_NET_BIND_SERVICE, or set {key}.port above 1023"
    return f"set {key}.host to an address of this machine"


def _models(settings: Settings) -> Iterator[str]:
    registry = provider_registry()
    store = ModelStore(model_directory(settings.models_dir))
    chosen = [(kind, getattr(settings.engines, kind).provider) for kind in KINDS]
    chosen.append(("tts", settings.engines.tts.fallback.provider))
    chosen += [(kind, settings.engines.of(kind, name).provider) for kind, name in settings.engines.all_named()]
    chosen += [("tts", engine.fallback.provider) for engine in settings.engines.named.tts.values()]
    for kind, chosen_name in chosen:
        if chosen_name not in registry.offers(kind):
            continue  # a plugin's: what it reads is not known here
        provider = registry.provider(kind, chosen_name)
        for name in provider.models:
            try:
                store.read(name)
            except ModelFileError as error:
                yield str(error)
