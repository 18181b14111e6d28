"""What a line inherits: ``extends`` and ``defaults``, laid one over another key by key. PURE.

A line is made of pieces, each a mapping in some file: the line itself, what it extends, what that extends, and the
defaults of its file beneath. Mistakes are reported in the piece that holds what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.config.marks import Document, Path, dotted
from appliance.config.validation import nearest
from appliance.dialplan.steps import STEP_KEYS
from appliance.errors import Mistake

OWN_KEYS: Final = ("name", "description", "match", "extends")
"""What a line keeps for itself when another extends it."""
CLOSING_KEYS: Final = ("hours", "holidays", "closed")
"""What says when a line is closed, and what it is then."""
_INSTEAD: Final = ("closed", "instead")
_MAY_BE_EMPTY: Final = "hang_up"


@dataclass(frozen=True)
class Piece:
    """A mapping in a file: a line, a base or the defaults.

    Attributes:
        document: the file.
        root: where it stands there.
        own: keys that are not passed on.
    """

    document: Document
    root: Path
    own: tuple[str, ...] = ()

    @property
    def written(self) -> Any:
        """All of it as written; anything but a mapping is a mistake."""
        data = self.document.data
        for part in self.root:
            data = data[part]
        return data

    def at(self, path: Path) -> Piece:
        """What stands in it at ``path``."""
        return Piece(self.document, (*self.root, *path))

    @property
    def passed_on(self) -> dict[str, Any]:
        """What others inherit of it."""
        written = self.written
        return {key: value for key, value in written.items() if key not in self.own} if self.own else written

    def mistake(self, path: Path, what: str, hint: str = "") -> Mistake:
        return self.document.mistake((*self.root, *path), what, hint)


@dataclass(frozen=True)
class Inherited:
    """What stands beneath a line: the keys of all that it inherits from, the nearest first."""

    data: dict[str, Any]
    pieces: tuple[Piece, ...]


class Whole(Document):
    """A line with all it inherits, to be read as if it stood so in one file."""

    def __init__(self, piece: Piece, inherited: Inherited | None) -> None:
        written = piece.written
        super().__init__(piece.document.file, laid_over(inherited.data, written) if inherited else written)
        self.written: dict[str, Any] = written
        """What the line says itself."""
        self.at_fault = False
        """Whether a mistake was found in that, and not only in what is inherited."""
        self._pieces = (piece, *inherited.pieces) if inherited else (piece,)

    def origin(self, path: Path) -> tuple[str, int]:
        """Where ``path``, or the nearest thing above it that was written, stands."""
        piece, length = self._found(path)
        return piece.document.origin((*piece.root, *path[:length]))

    def mistake(self, path: Path, what: str, hint: str = "") -> Mistake:
        """A mistake about ``path``, at its line in the piece that holds it."""
        return self.mistake_at(path, path, what, hint)

    def mistake_at(self, written: Path, path: Path, what: str, hint: str) -> Mistake:
        """A mistake about ``path``, at the line of ``written``."""
        piece, length = self._found(written)
        self.at_fault |= piece is self._pieces[0]
        file, line = piece.document.origin((*piece.root, *written[:length]))
        return Mistake(file, line, dotted((*piece.root, *path)), what, hint)

    def while_closed(self) -> Whole | None:
        """The line with its `closed.instead` laid over it; None where it has none, or one that is no mapping."""
        if not _holds(self.data, _INSTEAD) or not isinstance(self.data["closed"]["instead"], dict):
            return None
        parts = [piece.at(_INSTEAD) for piece in self._pieces if _holds(piece.written, _INSTEAD)]
        whole = Whole(parts[0], Inherited({}, (*parts[1:], *self._pieces)))
        whole.data = changed(self.data)
        return whole

    def _found(self, path: Path) -> tuple[Piece, int]:
        """The piece that ``path`` was taken from, and how much of the path there is in it."""
        for length in range(len(path), 0, -1):
            for number, piece in enumerate(self._pieces):
                held = piece.written if number == 0 else piece.passed_on
                if _holds(held, path[:length]):
                    return piece, length
        return self._pieces[0], 0


def _holds(data: Any, path: Path) -> bool:
    for part in path:
        in_list = isinstance(data, list) and isinstance(part, int) and 0 <= part < len(data)
        if not in_list and not (isinstance(data, dict) and part in data):
            return False
        data = data[part]
    return True


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any], *, steps: bool = False) -> dict[str, Any]:
    """``above`` over ``below``: mappings key by key, anything else replaced; ``null`` takes a key away.

    A step of a flow is replaced as a whole by one of another kind.

    Args:
        below, above: as written.
        steps: whether these are the steps of a flow.
    """
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        if value is None and key in result and key != _MAY_BE_EMPTY:
            del result[key]
        elif isinstance(value, dict) and isinstance(under, dict) and not (steps and _differ(under, value)):
            result[key] = laid_over(under, value, steps=key == "flow")
        else:
            result[key] = value
    return result


def changed(written: Mapping[str, Any]) -> dict[str, Any]:
    """A line as written, with its `closed.instead` laid over the rest."""
    own = [key for key in OWN_KEYS if key != "name"]
    rest = {key: value for key, value in written.items() if key not in (*own, *CLOSING_KEYS)}
    return laid_over(rest, written["closed"]["instead"])


def _differ(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    """Whether these are steps of two kinds."""
    kinds = [next((kind for kind in STEP_KEYS if kind in step), None) for step in (below, above)]
    return kinds[1] is not None and kinds[0] != kinds[1]


@dataclass
class Family:
    """Everything that can be extended, by name.

    Attributes:
        pieces: bases and lines.
        defaults: what lies beneath the lines of a file, by the document's identity.
        mistakes: what is wrong with any ``extends``, once each.
    """

    pieces: dict[str, Piece] = field(default_factory=dict)
    defaults: dict[int, Piece] = field(default_factory=dict)
    mistakes: dict[Mistake, None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _known: dict[tuple[str, int], Inherited | None] = field(default_factory=dict)

    def beneath(self, piece: Piece) -> tuple[Inherited | None, bool]:
        """What ``piece`` inherits, None for nothing; and whether all of that could be found."""
        parent = piece.written.get("extends")
        defaults = self.defaults.get(id(piece.document)) if not _is_base(piece) else None
        if parent is None and defaults is None:
            return None, True
        if parent is not None and not isinstance(parent, str | int):
            return self._above_defaults(None, defaults), False  # the line's own check says so
        key = (str(parent) if parent is not None else "", id(defaults) if defaults is not None else 0)
        if key not in self._known:
            chain = self._chain(piece) if parent is not None else []
            self._known[key] = self._above_defaults(chain, defaults)
            if chain is None:
                del self._known[key]
                return self._above_defaults(None, defaults), False
        return self._known[key], True

    def _above_defaults(self, chain: list[Piece] | None, defaults: Piece | None) -> Inherited | None:
        """The chain, and beneath it the defaults of the line's own file and of those of the lines in the chain."""
        beneath = {id(defaults): defaults} if defaults is not None else {}
        for piece in chain or ():
            other = self.defaults.get(id(piece.document))
            if other is not None and not _is_base(piece):
                beneath.setdefault(id(other), other)
        pieces = [*(chain or ()), *beneath.values()]
        data: dict[str, Any] = {}
        for piece in reversed(pieces):
            data = laid_over(data, piece.passed_on)
        return Inherited(data, tuple(pieces)) if pieces else None

    def _chain(self, piece: Piece) -> list[Piece] | None:
        """What ``piece`` extends, and what that does, the nearest first; None where there is a mistake."""
        chain: list[Piece] = []
        seen: list[str] = []
        here = piece
        while (name := here.written.get("extends")) is not None:
            name = str(name)
            following = self.pieces.get(name)
            if following is None:
                hint = nearest(name, self.pieces)
                self.mistakes[here.mistake(("extends",), f"there is no line or base {name!r}", hint)] = None
                return None
            if name in seen or following == piece:
                self._round(name)
                return None
            seen.append(name)
            self.used.add(name)
            chain.append(following)
            here = following
        return chain

    def _round(self, start: str) -> None:
        """Report the circle that ``start`` is in, at one of its members."""
        names = [start]
        while (following := str(self.pieces[names[-1]].written.get("extends"))) != start and following not in names:
            names.append(following)
        first = names.index(min(names))
        names = names[first:] + names[:first]
        what = f"{' -> '.join([*names, names[0]])} goes round"
        mistake = self.pieces[names[0]].mistake(("extends",), what, "let one of them extend nothing")
        self.mistakes[mistake] = None


def _is_base(piece: Piece) -> bool:
    return piece.root[:1] == ("bases",)
