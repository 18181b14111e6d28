"""TLS for SIP: contexts whose certificates can be replaced while calls are up, and whom a certificate is for.

A server's certificate is checked against the SIP domain that was asked for, not against the host that SRV named
(RFC 5922 §7). Its rule against wildcards is not followed: large carriers have certificates for ``*.domain`` only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.errors import ApplianceError

logger = logging.getLogger(__name__)

_MAX_CLIENT_CONTEXTS: Final = 256


@dataclass(frozen=True, slots=True)
class TlsClient:
    """How we speak TLS to a peer: whom we trust, and who we say we are.

    ``ca`` is a file of certificates in PEM, None for those the system trusts. ``cert`` and ``key`` are shown to a peer
    that asks for them; ``key`` None where it is in the file of ``cert``.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class TlsServer:
    """What a listener shows: its certificate chain and private key in PEM (``key`` None: in the same file)."""

    cert: Path
    key: Path | None = None


class TlsContexts:
    """All TLS contexts of the box, made on first use.

    A listener's context stays the same object when its files change: connections that are up keep what they were made
    with, new ones get the new certificate.
    """

    def __init__(self) -> None:
        self._servers: dict[TlsServer, ssl.SSLContext] = {}
        self._clients: dict[TlsClient, ssl.SSLContext] = {}
        self._stamps: dict[Path, tuple[int, int] | None] = {}

    def server(self, settings: TlsServer) -> ssl.SSLContext:
        """The context of a listener.

        Raises:
            ApplianceError: where its certificate or key cannot be used; the message says which and why.
        """
        context = self._servers.get(settings)
        if context is None:
            context = _server_context(settings)
            self._servers[settings] = context
            self._watch(settings.cert, settings.key)
        return context

    def client(self, settings: TlsClient) -> ssl.SSLContext:
        """The context for connections to a peer. The name in its certificate is not checked here.

        Raises:
            ApplianceError: where a file of it cannot be used; the message says which and why.
        """
        context = self._clients.get(settings)
        if context is None:
            if len(self._clients) >= _MAX_CLIENT_CONTEXTS:
                self._clients.clear()
            context = self._clients[settings] = _client_context(settings)
            self._watch(settings.ca, settings.cert, settings.key)
        return context

    async def changed(self) -> bool:
        """Whether a file has been replaced since it was read. A thread looks at the disk, at what is known now."""
        known = tuple(self._stamps.items())
        return await asyncio.to_thread(lambda: any(_stamp(path) != stamp for path, stamp in known))

    def reload(self) -> None:
        """Read every file again. What cannot be used is logged, and the certificate in use is kept."""
        self._stamps = {path: _stamp(path) for path in self._stamps}
        for server, context in self._servers.items():
            try:
                _server_context(server)
                _load_chain(context, server.cert, server.key)
            except ApplianceError as error:
                logger.error("the certificate in use is kept: %s", error)
            else:
                logger.info("certificate %s read; new connections get it", server.cert)
        self._clients.clear()

    def _watch(self, *paths: Path | None) -> None:
        for path in paths:
            if path is not None:
                self._stamps[path] = _stamp(path)


def _server_context(settings: TlsServer) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_chain(context, settings.cert, settings.key)
    return context


def _client_context(settings: TlsClient) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    if not settings.verify:
        context.verify_mode = ssl.CERT_NONE
    elif settings.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        try:
            context.load_verify_locations(settings.ca)
        except (OSError, ssl.SSLError) as error:
            raise ApplianceError(
                f"no certificates can be read from {settings.ca}: {_words(error)}; give a PEM file as tls.ca"
            ) from error
    if settings.cert is not None:
        _load_chain(context, settings.cert, settings.key)
    return context


def _load_chain(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ssl.SSLError, ValueError) as error:
        files = f"{cert}" if key is None else f"{cert} and {key}"
        raise ApplianceError(
            f"certificate and key cannot be read from {files}: {_words(error)}; give PEM files that belong together, "
            "the key without a password"
        ) from error


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return {"KEY_VALUES_MISMATCH": "the key is not the certificate's"}.get(
            error.reason or "", (error.reason or str(error)).replace("_", " ").lower()
        )
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def explain(error: BaseException) -> str:
    """Why TLS failed, for the log, with what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is refused: {error.verify_message}; have the peer correct it, or name the authority "
            "that signed it as tls.ca of the trunk"
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def certificate_domains(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The SIP domains (and addresses) a certificate is for, lower case (RFC 5922 §7.1).

    ``certificate`` is what ``getpeercert()`` gives. URIs of the form ``sip:domain`` count first, then DNS names; the
    common name only where there is no alternative name at all.
    """
    names: list[tuple[str, str]] = list(certificate.get("subjectAltName", ()))
    uris = [value[4:] for kind, value in names if kind == "URI" and value[:4].lower() == "sip:" and "@" not in value]
    hosts = [value for kind, value in names if kind == "DNS"]
    addresses = [value for kind, value in names if kind == "IP Address"]
    found = (uris or hosts) + addresses
    if not names:
        found = [
            value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"
        ]  # fmt: skip
    return tuple(name.rstrip(".").lower() for name in found)


def certificate_is_for(certificate: Mapping[str, Any], domain: str) -> bool:
    """Whether a certificate is good for a SIP domain, or for an address where the URI named one."""
    wanted = domain.strip("[]").rstrip(".").lower()
    names = certificate_domains(certificate)
    try:
        address = ipaddress.ip_address(wanted.partition("%")[0])
    except ValueError:
        parent = wanted.partition(".")[2]
        return wanted in names or ("." in parent and f"*.{parent}" in names)
    return any(_is_address(name, address) for name in names)


def _is_address(name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return ipaddress.ip_address(name) == address
    except ValueError:
        return False
