"""Reading a campaign's definition: every mistake at once, each at its line."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from appliance.campaigns.definition import Definition
from appliance.config import Settings
from appliance.config.egress import address_mistakes
from appliance.config.load import SecretSource, read_document
from appliance.config.marks import Document, dotted, parse
from appliance.config.validation import nearest, validate
from appliance.errors import ConfigError, Mistake

FIXED_KEYS: Final = ("name", "region", "dnc")
"""What cannot be changed once leads have been read by it."""


def read_definition(path: Path, *, secrets: SecretSource | None = None) -> Definition:
    """The definition in a file.

    Args:
        path: YAML; one mapping.
        secrets: where the secrets that it names must be; None does not look.

    Raises:
        ConfigError: with every mistake.
    """
    return _made(read_document(path, secrets=_names_of(secrets), secret_at=_is_secret))


def parsed_definition(text: str, source: str, *, secrets: SecretSource | None = None) -> Definition:
    """The definition in ``text``, YAML or JSON, that came from ``source``.

    Raises:
        ConfigError: with every mistake.
    """
    return _made(parse(text, source, secrets=_names_of(secrets), secret_at=_is_secret))


def definition_of(data: Any, source: str) -> Definition:
    """The definition of plain data.

    Raises:
        ConfigError: with every mistake.
    """
    return _made(Document(source, data))


def changed(definition: Definition, assignments: Sequence[str]) -> Definition:
    """The definition with ``KEY=VALUE`` each, the key dotted and the value YAML; null takes it back to its default.

    Raises:
        ConfigError: with every mistake.
    """
    data: dict[str, Any] = copy.deepcopy(definition.as_json())
    mistakes: list[Mistake] = []
    for number, assignment in enumerate(assignments, 1):
        key, equals, text = assignment.partition("=")
        value = parse(text, "change", secrets=_names_of(None), secret_at=lambda _: True)
        parts = key.strip().split(".")
        if not equals:
            mistakes.append(Mistake("change", number, key, "is not KEY=VALUE", "write pacing.max_calls=20"))
        elif value.mistakes:
            mistakes += [Mistake("change", number, key, one.what, one.hint) for one in value.mistakes]
        elif parts[0] in FIXED_KEYS:
            hint = "create another campaign"
            mistakes.append(Mistake("change", number, key, "cannot be changed: leads were read by it", hint))
        elif not _set(data, parts, value.data):
            mistakes.append(Mistake("change", number, key, "there is no such key", nearest(parts[0], data)))
    if mistakes:
        raise ConfigError(mistakes)
    return _made(Document("change", data))


def patched(definition: Definition, patch: Mapping[str, Any]) -> Definition:
    """The definition with a merge patch (RFC 7396): mappings are merged, null takes a key back to its default, all else
    takes the place of what there was. Keys may be dotted.

    Raises:
        ConfigError: with every mistake.
    """
    nested = _nested(patch)
    wrong = [
        Mistake("change", 1, key, "cannot be changed: leads were read by it", "create another campaign")
        for key in nested
        if key in FIXED_KEYS
    ]
    if wrong:
        raise ConfigError(wrong)
    return _made(Document("change", _merged(definition.as_json(), nested)))


def _nested(patch: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in patch.items():
        first, _, rest = key.partition(".")
        inner = _nested({rest: value}) if rest else _nested(value) if isinstance(value, Mapping) else value
        there = found.get(first)
        both = isinstance(there, dict) and isinstance(inner, dict)
        found[first] = _merged(there, inner, keep_null=True) if both else inner
    return found


def _merged(data: Any, patch: Mapping[str, Any], *, keep_null: bool = False) -> dict[str, Any]:
    found = dict(data) if isinstance(data, Mapping) else {}
    for key, value in patch.items():
        if value is None and not keep_null:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            found[key] = _merged(found.get(key), value, keep_null=keep_null)
        else:
            found[key] = value
    return found


def misfits(definition: Definition, settings: Settings, lines: Collection[str] | None) -> Iterator[Mistake]:
    """Where the definition does not fit the box: the line, the trunk, its caller ids.

    Args:
        definition: the campaign.
        settings: of the box.
        lines: names of its lines; None where they are not known, and not looked at.
    """
    where = f"campaign {definition.name}"

    def mistake(key: str, what: str, hint: str) -> Mistake:
        return Mistake(where, 1, key, what, hint)

    if lines is not None and definition.line not in lines:
        yield mistake("line", f"there is no line {definition.line!r}", nearest(definition.line, lines))
    trunks = settings.trunks
    if definition.trunk and definition.trunk not in trunks:
        yield mistake("trunk", f"there is no trunk {definition.trunk!r}", nearest(definition.trunk, trunks))
        return
    urls: dict[tuple[str | int, ...], str] = {("webhook", "url"): definition.webhook.url}
    for path, what, hint in address_mistakes(urls, settings.egress):
        yield mistake(dotted(path), what, hint)
    if not definition.trunk and not settings.routes:
        yield mistake("trunk", "nothing says by which trunk", "name one, or add routes to appliance.yaml")
    used = [definition.trunk] if definition.trunk else list(dict.fromkeys(n for r in settings.routes for n in r.trunks))
    for name in used:
        if not trunks[name].allow_prefixes:
            hint = f"list what it may dial under trunks.{name}.allow_prefixes"
            yield mistake("trunk", f"trunk {name!r} may dial no number", hint)
    for index, number in enumerate(definition.caller_ids):
        for name in used:
            if number not in trunks[name].caller_ids:
                hint = f"if the number is yours, list it under trunks.{name}.caller_ids"
                yield mistake(f"caller_ids.{index}", f"{number} is not a number of trunk {name!r}", hint)


def _made(document: Document) -> Definition:
    if document.mistakes:
        raise ConfigError(document.mistakes)
    if not isinstance(document.data, dict):
        raise ConfigError([document.mistake((), "is not a campaign", "begin with `name:`; see docs/campaigns.md")])
    checked = validate(Definition, document)
    if checked.mistakes or checked.value is None:
        raise ConfigError(list(checked.mistakes))
    return checked.value


def _is_secret(path: tuple[str | int, ...]) -> bool:
    return dotted(path) == "webhook.secret"


def _names_of(secrets: SecretSource | None) -> Any:
    """``!secret NAME`` gives the name itself, where there is such a secret."""

    def look_up(name: str) -> SecretStr | str:
        found = secrets(name) if secrets is not None else SecretStr(name)
        return found if isinstance(found, str) else SecretStr(name)

    return look_up


def _set(data: dict[str, Any], parts: Sequence[str], value: Any) -> bool:
    for part in parts[:-1]:
        inner = data.get(part)
        if not isinstance(inner, dict):
            return False
        data = inner
    if value is None:
        data.pop(parts[-1], None)
    else:
        data[parts[-1]] = value
    return True
