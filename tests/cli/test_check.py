"""``appliance check``: what is printed, and the exit status."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from appliance.api import StreamKind, hookimpl
from appliance.carriers.audiosocket import AudioSocketStream
from appliance.cli import check
from appliance.cli.check import trunk_mistakes
from appliance.config import load_settings
from appliance.engines.builtin import provider_registry
from appliance.signalling.builtin_carriers import carrier_registry

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    check.add_parser(parser.add_subparsers())
    args = parser.parse_args(["check", *words])
    status: int = args.run(args)
    return status


def test_the_embedded_default_is_summed_up_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert capsys.readouterr().out == (
        "ok: SIP 127.0.0.1:5060/udp, HTTP 127.0.0.1:8080; trunks: local, phone; lines: reception\n"
    )


def test_mistakes_in_settings_engines_and_dialplans_come_together(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plans").mkdir()
    Path("plans/a.yaml").write_text("name: a\nmatch: {trunk: locla}\nflow: {bye: {hang_up: '${x}'}}\n")
    Path("plans/b.yaml").write_text("name: b\nlanguage: de\nflow: {q: {ask: x, expect: [zugzwang]}, e: {hang_up: y}}\n")
    Path("box.yaml").write_text(
        "dialplans: {paths: [plans]}\nengines:\n  tts: {provider: espaek}\n  asr: {provider: pocketsphinx, dealy: 1}\n"
        "limits: {max_calls: none}\n"
    )
    assert run("-c", "box.yaml", "--set", "listen.http.port=x") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "--set:1: listen.http.port: must be a whole number, not 'x'",
        "box.yaml:3: engines.tts.provider: there is no tts provider 'espaek'; there are: "
        f"{', '.join(sorted(provider_registry().offers('tts')))} (did you mean 'espeak'?)",
        "box.yaml:4: engines.asr.dealy: unknown option; provider 'pocketsphinx' takes denoise",
        "box.yaml:5: limits.max_calls: must be a whole number, not 'none'",
        "plans/a.yaml:2: match.trunk: there is no trunk 'locla'; did you mean 'local'?",
        "plans/a.yaml:3: flow.bye.hang_up: unknown variable ${x}; known: caller.number, called.number, line.name, "
        "campaign.owner, campaign.name, caller.asserted, caller.asserted_name, caller.verstat, caller.privacy, "
        "diverted.number, call.reason, call.user_to_user",
        "plans/b.yaml:2: language: the recogniser does not understand 'de'; it understands en; "
        "or name another engines.asr.provider in appliance.yaml",
        "plans/b.yaml:3: flow.q.expect.zugzwang.0: the recogniser does not know 'zugzwang'; "
        "reword it, or add the phones under pronunciations: {zugzwang: ...}",
    ]
    assert printed.err == "appliance check: 8 mistakes\n"


def test_mistakes_in_trunks_of_carriers_are_told_at_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("secrets.yaml").write_text("token: hunter2\n")
    Path("box.yaml").write_text(
        """\
trunks:
  a:
    kind: twilio
    acount_sid: AC0123456789abcdef0123456789abcdef
    auth_token: !secret token
    public_url: [x]
    max_calls: few
    alow_prefixes: ["+49"]
  b: {kind: twillio, hm: 1}
  c: {kind: audiosocket, allow: 10.0.0.5}
  d: {kind: browser, hosts: [x.example], media_url: wss://x.example}
  e: {kind: sip, allow: 10.0.0.5, qualify: 3}
listen:
  streams: [{kind: browser, port: 9092}, {kind: audiosocket, port: 8080}, {kind: drum, port: 1}, {kind: sip, port: 2}]
  media: {port: 8080}
  proxies: 10.0.0.1/8
limits: {streams_per_address: 0}
"""
    )
    assert run("-c", "box.yaml") == 1
    found = capsys.readouterr().out.splitlines()
    assert found == [
        "box.yaml:2: trunks.a.account_sid: is missing; add 'account_sid:'",
        "box.yaml:4: trunks.a.acount_sid: unknown key; did you mean 'account_sid'?",
        "box.yaml:6: trunks.a.public_url: must be text, not a list",
        "box.yaml:7: trunks.a.max_calls: must be a whole number, not 'few'",
        "box.yaml:8: trunks.a.alow_prefixes: unknown key; did you mean 'allow_prefixes'?",
        "box.yaml:9: trunks.b.kind: there is no trunk kind 'twillio'; did you mean 'twilio'?",
        "box.yaml:12: trunks.e.qualify: unknown key; did you mean 'qualify_s'?",
        "box.yaml:14: listen.streams.0.kind: the audio of kind 'browser' comes by WebSocket, at listen.media; "
        "remove this entry",
        "box.yaml:14: listen.streams.1.port: 127.0.0.1:8080/tcp is already listen.http; choose another port",
        "box.yaml:14: listen.streams.2.kind: no trunk is of kind 'drum'; known: twilio, twillio, audiosocket, browser",
        "box.yaml:14: listen.streams.3.kind: SIP has sockets of its own; list it under listen.sip",
        "box.yaml:15: listen.media.port: 127.0.0.1:8080/tcp is already listen.http; choose another port",
        "box.yaml:16: listen.proxies: '10.0.0.1/8' has bits set behind its prefix; did you mean 10.0.0.0/8?",
        "box.yaml:17: limits.streams_per_address: must be at least 1, not 0",
    ]


def test_options_are_named_as_they_were_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("box.yaml").write_text(
        "engines:\n  asr:\n    provider: fake\n    options:\n      dely_ms: 1\n"
        "trunks:\n  c:\n    kind: browser\n    options:\n      hosts: 5\n      host: x\n    hots: y\n"
    )
    assert run("-c", "box.yaml") == 1
    assert capsys.readouterr().out.splitlines() == [
        "box.yaml:5: engines.asr.options.dely_ms: unknown option; did you mean 'delay_ms'? "
        "provider 'fake' takes delay_ms, text, words_per_s",
        "box.yaml:10: trunks.c.options.hosts: must be a list, not 5",
        "box.yaml:11: trunks.c.options.host: unknown key; did you mean 'hosts'?",
        "box.yaml:12: trunks.c.hots: unknown key; did you mean 'hosts'?",
    ]


def test_a_kind_that_comes_by_tcp_needs_a_socket(capsys: pytest.CaptureFixture[str]) -> None:
    Path("box.yaml").write_text("trunks:\n  c: {kind: audiosocket, allow: 10.0.0.5}\n")
    run("-c", "box.yaml")
    assert (
        "box.yaml:2: trunks.c.kind: has no socket for its audio; "
        "add listen.streams: [{kind: audiosocket, port: 9092}]" in capsys.readouterr().out
    )


def test_streams_that_come_unasked_need_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--set", "trunks={c: {kind: pbx}}") == 1
    assert capsys.readouterr().out == (
        "--set:1: trunks.c.allow: is empty: nobody's streams would be taken; "
        "add allow: with the address of the PBX that they come from\n"
    )


def test_a_kind_of_a_plugin_that_lacks_a_part_is_a_mistake() -> None:
    class Half:
        @hookimpl
        def appliance_stream_providers(self) -> dict[str, StreamKind]:
            return {"half": StreamKind(lambda request: AudioSocketStream())}

    Path("box.yaml").write_text("trunks:\n  h:\n    kind: half\n")
    (mistake,) = trunk_mistakes(load_settings(Path("box.yaml"), []), carrier_registry([("mine", Half())]))
    assert str(mistake) == (
        "box.yaml:3: trunks.h.kind: nobody controls the calls of kind 'half'; "
        "plugin 'mine' needs appliance_carrier_providers beside its streams"
    )


def test_words_matter_only_to_the_embedded_recogniser() -> None:
    Path("a.yaml").write_text("name: b\nlanguage: de\nflow: {q: {ask: x, expect: [zugzwang]}, e: {hang_up: y}}\n")
    assert run("--set", "dialplans.paths=[a.yaml]") == 1
    assert run("--set", "dialplans.paths=[a.yaml]", "--set", "engines.asr.provider=fake") == 0


def test_a_warning_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text("name: a\nmatch: {called: 1}\nflow: {bye: {hang_up: x}}\n")
    assert run("--set", "dialplans.paths=[a.yaml]") == 0
    assert capsys.readouterr().err.startswith("warning: a.yaml:1: match: no line answers every call")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True, "mistakes": [], "warnings": [], "trunks": ["local", "phone"], "lines": ["reception"],
    }  # fmt: skip
    assert run("--json", "-c", "absent.yaml") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["mistakes"] == [
        {
            "file": "absent.yaml", "line": 1, "key": "file",
            "what": "cannot be read: no such file or directory", "hint": "check its path",
        }
    ]  # fmt: skip
