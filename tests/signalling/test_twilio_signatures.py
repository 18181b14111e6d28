"""Which webhooks are Twilio's: those that its own validator takes, for the address that the configuration names."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import MultiDict, MultiDictProxy
from twilio.request_validator import RequestValidator

from appliance.signalling.twilio_webhooks import Webhooks
from tests.certificates import Authority
from tests.signalling.fake_box import running
from tests.signalling.twilio_edge import ACCOUNT, FORM, PUBLIC, TOKEN, Edge, answer, edge

CALL = {"AccountSid": ACCOUNT, "CallSid": "CA1", "From": "+4930111", "To": "+4930222", "CallStatus": "ringing"}


def signed(target: str, form: dict[str, str], *, public: str = PUBLIC, token: str = TOKEN) -> dict[str, str]:
    signature = RequestValidator(token).compute_signature(public + target, form)
    return {"X-Twilio-Signature": signature, "Content-Type": FORM}


@pytest.mark.parametrize(
    "target", ["/twilio/voice", "/twilio/pstn/voice", "/twilio/voice?line=a%20b&line=%2F", "/twilio/voice?"]
)
async def test_what_twilio_signed_is_taken(target: str) -> None:
    async with edge() as twilio:
        twilio.box.decide = answer
        form = {**CALL, "CallerName": "Jürgen & Söhne + 1", "Empty": ""}
        # A bare "?" is no part of an address: what computes the signature leaves it out, as urlparse does.
        headers = signed(target.removesuffix("?"), form)
        assert (await twilio.raw(target, urlencode(form), headers))[0] == 200
        assert len(twilio.box.admitted) == 1


Spoil = Callable[[dict[str, str], dict[str, str]], tuple[str, dict[str, str], dict[str, str]]]
SPOILT: dict[str, Spoil] = {
    "another caller": lambda form, sent: ("/twilio/voice", {**form, "From": "+1900"}, sent),
    "a field more": lambda form, sent: ("/twilio/voice", {**form, "StirVerstat": "TN-Validation-Passed-A"}, sent),
    "a field less": lambda form, sent: ("/twilio/voice", {k: v for k, v in form.items() if k != "To"}, sent),
    "another path": lambda form, sent: ("/twilio/pstn/voice", form, sent),
    "a query": lambda form, sent: ("/twilio/voice?key=x", form, sent),
    "another origin": lambda form, sent: (
        "/twilio/voice",
        form,
        signed("/twilio/voice", form, public="https://evil.example"),
    ),
    "plain http": lambda form, sent: (
        "/twilio/voice",
        form,
        signed("/twilio/voice", form, public="http://voice.example.com"),
    ),
    "another token": lambda form, sent: ("/twilio/voice", form, signed("/twilio/voice", form, token="guessed")),
    "no header": lambda form, sent: ("/twilio/voice", form, {"Content-Type": FORM}),
    "an empty header": lambda form, sent: ("/twilio/voice", form, {**sent, "X-Twilio-Signature": ""}),
    "letters that are none": lambda form, sent: ("/twilio/voice", form, {**sent, "X-Twilio-Signature": "é" * 28}),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("path", ["", "/answer", "/action", "/dialed", "/called", "/status", "/stream", "/amd"])
async def test_what_it_did_not_sign_is_refused(how: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with edge() as twilio:
        twilio.box.decide = answer
        target, form, headers = SPOILT[how](dict(CALL), signed("/twilio/voice", CALL))
        if path:
            target = target.replace("/voice", path)
        with caplog.at_level(logging.WARNING):
            status, _ = await twilio.raw(target, urlencode(form), headers)
        assert status == 403
        assert not twilio.box.admitted
        (line,) = (record.getMessage() for record in caplog.records)
        assert "trunk pstn: refused with 403" in line and TOKEN not in line


async def test_a_signature_twice_is_refused() -> None:
    async with edge() as twilio:
        sent = signed("/twilio/voice", CALL)
        both = MultiDict([*sent.items(), ("X-Twilio-Signature", sent["X-Twilio-Signature"])])
        assert (await twilio.raw("/twilio/voice", urlencode(CALL), both))[0] == 403


async def test_another_account_s_webhook_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with edge() as twilio:
        assert (await twilio.post("/twilio/voice", AccountSid="AC" + "f" * 32))[0] == 403
        assert "of account 'ACffff" in caplog.text


async def test_a_flood_of_forged_webhooks_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with edge() as twilio:
        for _ in range(50):
            assert (await twilio.raw("/twilio/voice", "a=b", {"Content-Type": FORM}))[0] == 403
        assert len(caplog.records) == 1


async def test_the_line_in_the_log_says_what_to_do_and_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    webhooks = Webhooks("pstn", ACCOUNT, TOKEN, PUBLIC, lambda: now[0])

    async def take(request: web.Request) -> web.Response:
        return web.Response(text=(await webhooks.form(request))["CallSid"])

    app = web.Application()
    app.router.add_post("/voice", take)
    async with running(app) as port, aiohttp.ClientSession() as http:
        for now[0] in (0.0, 1.0, 2.0, 60.0):
            headers = signed("/voice", CALL, token="wrong")
            async with http.post(f"http://127.0.0.1:{port}/voice", data=urlencode(CALL), headers=headers) as response:
                assert response.status == 403
    first, second = (record.getMessage() for record in caplog.records)
    assert f"public_url ({PUBLIC}) is not what" in first and "auth_token is not the account's" in first
    assert second.endswith("(2 more since the last such line)")
    assert webhooks.refused == 4


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"a" * 70_000, FORM, 413),
        (b"a=%ff", FORM, 400),
        (b"\xff=1", FORM, 400),
        (b"&".join(b"a%d=1" % n for n in range(300)), FORM, 400),
    ],
)
async def test_what_is_no_form_of_a_webhook_s_is_not_read(body: bytes, kind: str, status: int) -> None:
    async with edge() as twilio:
        assert (await twilio.raw("/twilio/voice", body, {"Content-Type": kind, "X-Twilio-Signature": "x"}))[0] == status


@pytest.mark.parametrize("call_id", ["", "CA1\r\nSet-Cookie: x", "../../Accounts", "C" * 65])
async def test_a_name_that_is_none_is_refused_though_it_is_signed(call_id: str) -> None:
    async with edge() as twilio:
        assert (await twilio.post("/twilio/voice", CallSid=call_id))[0] == 400
        assert not twilio.box.admitted


# --- behind a proxy that ends TLS ------------------------------------------------------------------------------------


@asynccontextmanager
async def proxied(twilio: Edge, authority: Authority) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """A proxy as in docs/twilio.md: it ends TLS, and passes requests on to the box by plain HTTP, under another name.

    Gives its port, and what trusts its certificate.
    """

    async def forward(request: web.Request) -> web.Response:
        headers = {
            name: request.headers[name] for name in ("X-Twilio-Signature", "Content-Type") if name in request.headers
        }
        headers |= {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9", "Host": "127.0.0.1:8080"}
        status, text = await twilio.raw(request.raw_path, await request.read(), headers)
        return web.Response(status=status, text=text, content_type="text/xml")

    pair = authority.issue("voice.example.com")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    async with running(app, context) as port:
        yield port, ssl.create_default_context(cafile=str(authority.ca))


@pytest.mark.parametrize(
    ("public", "told", "status"),
    [
        (PUBLIC, PUBLIC, 200),
        (PUBLIC, PUBLIC + ":443", 200),
        (PUBLIC + ":8443", PUBLIC + ":8443", 200),
        (PUBLIC + ":8443", PUBLIC, 200),
        (PUBLIC, "http://voice.example.com", 403),
        (PUBLIC, "http://127.0.0.1:8080", 403),
        (PUBLIC, "https://evil.example", 403),
    ],
)
async def test_behind_a_proxy_that_ends_tls_the_public_address_counts(
    public: str, told: str, status: int, tmp_path: Path
) -> None:
    async with edge(public) as twilio, proxied(twilio, Authority(tmp_path)) as (port, trust):
        twilio.box.decide = answer
        headers = {**signed("/twilio/voice", CALL, public=told), "Host": told.partition("//")[2]}
        async with twilio.http.post(
            f"https://127.0.0.1:{port}/twilio/voice",
            data=urlencode(CALL),
            headers=headers,
            ssl=trust,
            server_hostname="voice.example.com",
        ) as response:
            assert response.status == status


async def test_what_a_request_says_of_its_address_plays_no_part() -> None:
    """Signed for another address with the right token, as by a second application of the account's."""
    async with edge() as twilio:
        headers = {
            **signed("/twilio/voice", CALL, public="https://other.example"),
            "Host": "other.example",
            "X-Forwarded-Host": "other.example",
            "X-Forwarded-Proto": "https",
            "X-Original-Url": "/twilio/voice",
            "Forwarded": "host=other.example;proto=https",
        }
        assert (await twilio.raw("/twilio/voice", urlencode(CALL), headers))[0] == 403


# --- against the validator, at random --------------------------------------------------------------------------------

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_FORMS = st.lists(st.tuples(st.sampled_from(["From", "To", "Body", "A", "B"]), _TEXT), max_size=6)
_TARGETS = st.sampled_from(["/twilio/voice", "/twilio/voice?a=1", "/twilio/voice?a=%2f&b", "/twilio/voice?b=%C3%BC"])


@settings(max_examples=60, deadline=None)
@given(fields=_FORMS, target=_TARGETS, public=st.sampled_from([PUBLIC, PUBLIC + ":8443"]), spoil=st.booleans())
async def test_it_takes_what_the_validator_takes(
    fields: list[tuple[str, str]], target: str, public: str, spoil: bool
) -> None:
    """Any form, with repeated fields too: our verdict on a request as it is sent is the package's on the same."""
    pairs = [*fields, ("AccountSid", ACCOUNT), ("CallSid", "CA1")]
    form = MultiDictProxy(MultiDict(pairs))
    signature = RequestValidator(TOKEN).compute_signature(public + target, form)
    sent = [*pairs, ("From", "+1")] if spoil else pairs
    wanted = RequestValidator(TOKEN).validate(public + target, MultiDictProxy(MultiDict(sent)), signature)
    webhooks = Webhooks("pstn", ACCOUNT, TOKEN, public, lambda: 0.0)

    async def take(request: web.Request) -> web.Response:
        return web.json_response(list((await webhooks.form(request)).items()))

    app = web.Application()
    app.router.add_post("/twilio/voice", take)
    async with running(app) as port, aiohttp.ClientSession() as http:
        from yarl import URL

        url = URL(f"http://127.0.0.1:{port}{target}", encoded=True)
        headers = {"X-Twilio-Signature": signature, "Content-Type": FORM}
        async with http.post(url, data=urlencode(sent), headers=headers) as response:
            assert (response.status == 200) is wanted
            if wanted:
                assert await response.json() == [list(pair) for pair in sent]
