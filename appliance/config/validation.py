"""From plain data to a frozen pydantic model, every mistake reported at its line and in the operator's words."""

from __future__ import annotations

import copy
import difflib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from appliance.config.marks import Document, Path
from appliance.errors import Mistake

M = TypeVar("M", bound=BaseModel)

_PASSES = 20
_RENAMED: Final = {"fallback": "on_engine_failure"}
"""Keys of files that were written for earlier versions, and what they are called now, where there is such a key."""


class Section(BaseModel):
    """Base of everything an operator writes: frozen, no unknown keys, bare numbers welcome where text is wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, hide_input_in_errors=True)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # Nobody changes a section, so all can share one that stands as a default; ten thousand copies take a second.
        return self


ITEM: Final = "item"
"""The short form of a list: one item of it, alone."""

F = TypeVar("F", bound=Callable[..., Any])


def short_form(*forms: Mapping[str, Any] | Literal["item"]) -> Callable[[F], F]:
    """Say of a validator that runs before the others what it takes beside their form, as JSON Schema or ``ITEM``."""

    def mark(function: F) -> F:
        _SHORT_FORMS[function] = forms
        return function

    return mark


def short_forms(function: Callable[..., Any]) -> tuple[Mapping[str, Any] | Literal["item"], ...]:
    """What :func:`short_form` has said of ``function``; of a bound method, of its function."""
    return _SHORT_FORMS.get(getattr(function, "__func__", function), ())


_SHORT_FORMS: dict[Callable[..., Any], tuple[Mapping[str, Any] | Literal["item"], ...]] = {}


@dataclass(frozen=True)
class Checked(Generic[M]):
    """``value`` is what could be made of the data, the wrong parts left at their defaults (None: nothing could).

    ``broken`` holds the paths that were left out because they were wrong.
    """

    value: M | None
    mistakes: tuple[Mistake, ...]
    broken: frozenset[Path]


def fault(what: str, hint: str = "") -> PydanticCustomError:
    """The exception a validator raises: what is wrong, and what would be right."""
    return PydanticCustomError("appliance", "{what}", {"what": what, "hint": hint})


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint: ``did you mean 'port'?``, or the list of what exists."""
    names = list(known)
    if (now := _RENAMED.get(word)) in names:
        return f"it is called {now!r} now"
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.66)
    if close:
        return f"did you mean {lower[close[0]]!r}?"
    if not names:
        return ""
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"known: {shown}"


def validate(model: type[M], document: Document, root: Path = ()) -> Checked[M]:
    """Make a ``model`` of the document's data at ``root``.

    The data are validated, what is wrong is reported and left out, and the rest is validated again, so that checks
    that need the whole can still run beside the mistakes found.
    """
    data = copy.deepcopy(look_up(document.data, root))
    mistakes: list[Mistake] = []
    broken: set[Path] = set()
    for number in range(_PASSES):
        try:
            return Checked(model.model_validate(data), tuple(mistakes), frozenset(broken))
        except ValidationError as error:
            gone: list[Path] = []
            details = error.errors(include_url=False)
            for detail in details:
                if detail["type"] == "too_short" and _has_deeper(details, detail["loc"]):
                    continue  # the items were there; each is reported by itself
                path, rest = _locate(data, detail["loc"])
                missing = detail["type"] == "missing"
                emptied = number > 0 and _is_empty(data, path) and not _is_empty(document.data, (*root, *path))
                if (number == 0 or not missing) and not emptied:  # else it was whole but for what was left out
                    what, hint = _explain(detail, model)
                    shown = (*root, *path, *rest[-1:]) if missing else (*root, *path)
                    mistakes.append(document.mistake(shown, what, hint))
                if detail["type"] != "extra_forbidden":
                    broken.add((*root, *path))
                gone.append(path)
            removed = [_remove(data, path) for path in gone]
            if not all(removed):
                break
    return Checked(None, tuple(mistakes), frozenset(broken))


def options_problems(
    model: type[BaseModel], options: Mapping[str, Any], *, also_known: Iterable[str] = ()
) -> list[tuple[Path, str, str]]:
    """What is wrong with the options of a plugin: (path, what, what would be right) each; empty if nothing is.

    Args:
        model: what the plugin takes.
        options: as they were written.
        also_known: keys that stand beside the options, for hints about unknown ones.
    """
    data = dict(options)
    try:
        model.model_validate(data)
    except ValidationError as error:
        return [_problem(detail, model, data, list(also_known)) for detail in error.errors(include_url=False)]
    return []


def _problem(
    detail: ErrorDetails, model: type[BaseModel], data: dict[str, Any], also_known: list[str]
) -> tuple[Path, str, str]:
    path, rest = _locate(data, detail["loc"])
    if detail["type"] == "missing":
        path = (*path, *rest[-1:])
    if _is_secret(model, detail["loc"]):
        detail["input"] = SecretStr("")
    if detail["type"] == "extra_forbidden" and len(path) == 1:
        return path, "unknown key", nearest(str(path[-1]), [*_keys_at(model, ()), *also_known])
    if detail["type"] == "value_error":
        what, _, hint = str(detail["ctx"]["error"]).partition("; ")
        return path, what, hint
    if detail["type"] == "string_pattern_mismatch":
        return path, f"{_shown(detail['input'])} is not written as {detail['ctx']['pattern']}", ""
    return path, *_explain(detail, model)


def _is_secret(model: type[BaseModel], loc: tuple[int | str, ...]) -> bool:
    """Whether what stands at ``loc`` may not be shown, for it is one, or holds one."""
    found: list[Any] = [model]
    for part in loc:
        found = [inner for item in found for inner in _inside(item, part)]
        if SecretStr in found:
            return True
    return False


def _is_empty(data: Any, path: Path) -> bool:
    """Whether a mapping at ``path`` holds nothing."""
    try:
        return bool(look_up(data, path) == {})
    except (KeyError, IndexError, TypeError):
        return False


def _has_deeper(details: list[ErrorDetails], loc: tuple[int | str, ...]) -> bool:
    return any(len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in details)


def look_up(data: Any, path: Path) -> Any:
    """The value at ``path``, which must exist."""
    for part in path:
        data = data[part]
    return data


def _locate(data: Any, loc: tuple[int | str, ...]) -> tuple[Path, tuple[int | str, ...]]:
    """``loc`` as a path into the data as written, and what of it is not there.

    Pydantic's locations also name union tags (written ``<ask>`` here), keys that are missing, and items that a
    validator took out of a plain list.
    """
    path: list[str | int] = []
    for index, part in enumerate(loc):
        in_mapping = isinstance(data, dict) and part in data
        in_list = isinstance(data, list) and isinstance(part, int) and 0 <= part < len(data)
        if in_mapping or in_list:
            path.append(part)
            data = data[part]
        elif isinstance(data, list) and part in data:
            path.append(data.index(part))
            data = part
        elif isinstance(part, str) and part.startswith("<"):
            continue
        elif not isinstance(data, dict | list):
            return tuple(path), loc[index:]
    gone = loc[-1:] if loc and (not path or path[-1] != loc[-1]) else ()
    return tuple(path), gone


def locate(data: Any, loc: Path) -> Path:
    """``loc``, a path into the validated model, as a path into the data it was made of."""
    return _locate(data, loc)[0]


def _remove(data: Any, path: Path) -> bool:
    """Take out the innermost mapping entry that holds ``path``; False if the whole of the data is wrong."""
    for length in range(len(path), 0, -1):
        try:
            parent = look_up(data, path[: length - 1])
        except (KeyError, IndexError, TypeError):
            return True
        if isinstance(parent, dict):
            parent.pop(path[length - 1], None)
            return True
    return False


_WANTED = {
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "model_attributes_type": "must be a mapping (key: value)",
    "path_type": "must be a path",
}


def _explain(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "appliance":
        return str(context["what"]), str(context["hint"])
    if kind == "missing":
        return "is missing", _how_to_add(model, detail["loc"])
    if kind == "extra_forbidden":
        return "unknown key", nearest(str(detail["loc"][-1]), _keys_at(model, detail["loc"][:-1]))
    if kind in _WANTED:
        if isinstance(value, dict) and _WANTED[kind] == "must be a list":
            return "must be a list, not a mapping", "begin each entry with '- '"
        if value is None:
            return "has no value", f"it {_WANTED[kind]}; give it one or remove the key"
        return f"{_WANTED[kind]}, not {_shown(value)}", ""
    if kind in ("literal_error", "enum"):
        named = (item.strip("'") for item in str(context["expected"]).replace(" or ", ", ").split(", "))
        allowed = [name for name in named if name]
        hint = nearest(value, allowed) if isinstance(value, str) and len(allowed) > 1 else ""
        one_of = "one of " if len(allowed) > 1 else ""
        return f"must be {one_of}{', '.join(allowed)}, not {_shown(value)}", hint if "did you" in hint else ""
    for name, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if name in context and kind.startswith(("greater", "less")):
            return f"must be {words} {context[name]:g}, not {_shown(value)}", ""
    if kind in ("too_short", "string_too_short"):
        return "must not be empty", ""
    if kind in ("too_long", "string_too_long"):
        return "is too long", f"use at most {context.get('max_length')}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(value)} is not a name", "use letters, digits, - and _"
    return detail["msg"], ""


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "a secret"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _how_to_add(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """A key that is missing, and how it could be written where the schema has examples of that."""
    for inner in _models_at(model, loc[:-1]):
        info = inner.model_fields.get(str(loc[-1]))
        if info is not None and info.examples:
            return f"add one, such as {' or '.join(map(str, info.examples))}"
    return f"add '{loc[-1]}:'"


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at ``loc`` of ``model``."""
    keys: dict[str, None] = {}
    for inner in _models_at(model, loc):
        keys |= dict.fromkeys(field.alias or name for name, field in inner.model_fields.items())
    return list(keys)


def _models_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models that may stand at ``loc`` of ``model``."""
    found: list[Any] = [model]
    for part in loc:
        if isinstance(part, str) and part.startswith("<"):
            found = [item for item in found if getattr(item, "tag", None) == part]
            continue
        found = [inner for item in found for inner in _inside(item, part)]
    return [item for item in found if isinstance(item, type) and issubclass(item, BaseModel)]


def _inside(annotation: Any, part: int | str) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = [field for name, field in annotation.model_fields.items() if part == (field.alias or name)]
        return [inner for field in fields for inner in flatten(field.annotation)]
    if typing.get_origin(annotation) in (dict, list, tuple):
        arguments = [item for item in typing.get_args(annotation) if item is not Ellipsis]
        return flatten(arguments[-1]) if arguments else []
    return []


def flatten(annotation: Any) -> list[Any]:
    """The members of a union, with Annotated taken off; a list of one for anything else."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return flatten(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [inner for item in typing.get_args(annotation) for inner in flatten(item)]
    return [annotation]
