"""What is kept of a call's SIP, and what never is."""

from __future__ import annotations

import pytest

from appliance.signalling.trace import SipTrace, without_secrets

INVITE = (
    b"INVITE sip:100@box SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.9\r\nCall-ID: abc@10.0.0.9\r\n"
    b"From: <sip:anna:hunter2@10.0.0.9>;tag=1\r\n"
    b'Authorization: Digest username="anna", realm="r",\r\n response="0123456789abcdef", nonce="n"\r\n'
    b"X-Api-Key: sk-secret\r\nContent-Type: application/sdp\r\n\r\n"
    b"v=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQ|2^20\r\nk=clear:sesame\r\n"
)


@pytest.mark.parametrize(
    "secret", ["hunter2", "0123456789abcdef", "sk-secret", "WVNfX19z", "sesame", 'username="anna"']
)
def test_no_secret_is_in_the_record(secret: str) -> None:
    assert secret.encode() in INVITE
    assert secret not in without_secrets(INVITE)


@pytest.mark.parametrize(
    "text",
    [
        b"a=ice-pwd:hunter2",
        b"Contact: <sip:a@h;password=hunter2;transport=tcp>",
        b'Contact: <sip:a@h>;X-Token="hunter2 and more"',
        b"Refer-To: <sip:a@b?Authorization=hunter2>",
        b"Cookie: session=hunter2",
        b"User-Passwd: hunter2",
        b"X-Credential: hunter2",
        b"X: y\rAuthorization: hunter2\rZ: z",
    ],
)
def test_no_secret_is_in_the_record_wherever_it_stands(text: bytes) -> None:
    assert "hunter2" not in without_secrets(text)


def test_what_only_looks_like_a_secret_stays() -> None:
    text = b"Contact: <sip:a@h;transport=tcp;user=phone>;expires=3600\r\nFrom: <sip:b@h>;tag=x\r\na=ice-ufrag:abc"
    assert without_secrets(text) == text.decode().replace("\r\n", "\n")


def test_the_rest_of_the_message_is() -> None:
    text = without_secrets(INVITE)
    for kept in ("INVITE sip:100@box SIP/2.0", "Call-ID: abc@10.0.0.9", "sip:anna:(removed)@10.0.0.9", "|2^20", "v=0"):
        assert kept in text
    assert "Authorization: (removed)\nX-Api-Key: (removed)\nContent-Type" in text


def test_a_call_has_its_messages_in_order_and_only_once() -> None:
    trace = SipTrace()
    trace.note(INVITE, sent=False, peer="udp:10.0.0.9:5060", at=10.0)
    trace.keep("abc@10.0.0.9")
    trace.note(b"SIP/2.0 180 Ringing\r\ni: abc@10.0.0.9\r\n\r\n", sent=True, peer="udp:10.0.0.9:5060", at=10.25)
    trace.note(b"OPTIONS sip:box SIP/2.0\r\nCall-ID: other\r\n\r\n", sent=False, peer="udp:10.0.0.9:5060", at=10.3)
    trace.note(b"\r\n\r\n", sent=False, peer="udp:10.0.0.9:5060", at=10.4)
    first, second = trace.take("abc@10.0.0.9", since=10.0)
    assert (first["at_s"], first["sent"]) == (0.0, False)
    assert (second["at_s"], second["sent"], second["text"][:19]) == (0.25, True, "SIP/2.0 180 Ringing")
    assert trace.take("abc@10.0.0.9", since=10.0) == []


def test_strangers_push_no_call_out() -> None:
    trace = SipTrace()
    trace.note(INVITE, sent=False, peer="p", at=1.0)
    trace.keep("abc@10.0.0.9")
    for number in range(20_000):
        trace.note(b"INVITE sip:x SIP/2.0\r\nCall-ID: %d\r\n\r\n" % number, sent=False, peer="p", at=2.0)
    assert len(trace.take("abc@10.0.0.9", since=0.0)) == 1
    assert len(trace._new) <= 256


def test_a_talkative_call_is_bounded() -> None:
    trace = SipTrace()
    trace.keep("abc@10.0.0.9")
    for _ in range(1000):
        trace.note(INVITE + b"x" * 20_000, sent=False, peer="p", at=1.0)
    messages = trace.take("abc@10.0.0.9", since=0.0)
    assert len(messages) == 100
    assert all(len(message["text"]) <= 8192 for message in messages)
    assert trace._size == 0


def test_hostile_text_takes_no_time() -> None:
    for text in (b"auth" * 2048, b"sip:a:" * 1365, b"inline:" * 1170, b";auth" * 1600, b"?passw;" * 1170):
        without_secrets(text)
