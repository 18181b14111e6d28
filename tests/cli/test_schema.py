"""The JSON Schemas for editors take what the box takes, and find what anybody can get wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import SecretStr

from appliance.cli.main import main
from appliance.cli.schema import SCHEMAS, schema
from appliance.config.marks import parse
from appliance.config.shipped import shipped_dir
from appliance.config.validation import _SHORT_FORMS, short_forms

DOCS = sorted((Path(__file__).parents[2] / "docs").rglob("*.md"))


def read(text: str) -> Any:
    """What an editor sees: a secret is a scalar with a tag."""
    return plain(parse(text, "x.yaml", secrets=SecretStr).data)


def plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list):
        return [plain(item) for item in data]
    return data.get_secret_value() if isinstance(data, SecretStr) else data


def problems(file: str, text: str) -> list[str]:
    checker = jsonschema.Draft202012Validator(schema(file))
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in checker.iter_errors(read(text))]


@pytest.mark.parametrize("file", SCHEMAS)
def test_it_is_printed(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", file]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema(file)
    jsonschema.Draft202012Validator.check_schema(printed)


@pytest.mark.parametrize("path", sorted(shipped_dir("dialplans").glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_dialplans_are_by_the_schema(path: Path) -> None:
    assert problems("dialplan", path.read_text()) == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_the_examples_on_the_pages_are_by_the_schemas(path: Path) -> None:
    for text in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL):
        data = read(text)
        if not isinstance(data, dict):
            continue
        if "lines" in data or {"name", "flow"} <= set(data):
            assert problems("dialplan", text) == [], text
        elif set(data) & {"tools", "tables", "webhooks"} and "plugins" not in data:  # else a part of a line
            assert problems("plugin", text) == [], text
        elif set(data) & {"trunks", "engines", "listen", "limits"}:
            assert problems("config", text) == [], text
        elif {"line", "caller_ids"} <= set(data):
            assert problems("campaign", text) == [], text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nflwo: {}", "'flwo' was unexpected"),
        ("lines:\n  - name: a\n    match: {caled: 1}\n", "'caled' was unexpected"),
        ("lines: []", "non-empty"),
        ("lines: [{name: a}]\nname: b", "'name' was unexpected"),
        ("match: {}", "'name' is a required property"),
        ("name: a\nmax_duration_s: soon", "'soon' is not of type 'number'"),
        ("name: a\nagent: robot", "'robot' is not one of"),
        ("name: a\nrefuse: {status: 200}", "is not valid under any"),
        ("name: a\nmatch: {called: []}", "is not valid under any"),
    ],
)
def test_mistakes_in_a_dialplan(text: str, said: str) -> None:
    assert any(said in problem for problem in problems("dialplan", text)), problems("dialplan", text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trnks: {}", "'trnks' was unexpected"),
        ("trunks: {a: {kind: sip, alow: 10.0.0.1}}", "'alow' was unexpected"),
        ("trunks: {a: {kind: sip, max_calls: 0}}", "0 is not valid"),
        ("limits: {max_calls: many}", "'many' is not of type 'integer'"),
        ("engines: {asr: fast}", "'fast' is not of type 'object'"),
        ("engines: {asr: {provider: whisper, max_batch: many}}", "'many' is not of type 'integer'"),
        ("engines: {asr: {provider: openai_compatible, max_batch: many, partials_every_s: x}}", "'x' is not"),
        ("trunks: {a: {kind: twilio, account_sid: AC1}}", "'auth_token' is a required property"),
        ("trunks: {a: {kind: pbx, called: [1]}}", "[1] is not of type 'string'"),
    ],
)
def test_mistakes_in_the_configuration(text: str, said: str) -> None:
    assert any(said in problem for problem in problems("config", text)), problems("config", text)


@pytest.mark.parametrize(
    "text",
    [
        "{bases: {b: {voice: {rate: 1.2}, flow: {bye: {hang_up: Bye}}}}, lines: [{name: a, extends: b, voice: null}]}",
        "{name: a, extends: b, flow: {bye: {interruptible: false}, hi: null}, greeting: null, agent: null}",
        "{defaults: {greeting: Hi, language: en-gb}, lines: [{name: a, flow: {bye: {interruptible: true}}}]}",
        "{bases: {b: {prompt: x, no_input: {after_s: 3}}}}",
    ],
)
def test_what_inherits_need_not_say_all(text: str) -> None:
    assert problems("dialplan", text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{lines: [{name: a, extends: b, flwo: {}}]}", "'flwo' was unexpected"),
        ("{lines: [{name: a, voice: null}]}", "None is not of type 'object'"),
        ("{lines: [{extends: b}]}", "'name' is a required property"),
        ("{bases: {b: {agent: robot}}}", "'robot' is not one of"),
        ("{defaults: {language: 7, turn: {patience: 9}}, lines: [{name: a}]}", "9 is greater than the maximum of 4"),
    ],
)
def test_mistakes_in_what_inherits(text: str, said: str) -> None:
    assert any(said in problem for problem in problems("dialplan", text)), problems("dialplan", text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("windows: {default: {day: mon}}", "is not valid under any"),
        ("windows: {default: [], regions: {FR: [{hours: 09:00-12:00}]}}", "'name' is a required property"),
        ("pacing: {max_calls: 0}", "0 is less than the minimum of 1"),
        ("retry: {bussy: {times: 1}}", "'bussy' was unexpected"),
        ("answering_machines: {on_machine: shout}", "'shout' is not one of"),
    ],
)
def test_mistakes_in_a_campaign(text: str, said: str) -> None:
    assert any(said in problem for problem in problems("campaign", text)), problems("campaign", text)


def test_the_keys_of_other_providers_are_not_asked_about() -> None:
    assert problems("config", "engines: {asr: {provider: mine, max_batch: many, partials_every_s: x}}") == []
    assert problems("config", "trunks: {a: {kind: mine, auth_token: 7}}") == []


@pytest.mark.parametrize("file", SCHEMAS)
def test_what_every_validator_takes_is_said(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that run before the others may take more than their type says: `short_form` tells editors what."""
    unsaid = set()

    def noted(function: Any) -> Any:
        if getattr(function, "__func__", function) not in _SHORT_FORMS:
            unsaid.add(f"{function.__module__}.{function.__qualname__}")
        return short_forms(function)

    monkeypatch.setattr("appliance.config.json_schema.short_forms", noted)
    schema(file)
    assert not unsaid, "mark them with @short_form(what they take beside), or @short_form() for nothing"


def test_short_forms_are_welcome() -> None:
    assert (
        problems(
            "dialplan",
            """
            name: a
            match: {trunk: t, called: 100, calling: [{file: a.csv}, {regex: 'x'}], verstat: '', hours: {mon: 9-17}}
            greeting: Hello.
            transfers: {desk: 100}
            flow:
              what: {ask: Which one, expect: [yes, 1], keys: {1: yes}, next: bye}
              else: {ask: Which one, expect: {a: b, c: [d]}, next: {a: bye}}
              hand: {transfer: 300, say: Hold on.}
              bye: {hang_up: }
            """,
        )
        == []
    )
    text = """
        trunks:
          a: {kind: sip, allow: 10.0.0.1, srtp: false, proxy: sip:a, codecs: pcma, password: !secret x}
          b: {kind: twilio, account_sid: AC1, auth_token: !secret y, public_url: https://x.example}
          c: {kind: twilio, account_sid: 1, auth_token: x, public_url: https://x, machine_detection: false}
        engines: {asr: {provider: whisper, model: small}, tts: {provider: espeak, fallback: espeak}}
        plugins: {enabled: [a, b]}
        """
    assert problems("config", text) == []
