"""``docs/plugins/hooks.md``, made of ``hookspecs.py``: ``python -m appliance.plugins.manual`` writes it."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Final

from appliance import hookspecs

PAGE: Final = Path(__file__).parents[2] / "docs" / "plugins" / "hooks.md"

_INTRODUCTION: Final = """\
# Hooks

<!-- Made by `python -m appliance.plugins.manual` of appliance/hookspecs.py; edit that. -->

"""


def document() -> str:
    """The whole page in Markdown."""
    about = inspect.getdoc(hookspecs) or ""
    _, _, about = about.partition("\n\n")
    about = re.sub(r"(?m)^(.+)\n-+$", r"## \1", about)
    parts = [_INTRODUCTION + _markdown(about)]
    for title, hooks in sections():
        parts.append(f"## {title[:1].upper()}{title[1:]}")
        parts += [_section(name) for name in hooks]
    return "\n\n".join(parts) + "\n"


def sections() -> list[tuple[str, list[str]]]:
    """(title, names of the hooks) in the manual's order."""
    found: list[tuple[str, list[str]]] = []
    for title, name in re.findall(
        r"^# --- (.*?) -+$|^def (appliance_\w+)\(", inspect.getsource(hookspecs), re.MULTILINE
    ):
        if title:
            found.append((title, []))
        else:
            found[-1][1].append(name)
    return found


def _section(name: str) -> str:
    function = getattr(hookspecs, name)
    signature = inspect.signature(function)
    arguments = ", ".join(f"{key}: {one.annotation}" for key, one in signature.parameters.items())
    heading = f"### `{name}({', '.join(signature.parameters)})`"
    code = f"```python\ndef {name}({arguments}) -> {signature.return_annotation}\n```"
    return f"{heading}\n\n{code}\n\n{_markdown(inspect.getdoc(function) or '')}"


def _markdown(text: str) -> str:
    return text.replace("``", "`").rstrip()


def main() -> int:
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(document(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
