"""PURE modules take bytes and ``now`` in and give events and bytes out: no sockets, clocks, chance or files.

What is checked is the source of each module: its imports, and its calls to functions that would open a file. The
global functions of :mod:`random` are refused too; a ``random.Random`` that somebody injects may be named as a type.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "appliance"

PURE = (
    "api/hours.py",
    "campaigns/definition.py",
    "campaigns/mix.py",
    "campaigns/outcome.py",
    "campaigns/pacing.py",
    "campaigns/plan_next.py",
    "campaigns/regions.py",
    "campaigns/retries.py",
    "campaigns/rules.py",
    "campaigns/simulate.py",
    "campaigns/windows.py",
    "sip",
    "rtp",
    "carriers",
    "audio",
    "conversation/answering.py",
    "conversation/answering_cadence.py",
    "conversation/answering_score.py",
    "conversation/answering_words.py",
    "conversation/barge_in.py",
    "conversation/budget.py",
    "conversation/cues.py",
    "conversation/endpointing.py",
    "conversation/english.py",
    "conversation/english_numbers.py",
    "conversation/english_tables.py",
    "conversation/evidence.py",
    "conversation/fillers.py",
    "conversation/history.py",
    "conversation/levels.py",
    "conversation/pauses.py",
    "conversation/manners.py",
    "conversation/spoken.py",
    "conversation/turn_actions.py",
    "conversation/turn_states.py",
    "conversation/turns.py",
    "dialplan",
    "config/egress.py",
    "engines/batcher.py",
    "engines/chat_reply.py",
    "engines/chat_request.py",
    "engines/circuit.py",
    "engines/realtime_protocol.py",
    "engines/sse.py",
    "engines/closed_list.py",
    "engines/hypotheses.py",
    "engines/realtime_transcript.py",
    "engines/whisper_tokens.py",
    "plugins/declarative/checks.py",
    "plugins/declarative/response.py",
    "plugins/declarative/schema.py",
    "plugins/declarative/tables.py",
    "plugins/declarative/templates.py",
    "plugins/declarative/webhooks.py",
)
READS_FILES = frozenset(
    [
        "dialplan/compiler.py",
        "dialplan/loader.py",
        "dialplan/number_files.py",
        "dialplan/reference.py",
    ]
)
"""The parts of pure packages that read or write files, or are a process. They wait for nothing: see NEVER_WAITS."""
NEVER_WAITS = frozenset(["aiofiles", "aiohttp", "asyncio", "concurrent", "requests", "socket", "threading", "uvloop"])
FORBIDDEN_MODULES = frozenset(
    [
        "aiofiles",
        "aiohttp",
        "asyncio",
        "concurrent",
        "http",
        "io",
        "multiprocessing",
        "os",
        "random",
        "requests",
        "secrets",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlalchemy",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
        "uvloop",
    ]
)
FORBIDDEN_NAMES_OF = {"datetime": frozenset({"now", "utcnow", "today"}), "date": frozenset({"today"})}
FILE_METHODS = frozenset(
    {"read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "touch", "iterdir"}
)


def pure_modules(root: Path) -> list[Path]:
    found: list[Path] = []
    for name in PURE:
        path = root / name
        found += [path] if path.suffix else sorted(path.rglob("*.py"))
    return [path for path in found if path.exists() and str(path.relative_to(root)) not in READS_FILES]


def imports(source: str, modules: frozenset[str]) -> list[str]:
    """Where ``source`` imports one of ``modules``, as ``line: what``."""
    found: list[str] = []

    def forbidden(module: str) -> bool:
        return module in modules or module.split(".", maxsplit=1)[0] in modules

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"{node.lineno}: import {a.name}" for a in node.names if forbidden(a.name)]
        elif isinstance(node, ast.ImportFrom):
            names = {a.name for a in node.names}
            module = node.module or ""
            allowed = module == "random" and names <= {"Random"}
            if not allowed and (forbidden(module) or any(forbidden(f"{module}.{name}") for name in names)):
                found.append(f"{node.lineno}: from {module} import {', '.join(sorted(names))}")
    return found


def impurities(source: str) -> list[str]:
    """What in ``source`` a PURE module must not have, as ``line: what``."""
    found = imports(source, FORBIDDEN_MODULES)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id="open" | "input" | "print" as name):
                    found.append(f"{node.lineno}: {name}()")
                case ast.Attribute(value=ast.Name(id=owner), attr=attr) if attr in FORBIDDEN_NAMES_OF.get(owner, ()):
                    found.append(f"{node.lineno}: {owner}.{attr}()")
                case ast.Attribute(attr=attr) if attr in FILE_METHODS:
                    found.append(f"{node.lineno}: .{attr}()")
    return found


@pytest.mark.parametrize("path", pure_modules(ROOT), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_pure_module_touches_no_clock_socket_chance_or_file(path: Path) -> None:
    assert impurities(path.read_text()) == []


@pytest.mark.parametrize("name", sorted(READS_FILES))
def test_a_module_that_reads_files_for_a_pure_package_waits_for_nothing(name: str) -> None:
    assert imports((ROOT / name).read_text(), NEVER_WAITS) == []


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio",
        "import asyncio.events",
        "from time import monotonic",
        "from random import choice",
        "import urllib.request",
        "from urllib import parse, request",
        "open('x')",
        "path.read_text()",
        "datetime.now(UTC)",
        "def f():\n    import socket",
    ],
)
def test_the_check_sees(source: str) -> None:
    assert impurities(source)


@pytest.mark.parametrize("source", ["from random import Random", "import numpy as np", "def open_(): ..."])
def test_the_check_allows(source: str) -> None:
    assert impurities(source) == []
