"""A registration's life in virtual time."""

from __future__ import annotations

import pytest

from appliance.errors import LocalSipError
from appliance.sip.message import Request, Response, make_response
from appliance.sip.registration import REGISTRATION_TABLE, Attempt, Registration, RegistrationState, granted_expires_s

from .requests import good_message, make_request

State = RegistrationState


def register(contact: str = "<sip:me@192.0.2.2:5060>") -> Request:
    request = good_message(make_request("REGISTER", contact=contact))
    assert isinstance(request, Request)
    return request


def response(status: int, *headers: tuple[str, str]) -> Response:
    made = make_response(register(), status)
    for name, value in headers:
        made.headers.add(name, value)
    return made


class Rig:
    """A machine whose chance is always one half."""

    def __init__(self, proxies: int = 1, expires_s: int = 300) -> None:
        self.machine = Registration(proxies, expires_s, lambda: 0.5)
        self.now = 0.0

    def attempt(self) -> Attempt:
        when = self.machine.get_timer()
        if when is not None:
            assert self.machine.poll(when - 0.001) is None
            self.now = when
        found = self.machine.poll(self.now)
        assert found is not None and self.machine.poll(self.now) is None
        return found

    def answer(self, status: int, *headers: tuple[str, str]) -> None:
        if status:
            self.machine.on_response(register(), response(status, *headers), self.now)
        else:
            self.machine.on_failure("no answer", self.now)

    def started(self) -> Rig:
        self.machine.start(self.now)
        return self


def test_a_binding_is_refreshed_before_it_ends() -> None:
    rig = Rig().started()
    assert rig.attempt() == Attempt(0, 300)
    rig.answer(200, ("Contact", "<sip:other@x>;expires=9, <sip:me@192.0.2.2:5060>;expires=100"))
    assert rig.machine.registered(99.9) and not rig.machine.registered(100.0)
    assert rig.machine.get_timer() == pytest.approx(85.0)
    assert rig.attempt() == Attempt(0, 300)
    assert rig.machine.registered(rig.now) and rig.machine.state is State.TRYING
    rig.answer(200, ("Expires", "60"))
    assert rig.machine.get_timer() == pytest.approx(85.0 + 51.0)


def test_refreshes_spread_between_80_and_90_percent() -> None:
    for chance, share in ((0.0, 0.8), (0.999999, 0.9)):
        machine = Registration(1, 100, lambda chance=chance: chance)  # type: ignore[misc]
        machine.start(0.0)
        machine.poll(0.0)
        machine.on_response(register(), response(200), 0.0)
        assert machine.get_timer() == pytest.approx(100 * share, rel=1e-4)


def test_a_registrar_that_wants_longer_gets_it() -> None:
    rig = Rig().started()
    rig.attempt()
    rig.answer(423, ("Min-Expires", "1800"))
    assert rig.attempt() == Attempt(0, 1800)
    rig.answer(200)
    assert rig.machine.until == 1800.0


@pytest.mark.parametrize("least", ["", "x", "60", "99999999"])
def test_a_423_that_makes_no_sense_is_a_failure(least: str) -> None:
    rig = Rig().started()
    rig.attempt()
    rig.answer(423, ("Min-Expires", least))
    assert rig.machine.state is State.WAITING


def test_a_registrar_cannot_keep_us_busy_with_423() -> None:
    rig = Rig().started()
    for least in range(400, 403):
        rig.attempt()
        rig.answer(423, ("Min-Expires", str(least)))
    assert rig.machine.state is State.WAITING


def test_another_proxy_is_tried_at_once_and_then_we_back_off() -> None:
    rig = Rig(proxies=3).started()
    for proxy, status in ((0, 503), (1, 0), (2, 500)):
        assert rig.attempt() == Attempt(proxy, 300)
        rig.answer(status)
    waits = []
    for _ in range(8):
        before = rig.now
        for proxy in range(3):
            assert rig.attempt().proxy == proxy
            rig.answer(0)
        waits.append(rig.now - before)
    assert waits[:3] == [22.5, 45.0, 90.0] and waits[-1] == 1350.0
    rig.attempt()
    rig.answer(200)
    assert rig.machine.state is State.REGISTERED and rig.machine.last_status == 200


def test_we_stay_with_the_proxy_that_answered() -> None:
    rig = Rig(proxies=2).started()
    rig.attempt()
    rig.answer(0)
    assert rig.attempt().proxy == 1
    rig.answer(200)
    assert rig.attempt().proxy == 1
    rig.answer(503)
    assert rig.attempt().proxy == 0


@pytest.mark.parametrize("status", [401, 403, 404, 407])
def test_a_refusal_is_not_carried_to_the_next_proxy(status: int) -> None:
    rig = Rig(proxies=2).started()
    rig.attempt()
    rig.answer(status)
    assert rig.machine.state is State.WAITING and rig.machine.proxy == 0
    assert (rig.machine.last_status, rig.machine.get_timer()) == (status, 22.5)


def test_retry_after_is_waited_for_but_not_for_ever() -> None:
    for text, wait in (("120", 120.0), ("120 (at lunch);duration=3", 120.0), ("99999999", 3600.0), ("soon", 22.5)):
        rig = Rig().started()
        rig.attempt()
        rig.answer(503, ("Retry-After", text))
        assert rig.machine.get_timer() == wait


def test_at_the_end_the_binding_is_taken_back() -> None:
    rig = Rig().started()
    rig.attempt()
    rig.answer(200)
    rig.machine.stop(1.0)
    assert rig.machine.poll(1.0) == Attempt(0, 0)
    rig.answer(200)
    assert rig.machine.state is State.GONE and not rig.machine.registered(1.0)
    assert rig.machine.get_timer() is None and rig.machine.poll(5000.0) is None


@pytest.mark.parametrize("status", [0, 403, 423, 500])
def test_the_end_does_not_wait_for_a_registrar_that_refuses(status: int) -> None:
    rig = Rig(proxies=2).started()
    rig.attempt()
    rig.answer(200)
    rig.machine.stop(1.0)
    rig.machine.poll(1.0)
    rig.answer(status)
    assert rig.machine.state is State.GONE


def test_a_stop_while_an_attempt_is_out_waits_for_it() -> None:
    rig = Rig().started()
    rig.attempt()
    rig.machine.stop(1.0)
    assert rig.machine.poll(1.0) is None
    rig.answer(200)
    assert rig.machine.poll(1.0) == Attempt(0, 0)
    rig.answer(200)
    assert rig.machine.state is State.GONE


def test_a_stop_while_waiting_ends_a_binding_that_still_holds() -> None:
    for answered, expected in ((True, State.LEAVING), (False, State.GONE)):
        rig = Rig().started()
        rig.attempt()
        if answered:
            rig.answer(200)
            rig.attempt()
        rig.answer(0)
        rig.machine.stop(rig.now)
        assert rig.machine.state is expected


def test_a_binding_granted_for_no_time_is_a_failure() -> None:
    rig = Rig().started()
    rig.attempt()
    rig.answer(200, ("Contact", "<sip:me@192.0.2.2:5060>;expires=0"))
    assert rig.machine.state is State.WAITING and not rig.machine.registered(0.0)


@pytest.mark.parametrize(
    ("headers", "granted"),
    [
        ([], 300),
        ([("Expires", "70")], 70),
        ([("Contact", "<sip:me@203.0.113.1:1024>;expires=80"), ("Expires", "70")], 80),
        ([("Contact", "<sip:me@203.0.113.1>;expires=80, <sip:me@192.0.2.2:5060>;expires=90")], 90),
        ([("Contact", '<sip:me@192.0.2.2:5060>;expires="90"')], 90),
        ([("Contact", "<sip:me@192.0.2.2:5060>;expires=soon"), ("Expires", "70")], 70),
        ([("Contact", "<<>"), ("Expires", "70")], 70),
        ([("Contact", "<sip:else@192.0.2.2>;expires=5"), ("Service-Route", "<sip:x;lr>"), ("Path", "<sip:y>")], 300),
    ],
)
def test_how_long_a_binding_holds(headers: list[tuple[str, str]], granted: int) -> None:
    assert granted_expires_s(register(), response(200, *headers), 300) == granted


def test_every_state_can_be_left() -> None:
    for state in State:
        assert state is State.GONE or any(source is state for source, _ in REGISTRATION_TABLE)
    with pytest.raises(LocalSipError, match="needs a proxy"):
        Registration(0, 300, lambda: 0.5)
