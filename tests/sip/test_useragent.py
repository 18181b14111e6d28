"""One user agent against datagrams as a peer, or a stranger, would send them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import LocalSipError
from appliance.sip.events import Confirmed, Event, IncomingCall
from appliance.sip.message import Response, read_message
from appliance.sip.uri import Peer, SipUri
from appliance.sip.useragent import Limits, UserAgent

from .dialog_pair import CALLED, OFFER, make_agent
from .requests import PEER, make_request

TORTURE = Path(__file__).parents[2] / ".." / "shared" / "sip-torture"

ALLOWED = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, REFER, NOTIFY"


class Remote:
    """Speaks to one user agent and reads its answers."""

    def __init__(self, **settings: object) -> None:
        self.agent = make_agent(CALLED, **settings)  # type: ignore[arg-type]
        self.events: list[Event] = []
        self.went_to: list[Peer] = []

    def say(self, data: bytes, source: Peer = PEER, now: float = 0.0) -> list[Response]:
        self.agent.receive_datagram(data, source, now)
        return self.hear()

    def hear(self) -> list[Response]:
        while (event := self.agent.next_event()) is not None:
            self.events.append(event)
        responses = []
        for data, destination in self.agent.datagrams_to_send():
            self.went_to.append(destination)
            message = read_message(data)
            assert isinstance(message, Response)
            responses.append(message)
        return responses

    def answer(self, data: bytes, source: Peer = PEER) -> Response:
        (response,) = self.say(data, source)
        return response


def test_an_invite_is_tried_and_told_once() -> None:
    peer = Remote()
    first = peer.answer(make_request(body=OFFER))
    assert (first.status, first.to.tag) == (100, None)
    again = peer.answer(make_request(body=OFFER))
    assert again.status == 100
    (event,) = peer.events
    assert isinstance(event, IncomingCall) and event.offer == OFFER
    event.call.ring(0.0)
    (ringing,) = peer.hear()
    assert ringing.status == 180
    assert ringing.to.tag and ringing.contact is not None and ringing.contact.uri == "sip:192.0.2.2:5060"
    assert peer.answer(make_request(body=OFFER)).status == 180


@pytest.mark.parametrize(
    ("data", "status", "header"),
    [
        (make_request("OPTIONS"), 200, ("allow", ALLOWED)),
        (make_request("REGISTER"), 405, ("allow", ALLOWED)),
        (make_request("WIBBLE"), 501, None),
        (make_request("BYE"), 481, None),
        (make_request("INFO", to_tag="nobody"), 481, None),
        (make_request(to_tag="nobody", body=OFFER), 481, None),
        (make_request("CANCEL"), 481, None),
        (make_request(extra="Require: 100rel, x\r\n", body=OFFER), 420, ("unsupported", "x")),
        (make_request(body=b"<x/>", content_type="text/xml"), 415, ("accept", "application/sdp")),
        (make_request(body=OFFER, extra="Content-Encoding: gzip\r\n"), 415, ("accept-encoding", "identity")),
        (make_request(body=OFFER, extra="Accept: text/html\r\n"), 406, None),
        (make_request(uri="mailto:a@b"), 416, None),
        (make_request().replace(b"Max-Forwards: 70", b"Max-Forwards: 0"), 483, None),
        (make_request(contact="<mailto:a@b>", body=OFFER), 400, None),
        (make_request().replace(b"CSeq: 1 INVITE", b"CSeq: 1 BYE"), 400, None),
        (make_request().replace(b"SIP/2.0\r\n", b"SIP/3.0\r\n", 1), 505, None),
    ],
)
def test_refusals(data: bytes, status: int, header: tuple[str, str] | None) -> None:
    peer = Remote()
    response = peer.answer(data)
    assert response.status == status
    assert response.to.tag
    if header is not None:
        assert response.headers.get(header[0]) == header[1]
    assert peer.events == []
    assert peer.agent.call_count == 0


def test_responses_go_where_via_says_and_rport_back_to_the_source() -> None:
    peer = Remote()
    source = Peer("192.0.2.7", 40000)
    response = peer.answer(make_request("OPTIONS", via="pbx.example:5099"), source)
    assert peer.went_to == [Peer("192.0.2.7", 5099)]
    assert response.via.params["received"] == "192.0.2.7"
    response = peer.answer(make_request("OPTIONS", via="10.0.0.1", branch="z9hG4bKtwo;rport"), source)
    assert peer.went_to[-1] == source
    assert response.via.params["rport"] == "40000"
    peer.answer(make_request("OPTIONS", branch="z9hG4bKthree;maddr=203.0.113.1"), source)
    assert peer.went_to[-1] == Peer("192.0.2.7", 5070)


def test_a_stranger_is_refused_and_nothing_is_kept() -> None:
    peer = Remote(trunk_of=lambda peer: "local" if peer.host == "192.0.2.7" else None)
    stranger = Peer("203.0.113.9", 5060)
    responses = [peer.answer(make_request(body=OFFER), stranger) for _ in range(2)]
    assert [r.status for r in responses] == [403, 403]
    assert responses[0].to.tag == responses[1].to.tag
    assert peer.say(make_request("ACK"), stranger) == []
    assert peer.say(make_request().replace(b"CSeq: 1", b"CSeq: x"), stranger) == []
    assert len(peer.agent.layer) == 0
    assert peer.agent.counters["strangers"] == 2
    assert peer.answer(make_request(body=OFFER)).status == 100


def test_draining_refuses_new_calls_only() -> None:
    peer = Remote()
    peer.answer(make_request(body=OFFER))
    peer.agent.accepting = False
    response = peer.answer(make_request(body=OFFER, branch="z9hG4bKtwo", call_id="two"))
    assert (response.status, response.headers.get("retry-after")) == (503, "5")
    assert peer.answer(make_request("OPTIONS", branch="z9hG4bKthree", call_id="three")).status == 503
    assert peer.agent.call_count == 1


def test_tables_a_peer_can_fill_are_capped() -> None:
    peer = Remote()
    peer.agent.limits = Limits(calls=3)
    peer.agent.layer._limit = 6
    statuses = [peer.answer(make_request(body=OFFER, branch=f"z9hG4bK{i}", call_id=str(i))).status for i in range(9)]
    assert statuses == [100] * 3 + [503] * 6
    assert len(peer.agent.layer) == 6
    with pytest.raises(LocalSipError, match="limit"):
        peer.agent.invite(SipUri.parse("sip:a@192.0.2.1"), "sip:b@192.0.2.2", b"", 0.0)


def fresh(method: str, number: int, **more: str) -> bytes:
    return make_request(method, branch=f"z9hG4bK{method}{number}", **{"call_id": f"{method}{number}", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (make_request("OPTIONS"), 200),
        (make_request("REGISTER"), 405),
        (make_request("WIBBLE"), 501),
        (make_request("BYE", to_tag="nobody"), 481),
        (make_request("INVITE", to_tag="nobody", body=OFFER), 481),
        (make_request("CANCEL"), 481),
        (make_request("REFER"), 403),
    ],
)
def test_what_belongs_to_no_call_is_answered_alike_each_time_and_not_remembered(data: bytes, status: int) -> None:
    peer = Remote()
    first, again = peer.answer(data), peer.answer(data)
    assert (first.status, again.status) == (status, status)
    assert first.to.tag and first.to.tag == again.to.tag
    assert len(peer.agent.layer) == len(peer.agent.timers) == 0


def test_a_host_that_fills_the_tables_cannot_keep_others_from_going_on() -> None:
    peer = Remote()
    peer.agent.limits = Limits(transactions=30, host_transactions=20)
    peer.agent.layer._limit = 30
    other = PEER._replace(host="192.0.2.9")

    def say(method: str, number: int, source: Peer, **more: str) -> int:
        return peer.say(fresh(method, number, **more), source)[0].status

    def begin(number: int, source: Peer) -> dict[str, str]:
        assert say("INVITE", number, source) == 100
        event = peer.events[-1]
        assert isinstance(event, IncomingCall)
        event.call.accept(OFFER, 0.0)
        (ok,) = peer.hear()
        return {"call_id": f"INVITE{number}", "to_tag": ok.to.tag or ""}

    ours, theirs = begin(0, PEER), begin(1, other)
    assert [say("OPTIONS", number, PEER) for number in range(50)] == [200] * 50
    assert len(peer.agent.layer) == 2
    assert [say("INVITE", number, PEER) for number in range(2, 30)] == [100] * 19 + [503] * 9
    assert say("INFO", 1, PEER, cseq="2", **ours) == 503
    assert [say("INVITE", number, other) for number in range(30, 42)] == [100] * 9 + [503] * 3
    assert peer.agent.layer.full and say("OPTIONS", 99, other) == 503
    assert [say("INFO", number, other, cseq=str(number), **theirs) for number in range(2, 12)] == [200] * 10
    assert say("INFO", 12, other, cseq="12", **theirs) == 503, "its share"
    cancel = fresh("CANCEL", 30, call_id="INVITE30").replace(b"z9hG4bKCANCEL", b"z9hG4bKINVITE")
    assert [response.status for response in peer.say(cancel, other)] == [200, 487]
    assert say("BYE", 1, other, cseq="20", **theirs) == 200
    assert say("BYE", 2, PEER, cseq="20", **ours) == 200
    peer.agent.handle_timer(1000.0)
    peer.agent.datagrams_to_send()
    peer.agent.handle_timer(2000.0)
    assert len(peer.agent.layer) == peer.agent.layer.held_for(PEER.host) == peer.agent.layer.held_for(other.host) == 0


def test_the_same_request_by_two_ways_is_served_once() -> None:
    peer = Remote()
    assert peer.answer(make_request(body=OFFER)).status == 100
    assert peer.answer(make_request(body=OFFER, branch="z9hG4bKtwo")).status == 482
    assert len(peer.events) == 1


def test_our_own_call_come_back_is_a_loop() -> None:
    peer = Remote()
    peer.agent.invite(SipUri.parse("sip:100@192.0.2.99"), "sip:us@192.0.2.2", OFFER, 0.0)
    ((data, _),) = peer.agent.datagrams_to_send()
    assert peer.answer(data, Peer("192.0.2.99", 5060)).status == 482


def test_cancel_finds_its_invite_by_branch() -> None:
    peer = Remote()
    peer.say(make_request(body=OFFER))
    ok, terminated = peer.say(make_request("CANCEL"))
    assert (ok.status, ok.cseq.method) == (200, "CANCEL")
    assert (terminated.status, terminated.cseq.method) == (487, "INVITE")
    assert ok.to.tag == terminated.to.tag
    assert peer.answer(make_request("CANCEL")).status == 200
    assert peer.say(make_request("ACK", to_tag=terminated.to.tag or "")) == []
    peer.agent.handle_timer(100.0)
    assert peer.hear() == []
    assert len(peer.agent.layer) == 0


def test_an_ack_with_a_made_up_to_tag_stops_the_200() -> None:
    """As pyVoIP 1.6.8 sends it: the INVITE's branch, Call-ID, From tag and CSeq, and a To tag of its own."""
    peer = Remote()
    peer.say(make_request(body=OFFER))
    (event,) = peer.events
    assert isinstance(event, IncomingCall)
    event.call.accept(OFFER, 0.0)
    (ok,) = peer.hear()
    assert peer.say(make_request("ACK", to_tag="made-up"), now=0.1) == []
    assert isinstance(peer.events[-1], Confirmed)
    peer.agent.handle_timer(1.0)
    assert peer.hear() == []
    assert peer.agent.counters["acks_matched_loosely"] == 1
    assert peer.answer(make_request("BYE", to_tag="made-up", cseq="2", branch="z9hG4bKx")).status == 481
    assert peer.answer(make_request("BYE", to_tag=ok.to.tag or "", cseq="2", branch="z9hG4bKy")).status == 200


@pytest.mark.parametrize(
    ("ack", "source"),
    [
        (make_request("ACK", to_tag="made-up"), PEER._replace(host="203.0.113.9")),
        (make_request("ACK", to_tag="made-up", call_id="call-2"), PEER),
        (make_request("ACK", to_tag="made-up", from_tag="other"), PEER),
        (make_request("ACK", to_tag="made-up", cseq="2"), PEER),
    ],
    ids=["another host", "another call", "another caller", "another request"],
)
def test_an_ack_that_could_be_anothers_leaves_the_200_going(ack: bytes, source: Peer) -> None:
    peer = Remote()
    peer.say(make_request(body=OFFER))
    (event,) = peer.events
    assert isinstance(event, IncomingCall)
    event.call.accept(OFFER, 0.0)
    peer.hear()
    assert peer.say(ack, source) == []
    peer.agent.handle_timer(0.5)
    (again,) = peer.hear()
    assert (again.status, again.cseq.method) == (200, "INVITE")


def test_requests_out_of_order_are_500() -> None:
    peer = Remote()
    peer.say(make_request(body=OFFER, cseq="10"))
    (event,) = peer.events
    assert isinstance(event, IncomingCall)
    event.call.accept(OFFER, 0.0)
    (ok,) = peer.hear()
    tag = ok.to.tag or ""
    assert peer.answer(make_request("INFO", to_tag=tag, cseq="9", branch="z9hG4bKa")).status == 500
    assert peer.answer(make_request("INFO", to_tag=tag, cseq="11", branch="z9hG4bKb")).status == 200
    assert (
        peer.answer(make_request("INFO", to_tag=tag, cseq="12", branch="z9hG4bKc", extra="Info-Package: x\r\n")).status
        == 469
    )
    assert peer.answer(make_request("BYE", to_tag=tag, cseq="13", branch="z9hG4bKd")).status == 200


def test_a_peer_of_rfc_2543_is_served() -> None:
    peer = Remote()
    old = make_request(body=OFFER).replace(b";branch=z9hG4bKone", b"").replace(b";tag=caller", b"")
    assert peer.answer(old).status == 100
    assert peer.answer(old).status == 100
    (event,) = peer.events
    assert isinstance(event, IncomingCall)
    event.call.reject(486, 0.0)
    (busy,) = peer.hear()
    ack = old.replace(b"INVITE", b"ACK").replace(
        b"To: <sip:100@192.0.2.2>", f"To: <sip:100@192.0.2.2>;tag={busy.to.tag}".encode()
    )
    assert peer.say(ack) == []
    peer.agent.handle_timer(3.0)
    assert peer.hear() == []


def test_a_byes_destination_behind_a_nat_is_where_the_invite_came_from() -> None:
    for contact, source, expected in (
        ("<sip:a@10.0.0.5>", Peer("8.8.8.8", 1234), Peer("8.8.8.8", 1234)),
        ("<sip:a@10.0.0.5>", Peer("10.0.0.9", 1234), Peer("10.0.0.5", 5060)),
        ("<sip:a@phone.example>", Peer("8.8.8.8", 1234), Peer("8.8.8.8", 1234)),
        ("<sip:a@255.255.255.255>", Peer("8.8.8.8", 1234), Peer("8.8.8.8", 1234)),
        ("<sip:a@9.9.9.9:99>", Peer("8.8.8.8", 1234), Peer("9.9.9.9", 99)),
        ("<sip:a@100.64.0.5>", Peer("8.8.8.8", 1234), Peer("8.8.8.8", 1234)),
        ("<sip:a@10.0.0.5>", Peer("100.64.0.9", 1234), Peer("100.64.0.9", 1234)),
        ("<sip:a@100.64.0.5>", Peer("100.64.0.9", 1234), Peer("100.64.0.5", 5060)),
        ("<sip:a@100.64.0.5>", Peer("10.0.0.9", 1234), Peer("100.64.0.5", 5060)),
        ("<sip:a@127.0.0.1>", Peer("10.0.0.2", 1234), Peer("10.0.0.2", 1234)),
        ("<sip:a@[::ffff:127.0.0.1]>", Peer("10.0.0.2", 1234), Peer("10.0.0.2", 1234)),
        ("<sip:a@127.0.0.1>", Peer("127.0.0.1", 1234), Peer("127.0.0.1", 5060)),
        ("<sip:a@169.254.1.1>", Peer("10.0.0.2", 1234), Peer("10.0.0.2", 1234)),
        ("<sip:a@[fe80::1]>", Peer("10.0.0.2", 1234), Peer("10.0.0.2", 1234)),
        ("<sip:a@9.9.9.9;transport=sctp>", Peer("8.8.8.8", 1234), Peer("8.8.8.8", 1234)),
        ("<sip:a@9.9.9.9;transport=TCP>", Peer("8.8.8.8", 1234), Peer("9.9.9.9", 5060, "tcp")),
    ):
        peer = Remote()
        peer.say(make_request(body=OFFER, contact=contact), source)
        (event,) = peer.events
        assert isinstance(event, IncomingCall) and event.call.dialog is not None
        assert peer.agent.locate(event.call.dialog, source) == expected


def test_what_is_not_sip_is_counted_and_dropped() -> None:
    peer = Remote()
    for data in (b"\r\n\r\n", b"\0\0\0\0", b"", b"\x80\x00rtp", b"GET / HTTP/1.1\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n"):
        assert peer.say(data) == []
    counters = peer.agent.counters
    assert (counters["keepalives"], counters["garbage"], counters["malformed"]) == (3, 2, 1)


def test_a_call_that_cannot_be_sent_leaves_nothing_behind() -> None:
    agent = make_agent(CALLED)
    for name in ("Replaces", "Referred-By"):
        with pytest.raises(LocalSipError, match=name):
            agent.invite(
                SipUri.parse("sip:a@192.0.2.1"), "sip:b@192.0.2.2", OFFER, 0.0, headers=[(name, "a\r\nX-Evil: 1")]
            )
    with pytest.raises(LocalSipError):
        agent.request(
            "OPTIONS", SipUri.parse("sip:192.0.2.1"), 0.0, from_uri="sip:b@c\r\n", on_done=lambda outcome, now: None
        )
    assert (agent.call_count, len(agent.layer), len(agent.timers)) == (0, 0, 0)
    assert not agent._own_invites and not agent.datagrams_to_send()


def test_a_name_needs_an_address() -> None:
    with pytest.raises(LocalSipError, match="resolve it"):
        Remote().agent.invite(SipUri.parse("sip:a@example.com"), "sip:b@c", b"", 0.0)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_damaged_and_random_datagrams_never_raise(seed: int) -> None:
    """The same agent takes hundreds of datagrams cut, doubled, spliced and flipped, and still answers."""
    numbers = random.Random(seed)
    agent: UserAgent = make_agent(CALLED)
    good = [make_request(m, body=OFFER) for m in ("INVITE", "BYE", "CANCEL", "ACK", "OPTIONS", "INFO")]
    for step in range(20):
        data = bytearray(numbers.choice(good))
        for _ in range(numbers.randrange(4)):
            at = numbers.randrange(len(data))
            data[at : at + numbers.randrange(20)] = numbers.randbytes(numbers.randrange(6))
        agent.receive_datagram(bytes(data[: numbers.randrange(len(data)) if step % 3 == 0 else None]), PEER, 0.1 * step)
        while (event := agent.next_event()) is not None:
            if isinstance(event, IncomingCall):
                event.call.accept(OFFER, 0.1 * step)
        agent.datagrams_to_send()
    agent.handle_timer(1000.0)
    agent.datagrams_to_send()
    agent.receive_datagram(make_request("OPTIONS", branch="z9hG4bKlast", call_id="last"), PEER, 1000.0)
    ((answer, _),) = agent.datagrams_to_send()
    assert answer.startswith(b"SIP/2.0 200")


def torture_cases() -> list[tuple[str, str]]:
    table = TORTURE / "expected.tsv"
    lines = table.read_text().splitlines() if table.exists() else []
    return [(name, verdict) for name, verdict in (line.split("\t") for line in lines if not line.startswith("#"))]


def verdict_of(statuses: list[int]) -> set[str]:
    final = [status for status in statuses if status >= 200]
    if not final:
        return {"D"}
    assert len(final) == 1
    return {str(final[0])} | ({"A"} if final[0] not in (400, 505) else set())


def test_the_torture_messages_of_rfc_4475() -> None:
    """All 50 to one agent, one after the other, each with a verdict the RFC allows."""
    cases = torture_cases()
    if not cases:
        pytest.skip("the messages of RFC 4475 are not beside this clone; they go into ../shared/sip-torture")
    peer = Remote()
    wrong = []
    for number, (name, allowed) in enumerate(cases):
        data = (TORTURE / name).read_bytes()
        responses = peer.say(data, Peer("192.0.2.7", 9000 + number))
        for event in peer.events:
            if isinstance(event, IncomingCall):
                event.call.reject(486, 0.0)
        peer.events.clear()
        responses += peer.hear()
        got = verdict_of([r.status for r in responses])
        if not got & set(allowed.split(" or ")):
            wrong.append(f"{name}: {sorted(got)} instead of {allowed}")
    assert wrong == []
    assert len(cases) == 50
    assert peer.answer(make_request("OPTIONS")).status == 200


def test_a_request_in_a_dialog_goes_by_the_connection_that_is_open() -> None:
    source = Peer("192.0.2.7", 40000, "tcp", 9)
    for contact, expected in (
        ("<sip:a@192.0.2.7:5070;transport=tcp>", Peer("192.0.2.7", 5070, "tcp", 9)),
        ("<sip:a@192.0.2.7>", Peer("192.0.2.7", 5060, "tcp", 9)),
        ("<sip:a@192.0.2.7;transport=udp>", Peer("192.0.2.7", 5060)),
        ("<sip:a@192.0.2.8;transport=tcp>", Peer("192.0.2.8", 5060, "tcp")),
    ):
        peer = Remote()
        peer.say(make_request(body=OFFER, contact=contact), source)
        (event,) = peer.events
        assert isinstance(event, IncomingCall) and event.call.dialog is not None
        assert peer.agent.locate(event.call.dialog, source) == expected


def test_each_transport_is_named_to_its_peer() -> None:
    agent = make_agent(CALLED)
    for where, via, contact in (
        (Peer("192.0.2.7", 5060), b"Via: SIP/2.0/UDP 192.0.2.2:5060;", b"Contact: <sip:192.0.2.2:5060>"),
        (Peer("192.0.2.7", 5060, "tcp"), b"Via: SIP/2.0/TCP 192", b"Contact: <sip:192.0.2.2:5060;transport=tcp>"),
        (Peer("192.0.2.7", 5061, "tls"), b"Via: SIP/2.0/TLS 192", b"Contact: <sip:192.0.2.2:5060;transport=tls>"),
    ):
        agent.invite(SipUri.parse("sip:a@b.example"), "sip:c@d", OFFER, 0.0, destination=where)
        ((data, destination),) = agent.datagrams_to_send()
        assert destination == where and via in data and contact in data


def test_an_offer_among_other_parts_is_found() -> None:
    peer = Remote()
    body = (
        b"--x\r\nContent-Type: text/plain\r\n\r\nhi\r\n--x\r\nContent-Type: application/sdp\r\n\r\n"
        + OFFER
        + b"\r\n--x--"
    )
    assert peer.answer(make_request(body=body, content_type="multipart/mixed;boundary=x")).status == 100
    (event,) = peer.events
    assert isinstance(event, IncomingCall) and event.offer == OFFER
    without = make_request(
        body=b"--x\r\n\r\nhi\r\n--x--", content_type="multipart/mixed;boundary=x", call_id="b", branch="z9hG4bKb"
    )
    assert peer.answer(without).status == 415
