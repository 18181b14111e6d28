"""Files of numbers: what is read, and every mistake at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.dialplan.loader import Dialplan, load_dialplans
from appliance.dialplan.routing import Routing
from appliance.errors import ConfigError
from tests.dialplan.test_matcher import arrival

pytestmark = pytest.mark.usefixtures("in_tmp_path")

LINE = "name: vip\nmatch:\n  calling: {match}\nflow: {{bye: {{hang_up: Hello.}}}}\n"


def load(match: str, **files: str) -> Dialplan:
    Path("plans").mkdir(exist_ok=True)
    for name, text in files.items():
        Path("plans", name.replace("_", ".")).write_text(text, newline="")
    Path("plans/a.yaml").write_text(LINE.format(match=match))
    return load_dialplans([Path("plans")])


def mistakes(match: str, **files: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(match, **files)
    return [str(mistake) for mistake in raised.value.mistakes]


def answered(plan: Dialplan, *callers: str) -> list[str]:
    routing = Routing(plan.lines, lists=plan.numbers.found, region="DE")
    return [caller for caller in callers if routing.decide(arrival(calling=caller)) is not None]


def test_a_text_file_holds_numbers_prefixes_and_remarks() -> None:
    plan = load("{file: vip.txt}", vip_txt="# customers\n+49 30 1*  # Berlin\r\n\nalice\n")
    assert answered(plan, "+4930123", "030 1234567", "alice", "+4940", "# customers", "") == [
        "+4930123", "030 1234567", "alice",
    ]  # fmt: skip
    assert plan.numbers.paths == (Path("plans/vip.txt"),)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_file_has_them_in_a_column(delimiter: str) -> None:
    rows = [["name", "number", "note"], ["A", "+49301", ""], ['"B\nC"', '"+4940*"', "x"], ["D", "", ""], ["E"]]
    text = "\ufeff" + "\r\n".join(delimiter.join(row) for row in rows)
    plan = load("{file: vip.csv, column: number}", vip_csv=text)
    assert answered(plan, "+49301", "+49401", "A", "") == ["+49301", "+49401"]
    assert answered(load("{file: vip.csv}", vip_csv="number\n1\n"), "1") == ["1"]


def test_a_file_is_read_once_for_all_who_name_it() -> None:
    plan = load("[{file: vip.txt}, {file: ../plans/vip.txt}, '5']", vip_txt="1\n")
    assert len(plan.numbers.found) == 2
    assert answered(plan, "1", "5", "2") == ["1", "5"]


@pytest.mark.parametrize(
    ("match", "files", "said"),
    [
        (
            "{file: vip.txt}",
            {},
            ["plans/a.yaml:3: match.calling.file: plans/vip.txt cannot be read: no such file or directory; "
             "its path is from the folder plans"],
        ),
        (
            "['1', {file: vip.txt, kolumn: x}]",
            {"vip_txt": ""},
            ["plans/a.yaml:3: match.calling.1.kolumn: unknown key; did you mean 'column'?"],
        ),
        (
            "{file: vip.txt}",
            {"vip_txt": "1\n+49*30\n030 12x 4\n2,3\n"},
            [
                "plans/vip.txt:2: number: '+49*30' has a star that is not at its end; write it as +49301234",
                "plans/vip.txt:3: number: '030 12x 4' is not a number; write it as +49301234",
                "plans/vip.txt:4: number: '2,3' is not a number; write it as +49301234",
            ],
        ),
        (
            "{file: vip.csv, column: nummber}",
            {"vip_csv": "name,number\n"},
            ["plans/vip.csv:1: heading: there is no column 'nummber'; did you mean 'number'?"],
        ),
        (
            "{file: vip.csv}",
            {"vip_csv": "+49301\n+49302\n"},
            ["plans/vip.csv:1: heading: the first row is not a heading; "
             "begin the file with a row such as `number,name`, or name it *.txt"],
        ),
        (
            "{file: vip.csv}",
            {"vip_csv": 'number\n1\n"2\n3'},
            ["plans/vip.csv:4: file: is not CSV: unexpected end of data; check its quotes"],
        ),
    ],
)  # fmt: skip
def test_mistakes(match: str, files: dict[str, str], said: list[str]) -> None:
    assert mistakes(match, **files) == said


def test_what_is_no_text_and_what_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("plans").mkdir()
    Path("plans/vip.txt").write_bytes(b"1\n\xff\n")
    assert mistakes("{file: vip.txt}") == ["plans/vip.txt:2: file: is not UTF-8 text; save it as UTF-8"]
    many = mistakes("{file: vip.txt}", vip_txt="a b\n" * 100)
    assert len(many) == 21
    assert "is not read further" in many[-2]
    monkeypatch.setattr("appliance.dialplan.number_files.MAX_NUMBERS", 3)
    assert mistakes("{file: vip.txt}", vip_txt="1\n2\n3\n4\n5\n") == [
        "plans/vip.txt:4: file: holds more than 3 numbers; split it"
    ]
    monkeypatch.setattr("appliance.dialplan.number_files.MAX_BYTES", 3)
    assert "is larger than 3 bytes" in mistakes("{file: vip.txt}", vip_txt="1234\n")[0]
