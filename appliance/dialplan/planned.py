"""A dialplan that was read in another process: its lines are made when somebody asks for them. PURE.

Ten thousand lines are a million Python objects, and nobody calls most of them within a day. So what the other process
hands over is one run of bytes, which holds every line as it was written with all that it inherits, and what is needed
to choose among them. To take it over costs milliseconds, whatever it holds.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, overload

from pydantic import SecretStr

from appliance.config.validation import Section
from appliance.dialplan.extends import OWN_KEYS
from appliance.dialplan.match import Match
from appliance.dialplan.matcher import Lists
from appliance.dialplan.routing import RoutingIndex
from appliance.dialplan.schema import Line
from appliance.dialplan.steps import Name
from appliance.errors import Mistake

_KEPT: Final = 256
"""Lines that are kept after they were last used."""
_DIGEST: Final = 16


class Written(NamedTuple):
    """A line as it was written, with all that it inherits.

    Attributes:
        data: the whole.
        model: number of the line that says the same but for ``OWN_KEYS``; its own number where there is none.
    """

    data: Mapping[str, Any]
    model: int


class Head(Section):
    """What is different in lines that are else the same."""

    name: Name
    description: str = ""
    extends: Name | None = None
    match: Match = Match()


def head_of(data: Mapping[str, Any]) -> Head:
    """
    Raises:
        ValidationError: something is wrong in it.
    """
    return Head.model_validate({key: data[key] for key in OWN_KEYS if key in data})


def like(model: Line, head: Head) -> Line:
    """The line that is all of ``model`` but what ``head`` says."""
    line = model.model_copy(update={key: getattr(head, key) for key in OWN_KEYS})
    line.model_fields_set.difference_update(set(OWN_KEYS) - head.model_fields_set)
    return line


@dataclass(frozen=True)
class Contents:
    """What is known of a dialplan without looking at a line.

    Attributes:
        index: finds the line of a call.
        lists: the files of numbers that lines name.
        offsets: where each line begins in the bytes, and the last one ends, as an array of ``Q``.
        models: numbers of the lines that differ in more than who they answer, as an array of ``L``.
        digests: of each line, 16 bytes, the same if and only if nothing about it has changed.
        plugins: which Python plugins run on which line, encoded.
        warnings: what an operator should know.
        files: every file that was read, or looked for.
        mistakes: why there is no dialplan; then all else is empty.
        yaml: the YAML plugins in use, pickled.
    """

    index: RoutingIndex
    lists: Lists
    offsets: bytes
    models: bytes
    digests: bytes
    plugins: bytes
    warnings: tuple[Mistake, ...]
    files: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    yaml: bytes = b""


def packed(
    lines: Sequence[Line],
    written: Sequence[Written],
    *,
    lists: Lists,
    plugins: bytes = b"",
    yaml: bytes = b"",
    warnings: Sequence[Mistake] = (),
    files: Sequence[str] = (),
) -> tuple[list[bytes], Contents]:
    """A dialplan as bytes: the lines, and the rest of it."""
    blobs: list[bytes] = []
    digests: list[bytes] = []
    shared: dict[int, bytes] = {}
    for number, (data, model) in enumerate(written):
        head = {key: data[key] for key in OWN_KEYS if key in data}
        if model == number:
            shared[number] = _digest({key: value for key, value in data.items() if key not in OWN_KEYS})
        blobs.append(pickle.dumps((model, data if model == number else head), protocol=5))
        digests.append(_digest(head, shared[model]))
    offsets = array("Q", [0])
    for blob in blobs:
        offsets.append(offsets[-1] + len(blob))
    contents = Contents(
        RoutingIndex.of(lines, lists),
        lists,
        offsets.tobytes(),
        array("L", sorted(shared)).tobytes(),
        b"".join(digests),
        plugins,
        tuple(warnings),
        tuple(files),
        (),
        yaml,
    )
    return blobs, contents


def refused(mistakes: Sequence[Mistake], files: Sequence[str] = ()) -> Contents:
    """What stands in place of a dialplan that has mistakes."""
    return Contents(RoutingIndex.of((), {}), {}, b"", b"", b"", b"", (), tuple(files), tuple(mistakes))


def _digest(data: Mapping[str, Any], beside: bytes = b"") -> bytes:
    return hashlib.blake2b(json.dumps(data, default=_revealed).encode() + beside, digest_size=_DIGEST).digest()


def _revealed(value: Any) -> Any:
    """For the digest alone: a secret that has changed makes another line."""
    return {"": value.get_secret_value()} if isinstance(value, SecretStr) else str(value)


class PlannedLines(Sequence[Line]):
    """The lines of a dialplan, each made when it is asked for.

    A line stays the same object for as long as anybody has it.

    Args:
        data: what :func:`packed` made of the lines, one after the other.
        contents: what it made beside.
    """

    def __init__(self, data: bytes | memoryview, contents: Contents) -> None:
        self._data = memoryview(data)
        self._offsets = array("Q", contents.offsets)
        self._models = array("L", contents.models)
        self._digests = contents.digests
        self._names = contents.index.numbers
        self._alive: weakref.WeakValueDictionary[int, Line] = weakref.WeakValueDictionary()
        self._recent = lru_cache(maxsize=_KEPT)(self._alive.__getitem__)

    def __len__(self) -> int:
        return max(0, len(self._offsets) - 1)

    @overload
    def __getitem__(self, number: int) -> Line: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Line]: ...
    def __getitem__(self, number: int | slice) -> Line | Sequence[Line]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if number < 0:
            number += len(self)
        line = self._alive.get(number)
        if line is None:
            line = self._alive[number] = self._made(number)
        self._recent(number)
        return line

    def __iter__(self) -> Iterator[Line]:
        return (self[number] for number in range(len(self)))

    @property
    def distinct(self) -> Sequence[Line]:
        """One line of all those that differ only in who they answer."""
        return _Some(self, self._models)

    def digest(self, name: str) -> bytes:
        """What tells whether the line of that name has changed; b"" where there is none."""
        number = self._names.get(name)
        return b"" if number is None else self._digests[number * _DIGEST : (number + 1) * _DIGEST]

    def names(self) -> Iterator[str]:
        """The names of all lines, in order."""
        return iter(self._names)

    def _made(self, number: int) -> Line:
        if not 0 <= number < len(self):
            raise IndexError(number)
        model, data = pickle.loads(self._data[self._offsets[number] : self._offsets[number + 1]])
        return Line.model_validate(data) if model == number else like(self[model], head_of(data))


class _Some(Sequence[Line]):
    def __init__(self, lines: PlannedLines, numbers: Sequence[int]) -> None:
        self._lines = lines
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Line: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Line]: ...
    def __getitem__(self, at: int | slice) -> Line | Sequence[Line]:
        return _Some(self._lines, self._numbers[at]) if isinstance(at, slice) else self._lines[self._numbers[at]]
