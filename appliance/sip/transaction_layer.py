"""All transactions of one user agent: matching messages to them, and keeping their number bounded (RFC 3261 §17)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from appliance.sip.headers import MAGIC_COOKIE
from appliance.sip.message import Request, Response
from appliance.sip.timers import TimerQueue
from appliance.sip.transaction import TIMERS, Action, Event, Kind, Owner, State, Timing, Transaction
from appliance.sip.uri import Peer

TimerKey = tuple[object, StrEnum]


def server_key(request: Request) -> tuple[str, ...]:
    """What a request and its retransmissions (and the ACK and CANCEL of an INVITE) have in common (§17.2.3)."""
    method = "INVITE" if request.method == "ACK" else request.method
    return _key(request, method)


def cancelled_key(request: Request) -> tuple[str, ...]:
    """The key of the INVITE that this CANCEL is about (§9.2)."""
    return _key(request, "INVITE")


def _key(request: Request, method: str) -> tuple[str, ...]:
    via = request.via
    branch = via.branch
    if branch.startswith(MAGIC_COOKIE) and len(branch) > len(MAGIC_COOKIE):
        return (branch, via.sent_by, method)
    # RFC 2543: no usable branch. The To tag is left out, because the ACK has one and its INVITE has none.
    return (
        "rfc2543", method, request.uri, request.call_id, str(request.cseq.number), request.from_.tag or "",
        via.sent_by, branch,
    )  # fmt: skip


def _merge_key(request: Request, method: str = "") -> tuple[str, ...]:
    return (request.call_id, request.from_.tag or "", str(request.cseq.number), method or request.method)


class TransactionLayer:
    """Creates, finds, drives and forgets transactions. It is their :class:`~appliance.sip.transaction.Wire`.

    Args:
        send: takes (bytes, destination) of every message.
        timers: where deadlines are kept; keys whose first item is a Transaction belong to this layer.
        limit: from so many transactions on :attr:`full` is true; who opens one asks first.
    """

    def __init__(
        self,
        send: Callable[[bytes, Peer], None],
        timers: TimerQueue[TimerKey],
        timing: Timing,
        counters: Counter[str],
        *,
        limit: int,
    ) -> None:
        self.timers = timers
        self.timing = timing
        self._send = send
        self._counters = counters
        self._limit = limit
        self._servers: dict[tuple[str, ...], Transaction] = {}
        self._clients: dict[tuple[str, ...], Transaction] = {}
        self._by_merge_key: dict[tuple[str, ...], Transaction] = {}
        self._merge_keys: dict[Transaction, tuple[str, ...]] = {}
        self._held_for: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._servers) + len(self._clients)

    @property
    def full(self) -> bool:
        return len(self) >= self._limit

    def held_for(self, host: str) -> int:
        """Server transactions of requests from this host."""
        return self._held_for[host]

    def send(self, data: bytes, destination: Peer) -> None:
        """Send a message for the first time."""
        self._send(data, destination)

    def resend(self, data: bytes, destination: Peer) -> None:
        """Send a message again, and count it."""
        self._counters["retransmissions_sent"] += 1
        self._send(data, destination)

    def find_server(self, key: tuple[str, ...]) -> Transaction | None:
        """The server transaction with this key."""
        return self._servers.get(key)

    def merged(self, request: Request) -> bool:
        """Whether the same request has also come another way, and is being served (§8.2.2.2)."""
        return _merge_key(request) in self._by_merge_key

    def acknowledged(self, ack: Request) -> Transaction | None:
        """The INVITE with the Call-ID, From tag and CSeq number of this ACK, whatever its branch and To tag."""
        return self._by_merge_key.get(_merge_key(ack, "INVITE"))

    def open_server(self, request: Request, destination: Peer) -> Transaction:
        """A transaction for a request that belongs to none. Its responses go to ``destination``."""
        kind = Kind.INVITE_SERVER if request.method == "INVITE" else Kind.SERVER
        transaction = Transaction(kind, server_key(request), self, destination, request)
        self._servers[transaction.key] = transaction
        self._held_for[destination.host] += 1
        merge_key = _merge_key(request)
        if merge_key not in self._by_merge_key:
            self._by_merge_key[merge_key] = transaction
            self._merge_keys[transaction] = merge_key
        return transaction

    def open_client(
        self,
        request: Request,
        destination: Peer,
        owner: Owner,
        now: float,
        make_ack: Callable[[Response], bytes] | None = None,
    ) -> Transaction:
        """Send a request and keep it until it is answered. ``make_ack`` builds the ACK for a refused INVITE.

        Raises:
            LocalSipError: where it cannot be sent as it is; nothing is kept then.
        """
        data = request.encode()
        kind = Kind.INVITE_CLIENT if request.method == "INVITE" else Kind.CLIENT
        key = (request.via.branch, request.method)
        transaction = Transaction(kind, key, self, destination, request, owner)
        transaction.make_ack = make_ack
        self._clients[key] = transaction
        transaction.start(data, now)
        return transaction

    def receive_response(self, response: Response, now: float) -> Transaction | None:
        """Hand a response to its client transaction; None where there is none (§18.1.2: drop it)."""
        transaction = self._clients.get((response.via.branch, response.cseq.method))
        if transaction is None or transaction.request is None:
            return None
        if transaction.request.via.sent_by != response.via.sent_by:
            return None
        actions = transaction.receive(response, now)
        if actions is None:
            return transaction
        if Action.PASS_UP in actions and transaction.owner is not None:
            transaction.owner.on_response(transaction, response, now)
        self._forget_if_finished(transaction)
        return transaction

    def fail(self, request: Request, response: Response, now: float) -> None:
        """End the client transaction of a request that could not be sent, as if ``response`` had come (§17.1.4)."""
        transaction = self._clients.get((request.via.branch, request.method)) if not request.defect else None
        if transaction is not None and transaction.state in (State.CALLING, State.TRYING):
            owner = transaction.owner
            self.abandon(transaction)
            if owner is not None:
                owner.on_response(transaction, response, now)

    def abandon(self, transaction: Transaction) -> None:
        """Destroy a client transaction that will never be answered (§9.1)."""
        for timer in TIMERS:
            self.timers.cancel((transaction, timer))
        self._clients.pop(transaction.key, None)
        transaction.owner = None

    def handle_timer(self, transaction: Transaction, timer: Event, now: float) -> None:
        """Carry out a timer that fell due."""
        owner = transaction.owner
        actions = transaction.handle(timer, now)
        self._forget_if_finished(transaction)
        if actions and Action.TIMED_OUT in actions and owner is not None:
            self._counters["transaction_timeouts"] += 1
            owner.on_timeout(transaction, now)

    def _forget_if_finished(self, transaction: Transaction) -> None:
        if not transaction.finished:
            return
        transaction.owner = None  # it has its transactions in turn, and must not wait for the collector
        table = self._clients if transaction.kind in (Kind.INVITE_CLIENT, Kind.CLIENT) else self._servers
        if table.get(transaction.key) is transaction:
            del table[transaction.key]
            if table is self._servers:
                self._release(transaction.destination.host)
        merge_key = self._merge_keys.pop(transaction, None)
        if merge_key is not None:
            self._by_merge_key.pop(merge_key, None)

    def _release(self, host: str) -> None:
        self._held_for[host] -= 1
        if not self._held_for[host]:
            del self._held_for[host]
