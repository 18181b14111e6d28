"""Writes ``docs/sip.md`` from a run of the interop tests: ``python -m tests.interop.table``.

A line is claimed where every test that says it proves it ran and passed. What was skipped, failed or has no test
stands there as just that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from tests.bench import torture
from tests.interop.claims import CLAIMS

PAGE = Path(__file__).parents[2] / "docs" / "sip.md"
HEAD = """\
# SIP and RTP: what is proven, and by whom

Written by `python -m tests.interop.table` from a run of `tests/interop`; do not edit it. Each line was judged by a
program that is not ours: SIPp, baresip, Kamailio, OpenSSL; the torture messages are bytes on a socket.
`make test` runs all of it.
"""
NOT_RUN = "not run"


@dataclass
class Run:
    """What a test run found: outcome and claims by test, and what the daemon did with each torture message."""

    outcomes: dict[str, str] = field(default_factory=dict)
    claims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    torture: dict[str, str] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            proven = getattr(getattr(item, "obj", None), "__proves__", ())
            if proven:
                self.claims[_name(item.nodeid)] = proven

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome == "rerun":  # a second attempt follows, and counts
            return
        name = _name(report.nodeid)
        if report.when == "call" or report.outcome != "passed":
            worst = {"failed": 2, "skipped": 1, "passed": 0}
            before = self.outcomes.get(name, "passed")
            self.outcomes[name] = max(before, report.outcome, key=worst.__getitem__)
        for key, value in report.user_properties:
            if key == "torture":
                self.torture = dict(value)  # type: ignore[arg-type]


def _name(nodeid: str) -> str:
    """``test_uas.py::test_a_call`` of a test and all its parameters."""
    return nodeid.partition("[")[0].removeprefix("tests/interop/")


def page(run: Run) -> str:
    """The whole page."""
    parts = [HEAD]
    for chapter, claims in CLAIMS.items():
        parts += [f"\n## {chapter}\n\n| what | proven by |\n| --- | --- |\n", *_rows(chapter, claims, run)]
    parts += ["\n## The torture messages of RFC 4475\n\n", _TORTURE_HEAD, *_torture_rows(run.torture)]
    return "".join(parts)


_TORTURE_HEAD = """\
Sent as they lie in the corpus to the UDP socket of a running daemon (`python -m tests.bench.torture`), which answered
a plain OPTIONS after each. It is a user agent, no registrar and no proxy: a sound REGISTER gets 405.

| message | section | what the RFC asks | what the daemon does |
| --- | --- | --- | --- |
"""


def _rows(chapter: str, claims: Iterable[str], run: Run) -> Iterator[str]:
    for claim in claims:
        tests = sorted(name for name, proven in run.claims.items() if f"{chapter}: {claim}" in proven)
        yield f"| {claim} | {_verdict(tests, run.outcomes)} |\n"


def _verdict(tests: list[str], outcomes: Mapping[str, str]) -> str:
    good = [test for test in tests if outcomes.get(test) == "passed"]
    if tests and good == tests:
        return ", ".join(f"`{test}`" for test in tests)
    bad = [f"`{test}` {outcomes.get(test, NOT_RUN)}" for test in tests if test not in good]
    return f"**not proven**: {', '.join(bad)}" if bad else "**no test**"


def _torture_rows(did: Mapping[str, str]) -> Iterator[str]:
    for message in torture.MESSAGES:
        yield f"| {message.name} | {message.section} | {message.asks} | {did.get(message.name, NOT_RUN)} |\n"


def run_file(path: Path, dump: Path) -> int:
    """Run one file of tests here, and write down what came of it."""
    run = Run()
    status = pytest.main([str(path), "-p", "no:cacheprovider"], plugins=[run])
    dump.write_text(json.dumps(asdict(run)))
    return int(status)


def run_files(paths: Iterable[Path], workers: int, folder: Path) -> tuple[Run, list[str]]:
    """Run each file in a process of its own, some at a time; all that came of it, and the output of those that failed.

    Tests wait for their peers more than they compute, so a few at a time do not disturb one another.
    """
    command = [sys.executable, "-m", "tests.interop.table", "--dump"]

    def one(path: Path) -> subprocess.CompletedProcess[str]:
        words = [*command, str(folder / f"{path.stem}.json"), str(path)]
        return subprocess.run(words, capture_output=True, text=True, timeout=1200, check=False)

    everything, failed = Run(), []
    with ThreadPoolExecutor(workers) as pool:
        for path, done in zip(paths, pool.map(one, paths), strict=True):
            print(f"{path.name}: {done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr[-300:]}")
            if done.returncode != 0:
                failed.append(done.stdout[-4000:])
            dump = folder / f"{path.stem}.json"
            found = json.loads(dump.read_text()) if dump.exists() else asdict(Run())
            everything.outcomes |= found["outcomes"]
            everything.claims |= {name: tuple(claims) for name, claims in found["claims"].items()}
            everything.torture |= found["torture"]
    return everything, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="files of tests that run at a time")
    parser.add_argument("--dump", type=Path, help="run the one file named, and write what came of it there as JSON")
    parser.add_argument("files", nargs="*", type=Path)
    args = parser.parse_args()
    if args.dump:
        return run_file(args.files[0], args.dump)
    paths = sorted(path for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_table.py")
    with tempfile.TemporaryDirectory(prefix="interop-") as folder:
        run, failed = run_files(paths, args.workers, Path(folder))
    for output in failed:
        print(output)
    PAGE.write_text(page(run))
    print(f"wrote {PAGE}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
