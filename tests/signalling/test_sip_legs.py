from __future__ import annotations

from appliance.signalling.sip_legs import MAX_HEADERS, call_info, session_id_of
from appliance.sip.message import Request
from appliance.sip.uri import Peer

from ..sip.requests import good_message


def request(
    *, uri: str = "sip:+4930@box.example", caller: str = '"Ann" <sip:ann@a.example>', extra: str = ""
) -> Request:
    message = good_message(
        f"INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nFrom: {caller};tag=1\r\nTo: <sip:100@b>\r\n"
        f"Call-ID: id\r\nCSeq: 1 INVITE\r\n{extra}\r\n".encode()
    )
    assert isinstance(message, Request)
    return message


def test_who_calls_whom() -> None:
    info = call_info(request(extra="X-Account: 7\r\nX-Account: 8\r\n"), "leg", "office", Peer("192.0.2.1", 5060))
    assert (info.called, info.calling, info.calling_name, info.trunk) == ("+4930", "ann", "Ann", "office")
    assert (info.source, info.protocol_call_id) == ("192.0.2.1:5060", "id")
    assert info.headers["X-Account"] == "7, 8"


def test_a_request_uri_without_user_leaves_the_to_header() -> None:
    assert call_info(request(uri="sip:box.example"), "leg", "t", Peer("::1", 5060)).called == "100"


def test_what_a_caller_says_is_printable_and_bounded() -> None:
    many = "".join(f"X-{i}: {'y' * 300}\r\n" for i in range(100))
    info = call_info(request(caller='"A\x07\x1b[2J" <sip:%00ev%0ail@a>', extra=many), "leg", "t", Peer("192.0.2.1", 1))
    assert info.calling_name == "A[2J"
    assert info.calling == "evil"
    assert len(info.headers) == MAX_HEADERS


def test_session_ids_are_numbers() -> None:
    assert session_id_of("a") != session_id_of("b")
    assert session_id_of("\udcff") != session_id_of("a"), "a Call-ID with a byte that is no UTF-8"
