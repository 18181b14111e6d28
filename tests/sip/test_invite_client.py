"""The calling side: challenges, redirections, branches, and what is late."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.errors import LocalSipError
from appliance.sip.auth import Credentials
from appliance.sip.call_state import CallState
from appliance.sip.events import (
    Answered,
    CallClosed,
    CallEnded,
    IncomingCall,
    InfoAnswered,
    Progress,
    ReofferAnswered,
    Reoffered,
)
from appliance.sip.invite_client import MAX_ANSWERS, MAX_FORKS
from appliance.sip.message import Request, Response, make_response
from appliance.sip.outside import MAX_TRIES

from .calls import ends, incoming, messages, nothing_is_left, place, set_up, told
from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair, make_agent
from .requests import make_request


def challenge(
    pair: DialogPair,
    method: bytes,
    times: int = 1,
    status: int = 407,
    line: Callable[[], list[tuple[str, str]]] = lambda: [],
) -> None:
    """Let the network refuse the first requests of a method, as a proxy would; ``line`` gives its challenges."""
    refused = [0]

    def drop(destination: object, data: bytes) -> bool:
        if destination != CALLED or not data.startswith(method) or refused[0] >= times:
            return False
        request = messages(pair, method, CALLED)[-1]
        assert isinstance(request, Request)
        refused[0] += 1
        answer = make_response(request, status, to_tag="proxy")
        for name, value in line():
            answer.headers.add(name, value)
        pair.after(0.001, lambda: pair.caller.receive_datagram(answer.encode(), CALLED, pair.now))
        return True

    pair.drop = drop


def credentials(pair: DialogPair) -> None:
    pair.caller.authorize = lambda request, response, destination: [("Proxy-Authorization", "Digest x")]  # type: ignore[method-assign]


def test_a_challenged_call_is_placed_again_with_credentials() -> None:
    pair = DialogPair()
    credentials(pair)
    challenge(pair, b"INVITE")
    ours, _ = set_up(pair)
    first, second = messages(pair, b"INVITE")
    assert (second.call_id, second.from_, second.to) == (first.call_id, first.from_, first.to)
    assert (first.cseq.number, second.cseq.number) == (1, 2)
    assert first.via.branch != second.via.branch
    assert second.headers.get_all("proxy-authorization") == ["Digest x"]
    refusal, ack = messages(pair, b"ACK")
    assert refusal.via.branch == first.via.branch
    assert ack.cseq.number == 2 and ack.headers.get("proxy-authorization") == "Digest x"
    assert len(told(pair, CALLER, Answered)) == 1
    ours.hangup(pair.now)
    pair.run(100.0)
    nothing_is_left(pair)


def test_a_challenge_without_credentials_ends_the_call() -> None:
    pair = DialogPair()
    challenge(pair, b"INVITE", status=401)
    place(pair)
    pair.run(100.0)
    assert ends(pair) == [("remote", 401)]
    nothing_is_left(pair)


def test_a_call_that_is_challenged_for_ever_is_given_up() -> None:
    pair = DialogPair()
    credentials(pair)
    challenge(pair, b"INVITE", times=1000)
    place(pair)
    pair.run(100.0)
    assert pair.sent(b"INVITE") == 6
    assert ends(pair) == [("remote", 407)]
    nothing_is_left(pair)


def test_a_challenged_call_that_was_hung_up_is_not_placed_again() -> None:
    pair = DialogPair()
    credentials(pair)
    challenge(pair, b"INVITE")
    ours = place(pair)
    pair.settle()
    ours.hangup(pair.now)
    pair.run(100.0)
    assert pair.sent(b"INVITE") == 1
    nothing_is_left(pair)


def test_requests_inside_a_call_are_sent_again_with_credentials() -> None:
    pair = DialogPair()
    credentials(pair)
    ours, _ = set_up(pair)
    pair.on_event = {
        CALLED: lambda event: event.call.accept(ANSWER, pair.now) if isinstance(event, Reoffered) else None
    }
    challenge(pair, b"INVITE")
    ours.reoffer(OFFER, pair.now)
    pair.run(1.0)
    challenge(pair, b"INFO")
    ours.info("application/dtmf-relay", b"Signal=5\r\n", pair.now)
    pair.run(2.0)
    challenge(pair, b"BYE")
    ours.hangup(pair.now)
    pair.run(100.0)
    assert len(told(pair, CALLER, ReofferAnswered)) == 1
    assert told(pair, CALLER, InfoAnswered) == [InfoAnswered(ours, 200)]
    for start in (b"INFO", b"BYE"):
        first, second = messages(pair, start)
        assert second.cseq.number == first.cseq.number + 1
        assert second.headers.get_all("proxy-authorization") == ["Digest x"]
    assert ends(pair) == [("local", 200), ("remote", 200)]
    nothing_is_left(pair)


@pytest.mark.parametrize("qop", ["", ', qop="auth"'])
@pytest.mark.parametrize("stale", ["", ", stale=true"])
def test_a_bye_whose_old_nonce_is_refused_is_sent_again(qop: str, stale: str) -> None:
    pair = DialogPair()
    alice = Credentials("alice", "secret")
    pair.caller = pair.agents[CALLER] = make_agent(CALLER, credentials_of=lambda peer, message: alice)
    asked = iter(range(100))

    def line() -> list[tuple[str, str]]:
        number = next(asked)
        return [("Proxy-Authenticate", f'Digest realm="r", nonce="{number}"{qop}{stale if number else ""}')]

    challenge(pair, b"INVITE", line=line)
    ours, _ = set_up(pair)
    challenge(pair, b"BYE", line=line)
    pair.at(1000.0, lambda: ours.hangup(pair.now))
    pair.run(1001.0)
    nonces = [message.headers.get("proxy-authorization") or "" for message in messages(pair, b"BYE")]
    assert ['nonce="0"' in nonces[0], 'nonce="1"' in nonces[1]] == [True, True]
    assert ends(pair) == [("local", 200), ("remote", 200)]
    pair.run(1100.0)
    nothing_is_left(pair)


def test_a_bye_that_is_challenged_for_ever_is_given_up() -> None:
    pair = DialogPair()
    credentials(pair)
    ours, _ = set_up(pair)
    challenge(pair, b"BYE", times=1000)
    ours.hangup(pair.now)
    pair.run(100.0)
    assert pair.sent(b"BYE") == MAX_TRIES
    assert len(told(pair, CALLER, CallClosed)) == 1


def test_a_redirected_call_goes_where_the_host_says() -> None:
    pair = DialogPair()
    pair.caller.redirect = lambda call, response: (  # type: ignore[method-assign]
        ("sip:200@192.0.2.2", CALLED) if response.status == 302 and not call.redirects else None
    )
    challenge(pair, b"INVITE", status=302)
    place(pair)
    pair.run(0.1)
    incoming(pair).accept(ANSWER, pair.now)
    pair.run(1.0)
    second = messages(pair, b"INVITE")[-1]
    assert isinstance(second, Request) and second.uri == "sip:200@192.0.2.2"
    assert len(told(pair, CALLER, Answered)) == 1
    pair = DialogPair()
    challenge(pair, b"INVITE", status=302)
    place(pair)
    pair.run(50.0)
    assert ends(pair) == [("remote", 302)]


def forked(
    pair: DialogPair, status: int, tag: str, body: bytes = b"", contact: str = "<sip:branch@192.0.2.2>", route: str = ""
) -> None:
    """A response to the caller's INVITE from a branch of its own."""
    invite = messages(pair, b"INVITE")[0]
    assert isinstance(invite, Request)
    response: Response = make_response(invite, status, to_tag=tag)
    response.headers.set("contact", contact)
    if route:
        response.headers.set("record-route", route)
    if body:
        response.headers.set("content-type", "application/sdp")
        response.body = body
    pair.caller.receive_datagram(response.encode(), CALLED, pair.now)
    pair.settle()


def test_the_first_branch_to_answer_wins_and_the_others_are_ended() -> None:
    pair = DialogPair()
    pair.drop = lambda destination, data: destination == CALLED
    ours = place(pair)
    pair.settle()
    for tag in ("a", "b", "c"):
        forked(pair, 180, tag)
    forked(pair, 200, "b", ANSWER)
    forked(pair, 200, "c", ANSWER)
    forked(pair, 200, "c", ANSWER)
    forked(pair, 200, "d", ANSWER)
    assert ours.dialog is not None and ours.dialog.remote_tag == "b"
    assert [event.status for event in told(pair, CALLER, Progress)] == [180] * 3
    assert len(told(pair, CALLER, Answered)) == 1
    assert [m.to.tag for m in messages(pair, b"ACK")] == ["b", "c", "c", "d"]
    assert [m.to.tag for m in messages(pair, b"BYE")] == ["c", "d"]
    assert ours.state is CallState.CONFIRMED


def from_branch(pair: DialogPair, method: str, tag: str, *, body: bytes = b"", number: int = 1) -> int:
    """The status that a request of this branch gets."""
    ours = messages(pair, b"INVITE")[0]
    data = make_request(
        method, uri="sip:caller@192.0.2.1", branch=f"z9hG4bK{method}{tag}{number}", cseq=str(number),
        call_id=ours.call_id, from_tag=tag, to_tag=ours.from_.tag or "", body=body, via="192.0.2.2:5060",
    )  # fmt: skip
    pair.caller.receive_datagram(data, CALLED, pair.now)
    pair.settle()
    last = messages(pair, b"SIP/2.0")[-1]
    assert isinstance(last, Response) and last.cseq.method == method
    return last.status


def test_a_losing_branch_cannot_touch_the_call_that_another_won() -> None:
    pair = DialogPair()
    pair.drop = lambda destination, data: destination == CALLED
    ours = place(pair)
    pair.settle()
    forked(pair, 180, "early")
    forked(pair, 200, "winner", ANSWER)
    forked(pair, 200, "loser", ANSWER)
    for tag in ("early", "loser"):
        assert from_branch(pair, "INVITE", tag, body=OFFER) == 481
        assert from_branch(pair, "INFO", tag, number=2) == 481
        assert from_branch(pair, "BYE", tag, number=3) == 200
        assert from_branch(pair, "BYE", tag, number=4) == 481
    assert ours.state is CallState.CONFIRMED and not told(pair, CALLER, CallEnded) and not told(pair, CALLER, Reoffered)
    assert from_branch(pair, "BYE", "winner") == 200
    assert ends(pair) == [("remote", 200)]
    pair.run(100.0)
    nothing_is_left(pair)


def test_a_peer_that_answers_with_its_early_media_only() -> None:
    pair = DialogPair()
    pair.drop = lambda destination, data: destination == CALLED
    ours = place(pair)
    pair.settle()
    forked(pair, 183, "a", ANSWER)
    forked(pair, 183, "b", OFFER)
    forked(pair, 200, "a")
    assert told(pair, CALLER, Answered) == [Answered(ours, ANSWER)]


def test_a_storm_of_branches_is_bounded() -> None:
    pair = DialogPair()
    pair.drop = lambda destination, data: destination == CALLED
    ours = place(pair)
    pair.settle()
    for i in range(100):
        forked(pair, 180, f"t{i}")
    assert len(ours.client.forks) == MAX_FORKS == len(pair.caller._dialogs)
    forked(pair, 200, "one more", ANSWER)
    assert ours.state is CallState.CONFIRMED and ours.dialog is not None and ours.dialog.remote_tag == "one more"
    for i in range(100):
        forked(pair, 200, f"t{i}")
    assert pair.sent(b"ACK") == MAX_ANSWERS == pair.sent(b"BYE") + 1
    ours.hangup(pair.now)
    pair.run(100.0)
    nothing_is_left(pair)


USABLE = "<sip:branch@192.0.2.2>"


@pytest.mark.parametrize(
    ("contact", "route"),
    [("<tel:+4930123>", ""), ("<sip:broken", ""), (USABLE, "<tel:+49>, <sip:192.0.2.2;lr>"), (USABLE, "<sip:x, ")],
)
def test_an_answer_that_nothing_can_be_sent_to_is_acknowledged_and_hung_up(contact: str, route: str) -> None:
    pair = DialogPair()
    pair.drop = lambda destination, data: destination == CALLED
    place(pair)
    pair.settle()
    for _ in range(2):
        forked(pair, 200, "x", ANSWER, contact, route)
    assert [m.to.tag for m in messages(pair, b"ACK")] == ["x", "x"]
    (bye,) = messages(pair, b"BYE")
    assert isinstance(bye, Request)
    assert bye.uri == ("sip:branch@192.0.2.2" if contact == USABLE else "sip:100@192.0.2.2")
    assert bye.headers.get_all("route") == (["<sip:192.0.2.2;lr>"] if "lr" in route else [])
    assert not told(pair, CALLER, Answered)
    assert ends(pair) == [("network", 502)]
    pair.run(100.0)
    nothing_is_left(pair)


def test_such_an_answer_after_the_hang_up_or_of_a_loser_is_ended_too() -> None:
    pair = DialogPair()
    pair.drop = lambda destination, data: destination == CALLED
    ours = place(pair)
    pair.settle()
    ours.hangup(pair.now)
    forked(pair, 200, "x", ANSWER, "<tel:+4930123>")
    assert (pair.sent(b"ACK"), pair.sent(b"BYE")) == (1, 1)
    pair.run(100.0)
    assert ends(pair) == [("local", 200)]
    nothing_is_left(pair)
    pair = DialogPair()
    pair.drop = lambda destination, data: destination == CALLED
    ours = place(pair)
    pair.settle()
    forked(pair, 200, "winner", ANSWER)
    forked(pair, 200, "x", ANSWER, "<tel:+4930123>")
    assert ours.state is CallState.CONFIRMED
    assert [m.to.tag for m in messages(pair, b"BYE")] == ["x"]


def test_a_hang_up_that_waits_for_a_response_does_not_wait_for_ever() -> None:
    pair = DialogPair()
    pair.drop = lambda destination, data: True
    ours = place(pair)
    assert ours.client.transaction is not None
    pair.caller.layer.abandon(ours.client.transaction)
    ours.hangup(pair.now)
    assert ours.state is CallState.CANCEL_WAITS
    pair.run(31.9)
    assert pair.caller.call_count == 1
    pair.run(32.1)
    nothing_is_left(pair)


def test_infos_leave_one_after_another_and_in_order() -> None:
    pair = DialogPair(loss=0.2, duplicate=0.1, jitter_s=0.3, seed=2)
    pair.on_event = {
        CALLED: lambda event: event.call.accept(ANSWER, pair.now) if isinstance(event, IncomingCall) else None
    }
    ours = place(pair)
    pair.run(10.0)
    for digit in range(20):
        ours.info("application/dtmf-relay", f"Signal={digit}\r\n".encode(), pair.now)
    pair.run(200.0)
    bodies = [e.body for e in pair.events[CALLED] if hasattr(e, "content_type")]
    assert bodies == [f"Signal={digit}\r\n".encode() for digit in range(20)]
    assert [event.status for event in told(pair, CALLER, InfoAnswered)] == [200] * 20


def test_infos_that_nobody_answers_do_not_end_the_call_and_are_bounded() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    pair.drop = lambda destination, data: data.startswith(b"INFO")
    queued = 0
    try:
        for _ in range(1000):
            ours.info("text/plain", b"x", pair.now)
            queued += 1
    except LocalSipError as error:
        assert "wait already" in str(error)
    assert queued == 65
    pair.run(100.0)
    assert told(pair, CALLER, InfoAnswered)[0] == InfoAnswered(ours, 408)
    assert not told(pair, CALLER, CallEnded)
