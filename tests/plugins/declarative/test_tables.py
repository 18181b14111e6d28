"""Looking rows up, however a caller says the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.plugins.declarative import tables
from appliance.plugins.declarative.schema import Table
from appliance.plugins.declarative.source import Declarative
from tests.plugins.declarative.server import FakeCall, plugin_of, tool_of


def table(**how: object) -> Table:
    return Table.model_validate({"file": "x", "key": "k", "columns": ["v"], "description": "d", **how})


@pytest.mark.parametrize(
    ("match", "cell", "asked"),
    [
        ("text", "Hat", "hat"),
        ("text", "Café Müller", "CAFE MU\u0308LLER"),
        ("text", "AB-12/3", "ab 123"),
        ("text", "Straße", "STRASSE"),
        ("number", "007", "7"),
        ("number", "1,5", "1.50"),
        ("number", "1,000", "1000"),
        ("number", "-3", " -3.0 "),
        ("number", "100", "1 0 0"),
        ("phone", "+49 30 1234567", "030 1234567"),
        ("phone", "030/123-45 67", "+49301234567"),
        ("phone", "110", "110"),
    ],
)
def test_a_key_is_found_however_it_is_written(match: str, cell: str, asked: str) -> None:
    wanted = table(match=match, **({"region": "DE"} if match == "phone" else {}))
    rows, wrong = tables.read(wanted, f'k,v\n"{cell}",yes\n')
    assert wrong == []
    assert rows is not None
    assert rows.look_up(wanted, asked) == {"found": 1, "rows": [{"v": "yes"}]}
    assert rows.look_up(wanted, "nothing of it 99")["found"] == 0
    assert rows.look_up(wanted, "  ") == {"found": 0, "rows": []}


@pytest.mark.parametrize(("match", "cell"), [("number", "1e5"), ("number", "NaN"), ("number", "many"), ("phone", "x")])
def test_a_cell_that_is_no_key_is_a_mistake(match: str, cell: str) -> None:
    rows, (wrong,) = tables.read(table(match=match), f"k,v\n{cell},1\n")
    assert rows is None
    assert wrong.line == 2


def test_a_spreadsheets_semicolons_and_quotes_and_line_ends() -> None:
    rows, wrong = tables.read(table(), "\r\n".join(("k;v;other", '"a;b";"two\nlines";x', "c;3;y", "")))
    assert wrong == []
    assert rows is not None
    assert rows.look_up(table(), "ab")["rows"] == [{"v": "two\nlines"}]
    assert rows.count == 2


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 3)
    assert "more than 3 rows" in tables.read(table(), "k,v\n" + "a,1\n" * 4)[1][0].what
    wide = ",".join(["k", "v", *(f"c{number}" for number in range(200))])
    assert "more than 100 columns" in tables.read(table(), wide + "\n")[1][0].what


async def test_the_model_is_told_the_allowed_columns_of_so_many_rows(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("article,price,margin\n" + "hat,3,secret\n" * 7)
    text = "tables: {prices: {file: p.csv, key: article, columns: [price], description: P., max_rows: 2, tool: price}}"
    source = Declarative({"shop": plugin_of(tmp_path, text)})
    tool = tool_of(source)
    assert (tool.name, tool.side_effects) == ("price", False)
    assert await tool.run({"key": "Hat"}, FakeCall()) == {"found": 7, "rows": [{"price": "3"}, {"price": "3"}]}
    await source.close()
