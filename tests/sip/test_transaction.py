"""Each machine by arithmetic: what is sent when, and when it is over."""

from __future__ import annotations

from collections import Counter

import pytest

from appliance.sip.message import Request, Response, make_response
from appliance.sip.timers import TimerQueue
from appliance.sip.transaction import TABLES, TIMERS, Event, Kind, State, Timing, Transaction
from appliance.sip.transaction_layer import TimerKey, TransactionLayer
from appliance.sip.uri import Peer

from .requests import PEER, good_message, make_request


class Rig:
    """A transaction layer, what it sends, and an owner that remembers."""

    def __init__(self, *, reliable: bool = False) -> None:
        self.sent: list[tuple[float, bytes]] = []
        self.now = 0.0
        self.peer = PEER._replace(transport="tcp", flow=1) if reliable else PEER
        self.responses: list[int] = []
        self.timeouts = 0
        self.timers: TimerQueue[TimerKey] = TimerQueue()
        self.layer = TransactionLayer(self._send, self.timers, Timing(), Counter(), limit=100)

    def _send(self, data: bytes, destination: Peer) -> None:
        self.sent.append((self.now, data))

    def on_response(self, transaction: Transaction, response: Response, now: float) -> None:
        self.responses.append(response.status)

    def on_timeout(self, transaction: Transaction, now: float) -> None:
        self.timeouts += 1

    def run(self, until: float) -> None:
        while (when := self.timers.next()) is not None and when <= until:
            self.now = when
            key = self.timers.pop_due(when)
            assert key is not None
            transaction, timer = key
            assert isinstance(transaction, Transaction) and isinstance(timer, Event)
            self.layer.handle_timer(transaction, timer, when)
        self.now = until

    def client(self, method: str) -> tuple[Transaction, Request]:
        request = good_message(make_request(method))
        assert isinstance(request, Request)
        return self.layer.open_client(request, self.peer, self, self.now, lambda response: b"ACK " + b"x" * 5), request

    def server(self, method: str) -> Transaction:
        request = good_message(make_request(method))
        assert isinstance(request, Request)
        return self.layer.open_server(request, self.peer)

    def answer(self, request: Request, status: int) -> None:
        response = good_message(make_response(request, status, to_tag="t").encode())
        assert isinstance(response, Response)
        self.layer.receive_response(response, self.now)

    @property
    def times(self) -> list[float]:
        return [when for when, _ in self.sent]


@pytest.mark.parametrize("kind", list(Kind))
def test_every_state_can_be_reached_and_left(kind: Kind) -> None:
    table = TABLES[kind]
    states = {state for state, _ in table} | {step.state for step in table.values()}
    assert State.TERMINATED in states
    for state in states - {State.TERMINATED}:
        assert any(before is state and step.state is not state for (before, _), step in table.items())
    assert all(isinstance(event, Event) for _, event in table)
    assert {event for _, event in table} & set(TIMERS)


def test_an_unanswered_invite_doubles_from_t1_until_64_t1() -> None:
    rig = Rig()
    rig.client("INVITE")
    rig.run(60.0)
    assert rig.times == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert rig.timeouts == 1
    assert len(rig.layer) == 0


def test_an_unanswered_bye_doubles_up_to_t2() -> None:
    rig = Rig()
    rig.client("BYE")
    rig.run(60.0)
    assert rig.times == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert rig.timeouts == 1
    assert len(rig.layer) == 0


def test_a_provisional_response_slows_a_bye_but_does_not_end_its_patience() -> None:
    rig = Rig()
    _, request = rig.client("BYE")
    rig.run(0.1)
    rig.answer(request, 100)
    rig.run(60.0)
    assert rig.times == [0.0, 0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5]
    assert rig.timeouts == 1


def test_a_provisional_response_stops_the_invite() -> None:
    rig = Rig()
    _, request = rig.client("INVITE")
    rig.answer(request, 180)
    rig.run(1000.0)
    assert rig.times == [0.0]
    assert rig.timeouts == 0
    assert len(rig.timers) == 0


def test_a_refused_invite_is_acknowledged_each_time_it_is_told() -> None:
    rig = Rig()
    transaction, request = rig.client("INVITE")
    for _ in range(3):
        rig.answer(request, 486)
    assert [data[:3] for _, data in rig.sent] == [b"INV", b"ACK", b"ACK", b"ACK"]
    assert rig.responses == [486]
    rig.run(31.9)
    assert transaction.state is State.COMPLETED
    rig.run(32.0)
    assert len(rig.layer) == 0


def test_every_2xx_to_an_invite_is_passed_up_for_64_t1() -> None:
    rig = Rig()
    _, request = rig.client("INVITE")
    rig.answer(request, 200)
    rig.answer(request, 180)
    rig.answer(request, 486)
    rig.answer(request, 200)
    assert rig.responses == [200, 200]
    rig.run(32.0)
    rig.answer(request, 200)
    assert rig.responses == [200, 200]


def test_a_final_response_ends_a_bye_after_t4() -> None:
    rig = Rig()
    _, request = rig.client("BYE")
    rig.answer(request, 200)
    rig.answer(request, 200)
    assert rig.responses == [200]
    rig.run(4.9)
    assert len(rig.layer) == 1
    rig.run(5.0)
    assert len(rig.layer) == 0


def test_a_retransmitted_invite_is_answered_from_the_transaction() -> None:
    rig = Rig()
    transaction = rig.server("INVITE")
    transaction.respond(100, b"100", 0.0)
    transaction.handle(Event.REQUEST, 0.5)
    transaction.respond(180, b"180", 1.0)
    transaction.handle(Event.REQUEST, 1.5)
    transaction.respond(200, b"200", 2.0)
    transaction.handle(Event.REQUEST, 3.5)
    assert [data for _, data in rig.sent] == [b"100", b"100", b"180", b"180", b"200"]
    rig.run(34.0)
    assert len(rig.layer) == 0


def test_a_refusal_is_repeated_until_the_ack() -> None:
    rig = Rig()
    transaction = rig.server("INVITE")
    transaction.respond(486, b"486", 0.0)
    rig.run(4.0)
    assert rig.times == [0.0, 0.5, 1.5, 3.5]
    transaction.handle(Event.ACK, 4.0)
    assert transaction.state is State.CONFIRMED
    rig.run(8.9)
    assert len(rig.layer) == 1
    rig.run(9.0)
    assert len(rig.sent) == 4
    assert len(rig.layer) == 0


def test_a_refusal_never_acknowledged_is_given_up() -> None:
    rig = Rig()
    transaction = rig.server("INVITE")
    transaction.owner = rig
    transaction.respond(486, b"486", 0.0)
    rig.run(60.0)
    assert rig.times == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert rig.timeouts == 1


def test_a_bye_is_answered_the_same_for_64_t1() -> None:
    rig = Rig()
    transaction = rig.server("BYE")
    transaction.handle(Event.REQUEST, 0.0)
    assert rig.sent == []
    transaction.respond(200, b"200", 0.0)
    transaction.handle(Event.REQUEST, 0.5)
    assert [data for _, data in rig.sent] == [b"200", b"200"]
    rig.run(31.9)
    assert len(rig.layer) == 1
    rig.run(32.0)
    assert len(rig.layer) == 0


def test_a_second_final_response_is_not_sent() -> None:
    rig = Rig()
    transaction = rig.server("BYE")
    assert transaction.respond(200, b"200", 0.0)
    assert not transaction.respond(500, b"500", 0.0)


def test_over_a_reliable_transport_nothing_is_repeated_or_waited_for() -> None:
    rig = Rig(reliable=True)
    _, request = rig.client("INVITE")
    rig.run(10.0)
    rig.answer(request, 486)
    rig.run(10.0)
    bye = rig.server("BYE")
    bye.respond(200, b"200", 10.0)
    rig.run(10.0)
    assert [data[:3] for _, data in rig.sent] == [b"INV", b"ACK", b"200"]
    assert len(rig.layer) == 0


def test_a_response_to_nobody_is_a_stray() -> None:
    rig = Rig()
    rig.client("BYE")
    other = good_message(make_request("BYE", branch="z9hG4bKother"))
    spoofed = good_message(make_request("BYE", via="192.0.2.99:5070"))
    for message in (other, spoofed):
        assert isinstance(message, Request)
        response = good_message(make_response(message, 200).encode())
        assert isinstance(response, Response)
        assert not rig.layer.receive_response(response, 0.0)
    assert rig.responses == []
