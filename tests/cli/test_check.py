"""``appliance check``: what is printed, and the exit status."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from appliance.cli import check

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
        "box.yaml:3: engines.tts.provider: there is no tts provider 'espaek'; there are: espeak, fake, none "
        "(did you mean 'espeak'?)",
        "box.yaml:4: engines.asr.dealy: unknown option; provider 'pocketsphinx' takes no options",
        "box.yaml:5: limits.max_calls: must be a whole number, not 'none'",
        "plans/a.yaml:2: match.trunk: there is no trunk 'locla'; did you mean 'local'?",
        "plans/a.yaml:3: flow.bye.hang_up: unknown variable ${x}; known: caller.number, called.number, line.name, "
        "caller.asserted, caller.asserted_name, caller.verstat, caller.privacy, diverted.number, call.reason, "
        "call.user_to_user",
        "plans/b.yaml:2: language: the recogniser does not understand 'de'; it understands en; "
        "or name another engines.asr.provider in appliance.yaml",
        "plans/b.yaml:3: flow.q.expect.zugzwang.0: the recogniser does not know 'zugzwang'; "
        "reword it, or add the phones under pronunciations: {zugzwang: ...}",
    ]
    assert printed.err == "appliance check: 8 mistakes\n"


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
