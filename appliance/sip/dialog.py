"""Dialogs: the lasting relation between two user agents (RFC 3261 §12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from appliance.errors import RemoteSipError
from appliance.sip.headers import NameAddr, split_values
from appliance.sip.message import Headers, Request, Response
from appliance.sip.uri import SipUri, scheme_of

MAX_ROUTES = 32

DialogKey: TypeAlias = tuple[str, str, str]
"""Call-ID, our tag, their tag ("" where an RFC 2543 peer has none)."""


def incoming_key(request: Request) -> DialogKey:
    """The dialog that a request from the peer belongs to."""
    return (request.call_id, request.to.tag or "", request.from_.tag or "")


@dataclass(slots=True)
class Dialog:
    """One dialog, ours or theirs.

    ``local_party`` and ``remote_party`` are whole From/To values with their tags, as they go into our requests.
    ``remote_target`` is the peer's Contact and ``route_set`` the proxies that want to stay on the way.
    """

    call_id: str
    local_tag: str
    remote_tag: str
    local_party: str
    remote_party: str
    remote_target: str
    route_set: tuple[str, ...]
    local_cseq: int
    remote_cseq: int | None

    @classmethod
    def for_uas(cls, request: Request, local_tag: str) -> Dialog:
        """The dialog that our tagged response to ``request`` makes (§12.1.1).

        A request without Contact (RFC 2543) is answered at its From address.

        Raises:
            RemoteSipError: for a broken Contact or Record-Route.
        """
        contact = _usable_contact(request)
        return cls(
            call_id=request.call_id,
            local_tag=local_tag,
            remote_tag=request.from_.tag or "",
            local_party=f"{request.headers.get('to')};tag={local_tag}",
            remote_party=request.headers.get("from") or "",
            remote_target=contact.uri if contact is not None else request.from_.uri,
            route_set=_routes(request.headers),
            local_cseq=0,
            remote_cseq=request.cseq.number,
        )

    @classmethod
    def for_uac(cls, request: Request, response: Response) -> Dialog:
        """The dialog that the peer's tagged ``response`` to our ``request`` makes (§12.1.2).

        Raises:
            RemoteSipError: for a broken Contact or Record-Route.
        """
        return cls._of_response(request, response, _usable_contact(response), _routes(response.headers))

    @classmethod
    def to_end(cls, request: Request, response: Response) -> Dialog:
        """The dialog of a 2xx that :meth:`for_uac` cannot read, with what can be read of it: for its ACK and BYE."""
        try:
            contact = _usable_contact(response)
        except RemoteSipError:
            contact = None
        return cls._of_response(request, response, contact, _readable_routes(response.headers))

    @classmethod
    def _of_response(
        cls, request: Request, response: Response, contact: NameAddr | None, routes: tuple[str, ...]
    ) -> Dialog:
        return cls(
            call_id=request.call_id,
            local_tag=request.from_.tag or "",
            remote_tag=response.to.tag or "",
            local_party=request.headers.get("from") or "",
            remote_party=response.headers.get("to") or "",
            remote_target=contact.uri if contact is not None else request.uri,
            route_set=tuple(reversed(routes)),
            local_cseq=request.cseq.number,
            remote_cseq=None,
        )

    @property
    def key(self) -> DialogKey:
        return (self.call_id, self.local_tag, self.remote_tag)

    def accept(self, request: Request) -> None:
        """Check and note the CSeq of a request in this dialog, and take over a new target (§12.2.2).

        Raises:
            RemoteSipError: 500 where the request is older than one already seen; 400 for a broken Contact.
        """
        number = request.cseq.number
        if self.remote_cseq is not None and number < self.remote_cseq:
            raise RemoteSipError(f"CSeq {number} comes after {self.remote_cseq}", status_hint=500)
        contact = _usable_contact(request) if request.method in ("INVITE", "UPDATE") else None
        if contact is not None:
            self.remote_target = contact.uri
        self.remote_cseq = number

    def take_target(self, response: Response) -> None:
        """Take over a new target from the 2xx to a re-INVITE or UPDATE of ours (§12.2.1.2); a broken one is left."""
        try:
            contact = _usable_contact(response)
        except RemoteSipError:
            return
        if contact is not None:
            self.remote_target = contact.uri

    def request(self, method: str, via: str, cseq: int | None = None) -> Request:
        """A request in this dialog, with the route set applied, strict routers included (§12.2.1.1).

        ``cseq`` is given for ACK, which repeats the number of its INVITE; otherwise the next number is taken.
        """
        if cseq is None:
            self.local_cseq += 1
            cseq = self.local_cseq
        uri, routes = self.remote_target, list(self.route_set)
        if routes and not _is_loose(routes[0]):
            uri = NameAddr.parse(routes.pop(0)).uri
            routes.append(f"<{self.remote_target}>")
        headers = Headers([("via", via), ("max-forwards", "70")])
        for route in routes:
            headers.add("route", route)
        headers.add("from", self.local_party)
        headers.add("to", self.remote_party)
        headers.add("call-id", self.call_id)
        headers.add("cseq", f"{cseq} {method}")
        return Request(method, uri, headers)

    def next_hop(self) -> SipUri:
        """The URI whose host the next request must be sent to (§8.1.2).

        Raises:
            RemoteSipError: where the peer gave something requests cannot be sent to.
        """
        if self.route_set:
            return NameAddr.parse(self.route_set[0]).sip_uri()
        return SipUri.parse(self.remote_target)


def _routes(headers: Headers) -> tuple[str, ...]:
    values = split_values(headers.get_all("record-route"))
    if len(values) > MAX_ROUTES:
        raise RemoteSipError(f"more than {MAX_ROUTES} Record-Route values")
    for value in values:
        if not _is_route(value):
            raise RemoteSipError(f"a Record-Route that is no SIP URI: {value[:80]!r}")
    return tuple(values)


def _is_route(value: str) -> bool:
    try:
        return NameAddr.parse(value).sip_uri().scheme != "tel"
    except RemoteSipError:
        return False


def _readable_routes(headers: Headers) -> tuple[str, ...]:
    """Those Record-Route values that requests can be sent by, at most as many as a good message may have."""
    found: list[str] = []
    for line in headers.get_all("record-route"):
        try:
            found += filter(_is_route, split_values([line]))
        except RemoteSipError:
            continue
    return tuple(found[:MAX_ROUTES])


def _usable_contact(message: Request | Response) -> NameAddr | None:
    """The Contact, None where there is none.

    Raises:
        RemoteSipError: 400 where requests cannot be sent to it.
    """
    contact = message.contact
    if contact is not None and scheme_of(contact.uri) not in ("sip", "sips"):
        raise RemoteSipError(f"a Contact that is no SIP URI: {contact.uri[:80]!r}")
    if contact is not None:
        contact.sip_uri()
    return contact


def _is_loose(route: str) -> bool:
    return NameAddr.parse(route).sip_uri().param("lr") is not None


def ack_of_refusal(invite: Request, response: Response) -> bytes:
    """The ACK that an INVITE's own transaction sends for a 300-699 (§17.1.1.3)."""
    headers = Headers([("via", str(invite.via)), ("max-forwards", "70")])
    headers.set_all("route", invite.headers.get_all("route"))
    headers.add("from", invite.headers.get("from") or "")
    headers.add("to", response.headers.get("to") or "")
    headers.add("call-id", invite.call_id)
    headers.add("cseq", f"{invite.cseq.number} ACK")
    return Request("ACK", invite.uri, headers).encode()


def cancel_of(invite: Request) -> Request:
    """The CANCEL of an INVITE of ours (§9.1)."""
    headers = Headers([("via", str(invite.via)), ("max-forwards", "70")])
    headers.set_all("route", invite.headers.get_all("route"))
    headers.add("from", invite.headers.get("from") or "")
    headers.add("to", invite.headers.get("to") or "")
    headers.add("call-id", invite.call_id)
    headers.add("cseq", f"{invite.cseq.number} CANCEL")
    return Request("CANCEL", invite.uri, headers)
