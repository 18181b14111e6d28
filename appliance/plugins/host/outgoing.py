"""Holds plugins' own connections to the hosts that ``egress`` lists.

Python tells of every connection before it is made (``sys.addaudithook``), whichever module makes it: ``smtplib``,
``urllib``, an HTTP client, ``asyncio``. This keeps a plugin from sending by mistake what it should not. It is no
sandbox: libraries in C with sockets of their own (database drivers) and programs that a plugin starts are not seen.
"""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

from appliance.config.egress import Hosts, is_loopback

_MAX_KNOWN: Final = 10_000
_CONNECTING: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_RESOLVING: Final = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})
_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})

Resolve = Callable[..., list[Any]]


class Outgoing:
    """Who may be connected to: hosts on the list, what their names have been resolved to, and this machine.

    Args:
        egress: the setting (``HostPattern``).
    """

    def __init__(self, egress: Iterable[str]) -> None:
        self._hosts = Hosts.of(egress)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, host: str) -> None:
        """Let ``host``, a name or an address as text, pass.

        Raises:
            PermissionError: it is not listed; says what to do.
        """
        plain = host.partition("%")[0]
        if not plain or is_loopback(plain) or self._hosts.names_host(plain) or plain in self._known:
            return
        raise PermissionError(
            errno.EACCES, f"egress does not list {plain}; add it to egress in appliance.yaml, or use another server"
        )

    def resolved(self, host: str, addresses: Iterable[str]) -> None:
        """A listed name has been looked up: its addresses may be connected to."""
        if not self._hosts.names_host(host):
            return
        with self._lock:
            for address in addresses:
                self._known[address.partition("%")[0]] = None
                self._known.move_to_end(address.partition("%")[0])
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """For ``sys.addaudithook``.

        Raises:
            PermissionError: whoever is connected to, or looked up, is not listed.
        """
        if event in _CONNECTING:
            where = arguments[1]
            if where is not None and arguments[0].family in _FAMILIES:
                self.check(_text(where[0]))
        elif event in _RESOLVING and arguments[0] is not None:
            self.check(_text(arguments[0]))

    def looking_up(self, resolve: Resolve) -> Resolve:
        """``resolve`` (``socket.getaddrinfo``), which takes note of what listed names come to."""

        def getaddrinfo(host: Any, *arguments: Any, **keywords: Any) -> list[Any]:
            found = resolve(host, *arguments, **keywords)
            if host is not None:
                self.resolved(_text(host), [str(one[4][0]) for one in found])
            return found

        return getaddrinfo


def hold_to(egress: Iterable[str]) -> None:
    """From now on, for as long as this process lives, hold its connections to the list."""
    outgoing = Outgoing(egress)
    socket.getaddrinfo = outgoing.looking_up(socket.getaddrinfo)
    sys.addaudithook(outgoing.audit)


def _text(host: Any) -> str:
    if isinstance(host, bytes | bytearray):
        return host.decode("ascii", "replace")
    return str(host)
