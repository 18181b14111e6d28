"""RTP sockets: finding a free pair of ports, receiving without waiting, and knowing the caller from a stranger."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from appliance.errors import MediaError

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""As the socket gives it: IPv6 addresses have a flow label and a scope behind host and port."""

_DSCP_EF: Final = 46 << 2
_MAX_DATAGRAM: Final = 2048
_MAX_PER_TICK: Final = 16
_NOT_THIS_HOST: Final = frozenset({errno.EADDRNOTAVAIL, errno.EACCES})
_CONSECUTIVE: Final = 4
"""Packets in sequence that prove a source, where nothing is authenticated."""
_CONSECUTIVE_FORMER: Final = 50
"""The same for the source that signalling has just turned away from: its last packets are still under way."""
_MAX_CANDIDATES: Final = 8
_MAX_SEQUENCE_STEP: Final = 10


def address(host: str, port: int, family: int) -> Address:
    """Host (an IP address in text) and port as a socket of this family takes and reports them.

    Raises:
        MediaError: an IPv6 host and an IPv4 socket, which cannot meet; or no IP address.
    """
    if family == socket.AF_INET and ":" in host:
        raise MediaError(f"the peer wants its media at {host}, ours is IPv4; set listen.rtp_host to an IPv6 address")
    written = f"::ffff:{host}" if family == socket.AF_INET6 and ":" not in host else host
    try:
        host = socket.inet_ntop(family, socket.inet_pton(family, written))
    except (OSError, ValueError) as error:
        raise MediaError(f"the peer wants its media at {host!r}, which is no IP address") from error
    return (host, port, 0, 0) if family == socket.AF_INET6 else (host, port)


class PortPair(NamedTuple):
    """Two bound, non-blocking UDP sockets: RTP on an even port, RTCP on the odd one above it (RFC 3550 §11)."""

    rtp: socket.socket
    rtcp: socket.socket

    @property
    def port(self) -> int:
        """The even one."""
        return int(self.rtp.getsockname()[1])


class PortPool:
    """Pairs of ports in [first, last], the one that was freed longest ago first.

    A pair is not handed out again at once, so that late packets of one call do not reach the next.
    """

    def __init__(self, host: str, first: int, last: int) -> None:
        self.host = host
        self._range = f"{first}-{last}"
        self._free = deque(range(first + first % 2, last, 2))

    @property
    def free(self) -> int:
        """Pairs that nobody of ours has."""
        return len(self._free)

    def bind(self) -> PortPair:
        """A free pair, marked DSCP EF (RFC 3246).

        Raises:
            MediaError: no pair of the range can be bound.
        """
        for _ in range(len(self._free)):
            port = self._free.popleft()
            rtp = rtcp = None
            try:
                rtp = self._socket(port)
                rtcp = self._socket(port + 1)
            except OSError as error:
                if rtp is not None:
                    rtp.close()
                self._free.append(port)
                if error.errno in _NOT_THIS_HOST:
                    raise MediaError(
                        f"RTP cannot be received on {self.host}: {error.strerror}; set listen.rtp_host to an address "
                        "of this machine"
                    ) from error
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise MediaError(
                        "too many open files for another call; raise LimitNOFILE of the service"
                    ) from error
                continue
            return PortPair(rtp, rtcp)
        raise MediaError(f"no free RTP port in {self._range}; widen listen.rtp_ports or lower limits.max_calls")

    def _socket(self, port: int) -> socket.socket:
        six = ":" in self.host
        sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((self.host, port))
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        # A wildcard IPv6 socket may serve IPv4 too, so it gets both marks.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _DSCP_EF)
        if six:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _DSCP_EF)
        return sock

    def release(self, pair: PortPair) -> None:
        """Close both sockets; the pair goes to the end of the line."""
        port = pair.port
        pair.rtp.close()
        pair.rtcp.close()
        self._free.append(port)


class Receiver:
    """All sockets behind one epoll: a tick asks once which of them have something."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, tuple[Callable[[int], tuple[bytes, Address]], int]] = {}

    def add(self, sock: socket.socket, key: int) -> None:
        self._sockets[sock.fileno()] = (sock.recvfrom, key)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def remove(self, sock: socket.socket) -> None:
        self._epoll.unregister(sock.fileno())
        del self._sockets[sock.fileno()]

    def drain(self) -> Iterator[tuple[int, bytes, Address]]:
        """Yield (key, datagram, source) for everything that has come; at most 16 a socket, so that a flood on one
        port cannot hold up the tick."""
        sockets = self._sockets
        for _ in range(_MAX_PER_TICK):
            ready = self._epoll.poll(0)
            if not ready:
                return
            for fd, _event in ready:
                receive, key = sockets[fd]
                try:
                    data, source = receive(_MAX_DATAGRAM)
                except OSError:
                    continue  # an ICMP error or a datagram gone bad; the next poll shows what is left
                yield key, data, source

    def close(self) -> None:
        self._epoll.close()


class SourceFilter:
    """Symmetric RTP: send where the caller's packets come from, and listen to nobody else.

    The description names an address, but a caller behind NAT sends from another. So until a source has proved itself
    any may: by packets that authenticate (SRTP, one is enough), by being the one that was described (one is enough
    too), or by four in sequence of one stream. The source that a new description has turned away from needs fifty of
    them, authentic or not: its last packets are still under way.

    From then on the source's address is ``locked``. Only :meth:`redirect`, which is signalling's, opens the door
    again: neither silence nor a familiar host does. A source that has proved itself by nothing but packets in sequence
    may have guessed the port, so it yields to the one that was described, once that shows as many.

    Attributes:
        remote: where to send.
        locked: the source to listen to, or None while any may prove itself.
        rival: the one other source that may still take over from ``locked``, if any.
        strangers: packets refused.
    """

    __slots__ = ("_candidates", "_former", "described", "locked", "remote", "rival", "strangers")

    def __init__(self, described: Address) -> None:
        self.described = described
        self.remote = described
        self.locked: Address | None = None
        self.rival: Address | None = None
        self.strangers = 0
        self._former: Address | None = None
        self._candidates: dict[Address, tuple[int, int, int]] = {}

    def redirect(self, described: Address) -> None:
        """The description has changed mid-call (re-INVITE, UPDATE). The same one again changes nothing."""
        if described != self.described:
            self._former = self.locked if self.locked is not None else self._former
            self.described = described
            self.remote = described
            self.locked = self.rival = None
            self._candidates.clear()

    def accept(self, source: Address, ssrc: int, sequence: int, authentic: bool = False) -> bool:
        """Whether to listen to a valid RTP packet of the agreed payload type from ``source``.

        While nothing is locked, the first candidate is heard, so that no beginning is lost.
        """
        if source == self.locked:
            return True
        if self.locked is None:
            if source == self.described or (authentic and source != self._former):
                self._lock(source)
                return True
            if self._in_sequence(source, ssrc, sequence):
                self._lock(source)
                self.rival = self.described
                return True
            if source != self._former and source == next(iter(self._candidates)):
                return True
        elif source == self.rival and self._in_sequence(source, ssrc, sequence):
            self._lock(source)
            return True
        self.strangers += 1
        return False

    def _in_sequence(self, source: Address, ssrc: int, sequence: int) -> bool:
        """Count a candidate's packets; whether there are enough of them."""
        candidates = self._candidates
        known_ssrc, before, count = candidates.get(source, (ssrc, sequence - 1, 0))
        if ssrc == known_ssrc and 0 < (sequence - before) & 0xFFFF <= _MAX_SEQUENCE_STEP:
            count += 1
        elif sequence != before:
            count = 1
        if source not in candidates and len(candidates) >= _MAX_CANDIDATES:
            del candidates[min(candidates, key=lambda known: candidates[known][2])]
        candidates[source] = (ssrc, sequence, count)
        former = source == self._former and source != self.described
        return count >= (_CONSECUTIVE_FORMER if former else _CONSECUTIVE)

    def _lock(self, source: Address) -> None:
        self.locked = self.remote = source
        self.rival = None
        self._candidates.clear()
