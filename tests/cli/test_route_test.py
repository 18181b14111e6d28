"""``appliance route-test``: the line that answers, why others do not, and what is printed of thousands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from appliance.cli.main import main

pytestmark = pytest.mark.usefixtures("in_tmp_path")

PAGE = Path(__file__).parents[2] / "docs" / "dialplans.md"
BOX = "trunks: {carrier: {kind: sip, headers_in: X-Account}, pbx: {kind: sip}}\ndialplans: {paths: [plans]}\n"


@pytest.fixture(autouse=True)
def _plans(in_tmp_path: None) -> None:
    """The example of the page, and a box with it."""
    example = next(text for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if "refuse:" in text)
    Path("plans").mkdir()
    Path("plans/office.yaml").write_text(example)
    Path("plans/unwanted.csv").write_text("name,number\nMr Spam,+49 151 1234567\n")
    Path("box.yaml").write_text(BOX)


def ask(*words: str) -> int:
    return main(["route-test", "-c", "box.yaml", *words])


def test_the_example_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    command, *printed = re.findall(r"```\n\$ appliance (.*?)```", PAGE.read_text(), re.DOTALL)[0].splitlines()
    assert main([*command.split(), "-c", "box.yaml", "--set", "trunks.carrier.region=DE"]) == 0
    assert capsys.readouterr().out.replace("plans/", "dialplans/").splitlines() == printed


def test_every_criterion_can_be_asked_about(capsys: pytest.CaptureFixture[str]) -> None:
    office = ("--called", "+49301234", "--calling", "+49401", "--at", "2026-03-04T10:00+01:00")
    assert ask(*office) == 0
    assert capsys.readouterr().out.startswith("office (plans/office.yaml:5) answers\n")
    for words, why in (
        (("--load", "office=10"), "it has 10 calls, not fewer than 10"),
        (("--header", "Accept-Language=fr, de;q=0.1"), "language fr is not de"),
        (("--called", "+494012"), "called '+494012' is not"),
    ):
        ask(*office, *words)
        assert why in capsys.readouterr().out


def test_refusals_are_answered_with_a_status_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("--called", "1", "--calling", "+491511234567") == 1
    assert capsys.readouterr().out == "unwanted (plans/office.yaml:2) refuses the call with 603\n"
    assert ask("--called", "1") == 1
    assert "others (plans/office.yaml:18) refuses the call with 404 (No such number here)" in capsys.readouterr().out
    Path("plans/office.yaml").write_text("name: a\nmatch: {trunk: pbx}\nflow: {bye: {hang_up: Bye}}\n")
    assert ask("--called", "1") == 1
    assert capsys.readouterr().out == (
        "no line answers: the call is refused with 404\n  not a (plans/office.yaml:1): trunk 'carrier' is not pbx\n"
    )


def test_headers_that_lines_do_not_see(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plans/office.yaml").write_text("name: a\nmatch: {headers: {X-Account: gold}}\nflow: {bye: {hang_up: Bye}}\n")
    assert ask("--called", "1", "--header", "x-account=gold") == 0
    assert ask("--called", "1", "--trunk", "pbx", "--header", "x-account=gold") == 1
    assert "note: lines do not see x-account: trunks.pbx.headers_in does not list it" in capsys.readouterr().err


def test_of_thousands_the_nearest_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        f"- {{name: l{n}, match: {{called: '+49{n:04}*'}}, flow: {{bye: {{hang_up: Bye}}}}}}\n" for n in range(2000)
    ]
    Path("plans/office.yaml").write_text("lines:\n" + "".join(lines))
    assert ask("--called", "+49123", "--nearest", "2") == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("  not l1230 (plans/office.yaml:1232): called '+49123' is not +491230*")
    assert printed[-1] == "  nor 1,998 others, which differ in more; of all 2,000 tried: 2,000 by called"
    assert ask("--called", "+49123", "--nearest", "1", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["line"], told["refused"], told["tried"], told["by_key"]) == (None, 404, 2000, {"called": 2000})
    assert told["nearest"][0]["unmet"] == [{"key": "called", "why": "called '+49123' is not +491230*"}]
    assert ask("--called", "+49123456", "--json") == 0
    assert json.loads(capsys.readouterr().out)["line"] == "l1234"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trunk", "carier"), "there is no trunk 'carier'; did you mean 'carrier'?"),
        (("--load", "offic=1"), "there is no line 'offic'; did you mean 'office'?"),
        (("--load", "office=many"), "'many' is not a whole number"),
        (("--at", "tomorrow"), "'tomorrow' is not a time; write it as 2026-12-24T18:00"),
        (("--header", "gold"), "'gold' is not NAME=VALUE"),
    ],
)
def test_mistakes(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = ask("--called", "1", *words)
    except SystemExit as left:
        status = int(left.code or 0)
    assert status == 2
    assert said in capsys.readouterr().err


def test_a_broken_dialplan_routes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plans/unwanted.csv").write_text("name,number\nMr Spam,+49*1\n")
    assert ask("--called", "1") == 2
    assert "plans/unwanted.csv:2: number: '+49*1' has a star that is not at its end" in capsys.readouterr().err


def test_a_plugin_that_may_decide_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plugins").mkdir()
    hook = "from appliance.api import hookimpl\n\n@hookimpl\ndef appliance_route(call):\n    return None\n"
    Path("plugins/chooser.py").write_text(hook)
    Path("box.yaml").write_text(f"{BOX}plugins: {{paths: [plugins], enabled: [chooser]}}\n")
    assert ask("--called", "1") == 1
    said = capsys.readouterr().err
    assert said == "note: plugin chooser may decide otherwise (hook route); it is not asked here\n"


def test_a_line_that_is_closed_is_told_of_with_what_it_does_then(capsys: pytest.CaptureFixture[str]) -> None:
    office = (
        "{name: office, match: {called: 1}, timezone: UTC, hours: {mon: 9-17}, closed: %s, flow: {bye: {hang_up: Bye}}}"
    )
    for closed, what, status in (
        ("Closed.", "says that it is closed", 0),
        ("{instead: {greeting: Closed.}}", "is as closed.instead says", 0),
        ("{line: night}", "night (plans/office.yaml:3) answers instead", 0),
        ("{line: full}", "full (plans/office.yaml:4) refuses the call with 486 instead", 1),
    ):
        others = "- {name: night, match: {called: 9}, flow: {bye: {hang_up: Bye}}}\n- {name: full, refuse: 486}\n"
        Path("plans/office.yaml").write_text(f"lines:\n- {office % closed}\n{others}")
        assert ask("--called", "1", "--at", "2026-11-24T10:00+00:00") == status
        why = "Tue 2026-11-24 10:00 (UTC) is not within mon 9-17"
        assert f"office (plans/office.yaml:2) answers\n  closed: {why}; {what}\n" in capsys.readouterr().out
    assert ask("--called", "1", "--at", "2026-11-23T10:00+00:00") == 0
    assert "closed" not in capsys.readouterr().out
    ask("--called", "1", "--at", "2026-11-24T10:00+00:00", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["closed"], told["in_place"], told["refused"]) == (why, "full", 486)
