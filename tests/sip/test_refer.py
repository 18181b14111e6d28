"""Transfers in both directions, and calls that take the place of others."""

from __future__ import annotations

import pytest

from appliance.errors import LocalSipError, RemoteSipError
from appliance.sip.call import Call
from appliance.sip.call_state import CallState
from appliance.sip.events import (
    Answered,
    CallEnded,
    Confirmed,
    Event,
    IncomingCall,
    ReferProgress,
    ReferReceived,
    TransferDone,
)
from appliance.sip.headers import NameAddr
from appliance.sip.message import Headers, Request
from appliance.sip.refer import (
    Replaces,
    Report,
    escape_header,
    refer_to,
    referral_of,
    replaces_of,
    report_of,
    sipfrag,
)

from .calls import FROM, TARGET, ends, incoming, messages, nothing_is_left, place, set_up, told
from .dialog_pair import ANSWER, CALLED, CALLER, OFFER, DialogPair

THIRD = "sip:300@192.0.2.3"


def request(method: str = "REFER", body: bytes = b"", **headers: str) -> Request:
    return Request(method, "sip:x", Headers((k.replace("_", "-"), v) for k, v in headers.items()), body)


# --- the headers ------------------------------------------------------------------------------------------------------


def test_replaces_both_ways() -> None:
    text = "12@x;to-tag=a;from-tag=b;early-only"
    assert Replaces.parse(text) == Replaces("12@x", "a", "b", early_only=True)
    assert str(Replaces.parse(text)) == text
    assert replaces_of(request()) is None
    for broken in ("", "x", "x;to-tag=a", "x;from-tag=a", ";to-tag=a;from-tag=b", "x;to-tag=a;to-tag=c;from-tag=b"):
        with pytest.raises(RemoteSipError):
            Replaces.parse(broken)
    with pytest.raises(RemoteSipError):
        replaces_of(Request("INVITE", "sip:x", Headers([("Replaces", "a;to-tag=1;from-tag=2")] * 2)))


def test_refer_to_carries_replaces_and_comes_back() -> None:
    replaces = Replaces("a b@[::1]", "x", "y")
    value = refer_to("sip:300@192.0.2.3;transport=tcp", replaces)
    assert NameAddr.parse(value).uri.isascii()
    referral = referral_of(request(refer_to=value, referred_by="<sip:me@x>"))
    assert (referral.target, referral.replaces) == ("sip:300@192.0.2.3;transport=tcp", str(replaces))
    assert (referral.referred_by, referral.wants_notify) == ("<sip:me@x>", True)
    assert not referral_of(request(refer_to="<tel:+1>", refer_sub="FALSE")).wants_notify
    assert escape_header("a;b=é") == "a%3Bb%3D%C3%A9"


def test_referred_by_is_passed_on_as_one_line() -> None:
    assert referral_of(request(refer_to="<sip:a@b>", referred_by='"A"\t<sip:me@x>')).referred_by == '"A" <sip:me@x>'
    with pytest.raises(RemoteSipError):
        referral_of(request(refer_to="<sip:a@b>", referred_by="<sip:\udcff@x>"))
    assert sipfrag(486, "\udcff") == b"SIP/2.0 486 \xff\r\n"


@pytest.mark.parametrize(
    ("refer_to_value", "status"),
    [
        ("", 400), ("<sip:a@b>, <sip:c@d>", 400), ("<http://x>", 416), ("<mailto:a@b>", 416), ("<sip:@@>", 400),
        ("<sip:a@b;method=BYE>", 403), ("<sip:a@b?Replaces=x>", 400), ("nothing", 400), ("<sip:a c@b>", 400),
        ("<sip:a@b?Replaces=x%0D%0AX-Evil%3A1%3Bto-tag%3Dy%3Bfrom-tag%3Dz>", 400),
        ("<sip:a@b?Replaces=x%FF%3Bto-tag%3Dy%3Bfrom-tag%3Dz>", 400), ("<sip:\udcff@b>", 400),
    ],
)  # fmt: skip
def test_a_refer_that_cannot_be_followed(refer_to_value: str, status: int) -> None:
    with pytest.raises(RemoteSipError) as raised:
        referral_of(request(refer_to=refer_to_value) if refer_to_value else request())
    assert raised.value.status_hint == status


def test_reports() -> None:
    active = {"event": "refer;id=2", "subscription_state": "active;expires=60"}
    assert report_of(request("NOTIFY", sipfrag(100), **active)) == Report(100, False)
    assert report_of(request("NOTIFY", b"SIP/2.0 486 Busy Here", **active)) == Report(486, True)
    assert report_of(request("NOTIFY", b"", event="refer", subscription_state="terminated")) == Report(0, True)
    assert report_of(request("NOTIFY", sipfrag(200), event="refer")) == Report(200, True)
    for body, headers, status in (
        (b"", {"event": "presence", "subscription_state": "active"}, 489),
        (b"HTTP/1.1 200", active, 400),
        (b"SIP/2.0 9999 x", active, 400),
        (b"SIP/2.0", active, 400),
    ):
        with pytest.raises(RemoteSipError) as raised:
            report_of(request("NOTIFY", body, **headers))
        assert raised.value.status_hint == status


# --- transfers --------------------------------------------------------------------------------------------------------


def agreeing(pair: DialogPair, *reports: int) -> None:
    """Let the called side agree to a REFER and report these, a second apart."""

    def on_event(event: Event) -> None:
        if isinstance(event, ReferReceived):
            call = event.call
            call.refer_accept(pair.now)
            for i, status in enumerate(reports):
                pair.after(1.0 + i, lambda status=status: None if call.ended else call.refer_notify(status, pair.now))

    pair.on_event = {CALLED: on_event}


def test_a_blind_transfer_is_reported_to_its_end() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    agreeing(pair, 180, 200)
    ours.refer(THIRD, pair.now)
    pair.run(10.0)
    (event,) = told(pair, CALLED, ReferReceived)
    assert (event.target, event.replaces, event.referred_by) == (THIRD, "", f"<{FROM}>")
    assert told(pair, CALLER, ReferProgress) == [
        ReferProgress(ours, 100, False), ReferProgress(ours, 180, False), ReferProgress(ours, 200, True),
    ]  # fmt: skip
    assert told(pair, CALLER, TransferDone) == [TransferDone(ours, 200)]
    assert [m.headers.get("event") for m in messages(pair, b"NOTIFY")] == ["refer"] * 3
    assert messages(pair, b"NOTIFY")[-1].headers.get("subscription-state") == "terminated;reason=noresource"
    with pytest.raises(LocalSipError, match="waits for a report"):
        theirs.refer_notify(200, pair.now)
    ours.refer(THIRD, pair.now)
    pair.run(20.0)
    assert "id=" in (messages(pair, b"NOTIFY")[-1].headers.get("event") or "")
    assert told(pair, CALLER, TransferDone)[-1] == TransferDone(ours, 200)
    ours.hangup(pair.now)
    pair.run(120.0)
    nothing_is_left(pair)


def test_a_transfer_whose_target_is_busy() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    agreeing(pair, 486)
    ours.refer(THIRD, pair.now)
    pair.run(10.0)
    assert told(pair, CALLER, TransferDone) == [TransferDone(ours, 486)]
    assert ours.state is theirs.state is CallState.CONFIRMED


def test_a_refused_transfer() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    pair.on_event = {
        CALLED: lambda event: event.call.refer_refuse(403, pair.now) if isinstance(event, ReferReceived) else None
    }
    ours.refer(THIRD, pair.now)
    with pytest.raises(LocalSipError, match="wait for TransferDone"):
        ours.refer(THIRD, pair.now)
    pair.run(10.0)
    assert told(pair, CALLER, TransferDone) == [TransferDone(ours, 403)]
    assert not told(pair, CALLER, ReferProgress) and not ends(pair)
    with pytest.raises(LocalSipError, match="no REFER waits"):
        theirs.refer_accept(pair.now)


def test_a_transfer_that_the_application_ignores_is_refused() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    ours.refer(THIRD, pair.now)
    pair.run(20.0)
    assert told(pair, CALLER, TransferDone) == [TransferDone(ours, 603)]


def test_a_transfer_that_is_never_reported_is_given_up() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    agreeing(pair)
    ours.refer(THIRD, pair.now)
    pair.run(170.0)
    assert not told(pair, CALLER, TransferDone)
    pair.run(200.0)
    assert told(pair, CALLER, TransferDone) == [TransferDone(ours, 408)]


def test_a_peer_that_agrees_without_reports() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    assert theirs.dialog is not None and ours.dialog is not None
    agreeing(pair)
    ours.send_in_dialog(ours.dialog, "REFER", pair.now, [("Refer-To", f"<{THIRD}>"), ("Refer-Sub", "false")])
    pair.run(1.0)
    assert messages(pair, b"SIP/2.0 202")[0].headers.get("refer-sub") == "false"
    theirs.refer_notify(200, pair.now)
    assert pair.sent(b"NOTIFY") == 0


def test_a_peer_that_hangs_up_after_agreeing_has_taken_the_transfer() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    agreeing(pair)
    ours.refer(THIRD, pair.now)
    pair.run(1.0)
    theirs.hangup(pair.now)
    pair.run(2.0)
    assert told(pair, CALLER, TransferDone) == [TransferDone(ours, 202)]
    assert pair.events[CALLER].index(TransferDone(ours, 202)) < [type(e) for e in pair.events[CALLER]].index(CallEnded)


def test_a_second_refer_during_the_first_is_refused() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    ours.refer(THIRD, pair.now)
    pair.run(0.4)
    assert ours.dialog is not None
    ours.send_in_dialog(ours.dialog, "REFER", pair.now, [("Refer-To", f"<{THIRD}>")])
    pair.run(0.5)
    assert pair.sent(b"SIP/2.0 491") == 1
    theirs.hangup(pair.now)
    pair.run(1.0)
    assert pair.sent(b"SIP/2.0 481", CALLER) == 1
    assert told(pair, CALLER, TransferDone) == [TransferDone(ours, 481)]


def test_a_notify_about_nothing_is_refused() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    assert ours.dialog is not None
    headers = [("Event", "refer"), ("Subscription-State", "active")]
    ours.send_in_dialog(ours.dialog, "NOTIFY", pair.now, headers, body=sipfrag(100), content_type="message/sipfrag")
    pair.run(1.0)
    assert pair.sent(b"SIP/2.0 481") == 1


def test_a_target_that_cannot_be_sent_leaves_the_call_as_it_was() -> None:
    pair = DialogPair()
    ours, _ = set_up(pair)
    with pytest.raises(LocalSipError, match="take them out"):
        ours.refer("sip:300@192.0.2.3\r\nX-Evil: 1", pair.now)
    ours.refer(THIRD, pair.now)
    pair.run(0.4)
    assert [event.target for event in told(pair, CALLED, ReferReceived)] == [THIRD]


def test_only_an_answered_call_can_be_transferred() -> None:
    pair = DialogPair()
    ours = place(pair)
    with pytest.raises(LocalSipError, match="answered"):
        ours.refer(THIRD, pair.now)
    with pytest.raises(LocalSipError, match="use 300"):
        ours.refer_refuse(200, pair.now)


@pytest.mark.parametrize(("loss", "duplicate", "jitter_s"), [(0.2, 0.05, 0.3), (0.0, 0.3, 0.3)])
def test_every_transfer_ends_once_over_a_bad_network(loss: float, duplicate: float, jitter_s: float) -> None:
    pair = DialogPair(loss=loss, duplicate=duplicate, jitter_s=jitter_s, seed=11)

    def called_side(event: Event) -> None:
        if isinstance(event, IncomingCall):
            event.call.accept(ANSWER, pair.now)
        elif isinstance(event, ReferReceived):
            call = event.call
            call.refer_accept(pair.now)
            for i, status in enumerate((180, 200)):
                pair.after(0.3 * i, lambda status=status: None if call.ended else call.refer_notify(status, pair.now))

    def caller_side(event: Event) -> None:
        if isinstance(event, Answered):
            call = event.call
            pair.after(1.0, lambda: None if call.ended else call.refer(THIRD, pair.now))
        elif isinstance(event, TransferDone):
            event.call.hangup(pair.now)

    pair.on_event = {CALLED: called_side, CALLER: caller_side}
    count = 100
    for i in range(count):
        pair.at(i * 0.2, lambda: place(pair))
    pair.run(300.0)
    assert [event.status for event in told(pair, CALLER, TransferDone)] == [200] * count
    assert len(told(pair, CALLED, ReferReceived)) == count
    nothing_is_left(pair)


# --- taking another call's place ------------------------------------------------------------------------------------


def replacing(pair: DialogPair, replaces: object) -> None:
    pair.caller.invite(TARGET, FROM, OFFER, pair.now, headers=[("Replaces", str(replaces))])
    pair.run(pair.now + 0.1)


def test_a_call_that_replaces_another_ends_it_when_it_is_accepted() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    replacing(pair, ours.as_replaced())
    event = told(pair, CALLED, IncomingCall)[-1]
    assert event.replaces is theirs
    assert not theirs.ended
    event.call.accept(ANSWER, pair.now)
    pair.run(1.0)
    assert theirs.ended and not event.call.ended
    assert len(told(pair, CALLED, Confirmed)) == 2
    for call in pair.caller.calls:
        call.hangup(pair.now)
    pair.run(100.0)
    nothing_is_left(pair)


def test_what_cannot_be_replaced() -> None:
    pair = DialogPair()
    ours, theirs = set_up(pair)
    known = ours.as_replaced()
    for value, status in (
        (Replaces("nobody", "a", "b"), b"481"),
        (Replaces(known.call_id, known.to_tag, known.from_tag, early_only=True), b"486"),
        ("broken", b"400"),
    ):
        replacing(pair, value)
        assert pair.sent(b"SIP/2.0 " + status, CALLER) >= 1
    assert len(told(pair, CALLED, IncomingCall)) == 1
    pair.drop = lambda destination, data: destination == CALLER
    theirs.hangup(pair.now)
    pair.settle()
    pair.drop = lambda destination, data: False
    replacing(pair, known)
    assert pair.sent(b"SIP/2.0 603", CALLER) >= 1
    assert len(told(pair, CALLED, IncomingCall)) == 1


def test_a_call_that_rings_here_is_not_replaced() -> None:
    pair = DialogPair()
    ours = place(pair)
    pair.run(0.1)
    incoming(pair).ring(pair.now)
    pair.run(0.2)
    replacing(pair, ours.as_replaced())
    assert pair.sent(b"SIP/2.0 481", CALLER) == 1


def test_an_attended_transfer_names_the_call_to_replace() -> None:
    pair = DialogPair()
    first, _ = set_up(pair)
    second = place(pair)
    assert isinstance(second, Call)
    pair.run(0.5)
    told(pair, CALLED, IncomingCall)[-1].call.accept(ANSWER, pair.now)
    pair.run(0.6)
    first.refer("sip:100@192.0.2.2", pair.now, replaces=second)
    pair.run(0.7)
    (event,) = told(pair, CALLED, ReferReceived)
    assert event.replaces == str(second.as_replaced())
    assert Replaces.parse(event.replaces).to_tag == (second.dialog.remote_tag if second.dialog else "")
