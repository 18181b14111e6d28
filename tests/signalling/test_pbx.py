"""Calls of a PBX: streams that come unasked, and their announcements over real sockets."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from appliance.api import CallRequest, StreamAddress, StreamOffer
from appliance.errors import DialError
from appliance.signalling.builtin_carriers import carrier_registry
from appliance.signalling.pbx import ANNOUNCED_S, MAX_ANNOUNCED, PbxCarrier, PbxOptions
from tests.signalling.fake_box import FakeBox, FakeBoxCall, serving
from tests.waiting import LIMIT_S


@dataclass
class Pbx:
    box: FakeBox
    carrier: PbxCarrier
    url: str
    now: list[float] = field(default_factory=lambda: [100.0])

    async def announce(self, query: str = "", form: object = None, **headers: str) -> tuple[int, str]:
        async with self.box.http.post(f"{self.url}/calls{query}", data=form, headers=headers) as response:
            return response.status, await response.text()

    def offer(self, call_id: str, called: str = "", calling: str = "") -> None:
        self.carrier.offered(StreamOffer("t0ken", "127.0.0.1:4000", call_id, called, calling, {"a": "b"}))


@asynccontextmanager
async def pbx(kind: str = "audiosocket", **options: str) -> AsyncIterator[Pbx]:
    now = [100.0]
    made = PbxOptions.model_validate(options)
    async with serving(lambda box: PbxCarrier(kind, made, box, now=lambda: now[0]), f"/{kind}") as (box, carrier, url):
        assert isinstance(carrier, PbxCarrier)
        yield Pbx(box, carrier, url, now)


@pytest.mark.parametrize("how", ["query", "form"])
async def test_an_announced_call(how: str) -> None:
    async with pbx() as found:
        said = {"called": "100", "calling": "+49 30 1", "name": "Ann\r\nEvil: 1"}
        if how == "form":
            status, name = await found.announce("", said)
        else:
            status, name = await found.announce("?called=100&calling=%2B49+30+1&name=Ann%0D%0AEvil:+1")
        assert status == 200
        assert str(uuid.UUID(name)) == name
        found.offer(name.upper(), "999")
        (one,) = found.box.admitted
        assert one.offer is not None
        assert one.offer.token == "t0ken"
        incoming = one.incoming
        assert (incoming.called, incoming.calling, incoming.calling_name) == ("100", "+49 30 1", "AnnEvil: 1")
        assert incoming.source == "127.0.0.1:4000"
        found.offer(name)
        assert len(found.box.admitted) == 1, "good for one stream"
        assert "not announced" in found.box.refused[0]


async def test_an_announcement_lasts_half_a_minute() -> None:
    async with pbx() as found:
        (_, one), (_, two) = await found.announce("?called=1"), await found.announce("?called=2")
        found.now[0] += ANNOUNCED_S
        found.offer(one)
        found.now[0] += 0.1
        found.offer(two)
        assert [call.incoming.called for call in found.box.admitted] == ["1"]
        assert found.box.refused == [
            "not announced in the last 30 s (POST /audiosocket/pstn/calls), and trunk pstn has no 'called'"
        ]


async def test_a_stream_that_says_itself_whom_it_calls() -> None:
    async with pbx("pbx", called="100", calling="9") as found:
        found.offer("c1", "200", "300")
        found.offer("c2")
        parties = [(call.incoming.called, call.incoming.calling) for call in found.box.admitted]
        assert parties == [("200", "300"), ("100", "9")]
        assert found.box.admitted[0].incoming.offered == {"a": "b"}


async def test_what_is_announced_may_leave_the_line_to_the_trunk() -> None:
    async with pbx(called="100") as found:
        _, name = await found.announce("?calling=5")
        found.offer(name)
        assert [(c.incoming.called, c.incoming.calling) for c in found.box.admitted] == [("100", "5")]


async def test_from_elsewhere_nothing_is_announced() -> None:
    """A header by which a proxy tells its client's address is anybody's to write, but for the proxies we know."""
    async with pbx() as found:
        found.box.allowed = ("192.0.2.9",)
        status, text = await found.announce("?called=1", **{"X-Forwarded-For": "192.0.2.9", "X-Real-IP": "192.0.2.9"})
        assert status == 403
        found.box.proxies = (ip_network("127.0.0.1/32"),)
        assert (await found.announce("?called=1", **{"X-Forwarded-For": "192.0.2.9"}))[0] == 200
        assert (await found.announce("?called=1", **{"X-Forwarded-For": "192.0.2.9, 192.0.2.8"}))[0] == 403
        assert text == "127.0.0.1 is not in 'allow' of trunk 'pstn'; add it there\n"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example", "User-Agent": "Mozilla/5.0 (X11)"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_page_announces_nothing(headers: dict[str, str]) -> None:
    """Whoever looks at it may be within ``allow``; the page is anybody's."""
    async with pbx() as found:
        status, text = await found.announce("", {"called": "100"}, **headers)
        assert status == 403
        assert text == "127.0.0.1 asks as a page in a browser does; calls are announced by a PBX's own client\n"
        assert (await found.announce("?called=1", **{"User-Agent": "Asterisk", "Origin": "http://pbx"}))[0] == 200


@pytest.mark.parametrize(
    ("query", "form", "words"),
    [
        ("", None, "send called=NUMBER"),
        ("?called=", None, "send called=NUMBER"),
        ("?called=%00%01", None, "send called=NUMBER"),
        ("?caller=1", None, "send called=NUMBER"),
        ("", b"x" * 5000, "more than 4096 bytes"),
        ("", "&".join(f"a{i}=1" for i in range(40)).encode(), "fields"),
        ("", b"\xff\xfe\x00", "send called=NUMBER"),
    ],
)
async def test_announcements_that_are_none(query: str, form: object, words: str) -> None:
    async with pbx() as found:
        status, text = await found.announce(query, form)
        assert (status, words in text) == (400, True), text
        assert len(text) < 200


async def test_a_form_of_unknown_length_is_bounded() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"called=1&" * 100

    async with pbx() as found:
        assert (await found.announce("", pieces()))[0] == 400


async def test_so_many_calls_are_announced_and_no_more() -> None:
    async with pbx() as found:
        for _ in range(MAX_ANNOUNCED // 50):
            told = await asyncio.gather(*(found.announce("?called=1") for _ in range(50)))
            assert {status for status, _ in told} == {200}
        status, text = await found.announce("?called=1")
        assert (status, "have not come" in text) == (503, True)
        found.now[0] += ANNOUNCED_S + 1
        assert (await found.announce("?called=1"))[0] == 200


async def test_what_the_box_asks_of_a_call() -> None:
    async with pbx(called="1") as found:
        found.offer("c1")
        call = found.box.admitted[0].call
        assert (call.can_transfer, call.sends_digits, call.call_id) == (False, False, "c1")
        await call.ring()
        await call.answer(StreamAddress("", "t0ken"))
        await call.send_digits("1")
        assert await call.transfer("2", None) == 501
        await call.hangup()
        assert found.box.refused == []
        await call.reject(404, "no such line")
        assert found.box.refused == ["404 no such line"]


async def test_a_pbx_cannot_be_called() -> None:
    async with pbx() as found:
        request = CallRequest("1", "2", 30.0, StreamAddress("", ""), "k", FakeBoxCall("k"))
        with pytest.raises(DialError, match="give it a sip trunk too") as refused:
            await found.carrier.place(request)
        assert refused.value.status == 404


async def test_strangers_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with pbx() as found:
        found.box.allowed = ()
        for _ in range(30):
            assert (await found.announce("?called=1"))[0] == 403
        assert sum("an announcement is refused" in line for line in caplog.messages) == 20


async def test_a_form_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.signalling.pbx._READ_S", 0.05)
    async with pbx() as found:
        host, port = "127.0.0.1", int(found.url.split(":")[2].split("/")[0])
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, (host, port))
            head = "POST /audiosocket/calls HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
            await loop.sock_sendall(sock, head.encode())
            async with asyncio.timeout(LIMIT_S):
                told = await loop.sock_recv(sock, 4096)
        assert told.startswith(b"HTTP/1.1 400 ")


def test_numbers_need_no_quotes() -> None:
    assert PbxOptions.model_validate({"called": 100}).called == "100"
    with pytest.raises(ValidationError):
        PbxOptions.model_validate({"call": "100"})


def test_the_kinds_are_registered() -> None:
    registry = carrier_registry()
    assert {"twilio", "telnyx", "pbx", "audiosocket"} <= set(registry.kinds)
    assert registry.problems == []
