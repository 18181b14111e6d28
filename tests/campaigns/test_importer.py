"""Importing lists of leads: what is read, what is refused as a whole, and what is wrong with single rows."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.campaigns.columns import columns_of
from appliance.campaigns.definition import Definition
from appliance.campaigns.importer import ImportReport, import_leads
from appliance.campaigns.lead_files import LeadFile, examine
from appliance.errors import LeadFileError
from appliance.store.campaign_rows import NewLead

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CAMPAIGN = {"name": "recall", "line": "recall", "caller_ids": "+12025550100", "owner": "Acme", "region": "US"}


class Table:
    """A campaign's leads, kept in memory."""

    def __init__(self, *, listed: Collection[str] = ()) -> None:
        self.leads: dict[str, NewLead] = {}
        self._listed = listed

    async def listed(self, numbers: Sequence[str]) -> Collection[str]:
        return [number for number in numbers if number in self._listed]

    async def known(self, numbers: Sequence[str]) -> Collection[str]:
        return [number for number in numbers if number in self.leads]

    async def insert(self, leads: Sequence[NewLead]) -> int:
        new = [lead for lead in leads if lead.number not in self.leads]
        self.leads |= {lead.number: lead for lead in new}
        return len(new)


def definition(*, consent: bool = False) -> Definition:
    return Definition.model_validate(CAMPAIGN | {"consent": {"required": consent}})


def written(folder: Path, text: str | bytes, name: str = "leads.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


async def imported(
    path: Path, table: Table, *, said: Sequence[str] = (), consent: bool = False, dry_run: bool = False
) -> ImportReport:
    file = examine(path)
    columns = columns_of(file.header, said)
    return await import_leads(file, columns, definition(consent=consent), table, now=NOW, dry_run=dry_run)


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(LeadFileError) as caught:
        list(examine(path, **options).records())
    return str(caught.value)


async def rows_told(path: Path, *, said: Sequence[str] = (), consent: bool = False) -> dict[int, str]:
    """Line to what is wrong with it, from the file of errors."""
    report = await imported(path, Table(), said=said, consent=consent)
    if report.error_file is None:
        return {}
    with report.error_file.open(encoding="utf-8-sig", newline="") as file:
        return {int(row["error_line"]): row["error"] for row in csv.DictReader(file)}


# --- leads --------------------------------------------------------------------------------------------------------


async def test_a_list_becomes_leads(tmp_path: Path) -> None:
    text = 'id,Phone,First Name,State\n7,(212) 555-1234,"Zoë, the first",NY\n8,+49 30 1234567,Max,\n'
    table = Table()
    report = await imported(written(tmp_path, text), table)
    assert (report.rows, report.imported, report.errors, report.error_file) == (2, 2, 0, None)
    zoe, max_ = table.leads["+12125551234"], table.leads["+49301234567"]
    assert (zoe.row, zoe.reference, zoe.variables) == (2, "7", {"first_name": "Zoë, the first"})
    assert (zoe.zones, zoe.address_zone, zoe.region) == (("America/New_York",), "America/New_York", "US-NY")
    assert (max_.zones, max_.address_zone, max_.region) == (("Europe/Berlin",), "", "DE")


async def test_json_lines_become_leads(tmp_path: Path) -> None:
    lines = [
        {"number": 12125551234, "name": "Zoë", "consent": {"source": "web", "text": "yes", "at": "2026-01-01T10:00Z"}},
        {"number": "+12125551235", "variables": {"name": "Max", "vip": True}, "country": None},
    ]
    path = written(tmp_path, "\n".join(map(json.dumps, lines)) + "\n", "leads.jsonl")
    table = Table()
    report = await imported(path, table)
    assert report.imported == 2
    assert table.leads["+12125551234"].consent == {"source": "web", "text": "yes", "at": "2026-01-01T10:00:00+00:00"}
    assert table.leads["+12125551235"].variables == {"name": "Max", "vip": "true"}


async def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "number\n+12125551234\n+12125551235\n")
    table = Table()
    assert (await imported(path, table)).imported == 2
    again = await imported(path, table)
    assert (again.imported, again.already, again.errors) == (0, 2, 0)


async def test_a_dry_run_keeps_nothing_and_tells_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, "number\n+12125551234\n+12125551235\n+12125551234\nx\n")
    table = Table(listed=["+12125551235"])
    dry = await imported(path, table, dry_run=True)
    assert not table.leads
    real = await imported(path, table)
    assert (dry.imported, dry.wrong) == (real.imported, real.wrong)
    assert real.wrong == {"duplicate": 1, "do_not_call": 1, "number": 1}


async def test_errors_are_mended_and_imported_again(tmp_path: Path) -> None:
    text = 'Phone;name\n+12125551234;a\n12;"b;c"\n+12125551236;d;e\n"+1"2;f\n+12125551234;g\n'
    table = Table()
    first = await imported(written(tmp_path, text), table)
    assert first.imported == 1
    assert first.error_file == tmp_path / "leads.errors.csv"
    found = first.error_file.read_text(encoding="utf-8-sig")
    with first.error_file.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter=";"))
    assert rows[0] == ["Phone", "name", "error_line", "error"]
    assert [(row[0], row[1], row[2]) for row in rows[1:]] == [
        ("12", "b;c", "3"),
        ("+12125551236", "d;e", "4"),
        ('"+1"2;f', "", "5"),
        ("+12125551234", "g", "6"),
    ]
    first.error_file.write_text(found.replace("12;", "+12125551235;", 1).replace('"""+1""2;f"', "+12125551237"))
    second = await imported(first.error_file, table)
    assert (second.imported, second.already, second.errors) == (3, 1, 0)
    assert table.leads["+12125551235"].variables == {"name": "b;c"}
    third = await imported(written(tmp_path, text), table)
    assert third.error_file == tmp_path / "leads.errors-2.csv", "an operator may be at work on the first one"


async def test_errors_of_json_lines_are_imported_again(tmp_path: Path) -> None:
    path = written(tmp_path, '{"number": "12", "a": "x"}\n{broken\n{"number": "+12125551234"}\n', "leads.jsonl")
    report = await imported(path, Table())
    assert report.error_file is not None
    found = [json.loads(line) for line in report.error_file.read_text().splitlines()]
    assert found[0]["number"] == "12"
    assert (found[0]["error_line"], found[1]["error_line"], found[1]["error_text"]) == (1, 2, "{broken")
    mended = [found[0] | {"number": "+12125551239"}, found[1] | {"number": "+12125551230"}]
    path = written(tmp_path, "\n".join(map(json.dumps, mended)) + "\n", "mended.jsonl")
    table = Table()
    assert (await imported(path, table)).imported == 2
    assert table.leads["+12125551239"].variables == {"a": "x"}
    assert table.leads["+12125551230"].variables == {"a": ""}


# --- rows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("", "there is no number"),
        ("call me", "is not a telephone number"),
        ("+1212555", "is too short"),
        ("555-1234", "is without its area code"),
        ("+12125551234567", "is too long"),
        ("1.20256E+10", "was shortened by a spreadsheet"),
        ("+1 900 555 0100", "is a premium-rate number"),
        ("+49 180 5 123456", "is a shared-cost number"),
        ("911", "is too short"),
        ("+1 999 555 0100", "is no number that is in use"),
        ("+999 123456", "is not a telephone number"),
        ("+1 212 555 1234 ext. 5", "has an extension"),
        ("+870 773 111 632", "no time zone is known"),
        ("2125551234; 2125551235", "holds more than one number"),
        ("(212) 555-1234 / (212) 555-1235", "holds more than one number"),
    ],
)
async def test_what_cannot_be_called_is_told(tmp_path: Path, number: str, said: str) -> None:
    told = await rows_told(written(tmp_path, f"number,name\n+12125551234,\n{number},x\n"))
    assert list(told) == [3]
    assert said in told[3]


@pytest.mark.parametrize(
    "number", ["'+12125551234", '"=""+12125551234"""', "tel:+1-212-555-1234", "1 (212) 555.1234", "12125551234.0"]
)
async def test_numbers_as_spreadsheets_write_them(tmp_path: Path, number: str) -> None:
    table = Table()
    await imported(written(tmp_path, f"number,name\n{number},x\n"), table)
    assert list(table.leads) == ["+12125551234"]


@pytest.mark.parametrize(
    ("place", "region", "address_zone"),
    [
        ("US,FL,,", "US-FL", "America/New_York America/Chicago"),
        (",Florida,,", "US-FL", "America/New_York America/Chicago"),
        (",FL,,America/Chicago", "US-FL", "America/Chicago"),
        (",,90210,", "US-CA", "America/Los_Angeles"),
        (",,501,", "US-NY", "America/New_York"),
        ("Germany,BE,10115,", "DE-BE", "Europe/Berlin Europe/Busingen"),
        ("US,,,", "US", ""),
        (",,,Europe/Paris", "US", "Europe/Paris"),
    ],
)
async def test_an_address_says_where_somebody_is(tmp_path: Path, place: str, region: str, address_zone: str) -> None:
    table = Table()
    await imported(written(tmp_path, f"number,country,state,zip,timezone\n+12125551234,{place}\n"), table)
    lead = table.leads["+12125551234"]
    assert (lead.zones, lead.address_zone, lead.region) == (("America/New_York",), address_zone, region)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("Atlantis,,,", "is not a country"),
        ("US,Ontario,,", "US has no part 'Ontario'"),
        (",,00000,", "is the postal code of no state"),
        (",,96201,", "is the postal code of no state"),
        (",,,Mars/Olympus", "is not a time zone"),
        (",,,Etc/GMT+5", "is not a time zone"),
        (",,,../../etc/passwd", "is not a time zone"),
    ],
)
async def test_a_place_that_is_not_known_is_no_lead(tmp_path: Path, place: str, said: str) -> None:
    told = await rows_told(written(tmp_path, f"number,country,state,zip,timezone\n+12125551234,{place}\n"))
    assert said in told[2]


@pytest.mark.parametrize(
    ("consent", "said"),
    [
        (",,", "no consent"),
        ("web,yes,", "the consent has no at"),
        (",,2026-01-01", "the consent has no source and no text"),
        ("web,yes,1/2/2026", "is not a time"),
        ("web,yes,2027-01-01", "is in the future"),
    ],
)
async def test_consent_is_looked_at_where_it_is_required(tmp_path: Path, consent: str, said: str) -> None:
    text = f"number,consent_source,consent_text,consent_at\n+12125551234,{consent}\n+12125551235,web,yes,2026-01-01\n"
    told = await rows_told(written(tmp_path, text), consent=True)
    assert list(told) == [2]
    assert said in told[2]


async def test_control_characters_and_long_values_are_told(tmp_path: Path) -> None:
    long = "x" * 3000
    told = await rows_told(
        written(tmp_path, f"number,name\n+12125551234,a\0b\n+12125551235,{long}\n+12125551236,\u2028\n")
    )
    assert "'name' holds a control character" in told[2]
    assert "'name' has 3,000 characters" in told[3]
    assert len(told) == 2


async def test_ragged_rows_are_told(tmp_path: Path) -> None:
    told = await rows_told(written(tmp_path, "number,name\n+12125551234\n+12125551235,a,b\n+12125551236,a,,\n\n"))
    assert "has 1 columns, and the first row names 2" in told[2]
    assert "is a text with a comma not in quotes?" in told[3]
    assert len(told) == 2


async def test_where_nothing_can_be_written_nothing_is_imported(tmp_path: Path) -> None:
    file = examine(written(tmp_path, "number\n+12125551234\n"))
    table = Table()
    with pytest.raises(LeadFileError, match="--errors-in"):
        await import_leads(
            file, columns_of(file.header), definition(), table, now=NOW, error_folder=tmp_path / "nowhere"
        )
    assert not table.leads


# --- columns ------------------------------------------------------------------------------------------------------


def test_columns_are_guessed_by_their_names() -> None:
    columns = columns_of(["Kundennummer", "Telefonnummer", "Straße", "PLZ", "Mobil", "error_line", "error"])
    assert columns.of == {"number": "Telefonnummer", "reference": "Kundennummer", "postcode": "PLZ"}
    assert columns.variables == {"strasse": "Straße", "mobil": "Mobil"}
    assert any("'Mobil'" in note for note in columns.notes)
    assert ("lead.strasse", "Straße", True) in list(columns.told())


def test_a_number_is_found_by_a_word_in_its_name() -> None:
    columns = columns_of(["Name", "Phone (home)", "Phone (work)"])
    assert columns.of["number"] == "Phone (home)"
    assert any("'Phone (work)'" in note for note in columns.notes)


def test_the_operator_says_what_columns_mean() -> None:
    columns = columns_of(["A", "Name, first", "C"], ["number=c,name=Name, first"], only_said=True)
    assert columns.of == {"number": "C"}
    assert columns.variables == {"name": "Name, first"}


@pytest.mark.parametrize(
    ("header", "said", "message"),
    [
        (["a", "b"], [], "no column holds the telephone number"),
        (["phone"], ["number=fone"], "there is no such column; did you mean 'phone'?"),
        (["phone"], ["number"], "is not MEANING=COLUMN"),
        (["phone", "b"], ["number=phone", "number=b"], "given twice"),
        (["phone"], ["number=phone", "name=phone"], "already used"),
        (["phone", *(f"c{n}" for n in range(60))], [], "60 columns would become variables"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(header: list[str], said: list[str], message: str) -> None:
    with pytest.raises(LeadFileError) as caught:
        columns_of(header, said)
    assert message in str(caught.value)


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "encoding", "guessed"),
    [
        ("number,name\n+12125551234,Zoë\n".encode(), "utf-8", False),
        ("number,name\n+12125551234,Zoë\n".encode("utf-8-sig"), "utf-8-sig", False),
        ("number,name\n+12125551234,Zoë\n".encode("utf-16"), "utf-16", False),
        ("number,name\n+12125551234,Zoë Müller aus Köln\n+12125551235,Jürgen Groß\n".encode("cp1252"), "cp1252", True),
        ("number,name\n+12125551234,François Lefèvre\n".encode("cp1252"), "cp1252", True),
        ("number,name\n+12125551234,Иван Петров\n+12125551235,Ольга Смирнова\n".encode("cp1251"), "cp1251", True),
    ],
)
def test_the_encoding_is_found(tmp_path: Path, data: bytes, encoding: str, guessed: bool) -> None:
    file = examine(written(tmp_path, data))
    assert (file.encoding, file.guessed) == (encoding, guessed)
    assert next(iter(file.records())).values["name"] == data.decode(encoding).splitlines()[1].partition(",")[2]
    assert bool(file.notes) == guessed


def test_the_country_tells_of_the_encoding(tmp_path: Path) -> None:
    path = written(tmp_path, "number,name\n+48221234567,Łukasz Żółć\n".encode("cp1250"))
    assert next(examine(path, region="PL").records()).values["name"] == "Łukasz Żółć"


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("number;name\n+12125551234;a,b\n", ";"),
        ("number\tname\n+12125551234\ta,b\n", "\t"),
        ("number|name\n+12125551234|a,b\n", "|"),
        ("number\n+12125551234\n", ","),
        ("sep=;\nnumber;name\n+12125551234;a\n", ";"),
        ("'number','name'\n'+12125551234','a, b'\n", ","),
        ("number,name\r+12125551234,a\r", ","),
        ('number,name\r\n+12125551234,"a\r\nb"\r\n', ","),
    ],
)
def test_the_way_csv_is_written_is_found(tmp_path: Path, text: str, delimiter: str) -> None:
    file = examine(written(tmp_path, text))
    assert file.dialect.delimiter == delimiter
    assert file.header[0] == "number"
    assert [record.values["number"] for record in file.records()] == ["+12125551234"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"\n\n  \n", "is empty"),
        (gzip.compress(b"number\n1\n", mtime=0), "is compressed (gzip)"),
        (b"PK\x03\x04rest", "is a ZIP archive or a spreadsheet"),
        (b"n\0u\0m\0b\0e\0r\0\n\0", "looks like UTF-16 without its mark"),
        (b"nu\0mber\n+12125551234\n", "holds NUL characters"),
        (b"+12125551234,a\n+12125551235,b\n", "names no columns: '+12125551234' looks like a number"),
        (b'number,name\n+12125551234,a\n+12125551235,"b\n+12125551236,c\n', ":3: the file breaks off: a quote"),
        (b"number,name,city\n+12125551234,a,b\n+1212555", ":3: breaks off in the middle of a row"),
        (b"number," + b",".join(b"c%d" % n for n in range(10_000)) + b"\n", "has 10,001 columns"),
        ("number,name\n+12125551234,Zoë".encode()[:-1], ":2: breaks off in the middle of a character"),
        ("number,name\n+12125551234,Zoë Käß\n".encode() + b"+1,\xe4\n", ":3: is UTF-8 down to this line, which is not"),
        (b'number,"na"me\n', ":1: its quotes do not fit"),
        (b"number,name\n+12125551234," + b"x" * 70_000 + b"\n", ":2: a field is longer than 64 KiB"),
        (b"number,name\n+12125551234," + b"x" * 200_000 + b"\n", ":2: a field is longer than 64 KiB"),
        (b"number,name\n+12125551234," + b"x" * 2_000_000 + b"\n", ":2: a line is longer than 1024 KiB"),
        (b'number,name\n+12125551234,"' + b"xy\n" * 100_000, ":2: a field is longer than 64 KiB"),
        (b"number,name\n" + b'"a\nb",' * 300_000, ":2: a"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, data))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"number": "+12125551234"}]', "is one JSON array"),
        ('{"number": "+12125551234"}\n{"number": "+1212', ":2: breaks off in the middle of an object"),
        ("number,name\n" * 30, "is not JSON Lines"),
        ("\n\n", "is empty"),
        ("".join(json.dumps({f"k{n}": 1}) + "\n" for n in range(300)), "more than 200 different keys"),
    ],
)
def test_json_lines_that_cannot_be_read_are_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(written(tmp_path, text, "leads.jsonl"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 5000, "is not JSON"),
        ('{"number": ' + "9" * 5000 + "}", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"number": "+12125551234", "a": {"b": 1}}', "holds a list or an object"),
        ('{"number": "+12125551234", "a": "\\ud800"}', "holds a control character"),
    ],
)
async def test_a_line_of_json_that_is_wrong_is_told(tmp_path: Path, line: str, said: str) -> None:
    path = written(tmp_path, f'{{"number": "+12125551239"}}\n{line}\n', "leads.jsonl")
    report = await imported(path, Table())
    assert (report.imported, report.errors) == (1, 1)
    assert said in str(report.examples)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    assert "no such file" in refusal(tmp_path / "nothing.csv")
    assert "is no file on a disk" in refusal(Path("/dev/zero"))


def test_what_is_promised_is_held(tmp_path: Path) -> None:
    path = written(tmp_path, "number,name\n+12125551234,a\n+12125551235,Zoë\n".encode("cp1252"))
    assert ":3: is not utf-8, as was promised" in refusal(path, encoding="utf-8")
    assert "is not an encoding" in refusal(path, encoding="utf-9")
    assert "is not an encoding of text" in refusal(path, encoding="base64")
    assert examine(path, encoding="latin-1").encoding == "iso8859-1"


@pytest.mark.parametrize("promised", ["", "utf-8"])
def test_one_huge_field_is_refused_in_little_memory(tmp_path: Path, promised: str) -> None:
    """300 MB that take no room on the disk."""
    path = written(tmp_path, 'number,name\n+12125551234,"')
    with path.open("r+b") as file:
        file.truncate(300_000_000)
        file.seek(26)
        file.write(b"x" * 100_000)
    tracemalloc.start()
    try:
        said = refusal(path, encoding=promised)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "longer than" in said
    assert peak < 30_000_000


async def test_a_file_that_breaks_off_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    rows = "".join(f"+1212555{n:04},a\n" for n in range(3000))
    table = Table()
    with pytest.raises(LeadFileError):
        await imported(written(tmp_path, f'number,name\n{rows}+12125559999,"a'), table)
    assert not table.leads


def test_a_list_of_numbers_needs_no_names_of_columns(tmp_path: Path) -> None:
    file = examine(written(tmp_path, "+12125551234\n+12125551235\n"), headless=True)
    assert [record.values["number"] for record in file.records()] == ["+12125551234", "+12125551235"]
    assert file.rows == 2


CELLS = st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=4), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(rows=CELLS, delimiter=st.sampled_from(",;\t|"))
def test_whatever_csv_holds_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, rows, delimiter) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("rows") / "leads.csv"
    with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([["number", "a", "b"], *rows])
    try:
        found: LeadFile = examine(path)
    except LeadFileError:
        return
    assert len(list(found.records())) == found.rows


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for name in ("leads.csv", "leads.jsonl"):
        path = tmp_path_factory.mktemp("any") / name
        path.write_bytes(data)
        try:
            found = examine(path)
            assert len(list(found.records())) == found.rows
        except LeadFileError:
            pass
