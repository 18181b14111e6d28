"""A SIP user agent without sockets: datagrams and the time in, datagrams and events out (RFC 3261 §8).

The order of checks on a new request is that of §8.2. Only what begins, changes or ends a call has a transaction; all
else, and what is malformed, from a stranger, or beyond the limits, is answered without one (§8.2.7), so that a flood
costs no memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.auth import Credentials, DigestClient
from appliance.sip.call import Call
from appliance.sip.call_state import CallOptions, CallTimer, Role
from appliance.sip.checks import (
    ACCEPT,
    ALLOW,
    SUPPORTED,
    check_body,
    check_extensions,
    check_target,
    explanations,
    note_source,
)
from appliance.sip.dialog import Dialog, DialogKey, incoming_key
from appliance.sip.events import CallEnded, Confirmed, Event
from appliance.sip.gate import Gate
from appliance.sip.guard import Admission, FloodReport, GuardSettings
from appliance.sip.headers import MAGIC_COOKIE
from appliance.sip.message import METHODS, Request, Response, make_response, read_message, response_port
from appliance.sip.multipart import SDP
from appliance.sip.outside import Outcome, OutsideRequest, new_request
from appliance.sip.redirect import RedirectPolicy, next_target, same_user_near_peer
from appliance.sip.timers import TimerQueue
from appliance.sip.transaction import Event as TransactionEvent
from appliance.sip.transaction import Timing, Transaction
from appliance.sip.transaction_layer import TimerKey, TransactionLayer, cancelled_key, server_key
from appliance.sip.uri import Peer, SipUri, join_host_port, reachable


@dataclass(frozen=True, slots=True)
class Limits:
    """The most of everything that a peer can make us keep. Times in seconds.

    ``half_open`` is how many calls from one host may wait for its ACK, so that a host that never sends one cannot take
    every line. At ``transactions`` nothing new is begun. What belongs to a call goes on, up to ``host_transactions`` of
    one host, and the end of a call is never refused.
    """

    calls: int = 4000
    transactions: int = 20000
    host_transactions: int = 10000
    ring_timeout_s: float = 180.0
    half_open: int = 150


class UserAgent:
    """Answers and places calls.

    Args:
        local: the host and port by which a peer reaches us, as they go into Via and Contact.
        new_token: unguessable text for tags, branches and Call-IDs, new at each call; at least 64 bits.
        trunk_of: the name of the trunk a peer belongs to, None for a stranger.
        name: goes into User-Agent and Server, and is the realm of our challenges.
        credentials_of: what to answer the challenges of a peer with, by the From of the request (or of the response to
            it); None for nothing.
        challenge_of: what an INVITE of this trunk must be authenticated with; None for nothing.
        redirect: where a 3xx may send a call.
        guard: what sources may send.

    Attributes:
        accepting: false makes every new INVITE and OPTIONS get 503 with Retry-After (the box is draining).
        call_options: how calls with a peer are held; set it where that depends on the peer.
        counters: what happened so far, by name; the set of names is fixed by this package.
        gate: bans, rates and credentials, which messages pass before anybody acts on them.
    """

    def __init__(
        self,
        local: Callable[[Peer], tuple[str, int]],
        *,
        new_token: Callable[[], str],
        trunk_of: Callable[[Peer], str | None] = lambda peer: "any",
        name: str = "appliance",
        timing: Timing | None = None,
        limits: Limits | None = None,
        credentials_of: Callable[[Peer, Request | Response], Credentials | None] = lambda peer, message: None,
        challenge_of: Callable[[str], Credentials | None] = lambda trunk: None,
        redirect: RedirectPolicy = same_user_near_peer,
        guard: GuardSettings | None = None,
    ) -> None:
        self._local = local
        self._name = name
        self.new_token = new_token
        self.timing = timing or Timing()
        self.limits = limits or Limits()
        self.accepting = True
        self.call_options: Callable[[Peer], CallOptions] = lambda peer: CallOptions()
        self.counters: Counter[str] = Counter()
        self.timers: TimerQueue[TimerKey] = TimerQueue()
        self.layer = TransactionLayer(
            self._send, self.timers, self.timing, self.counters, limit=self.limits.transactions
        )
        self._calls: set[Call] = set()
        self._dialogs: dict[DialogKey, Call] = {}
        self._own_invites: set[tuple[str, str]] = set()
        self._outbox: deque[tuple[bytes, Peer]] = deque()
        self._events: deque[Event] = deque()
        self._tag_salt = new_token()
        self._credentials_of = credentials_of
        self._redirect = redirect
        self._digest = DigestClient(new_token)
        self.gate = Gate(trunk_of, challenge_of, name, new_token, guard, self.counters)

    # --- the sans-IO face ----------------------------------------------------------------------------------------

    def receive_datagram(self, data: bytes, source: Peer, now: float) -> None:
        """Take one datagram. Never raises, whatever it holds."""
        self.counters["datagrams_received"] += 1
        if not data.strip(b"\r\n\0 "):
            self.counters["keepalives"] += 1
            return
        admission = self.gate.admit(data, source, now)
        if admission is Admission.DROP:
            return
        try:
            message = read_message(data)
        except RemoteSipError:
            self.counters["garbage"] += 1
            return
        if isinstance(message, Response):
            self._receive_response(message, now)
        elif message.defect is not None:
            self._refuse_malformed(message, source)
        else:
            if admission is Admission.ADMIT:
                admission = self.gate.admit_call(message, source, now)
            if admission is not Admission.DROP:
                self._receive_request(message, source, now, refuse=admission is Admission.REFUSE)

    def send_failed(self, data: bytes, peer: Peer, now: float) -> None:
        """A message could not be handed to its transport: a request of ours fails with 503 (§8.1.3.1, §17.1.4)."""
        self.counters["send_failures"] += 1
        try:
            request = read_message(data)
        except RemoteSipError:
            return
        if isinstance(request, Request) and request.method != "ACK":
            self.layer.fail(request, make_response(request, 503, "Cannot Be Sent"), now)

    def flood_report(self, now: float) -> FloodReport | None:
        """What the guard kept out, at most once a second; None where there is nothing to tell."""
        return self.gate.guard.report(now)

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

    def datagrams_to_send(self) -> list[tuple[bytes, Peer]]:
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
        destination: Peer | None = None,
        display_name: str = "",
        headers: Iterable[tuple[str, str]] = (),
        ring_timeout_s: float = 180.0,
        options: CallOptions | None = None,
    ) -> Call:
        """Call ``target``, offering ``body`` (SDP; empty to let the peer offer).

        ``destination`` is where the datagrams go, needed where the host of ``target`` is a name.

        Raises:
            LocalSipError: where the destination is not known, too many calls are up, or a header cannot be sent.
        """
        where = destination or target.literal_address()
        if where is None:
            raise LocalSipError(f"the host of {target} is a name; resolve it and give its address as destination")
        if len(self._calls) >= self.limits.calls or self.layer.full:
            raise LocalSipError(f"{len(self._calls)} calls are up, which is the limit; raise it or wait")
        tag, call_id = self.new_token(), self.new_token()
        request = new_request(
            "INVITE", target, self.new_via(where), from_uri=from_uri, to_uri=str(target), call_id=call_id, from_tag=tag,
            cseq=1, display_name=display_name, body=body,
        )  # fmt: skip
        self.sign(request, where, contact=True)
        for name, value in headers:
            request.headers.add(name, value)
        if body:
            request.headers.set("content-type", SDP)
        call = Call(self, Role.UAC, request, where, options or self.call_options(where))
        call.begin_uac(ring_timeout_s, now)
        self._calls.add(call)
        self._own_invites.add((call_id, tag))
        self.counters["calls_placed"] += 1
        self.gate.note_contacted(where)
        return call

    def request(
        self,
        method: str,
        target: SipUri,
        now: float,
        *,
        from_uri: str,
        on_done: Callable[[Outcome, float], None],
        to_uri: str = "",
        destination: Peer | None = None,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        contact_user: str | None = None,
        previous: Outcome | None = None,
    ) -> None:
        """Send a request outside any dialog, such as REGISTER or OPTIONS; challenges are answered on the way.

        Args:
            on_done: called once, with what became of it and the time.
            to_uri: ``target`` where it is left out; for REGISTER the address of record.
            contact_user: adds a Contact of ours with this user ("" for none); None adds no Contact.
            previous: what came of the request that this one repeats; Call-ID, From tag and CSeq go on from there, as
                registrars want it (§10.2.4).

        Raises:
            LocalSipError: where the destination is not known, or too many transactions are open.
        """
        where = destination or target.literal_address()
        if where is None:
            raise LocalSipError(f"the host of {target} is a name; resolve it and give its address as destination")
        if self.layer.full:
            raise LocalSipError(f"{len(self.layer)} transactions are open, which is the limit; raise it or wait")
        before = previous.request if previous is not None else None
        request = new_request(
            method, target, self.new_via(where), from_uri=from_uri, to_uri=to_uri or str(target),
            call_id=before.call_id if before is not None else self.new_token(),
            from_tag=(before.from_.tag or "") if before is not None else self.new_token(),
            cseq=before.cseq.number + 1 if before is not None else 1, body=body,
        )  # fmt: skip
        self.sign(request, where, contact=contact_user is not None)
        if contact_user:
            ours = request.headers.get("contact") or ""
            request.headers.set("contact", ours.replace("<sip:", f"<sip:{contact_user}@"))
        for name, value in headers:
            request.headers.add(name, value)
        self.gate.note_contacted(where)
        OutsideRequest(self, request, where, on_done).send(now)

    # --- what calls need (CallHost) -----------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Queue an event for the application."""
        if isinstance(event, Confirmed | CallEnded):
            self.gate.settled(event.call)
        self._events.append(event)

    def new_via(self, destination: Peer) -> str:
        """A Via of ours with a fresh branch; the peer is asked to answer to where it came from (RFC 3581)."""
        sent_by = join_host_port(*self._local(destination))
        return f"SIP/2.0/{destination.transport.upper()} {sent_by};branch={MAGIC_COOKIE}{self.new_token()};rport"

    def sign(self, message: Request | Response, destination: Peer, *, contact: bool) -> None:
        """Add who we are, and in messages that make a dialog how to reach us and what we can do."""
        headers = message.headers
        headers.set("user-agent" if isinstance(message, Request) else "server", self._name)
        if contact:
            here = join_host_port(*self._local(destination))
            transport = f";transport={destination.transport}" if destination.reliable else ""
            headers.set("contact", f"<sip:{here}{transport}>")
            headers.set("allow", ", ".join(ALLOW))
            headers.set("supported", ", ".join(SUPPORTED))
            headers.set("accept", ACCEPT)
        if isinstance(message, Request) and message.method not in ("ACK", "CANCEL"):
            credentials = self._credentials_of(destination, message)
            for name, value in self._digest.unasked(message, destination, credentials) if credentials else ():
                headers.add(name, value)

    def authorize(self, request: Request, response: Response, destination: Peer) -> list[tuple[str, str]] | None:
        """The header lines with which a request that got 401 or 407 is sent again; None where it must be given up."""
        credentials = self._credentials_of(destination, request)
        lines = self._digest.answer(request, response, destination, credentials) if credentials is not None else None
        self.counters["challenges_answered" if lines is not None else "challenges_not_met"] += 1
        return lines

    def redirect(self, call: Call, response: Response) -> tuple[str, Peer] | None:
        """The next Request-URI and destination of a call that got a 3xx; None where it ends with that."""
        found = next_target(call.request.uri, response, call.source, call.redirects, self._redirect)
        self.counters["redirects_followed" if found is not None else "redirects_refused"] += 1
        return found

    def locate(self, dialog: Dialog, fallback: Peer) -> Peer:
        """Where a request in ``dialog`` is sent: its next hop, or where the peer's signalling came from.

        The latter where the next hop is a host name, or nothing that a peer seen there can be reached at. A next hop at
        the host the peer speaks from is reached by the connection that is open already, also where its URI does not
        name the transport.
        """
        try:
            hop = dialog.next_hop()
        except RemoteSipError:
            return fallback
        literal = hop.literal_address()
        if literal is None or not reachable(literal, fallback):
            return fallback
        if literal.host == fallback.host and hop.transport in ("", fallback.transport):
            return literal._replace(transport=fallback.transport, flow=fallback.flow)
        return literal

    def remember(self, dialog: Dialog, call: Call) -> None:
        """Keep ``call``, and let requests in ``dialog`` find it."""
        self._calls.add(call)
        self._dialogs[dialog.key] = call

    def forget(self, call: Call, dialogs: Iterable[Dialog]) -> None:
        """The call is over; later requests in its dialogs get 481."""
        self._calls.discard(call)
        self._own_invites.discard((call.call_id, call.local_tag))
        self.forget_dialogs(dialogs)

    def forget_dialogs(self, dialogs: Iterable[Dialog]) -> None:
        """Later requests in these dialogs get 481."""
        for dialog in dialogs:
            self._dialogs.pop(dialog.key, None)

    def find_call(self, call_id: str, local_tag: str, remote_tag: str) -> Call | None:
        """The call with this dialog, None where there is none."""
        return self._dialogs.get((call_id, local_tag, remote_tag))

    # --- what arrives -------------------------------------------------------------------------------------------------

    def _receive_response(self, response: Response, now: float) -> None:
        if response.defect is not None:
            self.counters["malformed"] += 1
            return
        transaction = self.layer.receive_response(response, now)
        if transaction is None:
            self.counters["strays"] += 1
        elif "authentication-info" in response.headers or "proxy-authentication-info" in response.headers:
            credentials = self._credentials_of(transaction.destination, response)
            if credentials is not None:
                self._digest.note(response, transaction.destination, credentials)

    def _receive_request(self, request: Request, source: Peer, now: float, *, refuse: bool = False) -> None:
        destination = note_source(request, source)
        if request.method == "ACK":
            self._receive_ack(request, source, now)
            return
        transaction = self.layer.find_server(server_key(request))
        if transaction is not None:
            self.counters["retransmissions_received"] += 1
            transaction.handle(TransactionEvent.REQUEST, now)
            return
        call = self._dialogs.get(incoming_key(request)) if request.to.tag else None
        if (
            call is not None
            and source.reliable
            and source._replace(port=0, flow=0) == call.source._replace(port=0, flow=0)
        ):
            call.source = call.source._replace(flow=source.flow)  # the peer has made a new connection
        if request.method == "REGISTER":
            self.counters["registers_refused"] += 1
        if call is None and self.gate.trunk_of(source) is None:
            self.counters["strangers"] += 1
            self.gate.strike(source, now)
            self._answer_statelessly(request, 403, destination)
            return
        begins = request.method == "INVITE" and not request.to.tag
        cancelled = self.layer.find_server(cancelled_key(request)) if request.method == "CANCEL" else None
        if request.method == "OPTIONS" or request.method not in ALLOW or not (begins or call or cancelled):
            self._answer_beside_calls(request, call, destination)
            return
        if (begins and refuse) or not self._has_room(request, source):
            self.counters["overload"] += 1
            self._answer_statelessly(request, 503, destination)
            return
        if begins and (lines := self.gate.challenges(request, source, now)):
            self._answer_statelessly(request, 401, destination, lines)
            return
        merged = begins and self._loops(request)
        transaction = self.layer.open_server(request, destination)
        try:
            if merged:
                raise RemoteSipError("this request is already being served here", status_hint=482)
            if cancelled is not None:
                self._on_cancel(transaction, request, cancelled, now)
            elif call is not None:
                self._on_request_in_dialog(transaction, request, call, now)
            else:
                self._on_invite(transaction, request, source, now)
        except RemoteSipError as error:
            self._refuse(transaction, request, error.status_hint or 400, now)

    def _has_room(self, request: Request, source: Peer) -> bool:
        """Whether a transaction may be opened. No host's requests may keep another's calls from going on."""
        if request.method in ("BYE", "CANCEL"):
            return True
        if self.layer.held_for(source.host) >= self.limits.host_transactions:
            return False
        return bool(request.to.tag) or not self.layer.full

    def _receive_ack(self, request: Request, source: Peer, now: float) -> None:
        transaction = self.layer.find_server(server_key(request))
        taken = transaction is not None and transaction.handle(TransactionEvent.ACK, now) is not None
        if taken and transaction is not None and transaction.status >= 300:
            return
        call = self._dialogs.get(incoming_key(request)) or self._acknowledged_loosely(request, source)
        if call is not None:
            call.on_ack(request, now)
        elif transaction is None:
            self.counters["strays"] += 1

    def _acknowledged_loosely(self, request: Request, source: Peer) -> Call | None:
        """The call that an ACK with a wrong To tag is about.

        pyVoIP 1.6.8 (and what is built on it) makes up a new To tag for the ACK of a 2xx, so that no dialog matches
        (§12.2.2). Call-ID, From tag and CSeq number still name one INVITE: a second with the same three is refused
        while the first is served (§8.2.2.2), and a peer that forks acknowledges another's 2xx at that one's Contact,
        not here (§13.2.2.4). Without the To tag these three are all of the caller's making, so the ACK must also come
        from the host that sent the INVITE. Only ACK is read so: for everything else the dialog must match.
        """
        transaction = self.layer.acknowledged(request)
        call = transaction.owner if transaction is not None else None
        if not isinstance(call, Call) or call.source.host != source.host:
            return None
        self.counters["acks_matched_loosely"] += 1
        return call

    def _on_cancel(self, transaction: Transaction, request: Request, invite: Transaction, now: float) -> None:
        """Answer the CANCEL, then end the INVITE where it is still open (§9.2)."""
        call = invite.owner if isinstance(invite.owner, Call) else None
        response = make_response(request, 200, to_tag=call.local_tag if call is not None else self._tag(request))
        self.sign(response, transaction.destination, contact=False)
        self._respond(transaction, response, now)
        if call is not None:
            call.on_cancel(invite, now)

    def _on_request_in_dialog(self, transaction: Transaction, request: Request, call: Call, now: float) -> None:
        check_extensions(request)
        if request.method in ("INVITE", "UPDATE", "PRACK"):
            check_body(request)
        call.on_request(transaction, request, now)

    @property
    def _takes_calls(self) -> bool:
        return self.accepting and len(self._calls) < self.limits.calls

    def _on_invite(self, transaction: Transaction, request: Request, source: Peer, now: float) -> None:
        check_target(request)
        check_extensions(request)
        if not self._takes_calls:
            self.counters["overload"] += 1
            raise RemoteSipError("no more calls now", status_hint=503)
        check_body(request)
        if self.gate.half_open(source) >= self.limits.half_open:
            self.counters["half_open"] += 1
            raise RemoteSipError("too many calls from there wait for their ACK", status_hint=503)
        dialog = Dialog.for_uas(request, self.new_token())
        call = Call(self, Role.UAS, request, source, self.call_options(source))
        if call.begin_uas(transaction, dialog, self.limits.ring_timeout_s, now):
            self.counters["calls_received"] += 1
            self.gate.opened(call, source)

    def _answer_beside_calls(self, request: Request, call: Call | None, destination: Peer) -> None:
        """Answer OPTIONS, and refuse what is served nowhere or belongs to nothing here, keeping nothing (§8.2.7)."""
        try:
            if request.method not in ALLOW:
                raise RemoteSipError("a method not served", status_hint=405 if request.method in METHODS else 501)
            if call is None and (request.to.tag or request.method == "CANCEL"):
                raise RemoteSipError("no such dialog or transaction", status_hint=481)
            if call is None:
                check_target(request)
            check_extensions(request)
            if request.method != "OPTIONS":
                raise RemoteSipError("no such dialog", status_hint=403 if request.method == "REFER" else 481)
            if call is None and (not self._takes_calls or self.layer.full):
                self.counters["overload"] += 1
                raise RemoteSipError("no more calls now", status_hint=503)
        except RemoteSipError as error:
            self.counters["refused"] += 1
            self._answer_statelessly(request, error.status_hint or 400, destination)
        else:
            self._answer_options(request, destination)

    def _answer_options(self, request: Request, destination: Peer) -> None:
        """Say what we can do (§11.2)."""
        response = make_response(request, 200, to_tag=self._tag(request))
        self.sign(response, destination, contact=True)
        response.headers.set("accept-encoding", "identity")
        response.headers.set("accept-language", "en")
        self._send(response.encode(), destination)

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _refuse(self, transaction: Transaction, request: Request, status: int, now: float) -> None:
        self.counters["refused"] += 1
        response = make_response(request, status, to_tag=self._tag(request))
        self.sign(response, transaction.destination, contact=False)
        for name, value in explanations(request, status):
            response.headers.set(name, value)
        self._respond(transaction, response, now)

    def _respond(self, transaction: Transaction, response: Response, now: float) -> None:
        transaction.respond(response.status, response.encode(), now)

    def _refuse_malformed(self, request: Request, source: Peer) -> None:
        """Answer a request that breaks a rule, as far as it can be; strangers hear nothing."""
        self.counters["malformed"] += 1
        status = request.defect.status_hint if request.defect is not None else None
        if status is None or request.method == "ACK" or self.gate.trunk_of(source) is None:
            return
        port = response_port(request) if "via" in request.headers else source.port
        self._answer_statelessly(request, status, source._replace(port=port))

    def _answer_statelessly(
        self, request: Request, status: int, destination: Peer, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        response = make_response(request, status, to_tag=self._tag(request))
        self.sign(response, destination, contact=False)
        for name, value in (*explanations(request, status), *headers):
            response.headers.add(name, value)
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

    def _send(self, data: bytes, destination: Peer) -> None:
        self.counters["datagrams_sent"] += 1
        self._outbox.append((data, destination))
