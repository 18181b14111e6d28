"""Which column of a list means what. PURE.

What no column is known to mean becomes a variable of the lead, under the column's name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.campaigns.lead_lines import ERROR_COLUMNS, UNREADABLE
from appliance.config.validation import nearest
from appliance.errors import LeadFileError

MAX_VARIABLES: Final = 50
NUMBER: Final = "number"

_SYNONYMS: Final[Mapping[str, str]] = {
    NUMBER: "number phone_number phonenumber phone telephone_number telephone tel mobile_number mobile mobile_phone "
    "cell cell_phone cellphone phone_1 primary_phone msisdn e164 telefon telefonnummer rufnummer handy mobil telefono "
    "numero_de_telefono numero telephone_mobile numero_de_telephone portable cellulare",
    "reference": "reference ref external_id customer_id customer_number lead_id contact_id id kundennummer",
    "country": "country country_code land pays pais paese",
    "state": "state state_code province region us_state bundesland",
    "postcode": "postcode post_code postal_code zip zip_code zipcode plz postleitzahl code_postal codigo_postal cap",
    "zone": "zone timezone time_zone tz zeitzone",
    "consent_source": "consent_source consent_by opt_in_source",
    "consent_text": "consent_text consent_wording opt_in_text",
    "consent_at": "consent_at consent_time consent_date consented_at opt_in_at opt_in_date",
}
_TELEPHONE: Final = frozenset(
    ("phone", "telephone", "mobile", "tel", "cell", "msisdn", "telefon", "handy", "telefono", "portable")
)
"""Words in a column's name that tell of a telephone number, where no name says so as a whole."""
TARGETS: Final = tuple(_SYNONYMS)
"""What a column can mean, beside a variable."""
_NOT_A_LETTER: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Columns:
    """What the columns of a list mean.

    Attributes:
        of: what a column can mean (:data:`TARGETS`) to the column's name.
        variables: name of a variable to the column's name.
        guessed: what of these the operator has not said.
        notes: what an operator should know: a column that might have been meant, too.
    """

    of: Mapping[str, str]
    variables: Mapping[str, str]
    guessed: frozenset[str] = frozenset()
    notes: tuple[str, ...] = field(default=())

    def told(self) -> Iterator[tuple[str, str, bool]]:
        """(meaning, column, whether it was guessed) each, variables as ``lead.NAME``."""
        for target, column in self.of.items():
            yield target, column, target in self.guessed
        for name, column in self.variables.items():
            yield f"lead.{name}", column, name in self.guessed


def columns_of(header: Sequence[str], said: Sequence[str] = (), *, only_said: bool = False) -> Columns:
    """What the columns mean.

    Args:
        header: the columns' names.
        said: ``MEANING=COLUMN`` each, or several with commas between; a meaning that is none of :data:`TARGETS` is the
            name of a variable.
        only_said: leave out all other columns.

    Raises:
        LeadFileError: a column is not there or used twice, no column holds the number, or there are too many.
    """
    given = _given(header, said)
    columns: dict[str, str] = {}
    variables: dict[str, str] = {}
    for meaning, column in given.items():
        if meaning in TARGETS:
            columns[meaning] = column
        else:
            variables[_unused(variable_name(meaning), variables)] = column
    left = [name for name in header if name not in given.values() and name not in (*ERROR_COLUMNS, UNREADABLE)]
    guessed: set[str] = set()
    notes: list[str] = []
    if not only_said:
        _guess(left, columns, guessed, notes)
        for column in left:
            name = _unused(variable_name(column), variables)
            variables[name] = column
            guessed.add(name)
    if NUMBER not in columns:
        shown = ", ".join(header[:20])
        raise LeadFileError(f"no column holds the telephone number; write --map number=COLUMN with one of: {shown}")
    if len(variables) > MAX_VARIABLES:
        what = f"{len(variables)} columns would become variables of a lead, {MAX_VARIABLES} may"
        raise LeadFileError(f"{what}; name those that are needed with --map, and leave out the others with --only-map")
    return Columns(columns, variables, frozenset(guessed), tuple(notes))


def variable_name(column: str) -> str:
    """``First Name`` as ``first_name``: small letters, digits and _, a letter first, 64 at most."""
    plain = unicodedata.normalize("NFKD", column.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    name = _NOT_A_LETTER.sub("_", plain).strip("_")
    if not name[:1].isalpha():
        name = f"column_{name}".rstrip("_")
    return name[:60]


def _guess(left: list[str], columns: dict[str, str], guessed: set[str], notes: list[str]) -> None:
    """Finds columns by their names, and takes them out of ``left``."""
    for target, words in _SYNONYMS.items():
        if target in columns:
            continue
        ranks = {word: rank for rank, word in enumerate(words.split())}
        fitting = sorted((ranks[name], column) for column in left if (name := variable_name(column)) in ranks)
        if not fitting and target == NUMBER:
            fitting = [(0, column) for column in left if _TELEPHONE & set(variable_name(column).split("_"))]
        if not fitting:
            continue
        column = fitting[0][1]
        columns[target] = column
        guessed.add(target)
        left.remove(column)
        if target == NUMBER and len(fitting) > 1:
            others = ", ".join(repr(other) for _, other in fitting[1:])
            notes.append(f"the number is taken from {column!r}, not from {others}; --map number=COLUMN names another")


def _given(header: Sequence[str], said: Sequence[str]) -> dict[str, str]:
    known = {_folded(name): name for name in header}
    given: dict[str, str] = {}
    for meaning, wanted in _assignments(said, known):
        column = known.get(_folded(wanted))
        if column is None:
            raise LeadFileError(f"--map {meaning}={wanted}: there is no such column; {nearest(wanted, header)}")
        if meaning in given:
            raise LeadFileError(f"--map {meaning} is given twice; keep one")
        if column in given.values():
            raise LeadFileError(f"--map {meaning}={wanted}: the column is already used; keep one")
        given[meaning] = column
    return given


def _assignments(said: Sequence[str], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for text in said:
        parts: list[str] = []
        for part in text.split(","):
            # The comma may be one of a column's name.
            if "=" in part and (
                not parts or _folded(parts[-1].partition("=")[2]) in known or "=" in part.split(" ")[0]
            ):
                parts.append(part)
            elif parts:
                parts[-1] += f",{part}"
            else:
                parts.append(part)
        for part in parts:
            meaning, equals, column = part.partition("=")
            if not equals or not meaning.strip() or not column.strip():
                raise LeadFileError(f"--map {part!r} is not MEANING=COLUMN; write --map number=Phone,name='First Name'")
            yield meaning.strip().lower(), column.strip()


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _unused(name: str, taken: Iterable[str]) -> str:
    unique, copy = name, 2
    while unique in taken or unique in TARGETS:
        unique, copy = f"{name}_{copy}", copy + 1
    return unique
