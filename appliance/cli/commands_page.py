"""``docs/commands.md``, made of the command line's parsers: ``python -m appliance.cli.commands_page`` writes it."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance.cli.main import COMMANDS

PAGE: Final = Path(__file__).parents[2] / "docs" / "commands.md"

_INTRODUCTION: Final = """\
# Commands

<!-- Made by `python -m appliance.cli.commands_page` of the parsers in appliance/cli/; edit those. -->

Exit status: 0 is success, 1 the answer "no" (a check that failed, say), 2 a problem that a message explains.
"""


def parsers() -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser, str]]:
    """(words, parser, summary) of every command and of every action of one."""
    root = argparse.ArgumentParser(prog="appliance")
    commands = root.add_subparsers()
    for name, summary in COMMANDS.items():
        importlib.import_module(f"appliance.cli.{_module(name)}").add_parser(commands)
        made = commands.choices[name]
        yield (name,), made, summary
        for action in made._actions:
            if isinstance(action, argparse._SubParsersAction):
                helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
                for inner, parser in action.choices.items():
                    yield (name, inner), parser, helps.get(inner, "")


def command_names() -> list[tuple[str, ...]]:
    """The words of every command that can be given: those with actions only with one of them."""
    found = [words for words, _, _ in parsers()]
    groups = {words[0] for words in found if len(words) == 2}
    return [words for words in found if len(words) == 2 or words[0] not in groups]


def document() -> str:
    """The whole page in Markdown."""
    parts = [_INTRODUCTION]
    for words, parser, summary in parsers():
        level = "#" * (len(words) + 1)
        about = _plain(parser.description or summary)
        parts.append(f"{level} `appliance {' '.join(words)}`\n\n{about}\n{_table(parser)}{_plain(parser.epilog or '')}")
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _table(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        if action.option_strings and action.nargs != 0:
            name += f" {action.metavar or action.dest.upper()}"
        text = _plain(parser._get_formatter()._expand_help(action) if action.help else "")
        rows.append(f"| `{name}` | {text} |".replace(str(Path.home()), "~"))
    return "\n| argument | meaning |\n| --- | --- |\n" + "\n".join(rows) + "\n\n" if rows else ""


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("``", "`")).strip()


def _module(command: str) -> str:
    return command.replace("-", "_")


def main() -> int:
    PAGE.write_text(document(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
