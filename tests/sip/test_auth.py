"""Digest: the RFCs' own figures, both roles against each other, and what an attacker would try."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import RemoteSipError
from appliance.sip.auth import (
    MAX_ANSWERS,
    MAX_NONCES,
    Challenge,
    Credentials,
    DigestClient,
    DigestServer,
    Verdict,
    digest_response,
)
from appliance.sip.message import Request, Response, make_response

from .requests import PEER, good_message, make_request

ALICE = Credentials("alice", 'pass"word\\')


def tokens() -> DigestServer:
    numbers = itertools.count()
    return DigestServer("box", "secret", lambda: f"n{next(numbers)}")


def client() -> DigestClient:
    numbers = itertools.count()
    return DigestClient(lambda: f"c{next(numbers)}")


def invite(lines: list[tuple[str, str]] | None = None, cseq: int = 1) -> Request:
    request = good_message(make_request(cseq=str(cseq)))
    assert isinstance(request, Request)
    for name, value in lines or ():
        request.headers.add(name, value)
    return request


def refusal(*lines: str, status: int = 401, header: str = "WWW-Authenticate") -> Response:
    response = make_response(invite(), status)
    for line in lines:
        response.headers.add(header, line)
    return response


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_figures_of_rfc_7616(algorithm: str, expected: str) -> None:
    found = digest_response(
        algorithm,
        Credentials("Mufasa", "Circle of Life"),
        "http-auth@example.org",
        "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "GET",
        "/dir/index.html",
        qop="auth",
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        nc="00000001",
    )
    assert found == expected


def test_the_figure_of_rfc_2617_and_a_challenge_without_qop() -> None:
    mufasa = Credentials("Mufasa", "Circle Of Life")
    where = ("testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093", "GET", "/dir/index.html")
    with_qop = digest_response("md5", mufasa, *where, qop="auth", cnonce="0a4f113b", nc="00000001")
    assert with_qop == "6629fae49393a05397450978507c4ef1"
    assert digest_response("MD5", mufasa, *where) == "670fd8c2df070c60b045671b8b24ff02"


def test_a_challenge_is_met_and_accepted() -> None:
    server = tokens()
    assert server.check(invite(), ALICE, 0.0) is Verdict.MISSING
    lines = client().answer(invite(), refusal(*server.challenges(0.0)), PEER, ALICE)
    assert lines is not None and len(lines) == 1
    name, value = lines[0]
    assert name == "Authorization" and "algorithm=MD5" in value and "nc=00000001" in value
    assert server.check(invite(lines), ALICE, 1.0) is Verdict.GOOD


@pytest.mark.parametrize("algorithm", ["MD5", "md5", "MD5-sess", "SHA-256", "SHA-256-sess", "SHA-512-256"])
@pytest.mark.parametrize("qop", ['qop="auth"', 'qop="auth-int"', 'qop="auth-int,auth"', ""])
def test_what_we_answer_can_be_verified(algorithm: str, qop: str) -> None:
    challenge = f'Digest realm="a, \\"b\\"", nonce="n\\\\1", opaque="o", algorithm={algorithm}, {qop}'.rstrip(", ")
    lines = client().answer(invite(), refusal(challenge, status=407, header="Proxy-Authenticate"), PEER, ALICE)
    assert lines is not None
    ((name, value),) = lines
    assert name == "Proxy-Authorization" and 'opaque="o"' in value and f"algorithm={algorithm}" in value
    assert ("qop=auth," in value) is ('auth"' in qop) and ("nc=" in value) is bool(qop)
    chosen = "auth" if 'auth"' in qop else "auth-int" if qop else ""
    cnonce = "c0" if qop or algorithm.endswith("-sess") else ""
    nc = "00000001" if qop else ""
    expected = digest_response(
        algorithm, ALICE, 'a, "b"', "n\\1", "INVITE", invite().uri, qop=chosen, cnonce=cnonce, nc=nc
    )  # fmt: skip
    assert f'response="{expected}"' in value


def test_of_several_challenges_each_realm_gets_the_first_we_know() -> None:
    response = refusal(
        'Digest realm="a", nonce="1", algorithm=SHA-3, qop="auth"',
        'Digest realm="a", nonce="2", algorithm=SHA-256, qop="auth", Digest realm="b", nonce="3"',
        'Digest realm="a", nonce="4", algorithm=MD5',
        'Basic realm="c"',
        "Digest realm=broken",
    )
    lines = client().answer(invite(), response, PEER, ALICE)
    assert lines is not None
    assert [('nonce="2"' in value, 'nonce="3"' in value) for _, value in lines] == [(True, False), (False, True)]
    assert client().answer(invite(), refusal('Basic realm="c"'), PEER, ALICE) is None
    assert client().answer(invite(), refusal('Digest realm="c", nonce="1", qop="other"'), PEER, ALICE) is None
    assert client().answer(invite(), response, PEER, Credentials("alice", "x", realm="z")) is None


def test_a_wrong_password_is_tried_once() -> None:
    server, ours = tokens(), client()
    wrong = Credentials("alice", "guess")
    lines = ours.answer(invite(), refusal(*server.challenges(0.0)), PEER, wrong)
    assert lines is not None
    assert server.check(invite(lines), ALICE, 0.0) is Verdict.WRONG
    assert server.check(invite(lines), Credentials("bob", "guess"), 0.0) is Verdict.WRONG
    assert ours.answer(invite(lines, cseq=2), refusal(*server.challenges(0.0)), PEER, wrong) is None
    again = ours.answer(invite(lines, cseq=2), refusal(*server.challenges(0.0, stale=True)), PEER, wrong)
    assert again is not None


@pytest.mark.parametrize("qop", ["", ', qop="auth"'])
def test_what_was_sent_unasked_may_be_refused_without_a_word_of_stale(qop: str) -> None:
    ours = client()
    assert ours.answer(invite(), refusal(f'Digest realm="r", nonce="n1"{qop}'), PEER, ALICE) is not None
    ok = make_response(invite(), 200)
    ok.headers.add("Authentication-Info", 'nextnonce="n2"')
    ours.note(ok, PEER, ALICE)
    lines = ours.unasked(invite(), PEER, ALICE)
    assert 'nonce="n2"' in lines[0][1]
    lines = ours.answer(invite(lines, cseq=3), refusal(f'Digest realm="r", nonce="n3"{qop}'), PEER, ALICE)
    assert lines is not None and 'nonce="n3"' in lines[0][1]
    assert ours.answer(invite(lines, cseq=4), refusal(f'Digest realm="r", nonce="n4"{qop}'), PEER, ALICE) is None


def test_answers_that_are_never_judged_are_forgotten() -> None:
    ours = client()
    for number in range(MAX_ANSWERS + 100):
        ours.answer(invite(cseq=number + 1), refusal(f'Digest realm="r", nonce="{number}"'), PEER, ALICE)
    assert len(ours._answers) == MAX_ANSWERS


def test_a_proxy_and_a_server_may_both_challenge() -> None:
    ours = client()
    proxy = refusal('Digest realm="proxy", nonce="p", qop="auth"', status=407, header="Proxy-Authenticate")
    lines = ours.answer(invite(), proxy, PEER, ALICE)
    assert lines is not None
    both = ours.answer(invite(lines), refusal('Digest realm="server", nonce="s", qop="auth"'), PEER, ALICE)
    assert both is not None
    assert [name for name, _ in both] == ["Authorization", "Proxy-Authorization"]
    assert "nc=00000001" in both[0][1] and "nc=00000002" in both[1][1]


def test_credentials_go_unasked_until_the_nonce_is_stale() -> None:
    server, ours = tokens(), client()
    assert ours.unasked(invite(), PEER, ALICE) == []
    ours.answer(invite(), refusal(*server.challenges(0.0)), PEER, ALICE)
    for _ in range(2):
        lines = ours.unasked(invite(), PEER, ALICE)
        assert server.check(invite(lines), ALICE, 10.0) is Verdict.GOOD
    assert ours.unasked(invite(), PEER._replace(host="192.0.2.99"), ALICE) == []
    lines = ours.unasked(invite(), PEER, ALICE)
    assert server.check(invite(lines), ALICE, 301.0) is Verdict.STALE
    anew = ours.answer(invite(lines), refusal(*server.challenges(301.0)), PEER, ALICE)
    assert anew is not None
    assert server.check(invite(anew), ALICE, 302.0) is Verdict.GOOD


def test_the_next_nonce_is_taken_over() -> None:
    server, ours = tokens(), client()
    ours.answer(invite(), refusal(*server.challenges(0.0)), PEER, ALICE)
    nonce = Challenge.parse(server.challenges(200.0)[0]).nonce
    ok = make_response(invite(), 200)
    ok.headers.add("Authentication-Info", f'nextnonce="{nonce}", qop=auth')
    ours.note(ok, PEER, ALICE)
    ((_, value),) = ours.unasked(invite(), PEER, ALICE)
    assert nonce in value and "nc=00000001" in value
    assert server.check(invite([("Authorization", value)]), ALICE, 400.0) is Verdict.GOOD


def test_only_who_was_challenged_can_have_the_password_wrong() -> None:
    server = tokens()
    lines = client().answer(invite(), refusal(*server.challenges(0.0, host="192.0.2.66")), PEER, ALICE)
    bob = Credentials("bob", "other")
    assert server.check(invite(lines), bob, 0.0, host="192.0.2.66") is Verdict.WRONG
    assert server.check(invite(lines), bob, 0.0, host="192.0.2.7") is Verdict.STALE
    assert server.check(invite(lines), ALICE, 0.0, host="192.0.2.7") is Verdict.GOOD


def test_a_replay_is_stale() -> None:
    server = tokens()
    lines = client().answer(invite(), refusal(*server.challenges(0.0)), PEER, ALICE)
    assert server.check(invite(lines), ALICE, 0.0) is Verdict.GOOD
    assert server.check(invite(lines), ALICE, 0.0) is Verdict.STALE


def test_what_cannot_be_ours_or_was_changed_is_refused() -> None:
    server = tokens()
    lines = client().answer(invite(), refusal(*server.challenges(0.0)), PEER, ALICE)
    assert lines is not None
    value = lines[0][1]
    for old, new, verdict in (
        ("nonce=", "xnonce=", Verdict.STALE),
        ('nonce="0.', 'nonce="9.', Verdict.STALE),
        ("nc=00000001", "nc=1", Verdict.WRONG),
        ("nc=00000001", "nc=00000002", Verdict.WRONG),
        ("qop=auth", "qop=auth-int", Verdict.WRONG),
        ("sip:100@", "sip:900@", Verdict.WRONG),
        ("MD5", "SHA-1", Verdict.WRONG),
        ('realm="box"', 'realm="x"', Verdict.MISSING),
        ("Digest", "Basic", Verdict.MISSING),
    ):
        assert server.check(invite([("Authorization", value.replace(old, new))]), ALICE, 0.0) is verdict, (old, new)


def test_the_uri_may_name_the_host_alone() -> None:
    challenge = Challenge.parse(tokens().challenges(0.0)[0])
    for uri, verdict in (
        ("sip:192.0.2.2", Verdict.GOOD),
        ("sip:100@192.0.2.2:5060;x=y", Verdict.GOOD),
        ("sip:192.0.2.3", Verdict.WRONG),
        ("", Verdict.WRONG),
    ):
        answer = digest_response(
            "MD5", ALICE, "box", challenge.nonce, "INVITE", uri, qop="auth", cnonce="c", nc="00000001"
        )
        value = f'Digest username="alice", realm="box", nonce="{challenge.nonce}", uri="{uri}", response="{answer}"'
        request = invite([("Authorization", f'{value}, qop=auth, cnonce="c", nc=00000001')])
        assert tokens().check(request, ALICE, 0.0) is verdict


def test_many_nonces_do_not_let_an_old_one_be_used_again() -> None:
    server, ours = tokens(), client()
    first = ours.answer(invite(), refusal(*server.challenges(0.0)), PEER, ALICE)
    assert server.check(invite(first), ALICE, 0.0) is Verdict.GOOD
    for number in range(MAX_NONCES):
        lines = client().answer(invite(), refusal(*server.challenges(1.0 + number / 1000)), PEER, ALICE)
        assert server.check(invite(lines), ALICE, 10.0) is Verdict.GOOD
    assert server.check(invite(first), ALICE, 10.0) is Verdict.STALE
    assert len(server._used) == MAX_NONCES


def test_where_only_sha_256_is_taken_md5_is_not() -> None:
    strict = Credentials(ALICE.username, ALICE.password, algorithms=("SHA-256",))
    for offered, verdict in ((("SHA-256",), Verdict.GOOD), (("MD5",), Verdict.WRONG)):
        server = tokens()
        (challenge,) = server.challenges(0.0, algorithms=offered)
        lines = client().answer(invite(), refusal(challenge), PEER, ALICE)
        assert server.check(invite(lines), strict, 0.0) is verdict


def test_an_endless_line_is_not_read() -> None:
    with pytest.raises(RemoteSipError, match="more than"):
        Challenge.parse('Digest nonce="1"' + "," * 60000)


def test_a_password_is_not_shown() -> None:
    assert "pass" not in repr(ALICE)


@given(st.text(max_size=200))
def test_nothing_but_the_named_error_escapes(text: str) -> None:
    with contextlib.suppress(RemoteSipError):
        Challenge.parse(f"Digest {text}")
    ours, server = client(), tokens()
    ours.answer(invite(), refusal(f"Digest {text}", text), PEER, ALICE)
    ours.note(refusal(text, header="Authentication-Info"), PEER, ALICE)
    server.check(invite([("Authorization", f'Digest realm="box", {text}')]), ALICE, 0.0)
