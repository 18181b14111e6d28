"""Requests of ours outside any call: REGISTER, OPTIONS, MESSAGE and the like (RFC 3261 §8.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from appliance.sip.message import Headers, Request, Response
from appliance.sip.transaction import Transaction
from appliance.sip.transaction_layer import TransactionLayer
from appliance.sip.uri import Peer, SipUri

MAX_TRIES = 4
"""How often one request is sent: a challenge by a proxy, one by the server, one stale nonce."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    ``status`` is that of the final response, 408 where none came and 503 where it could not be sent; ``response`` is
    then None. ``request`` is what was sent last, so that its CSeq, Call-ID and From tag can be gone on with.
    """

    status: int
    response: Response | None
    request: Request


class OutsideHost(Protocol):
    """What a request needs of its user agent."""

    layer: TransactionLayer

    def new_via(self, destination: Peer) -> str: ...
    def authorize(self, request: Request, response: Response, destination: Peer) -> list[tuple[str, str]] | None: ...


class OutsideRequest:
    """One request and its repetitions with credentials. Made by the user agent only."""

    def __init__(
        self, host: OutsideHost, request: Request, destination: Peer, on_done: Callable[[Outcome, float], None]
    ) -> None:
        self._host = host
        self._request = request
        self._destination = destination
        self._on_done = on_done
        self._tries = 0

    def send(self, now: float) -> None:
        """Send it, or send it again."""
        self._tries += 1
        self._host.layer.open_client(self._request, self._destination, self, now)

    def on_response(self, transaction: Transaction, response: Response, now: float) -> None:
        """A response, passed up by the transaction."""
        if response.status < 200:
            return
        if response.status in (401, 407) and self._tries < MAX_TRIES:
            lines = self._host.authorize(self._request, response, self._destination)
            if lines is not None:
                before, via = self._request, self._host.new_via(self._destination)
                self._request = again(before, before.uri, via, before.cseq.number + 1, lines)
                self.send(now)
                return
        self._on_done(Outcome(response.status, response, self._request), now)

    def on_timeout(self, transaction: Transaction, now: float) -> None:
        """Nothing came in time."""
        self._on_done(Outcome(408, None, self._request), now)


def new_request(
    method: str,
    target: SipUri,
    via: str,
    *,
    from_uri: str,
    to_uri: str,
    call_id: str,
    from_tag: str,
    cseq: int,
    display_name: str = "",
    body: bytes = b"",
) -> Request:
    """A request that begins something, with the headers every request has (§8.1.1)."""
    shown = '"' + "".join(c for c in display_name if c.isprintable() and c not in '"\\') + '" ' if display_name else ""
    request = Request(method, str(target), Headers(), body)
    request.headers.add("via", via)
    request.headers.add("max-forwards", "70")
    request.headers.add("from", f"{shown}<{from_uri}>;tag={from_tag}")
    request.headers.add("to", f"<{to_uri}>")
    request.headers.add("call-id", call_id)
    request.headers.add("cseq", f"{cseq} {method}")
    return request


def again(request: Request, uri: str, via: str, cseq: int, extra: Iterable[tuple[str, str]]) -> Request:
    """The same request once more, with a transaction of its own and ``extra`` in place of headers of those names.

    Credentials are for one target: for another ``uri`` they are left out.
    """
    added = Headers(extra)
    headers = Headers()
    for name, value in request.headers:
        if uri == request.uri or name not in ("Authorization", "Proxy-Authorization"):
            headers.add(name, value)
    headers.set("via", via)
    headers.set("cseq", f"{cseq} {request.method}")
    for name, _ in added:
        headers.set_all(name, added.get_all(name))
    return Request(request.method, uri, headers, request.body)
