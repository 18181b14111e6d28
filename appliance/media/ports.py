"""RTP sockets: finding a free port, receiving without waiting, and knowing the caller from a stranger."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from appliance.errors import MediaError

Address: TypeAlias = tuple[str, int]

_DSCP_EF: Final = 46 << 2
_MAX_DATAGRAM: Final = 2048
_MAX_PER_TICK: Final = 16
_NOT_THIS_HOST: Final = frozenset({errno.EADDRNOTAVAIL, errno.EACCES})


class PortPool:
    """Even RTP ports in [first, last], the one that was freed longest ago first.

    A port is not handed out again at once, so that late packets of one call do not reach the next.
    """

    def __init__(self, host: str, first: int, last: int) -> None:
        self.host = host
        self._range = f"{first}-{last}"
        self._free = deque(range(first + first % 2, last, 2))

    def bind(self) -> socket.socket:
        """A non-blocking UDP socket on a free port, marked DSCP EF (RFC 3246).

        Raises:
            MediaError: no port of the range can be bound.
        """
        for _ in range(len(self._free)):
            port = self._free.popleft()
            sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sock.bind((self.host, port))
            except OSError as error:
                sock.close()
                self._free.append(port)
                if error.errno in _NOT_THIS_HOST:
                    raise MediaError(
                        f"RTP cannot be received on {self.host}: {error.strerror}; set listen.rtp_host to an address "
                        "of this machine"
                    ) from error
                continue
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _DSCP_EF)
            return sock
        raise MediaError(f"no free RTP port in {self._range}; widen listen.rtp_ports or lower limits.max_calls")

    def release(self, sock: socket.socket) -> None:
        """Close the socket; its port goes to the end of the line."""
        port = sock.getsockname()[1]
        sock.close()
        self._free.append(port)


class Receiver:
    """All RTP sockets behind one epoll: a tick asks once which of them have something."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, tuple[Callable[[int], tuple[bytes, Address]], int]] = {}

    def add(self, sock: socket.socket, slot: int) -> None:
        self._sockets[sock.fileno()] = (sock.recvfrom, slot)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def remove(self, sock: socket.socket) -> None:
        self._epoll.unregister(sock.fileno())
        del self._sockets[sock.fileno()]

    def drain(self) -> Iterator[tuple[int, bytes, Address]]:
        """Yield (slot, datagram, source) for everything that has come; at most 16 a socket, so that a flood on one
        port cannot hold up the tick."""
        sockets = self._sockets
        for _ in range(_MAX_PER_TICK):
            ready = self._epoll.poll(0)
            if not ready:
                return
            for fd, _event in ready:
                receive, slot = sockets[fd]
                try:
                    data, source = receive(_MAX_DATAGRAM)
                except OSError:
                    continue  # an ICMP error or a datagram gone bad; the next poll shows what is left
                yield slot, data, source

    def close(self) -> None:
        self._epoll.close()


class SourceFilter:
    """Symmetric RTP: send where the caller's packets come from, and listen to nobody else.

    The description names an address, but a caller behind NAT sends from another. So the first source that sends
    valid packets is taken; after that only a packet from the described host, or from the same host while the taken
    source has been silent for a second (a NAT that rebinds), may change it.
    """

    __slots__ = ("_heard_at", "_taken", "described", "remote", "strangers")

    def __init__(self, described: Address) -> None:
        self.described = described
        self.remote = described
        self.strangers = 0
        self._taken = False
        self._heard_at = 0.0

    def redirect(self, described: Address) -> None:
        """The description has changed mid-call (re-INVITE)."""
        if described != self.described:
            self.described = described
            self.remote = described
            self._taken = False

    def accept(self, source: Address, now: float) -> bool:
        """Whether a packet from ``source`` is the caller's."""
        if source == self.remote:
            self._heard_at = now
            self._taken = True
            return True
        known_host = source[0] in (self.remote[0], self.described[0])
        if not self._taken or (known_host and now - self._heard_at > 1.0):
            self.remote = source
            self._heard_at = now
            self._taken = True
            return True
        self.strangers += 1
        return False
