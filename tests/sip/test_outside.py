"""Requests outside calls, and the user agent's dealings with those who must show who they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from appliance.errors import LocalSipError
from appliance.sip.auth import Credentials
from appliance.sip.call import Call
from appliance.sip.events import Answered, CallEnded, Confirmed, Event, IncomingCall
from appliance.sip.guard import GuardSettings, Rate
from appliance.sip.message import Request, Response, make_response, read_message
from appliance.sip.outside import Outcome
from appliance.sip.uri import Peer, SipUri
from appliance.sip.useragent import Limits, UserAgent

from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair, make_agent
from .requests import PEER, make_request

ALICE = Credentials("alice", "secret")
REGISTRAR = SipUri.parse("sip:192.0.2.2")


class Desk:
    """A user agent that asks, and the requests it has sent."""

    def __init__(self, **settings: object) -> None:
        self.agent = make_agent(CALLER, **settings)  # type: ignore[arg-type]
        self.done: list[tuple[Outcome, float]] = []

    def ask(self, method: str = "REGISTER", now: float = 0.0, **extra: object) -> Request:
        settings: dict[str, object] = {"from_uri": "sip:alice@example.com", "to_uri": "sip:alice@example.com", **extra}
        self.agent.request(method, REGISTRAR, now, on_done=lambda o, t: self.done.append((o, t)), **settings)  # type: ignore[arg-type]
        return self.sent()

    def sent(self) -> Request:
        ((data, destination),) = self.agent.datagrams_to_send()
        message = read_message(data)
        assert isinstance(message, Request) and message.defect is None and destination.host == CALLED.host
        return message

    def answer(self, request: Request, status: int, *headers: tuple[str, str], now: float = 0.0) -> None:
        response = make_response(request, status, to_tag="t")
        for name, value in headers:
            response.headers.add(name, value)
        self.agent.receive_datagram(response.encode(), CALLED, now)


def challenge(realm: str = "r", nonce: str = "n", more: str = "") -> tuple[str, str]:
    return ("WWW-Authenticate", f'Digest realm="{realm}", nonce="{nonce}", qop="auth"{more}')


def test_a_registration_is_asked_for_and_repeated_in_one_call_id() -> None:
    desk = Desk()
    first = desk.ask(contact_user="alice", headers=[("Expires", "300")])
    assert first.contact is not None and first.contact.uri == "sip:alice@192.0.2.1:5060"
    assert (first.uri, first.headers.get("expires"), first.cseq.number) == ("sip:192.0.2.2", "300", 1)
    desk.answer(first, 100)
    assert desk.done == []
    desk.answer(first, 200, ("Expires", "60"), now=0.2)
    ((outcome, when),) = desk.done
    assert (outcome.status, when) == (200, 0.2) and outcome.response is not None
    second = desk.ask(previous=outcome)
    assert (second.call_id, second.from_.tag, second.cseq.number) == (first.call_id, first.from_.tag, 2)


def test_a_challenge_is_met_on_the_way() -> None:
    desk = Desk(credentials_of=lambda peer, message: ALICE if peer.host == CALLED.host else None)
    first = desk.ask()
    assert "authorization" not in first.headers
    desk.answer(first, 401, challenge())
    second = desk.sent()
    assert second.cseq.number == 2 and second.via.branch != first.via.branch and second.call_id == first.call_id
    assert 'username="alice"' in (second.headers.get("authorization") or "")
    desk.answer(second, 200, ("Authentication-Info", 'nextnonce="later"'))
    ((outcome, _),) = desk.done
    assert outcome.status == 200 and outcome.request.cseq.number == 2
    third = desk.ask(previous=outcome)
    assert third.cseq.number == 3
    assert 'nonce="later"' in (third.headers.get("authorization") or "")


def test_a_challenge_is_not_met_for_ever() -> None:
    desk = Desk(credentials_of=lambda peer, message: ALICE)
    request = desk.ask()
    for number in itertools.count():
        desk.answer(request, 401, challenge(nonce=str(number), more=", stale=true"))
        if desk.done:
            break
        request = desk.sent()
    assert number == 3 and desk.done[0][0].status == 401


def test_a_refresh_is_sent_again_where_an_old_nonce_without_qop_is_not_called_stale() -> None:
    desk = Desk(credentials_of=lambda peer, message: ALICE)

    def asked(nonce: str) -> tuple[str, str]:
        return ("WWW-Authenticate", f'Digest realm="r", nonce="{nonce}"')

    desk.answer(desk.ask(), 401, asked("one"))
    desk.answer(desk.sent(), 200)
    first = desk.done[0][0]
    assert first.status == 200
    refresh = desk.ask(previous=first)
    assert 'nonce="one"' in (refresh.headers.get("authorization") or "")
    desk.answer(refresh, 401, asked("two"))
    again = desk.sent()
    assert 'nonce="two"' in (again.headers.get("authorization") or "")
    desk.answer(again, 401, asked("three"))
    assert [outcome.status for outcome, _ in desk.done] == [200, 401], "the answer to a fresh challenge was refused"


def test_without_credentials_a_challenge_is_the_answer() -> None:
    desk = Desk()
    desk.answer(desk.ask(), 407, ("Proxy-Authenticate", 'Digest realm="r", nonce="n"'))
    assert desk.done[0][0].status == 407
    assert desk.agent.counters["challenges_not_met"] == 1


def test_silence_and_a_transport_that_fails_are_told() -> None:
    desk = Desk()
    desk.ask("OPTIONS")
    desk.agent.handle_timer(32.0)
    assert (desk.done[0][0].status, desk.done[0][0].response, desk.done[0][1]) == (408, None, 32.0)
    desk.agent.datagrams_to_send()
    request = desk.ask("OPTIONS", destination=Peer(CALLED.host, 5060, "tcp"))
    assert request.via.transport == "TCP"
    desk.agent.send_failed(request.encode(), CALLED, 33.0)
    assert desk.done[1][0].status == 503
    desk.agent.send_failed(request.encode(), CALLED, 33.0)
    desk.agent.send_failed(b"\r\n", CALLED, 33.0)
    desk.agent.send_failed(make_response(request, 200).encode(), CALLED, 33.0)
    assert len(desk.done) == 2 and len(desk.agent.layer) == 0


def test_a_call_that_cannot_be_sent_ends() -> None:
    agent = make_agent(CALLER)
    agent.invite(SipUri.parse("sip:a@192.0.2.2;transport=tls"), "sip:me@x", OFFER, 0.0)
    ((data, destination),) = agent.datagrams_to_send()
    agent.send_failed(data, destination, 1.0)
    event = agent.next_event()
    assert isinstance(event, CallEnded) and event.status == 503
    assert agent.datagrams_to_send() == [] and agent.call_count == 0


def test_a_name_needs_an_address() -> None:
    with pytest.raises(LocalSipError, match="resolve it"):
        make_agent(CALLER).request(
            "OPTIONS", SipUri.parse("sip:h.example"), 0.0, from_uri="sip:a@b", on_done=lambda outcome, now: None
        )


# --- two user agents ------------------------------------------------------------------------------------------------


def authenticated_pair(password: str, **network: float) -> DialogPair:
    pair = DialogPair(**network)  # type: ignore[arg-type]
    caller = make_agent(CALLER, credentials_of=lambda peer, message: Credentials("alice", password))
    called = make_agent(CALLED, challenge_of=lambda trunk: ALICE)
    pair.caller, pair.called = caller, called
    pair.agents = {CALLER: caller, CALLED: called}

    def answer(event: Event) -> None:
        if isinstance(event, IncomingCall):
            event.call.accept(ANSWER, pair.now)

    pair.on_event[CALLED] = answer
    return pair


@pytest.mark.parametrize("seed", range(6))
def test_a_call_is_authenticated_over_a_bad_network(seed: int) -> None:
    pair = authenticated_pair("secret", loss=0.2, duplicate=0.1, jitter_s=0.1, seed=seed)
    call = pair.caller.invite(SipUri.parse("sip:100@192.0.2.2"), "sip:alice@192.0.2.1", OFFER, 0.0)
    pair.run(20.0)
    assert any(isinstance(event, Answered) for event in pair.events[CALLER])
    assert [type(event) for event in pair.events[CALLED]].count(IncomingCall) == 1
    call.hangup(pair.now)
    pair.run(100.0)
    assert pair.caller.call_count == pair.called.call_count == 0
    assert len(pair.caller.layer) == len(pair.called.layer) == 0


def test_the_ack_carries_the_credentials_of_its_invite() -> None:
    pair = authenticated_pair("secret")
    pair.caller.invite(SipUri.parse("sip:100@192.0.2.2"), "sip:alice@192.0.2.1", OFFER, 0.0)
    pair.run(5.0)
    acks = [data for _, _, data in pair.wire if data.startswith(b"ACK") and b"Authorization: " in data]
    assert len(acks) == 1
    assert any(isinstance(event, Confirmed) for event in pair.events[CALLED])


def test_a_wrong_password_ends_the_call_and_is_struck() -> None:
    pair = authenticated_pair("guess")
    for _ in range(20):
        pair.caller.invite(SipUri.parse("sip:100@192.0.2.2"), "sip:alice@192.0.2.1", OFFER, pair.now)
        pair.run(pair.now + 1.0)
    ended = [event for event in pair.events[CALLER] if isinstance(event, CallEnded)]
    assert {event.status for event in ended} == {401} and pair.events[CALLED] == []
    assert pair.called.counters["credentials_wrong"] == 20
    assert pair.called.gate.guard.banned(pair.now) == (CALLER.host,)
    before = pair.called.counters["datagrams_sent"]
    pair.caller.invite(SipUri.parse("sip:100@192.0.2.2"), "sip:alice@192.0.2.1", OFFER, pair.now)
    pair.run(pair.now + 1.0)
    assert pair.called.counters["datagrams_sent"] == before


def test_a_call_follows_its_redirection() -> None:
    pair = DialogPair()

    def move(event: Event) -> None:
        if isinstance(event, IncomingCall) and event.request.uri == "sip:100@192.0.2.2":
            event.call.reject(302, pair.now, headers=[("Contact", "<sip:666@192.0.2.2>, <sip:100@192.0.2.2;x=y:1>")])
        elif isinstance(event, IncomingCall):
            event.call.accept(ANSWER, pair.now)

    pair.on_event[CALLED] = move
    call = pair.caller.invite(SipUri.parse("sip:100@192.0.2.2"), "sip:alice@192.0.2.1", OFFER, 0.0)
    pair.run(5.0)
    assert pair.caller.counters["redirects_refused"] == 1
    ended = [event for event in pair.events[CALLER] if isinstance(event, CallEnded)]
    assert [event.status for event in ended] == [302] and call.ended

    def move_on(event: Event) -> None:
        if isinstance(event, IncomingCall) and event.request.uri == "sip:100@192.0.2.2":
            event.call.reject(302, pair.now, headers=[("Contact", "<sip:100@192.0.2.2:5060>")])
        elif isinstance(event, IncomingCall):
            event.call.accept(ANSWER, pair.now)

    pair.on_event[CALLED] = move_on
    pair.caller.invite(SipUri.parse("sip:100@192.0.2.2"), "sip:alice@192.0.2.1", OFFER, pair.now)
    pair.run(10.0)
    assert any(isinstance(event, Answered) for event in pair.events[CALLER])
    assert pair.caller.counters["redirects_followed"] == 1


# --- who may send what -----------------------------------------------------------------------------------------------


def statuses(agent: UserAgent) -> list[int]:
    found = []
    for data, _ in agent.datagrams_to_send():
        message = read_message(data)
        assert isinstance(message, Response)
        found.append(message.status)
    return found


def test_too_many_calls_are_refused_with_503_and_a_flood_is_not_even_read() -> None:
    tight = GuardSettings(invites=Rate(1.0, 2.0), refusals=Rate(1.0, 1.0))
    agent = make_agent(CALLED, guard=tight)
    for number in range(5):
        data = make_request(call_id=f"c{number}", branch=f"z9hG4bK{number}", body=OFFER)
        agent.receive_datagram(data, PEER, 0.0)
    assert statuses(agent) == [100, 100, 503]
    report = agent.flood_report(0.5)
    assert report is not None and (report.dropped, report.refused) == (2, 1)
    assert agent.flood_report(1.5) is None
    assert agent.counters["calls_received"] == 2


@pytest.mark.parametrize(
    "disguise",
    [
        lambda data: b"\r\n" + data,
        lambda data: data.replace(b"\r\n", b"\n"),
        lambda data: data.replace(b"INVITE ", b"INVITE\r", 1),
        lambda data: data.replace(b"To: <sip:100@", b"To: <sip:100;tag=1@"),
        lambda data: data.replace(b"To: <sip:100@192.0.2.2>", b"To: <sip:100@192.0.2.2>;tag=1;tag="),
        lambda data: data.replace(b"To: <sip:", b'To: "a>;tag=1" <sip:'),
    ],
    ids=["line break first", "bare line feeds", "bare carriage return", "tag in the URI", "tag taken back", "quoted"],
)
def test_an_invite_in_disguise_counts_as_one(disguise: Callable[[bytes], bytes]) -> None:
    agent = make_agent(CALLED, guard=GuardSettings(invites=Rate(1.0, 1.0), refusals=Rate(1.0, 1.0)))
    for number in range(50):
        data = make_request(call_id=f"c{number}", branch=f"z9hG4bK{number}")
        agent.receive_datagram(disguise(data), PEER, 0.0)
    assert agent.counters["calls_received"] == 1
    assert statuses(agent) == [100, 503]


def test_a_forged_datagram_bans_no_trunk() -> None:
    """Neither by the name of a scanner nor by wrong passwords under a nonce that the forger was given himself."""
    pair = authenticated_pair("secret")
    call = pair.caller.invite(SipUri.parse("sip:100@192.0.2.2"), "sip:alice@192.0.2.1", OFFER, 0.0)
    pair.run(1.0)
    pair.called.receive_datagram(make_request("OPTIONS", extra="User-Agent: friendly-scanner\r\n"), CALLER, 1.0)
    for number in range(30):
        forger = Desk(seed=number + 2, credentials_of=lambda peer, message: Credentials("alice", "guess"))
        forger.agent.invite(SipUri.parse("sip:100@192.0.2.2"), "sip:x@y", OFFER, 1.0)
        pair.called.receive_datagram(forger.sent().encode(), PEER, 1.0)
        (refused,) = (data for data, to in pair.called.datagrams_to_send() if to.host == PEER.host)
        forger.agent.receive_datagram(refused, CALLED, 1.0)
        _ack, (forged, _) = forger.agent.datagrams_to_send()
        pair.called.receive_datagram(forged, CALLER, 1.0)
        pair.called.datagrams_to_send()
    assert pair.called.counters["credentials_stale"] == 30
    assert pair.called.gate.guard.banned(1.0) == ()
    call.hangup(pair.now)
    pair.run(2.0)
    assert [event.by for event in pair.events[CALLED] if isinstance(event, CallEnded)] == ["remote"]


def test_a_retransmission_is_answered_though_new_calls_are_refused() -> None:
    agent = make_agent(CALLED, guard=GuardSettings(invites=Rate(0.1, 1.0)))
    data = make_request(body=OFFER)
    agent.receive_datagram(data, PEER, 0.0)
    agent.receive_datagram(data, PEER, 0.5)
    assert statuses(agent) == [100, 100]


def test_a_scanner_hears_nothing_and_a_stranger_is_soon_not_heard() -> None:
    agent = make_agent(CALLED, trunk_of=lambda peer: None)
    scan = make_request("OPTIONS", extra="User-Agent: friendly-scanner\r\n")
    agent.receive_datagram(scan, Peer("203.0.113.5", 5060), 0.0)
    agent.receive_datagram(make_request("OPTIONS"), Peer("203.0.113.5", 5060), 1.0)
    assert statuses(agent) == []
    for number in range(40):
        agent.receive_datagram(make_request(branch=f"z9hG4bK{number}"), Peer("203.0.113.6", 5060), 2.0 + number)
    assert statuses(agent) == [403] * 20


def test_a_peer_we_called_is_heard_though_it_is_no_trunk() -> None:
    pair = DialogPair()
    pair.caller = make_agent(CALLER, trunk_of=lambda peer: None, guard=GuardSettings(stranger=Rate(0.0, 0.0)))
    pair.agents[CALLER] = pair.caller
    pair.on_event[CALLED] = lambda event: (
        event.call.accept(ANSWER, pair.now) if isinstance(event, IncomingCall) else None
    )
    pair.caller.invite(SipUri.parse("sip:100@192.0.2.2"), "sip:alice@192.0.2.1", OFFER, 0.0)
    pair.run(5.0)
    assert any(isinstance(event, Answered) for event in pair.events[CALLER])


def test_a_registration_with_the_box_is_refused_and_counted() -> None:
    for trunk, status in (("office", 405), (None, 403)):
        agent = make_agent(CALLED, trunk_of=lambda peer, trunk=trunk: trunk)
        agent.receive_datagram(make_request("REGISTER"), PEER, 0.0)
        assert statuses(agent) == [status]
        assert agent.counters["registers_refused"] == 1


def test_a_host_that_never_acknowledges_cannot_take_every_line() -> None:
    agent = make_agent(CALLED)
    agent.limits = Limits(half_open=3)
    calls: list[Call] = []

    def invite(number: int, source: Peer) -> list[int]:
        data = make_request(call_id=f"c{number}", branch=f"z9hG4bK{number}", body=OFFER)
        agent.receive_datagram(data, source, 0.0)
        while (event := agent.next_event()) is not None:
            if isinstance(event, IncomingCall):
                calls.append(event.call)
        return statuses(agent)

    assert [invite(number, PEER) for number in range(4)] == [[100], [100], [100], [503]]
    assert invite(4, PEER._replace(host="192.0.2.99")) == [100]
    calls[0].reject(486, 0.0)
    calls[1].accept(ANSWER, 0.0)
    ok = read_message(agent.datagrams_to_send()[-1][0])
    agent.receive_datagram(make_request("ACK", call_id="c1", branch="z9hG4bKa", to_tag=ok.to.tag or ""), PEER, 0.0)
    assert [invite(number, PEER) for number in range(5, 8)] == [[100], [100], [503]]
    assert agent.counters["half_open"] == 2
