"""A SIP user agent without sockets: datagrams and the time in, datagrams and events out (RFC 3261 §8).

The order of checks on a new request is that of §8.2. A refusal needs a transaction only where it is worth
remembering; what is malformed, from a stranger, or beyond the limits is answered without one (§8.2.7), so that a
flood costs no memory.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.call import Call, CallTimer, Role
from appliance.sip.dialog import Dialog, DialogKey, incoming_key
from appliance.sip.events import Event, IncomingCall
from appliance.sip.headers import MAGIC_COOKIE, split_values, tokens
from appliance.sip.message import METHODS, Headers, Request, Response, make_response, read_message, response_port
from appliance.sip.timers import TimerQueue
from appliance.sip.transaction import Event as TransactionEvent
from appliance.sip.transaction import Kind, Timing, Transaction
from appliance.sip.transaction_layer import TimerKey, TransactionLayer, cancelled_key, server_key
from appliance.sip.uri import Address, SipUri, join_host_port, scheme_of

ALLOW = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "INFO")
"""The methods answered; every other that an RFC defines gets 405, the rest 501."""

SUPPORTED: frozenset[str] = frozenset()
"""Option tags a peer may require."""

ACCEPT = "application/sdp"

RETRY_AFTER_S = 5
"""Told with a 503, so that a proxy tries another box at once and this one soon again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most of everything that a peer can make us keep. Times in seconds."""

    calls: int = 4000
    transactions: int = 20000
    ring_timeout_s: float = 180.0


class UserAgent:
    """Answers and places calls.

    Args:
        local_host: how peers reach us, as it goes into Via and Contact; a function of the peer's address where that
            depends on the peer.
        local_port: the port we listen on.
        new_token: unguessable text for tags, branches and Call-IDs, new at each call; at least 64 bits.
        trunk_of: the name of the trunk a source address belongs to, None for a stranger.
        name: goes into User-Agent and Server.
        reliable: whether the transport delivers by itself.
        transport: what Via says.

    Attributes:
        accepting: false makes every new INVITE and OPTIONS get 503 with Retry-After (the box is draining).
        counters: what happened so far, by name; the set of names is fixed by this package.
    """

    def __init__(
        self,
        local_host: str | Callable[[str], str],
        local_port: int,
        *,
        new_token: Callable[[], str],
        trunk_of: Callable[[str], str | None] = lambda host: "any",
        name: str = "appliance",
        timing: Timing | None = None,
        limits: Limits | None = None,
        transport: str = "UDP",
        reliable: bool = False,
    ) -> None:
        self._local_host = local_host
        self._local_port = local_port
        self._trunk_of = trunk_of
        self._name = name
        self._transport = transport
        self.new_token = new_token
        self.timing = timing or Timing()
        self.limits = limits or Limits()
        self.accepting = True
        self.counters: Counter[str] = Counter()
        self.timers: TimerQueue[TimerKey] = TimerQueue()
        self.layer = TransactionLayer(
            self._send, self.timers, self.timing, self.counters, limit=self.limits.transactions, reliable=reliable
        )
        self._calls: set[Call] = set()
        self._dialogs: dict[DialogKey, Call] = {}
        self._own_invites: set[tuple[str, str]] = set()
        self._outbox: deque[tuple[bytes, Address]] = deque()
        self._events: deque[Event] = deque()
        self._tag_salt = new_token()

    # --- the sans-IO face ----------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take one datagram. Never raises, whatever it holds."""
        self.counters["datagrams_received"] += 1
        if not data.strip(b"\r\n\0 "):
            self.counters["keepalives"] += 1
            return
        try:
            message = read_message(data)
        except RemoteSipError:
            self.counters["garbage"] += 1
            return
        if isinstance(message, Response):
            if message.defect is not None:
                self.counters["malformed"] += 1
            elif not self.layer.receive_response(message, now):
                self.counters["strays"] += 1
            return
        if message.defect is not None:
            self._refuse_malformed(message, source)
            return
        self._receive_request(message, source, now)

    def get_timer(self) -> float | None:
        """When :meth:`handle_timer` must be called next; None while nothing waits."""
        return self.timers.next()

    def handle_timer(self, now: float) -> None:
        """Carry out everything that fell due."""
        while (key := self.timers.pop_due(now)) is not None:
            owner, timer = key
            if isinstance(owner, Call) and isinstance(timer, CallTimer):
                owner.on_timer(timer, now)
            elif isinstance(owner, Transaction) and isinstance(timer, TransactionEvent):
                self.layer.handle_timer(owner, timer, now)

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """What must be sent now, in order; each is given once."""
        out = list(self._outbox)
        self._outbox.clear()
        return out

    def next_event(self) -> Event | None:
        """The oldest event not yet taken; None where there is none."""
        return self._events.popleft() if self._events else None

    @property
    def call_count(self) -> int:
        """Calls of which anything is left, those waiting for the answer to a BYE included."""
        return len(self._calls)

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(self._calls)

    # --- placing a call -----------------------------------------------------------------------------------------

    def invite(
        self,
        target: SipUri,
        from_uri: str,
        body: bytes,
        now: float,
        *,
        destination: Address | None = None,
        display_name: str = "",
        headers: Iterable[tuple[str, str]] = (),
        ring_timeout_s: float = 180.0,
    ) -> Call:
        """Call ``target``, offering ``body`` (SDP; empty to let the peer offer).

        ``destination`` is where the datagrams go, needed where the host of ``target`` is a name.

        Raises:
            LocalSipError: where the destination is not known, or too many calls are up.
        """
        where = destination or target.literal_address()
        if where is None:
            raise LocalSipError(f"the host of {target} is a name; resolve it and give its address as destination")
        if len(self._calls) >= self.limits.calls or self.layer.full:
            raise LocalSipError(f"{len(self._calls)} calls are up, which is the limit; raise it or wait")
        tag, call_id = self.new_token(), self.new_token()
        shown = f'"{display_name}" ' if display_name else ""
        request = Request("INVITE", str(target), Headers(), body)
        request.headers.add("via", self.new_via(where))
        request.headers.add("max-forwards", "70")
        request.headers.add("from", f"{shown}<{from_uri}>;tag={tag}")
        request.headers.add("to", f"<{target}>")
        request.headers.add("call-id", call_id)
        request.headers.add("cseq", "1 INVITE")
        self.sign(request, where, contact=True)
        for name, value in headers:
            request.headers.add(name, value)
        if body:
            request.headers.set("content-type", ACCEPT)
        call = Call(self, Role.UAC, request, where)
        self._calls.add(call)
        self._own_invites.add((call_id, tag))
        self.counters["calls_placed"] += 1
        call.begin_uac(lambda response: _ack_of_refusal(request, response), ring_timeout_s, now)
        return call

    # --- what calls need (CallHost) -----------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Queue an event for the application."""
        self._events.append(event)

    def new_via(self, destination: Address) -> str:
        """A Via of ours with a fresh branch; the peer is asked to answer to where it came from (RFC 3581)."""
        sent_by = join_host_port(self._host_for(destination), self._local_port)
        return f"SIP/2.0/{self._transport} {sent_by};branch={MAGIC_COOKIE}{self.new_token()};rport"

    def sign(self, message: Request | Response, destination: Address, *, contact: bool) -> None:
        """Add who we are, and in messages that make a dialog how to reach us and what we can do."""
        headers = message.headers
        headers.set("user-agent" if isinstance(message, Request) else "server", self._name)
        if contact:
            here = join_host_port(self._host_for(destination), self._local_port)
            transport = "" if self._transport == "UDP" else f";transport={self._transport.lower()}"
            headers.set("contact", f"<sip:{here}{transport}>")
            headers.set("allow", ", ".join(ALLOW))
            headers.set("accept", ACCEPT)

    def locate(self, dialog: Dialog, fallback: Address) -> Address:
        """Where a request in ``dialog`` is sent: its next hop, or where the peer's signalling came from.

        The latter where the next hop is a host name, or a private address of a peer that is not in a private network
        with us (it stands behind a NAT that does not rewrite SIP).
        """
        try:
            literal = dialog.next_hop().literal_address()
        except RemoteSipError:
            return fallback
        if literal is None:
            return fallback
        target, seen = ipaddress.ip_address(literal[0]), ipaddress.ip_address(fallback[0])
        unusable = target.is_unspecified or target.is_multicast or literal[0] == "255.255.255.255"
        if unusable or (target.is_private and not seen.is_private):
            return fallback
        return literal

    def remember(self, dialog: Dialog, call: Call) -> None:
        """Let requests in ``dialog`` find ``call``."""
        self._dialogs[dialog.key] = call

    def forget(self, call: Call, dialogs: Iterable[Dialog]) -> None:
        """The call is over; later requests in its dialogs get 481."""
        self._calls.discard(call)
        self._own_invites.discard((call.call_id, call.local_tag))
        for dialog in dialogs:
            self._dialogs.pop(dialog.key, None)

    # --- requests ---------------------------------------------------------------------------------------------------

    def _receive_request(self, request: Request, source: Address, now: float) -> None:
        destination = _note_source(request, source)
        if request.method == "ACK":
            self._receive_ack(request, source, now)
            return
        transaction = self.layer.find_server(server_key(request))
        if transaction is not None:
            self.counters["retransmissions_received"] += 1
            transaction.handle(TransactionEvent.REQUEST, now)
            return
        call = self._dialogs.get(incoming_key(request)) if request.to.tag else None
        if call is None and self._trunk_of(source[0]) is None:
            self.counters["strangers"] += 1
            self._answer_statelessly(request, 403, destination)
            return
        if self.layer.full:
            self.counters["overload"] += 1
            self._answer_statelessly(request, 503, destination, [("Retry-After", str(RETRY_AFTER_S))])
            return
        cancelled = self.layer.find_server(cancelled_key(request)) if request.method == "CANCEL" else None
        merged = not request.to.tag and request.method != "CANCEL" and self._loops(request)
        transaction = self.layer.open_server(request, destination)
        try:
            if merged:
                raise RemoteSipError("this request is already being served here", status_hint=482)
            if request.method == "CANCEL":
                self._on_cancel(transaction, request, cancelled, now)
            elif request.method not in ALLOW:
                raise RemoteSipError("a method not served", status_hint=405 if request.method in METHODS else 501)
            elif request.to.tag:
                self._on_request_in_dialog(transaction, request, call, now)
            else:
                self._on_new_request(transaction, request, source, now)
        except RemoteSipError as error:
            self._refuse(transaction, request, error.status_hint or 400, now)

    def _receive_ack(self, request: Request, source: Address, now: float) -> None:
        transaction = self.layer.find_server(server_key(request))
        taken = transaction is not None and transaction.handle(TransactionEvent.ACK, now) is not None
        if taken and transaction is not None and transaction.status >= 300:
            return
        call = self._dialogs.get(incoming_key(request)) or self._acknowledged_loosely(request, source)
        if call is not None:
            call.on_ack(request, now)
        elif transaction is None:
            self.counters["strays"] += 1

    def _acknowledged_loosely(self, request: Request, source: Address) -> Call | None:
        """The call that an ACK with a wrong To tag is about.

        pyVoIP 1.6.8 (and what is built on it) makes up a new To tag for the ACK of a 2xx, so that no dialog matches
        (§12.2.2). Call-ID, From tag and CSeq number still name one INVITE: a second with the same three is refused
        while the first is served (§8.2.2.2), and a peer that forks acknowledges another's 2xx at that one's Contact,
        not here (§13.2.2.4). Without the To tag these three are all of the caller's making, so the ACK must also come
        from the host that sent the INVITE. Only ACK is read so: for everything else the dialog must match.
        """
        transaction = self.layer.acknowledged(request)
        call = transaction.owner if transaction is not None else None
        if not isinstance(call, Call) or call.source[0] != source[0]:
            return None
        self.counters["acks_matched_loosely"] += 1
        return call

    def _on_cancel(self, transaction: Transaction, request: Request, invite: Transaction | None, now: float) -> None:
        """Answer the CANCEL, then end the INVITE where it is still open (§9.2)."""
        if invite is None or invite.kind is not Kind.INVITE_SERVER:
            raise RemoteSipError("nothing to cancel", status_hint=481)
        call = invite.owner if isinstance(invite.owner, Call) else None
        response = make_response(request, 200, to_tag=call.local_tag if call is not None else self._tag(request))
        self.sign(response, transaction.destination, contact=False)
        self._respond(transaction, response, now)
        if call is not None:
            call.on_cancel(now)

    def _on_request_in_dialog(self, transaction: Transaction, request: Request, call: Call | None, now: float) -> None:
        if call is None:
            raise RemoteSipError("no such dialog", status_hint=481)
        _check_extensions(request)
        if request.method == "INVITE":
            _check_body(request)
        if request.method == "OPTIONS":
            self._answer_options(transaction, request, now)
            return
        call.on_request(transaction, request, now)

    def _on_new_request(self, transaction: Transaction, request: Request, source: Address, now: float) -> None:
        if scheme_of(request.uri) not in ("sip", "sips", "tel"):
            raise RemoteSipError("cannot serve this kind of URI", status_hint=416)
        SipUri.parse(request.uri)
        if request.headers.get("max-forwards") is not None and int(request.headers.get("max-forwards") or 0) == 0:
            raise RemoteSipError("no hops left", status_hint=483)
        _check_extensions(request)
        if request.method not in ("INVITE", "OPTIONS"):
            raise RemoteSipError("no such dialog", status_hint=481)
        if not self.accepting or len(self._calls) >= self.limits.calls:
            self.counters["overload"] += 1
            raise RemoteSipError("no more calls now", status_hint=503)
        if request.method == "OPTIONS":
            self._answer_options(transaction, request, now)
            return
        _check_body(request)
        dialog = Dialog.for_uas(request, self.new_token())
        call = Call(self, Role.UAS, request, source)
        self._calls.add(call)
        self.counters["calls_received"] += 1
        call.begin_uas(transaction, dialog, self.limits.ring_timeout_s, now)
        self._respond(transaction, make_response(request, 100), now)
        self.emit(IncomingCall(call, request, request.body or None))

    def _answer_options(self, transaction: Transaction, request: Request, now: float) -> None:
        """Say what we can do (§11.2)."""
        response = make_response(request, 200, to_tag=self._tag(request))
        self.sign(response, transaction.destination, contact=True)
        response.headers.set("accept-encoding", "identity")
        response.headers.set("accept-language", "en")
        self._respond(transaction, response, now)

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _refuse(self, transaction: Transaction, request: Request, status: int, now: float) -> None:
        self.counters["refused"] += 1
        response = make_response(request, status, to_tag=self._tag(request))
        self.sign(response, transaction.destination, contact=False)
        for name, value in _explanations(request, status):
            response.headers.set(name, value)
        self._respond(transaction, response, now)

    def _respond(self, transaction: Transaction, response: Response, now: float) -> None:
        transaction.respond(response.status, response.encode(), now)

    def _refuse_malformed(self, request: Request, source: Address) -> None:
        """Answer a request that breaks a rule, as far as it can be; strangers hear nothing."""
        self.counters["malformed"] += 1
        status = request.defect.status_hint if request.defect is not None else None
        if status is None or request.method == "ACK" or self._trunk_of(source[0]) is None:
            return
        port = response_port(request) if "via" in request.headers else source[1]
        self._answer_statelessly(request, status, (source[0], port))

    def _answer_statelessly(
        self, request: Request, status: int, destination: Address, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        response = make_response(request, status, to_tag=self._tag(request))
        self.sign(response, destination, contact=False)
        for name, value in headers:
            response.headers.set(name, value)
        self._send(response.encode(), destination)

    def _tag(self, request: Request) -> str:
        """A To tag that a retransmission of the same request gets again, though nothing is kept (§8.2.7)."""
        seed = f"{self._tag_salt}{request.call_id}{request.headers.get('cseq')}{request.headers.get('via')}"
        return hashlib.blake2b(seed.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()

    def _loops(self, request: Request) -> bool:
        """Whether this request is being served already, or is our own come back (§8.2.2.2)."""
        if self.layer.merged(request):
            return True
        return (request.call_id, request.from_.tag or "") in self._own_invites

    def _host_for(self, destination: Address) -> str:
        return self._local_host if isinstance(self._local_host, str) else self._local_host(destination[0])

    def _send(self, data: bytes, destination: Address) -> None:
        self.counters["datagrams_sent"] += 1
        self._outbox.append((data, destination))


def _note_source(request: Request, source: Address) -> Address:
    """Put ``received`` and ``rport`` into the topmost Via; where the response goes (§18.2.1, §18.2.2, RFC 3581).

    The response always goes to the address the request came from; the ``maddr`` of a Via could send it to anyone.
    """
    host, port = source
    via = request.via
    asks_rport = "rport" in via.params and not via.params["rport"]
    if not asks_rport and via.host == host:
        return host, via.port or 5060
    params = dict(via.params)
    if asks_rport:
        params["rport"] = str(port)
    params["received"] = host
    lines = request.headers.get_all("via")
    first = split_values(lines[:1])
    first[0] = f"SIP/2.0/{via.transport} {join_host_port(via.host, via.port)}" + "".join(
        f";{k}" if v is None else f";{k}={v}" for k, v in params.items()
    )
    request.headers.set_all("via", [", ".join(first), *lines[1:]])
    return host, port if asks_rport else via.port or 5060


def _check_extensions(request: Request) -> None:
    """Raises: RemoteSipError 420 where the peer requires what we do not have (§8.2.2.3)."""
    if _unsupported(request):
        raise RemoteSipError("a required extension is missing here", status_hint=420)


def _unsupported(request: Request) -> list[str]:
    return [tag for tag in tokens(request.headers.get_all("require"))[:32] if tag.lower() not in SUPPORTED]


def _check_body(request: Request) -> None:
    """Raises: RemoteSipError 415 for a body that is no SDP, 406 where the peer cannot take one (§8.2.3, §13.3.1)."""
    if request.body:
        media_type = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
        encoding = (request.headers.get("content-encoding") or "identity").strip().lower()
        if media_type != ACCEPT or encoding != "identity":
            raise RemoteSipError("the body is not plain SDP", status_hint=415)
    accept = tokens(request.headers.get_all("accept"))
    if accept and not {ACCEPT, "application/*", "*/*"}.intersection(a.lower() for a in accept):
        raise RemoteSipError("the peer cannot take an SDP answer", status_hint=406)


def _explanations(request: Request, status: int) -> list[tuple[str, str]]:
    """The headers that say what would have been accepted."""
    if status in (405, 501):
        return [("allow", ", ".join(ALLOW))]
    if status == 415:
        return [("accept", ACCEPT), ("accept-encoding", "identity")]
    if status == 420:
        return [("unsupported", ", ".join(_unsupported(request)))]
    if status == 503:
        return [("retry-after", str(RETRY_AFTER_S))]
    return []


def _ack_of_refusal(invite: Request, response: Response) -> bytes:
    """The ACK that the transaction itself sends for a 300-699 (§17.1.1.3)."""
    headers = Headers([("via", str(invite.via)), ("max-forwards", "70")])
    headers.set_all("route", invite.headers.get_all("route"))
    headers.add("from", invite.headers.get("from") or "")
    headers.add("to", response.headers.get("to") or "")
    headers.add("call-id", invite.call_id)
    headers.add("cseq", f"{invite.cseq.number} ACK")
    return Request("ACK", invite.uri, headers).encode()
