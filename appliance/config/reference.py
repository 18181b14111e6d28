"""``docs/configuration.md``, made of the schema and of what carriers take.

``python -m appliance.cli.reference`` writes it: that knows the carriers.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from appliance.config.settings import Settings, Store
from appliance.config.shipped import shipped_dir
from appliance.config.trunks import CarrierTrunk
from appliance.config.validation import flatten

_INTRODUCTION = """\
# Configuration

<!-- Made by `python -m appliance.cli.reference` of the schema in appliance/config/ and the carriers'; edit those. -->

`appliance serve -c appliance.yaml` reads one file. Without `-c` the box runs on loopback with the defaults below and
the shipped dialplans. `--set KEY=VALUE` overrides any key, with the value in YAML: `--set listen.sip.0.port=5070`,
`--set 'trunks.pbx={kind: sip, allow: [10.0.0.2]}'`. List items count from 0; the number after the last adds one.

`appliance check -c appliance.yaml` prints every mistake in it, in its secrets and in the dialplans, each as
`file:line: key: what is wrong; what would be right`, and exits with 1 if there is one. `appliance schema config`
prints a JSON Schema of it for editors; see [dialplans.md](dialplans.md#in-an-editor).

```yaml
listen:
  sip: [{transport: udp, host: 0.0.0.0, port: 5060}]
  rtp_host: 0.0.0.0
  advertised: 192.0.2.10
trunks:
  office-pbx: {kind: sip, allow: [10.0.0.2], codecs: [pcma, pcmu]}
dialplans: {paths: [dialplans]}
```

**Values.** Words such as `yes`, `no` and `on` stay words, `12:30` stays a time and `+49301234` and `0301234` stay
telephone numbers; only `true` and `false` are yes and no. A key given twice is a mistake.

**Secrets.** `!secret NAME` takes a value from the environment variable `APPLIANCE_SECRET_NAME` (the name in capitals)
or from `secrets.yaml` beside the configuration, which holds `NAME: value` lines. No log and no message shows them.

**Paths.** Files and folders named in the file (dialplans, plugins, `hold_music`, `cert`, `key`, `ca`) are sought beside
the file, those of `--set` in the directory the box is started in. What the box writes (`state_dir` and all
below it) is relative to the directory it is started in. `store.url`, `store.recordings` and `runtime_dir` follow
`state_dir` unless they are given.

**Changes** of settings take a restart. On SIGHUP (`systemctl reload appliance`) certificates, dialplans and plugins are
read again; `appliance reload` does the latter and says what has changed (see [dialplans.md](dialplans.md)).

"""


def document(
    carriers: Mapping[str, type[BaseModel]], engines: Mapping[tuple[str, str], type[BaseModel]] | None = None
) -> str:
    """The whole page.

    Args:
        carriers: the keys that a trunk of each kind has beside those of all.
        engines: the same for each (kind of engine, provider).
    """
    parts: list[str] = []
    for title, model in sections(Settings, "Top level"):
        if model is Store:
            for (kind, provider), options in (engines or {}).items():
                name = f"`engines.{kind}`, `provider: {provider}`"
                found = sections(options, name, f"engines.{kind}.")
                parts += [section(title, inner, level=3) for title, inner in found]
        parts.append(section(title, model, level=2))
        if model is CarrierTrunk:
            for options in dict.fromkeys(carriers.values()):
                kinds = ", ".join(f"`kind: {kind}`" for kind in carriers if carriers[kind] is options)
                parts += [section(name, inner, level=3) for name, inner in sections(options, f"`trunks.NAME`, {kinds}")]
    return _INTRODUCTION + "\n".join(parts)


def sections(model: type[BaseModel], title: str, prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The model and all models inside it, each once, with the dotted key it stands under."""
    yield title, model
    seen: set[type[BaseModel]] = set()
    for name, info in model.model_fields.items():
        key = f"{prefix}{info.alias or name}"
        for inner, suffix in _models(info.annotation, key):
            if inner not in seen:
                seen.add(inner)
                of_kind = getattr(inner, "KIND", "")
                yield from sections(inner, f"`{suffix}`, `kind: {of_kind}`" if of_kind else f"`{suffix}`", f"{suffix}.")


def with_keys(page: str, begin: str, models: Iterable[tuple[str, type[BaseModel]]]) -> str:
    """``page`` with all from the line ``begin`` on made anew: a section for each of ``models``, as (title, model)."""
    prose = page.partition(begin)[0].rstrip()
    keys = "\n".join(section(title, model, level=3) for title, model in models)
    return f"{prose}\n\n{begin}\n\n{keys}"


def section(title: str, model: type[BaseModel], *, level: int) -> str:
    """A heading, the model's docstring and the table of its keys."""
    about = (model.__doc__ or "").strip().split("\n\n", maxsplit=1)[0].replace("\n    ", " ")
    return f"{'#' * level} {title}\n\n{about}\n\n{table(model)}"


def table(model: type[BaseModel]) -> str:
    """The keys of a model as a Markdown table."""
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    meanings = _attributes(model)
    for name, info in model.model_fields.items():
        cells = (f"`{info.alias or name}`", _value(info), _default(info), info.description or meanings.get(name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring says of each key, below ``Attributes:``; the first letter in capitals."""
    _, _, listed = (model.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {9,}.*)*)", listed.split("\n\n")[0], re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text[:1].upper() + text[1:]).replace("``", "`") for name, text in found}


def _models(annotation: Any, key: str) -> Iterator[tuple[type[BaseModel], str]]:
    for item in flatten(annotation):
        arguments = [a for a in typing.get_args(item) if a is not Ellipsis]
        if isinstance(item, type) and issubclass(item, BaseModel):
            yield item, key
        elif typing.get_origin(item) is dict:
            yield from _models(arguments[1], f"{key}.NAME")
        elif typing.get_origin(item) in (tuple, list):
            yield from _models(arguments[0], f"{key}.N")


def _value(info: FieldInfo) -> str:
    words = [_type(item) for item in flatten(info.annotation) if item is not type(None)]
    bounds = []
    for limit in _limits(info):
        for kind, sign in ((Ge, "≥"), (Gt, ">"), (Le, "≤"), (Lt, "<")):
            if isinstance(limit, kind):
                bounds.append(f"{sign} {getattr(limit, kind.__name__.lower()):g}")
    return " or ".join(dict.fromkeys(words)) + (f", {', '.join(bounds)}" if bounds else "")


def _limits(info: FieldInfo) -> Iterator[Any]:
    for item in info.metadata:
        yield from item.metadata if isinstance(item, FieldInfo) else (item,)


def _type(item: Any) -> str:
    origin, arguments = typing.get_origin(item), [a for a in typing.get_args(item) if a is not Ellipsis]
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin in (tuple, list):
        return f"list of {' or '.join(dict.fromkeys(_type(inner) for inner in flatten(arguments[0])))}"
    if origin is dict:
        values = " or ".join(dict.fromkeys(_type(inner) for inner in flatten(arguments[1])))
        return "mapping" if values == "anything" else f"mapping of {values}"
    if isinstance(item, type) and issubclass(item, BaseModel):
        return "mapping"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path", Any: "anything"}
    return names.get(item) or ("secret" if item is SecretStr else "network")


def _default(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True, validated_data={})
    if info.is_required() or default is PydanticUndefined:
        return "required"
    return _shown(default)


def _shown(value: Any) -> str:
    if value is None or value in ((), {}, ""):
        return ""
    if isinstance(value, BaseModel):
        required = [name for name, info in type(value).model_fields.items() if info.is_required()]
        return ", ".join(_shown(getattr(value, name)) for name in required)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(filter(None, map(_shown, value)))
    if isinstance(value, dict):
        return ", ".join(f"`{key}`" for key in value)
    if isinstance(value, Path) and value.is_absolute():
        return f"the shipped `{value.name}/`" if value == shipped_dir(value.name) else f"`{value}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
