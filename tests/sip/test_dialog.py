from __future__ import annotations

import pytest

from appliance.errors import RemoteSipError
from appliance.sip.dialog import MAX_ROUTES, Dialog, incoming_key
from appliance.sip.message import Request, Response, make_response
from appliance.sip.uri import Peer

from .requests import good_message, make_request

ROUTES = "Record-Route: <sip:p1.example;lr>, <sip:192.0.2.50:5080;lr>\r\n"


def request_of(data: bytes) -> Request:
    message = good_message(data)
    assert isinstance(message, Request)
    return message


def response_of(request: Request, *, extra: tuple[tuple[str, str], ...] = ()) -> Response:
    response = make_response(request, 200, to_tag="callee")
    for name, value in extra:
        response.headers.add(name, value)
    message = good_message(response.encode())
    assert isinstance(message, Response)
    return message


def test_a_dialog_of_the_called_side() -> None:
    dialog = Dialog.for_uas(request_of(make_request(extra=ROUTES)), "mine")
    assert dialog.key == ("call-1", "mine", "caller")
    bye = dialog.request("BYE", "SIP/2.0/UDP us;branch=z9hG4bKx")
    assert bye.uri == "sip:peer@192.0.2.7:5070"
    assert bye.headers.get_all("route") == ["<sip:p1.example;lr>", "<sip:192.0.2.50:5080;lr>"]
    assert bye.from_.tag == "mine"
    assert bye.to.tag == "caller"
    assert bye.cseq.number == 1
    assert dialog.request("BYE", "x").headers.get("cseq") == "2 BYE"


def test_a_dialog_of_the_calling_side_reverses_the_routes() -> None:
    invite = request_of(make_request(cseq="7"))
    response = response_of(
        invite, extra=(("record-route", "<sip:a;lr>"), ("record-route", "<sip:b;lr>"), ("contact", "<sip:x@192.0.2.9>"))
    )
    dialog = Dialog.for_uac(invite, response)
    assert dialog.key == ("call-1", "caller", "callee")
    assert dialog.route_set == ("<sip:b;lr>", "<sip:a;lr>")
    ack = dialog.request("ACK", "v", 7)
    assert (ack.uri, ack.headers.get("cseq")) == ("sip:x@192.0.2.9", "7 ACK")
    assert dialog.request("BYE", "v").headers.get("cseq") == "8 BYE"


def test_a_strict_router_gets_the_request_uri() -> None:
    dialog = Dialog.for_uas(request_of(make_request(extra="Record-Route: <sip:old@192.0.2.60>, <sip:p2;lr>\r\n")), "m")
    bye = dialog.request("BYE", "v")
    assert bye.uri == "sip:old@192.0.2.60"
    assert bye.headers.get_all("route") == ["<sip:p2;lr>", "<sip:peer@192.0.2.7:5070>"]
    assert dialog.next_hop().literal_address() == Peer("192.0.2.60", 5060)


def test_older_requests_are_500_and_a_reinvite_moves_the_target() -> None:
    dialog = Dialog.for_uas(request_of(make_request(cseq="5")), "mine")
    dialog.accept(request_of(make_request("INVITE", cseq="6", contact="<sip:moved@192.0.2.8>")))
    assert dialog.remote_target == "sip:moved@192.0.2.8"
    dialog.accept(request_of(make_request("INFO", cseq="9", contact="<sip:not-a-target-refresh@192.0.2.8>")))
    assert dialog.remote_target == "sip:moved@192.0.2.8"
    with pytest.raises(RemoteSipError) as caught:
        dialog.accept(request_of(make_request("BYE", cseq="8")))
    assert caught.value.status_hint == 500


def test_a_peer_of_rfc_2543_without_contact_and_tag() -> None:
    data = make_request().replace(b";tag=caller", b"").replace(b"Contact: <sip:peer@192.0.2.7:5070>\r\n", b"")
    dialog = Dialog.for_uas(request_of(data), "mine")
    assert dialog.key == ("call-1", "mine", "")
    assert dialog.remote_target == "sip:peer@192.0.2.7"
    assert (
        incoming_key(request_of(data.replace(b"To: <sip:100@192.0.2.2>", b"To: <sip:100@192.0.2.2>;tag=mine")))
        == dialog.key
    )


@pytest.mark.parametrize(
    ("contact", "extra"),
    [
        ("<mailto:a@b>", ""),
        ("<sip:a@b", ""),
        ("<sip:a@b>", "Record-Route: <tel:1>\r\n"),
        ("<sip:a@b>", "Record-Route: x\r\n"),
        ("<sip:a@b>", "Record-Route: <sip:a;lr>\r\n" * (MAX_ROUTES + 1)),
    ],
)
def test_a_target_that_cannot_be_called_is_400(contact: str, extra: str) -> None:
    with pytest.raises(RemoteSipError) as caught:
        Dialog.for_uas(request_of(make_request(contact=contact, extra=extra)), "mine")
    assert caught.value.status_hint == 400
