"""Bar 6 of the sixth part: 100,000 rows imported by the command, bad ones among them, and files that are no lists.

The command runs as an operator runs it, in a process of its own; what it takes is what the kernel says of that
process. Every bad row is known, so each must be found once in the file of errors, and under its own line.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.cli.box import HOST, Box
from tests.bench.report import Bar, percentiles
from tests.store.clusters import running_cluster

LIMIT_S = 60.0
LIMIT_MIB = 300.0
ANSWER_S = 0.1
TOKEN = "a-token-of-the-box-for-benchmarks"
GIB = 1024**3

_BOX = """\
trunks:
  carrier: {kind: sip, proxy: "sip:127.0.0.1:5099", allow_prefixes: ["*"], region: US, caller_ids: "+12025550100"}
"""
_CAMPAIGN = """\
name: recall
line: reception
trunk: carrier
caller_ids: "+12025550100"
owner: Acme Plumbing
region: US
"""
_HEADER = ["id", "Phone", "First Name", "State", "Consent source", "Consent text", "Consent at", "Notes"]
_PLACES = [("212", "NY"), ("305", "FL"), ("713", "TX"), ("213", "CA"), ("615", "TN"), ("602", "AZ"), ("312", "IL")]
_NAMES = ["Zoë", "Jürgen", "María José", "O'Brien", "Łukasz", "Anne-Sophie", "李"]


@dataclass
class Ran:
    """What a command took and said."""

    code: int
    out: str
    err: str
    took_s: float
    peak_mib: float
    processor_s: float


def command(folder: Path, *words: str) -> Ran:
    """Run ``appliance campaign``."""
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "appliance.cli.main", "campaign", *words, "-c", "appliance.yaml"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=out,
            stderr=err,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took_s = time.monotonic() - begun
        used_s = usage.ru_utime + usage.ru_stime
        out.seek(0)
        err.seek(0)
        return Ran(process.returncode, out.read(), err.read(), took_s, usage.ru_maxrss / 1024, used_s)


def write_list(path: Path, rows: int, seed: int) -> dict[int, str]:
    """A list of which one row in twenty is bad; line to the kind of what is wrong there."""
    chance = random.Random(seed)
    wrong: dict[int, str] = {}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_HEADER)
        previous = ""
        for index in range(rows):
            code, state = _PLACES[index % len(_PLACES)]
            serial = index // len(_PLACES)
            number = f"({code}) {200 + serial // 10_000:03}-{serial % 10_000:04}"
            name = chance.choice(_NAMES)
            row = [str(index), number, name, state, "web form", "I agree to be called", "2026-03-01T14:30:00Z"]
            row.append('says "hi", often' if index % 3 else "")
            line = index + 2
            if index % 20 == 7:
                kind = ("number", "zone", "consent", "columns", "columns", "value", "duplicate")[index // 20 % 7]
                wrong[line] = kind
                match kind:
                    case "number":
                        row[1] = chance.choice(["", "none", "555-1234", "1.20256E+10", "+1 900 555 0100"])
                    case "zone":
                        row[3] = "Atlantis"
                    case "consent":
                        row[6] = ""
                    case "value":
                        row[2] = "x" * 3000
                    case "duplicate":
                        row[1] = previous
                    case _ if index // 20 % 7 == 3:
                        row = row[:4]
                    case _:
                        file.write(f'{index},{number},"broken" quotes,{state},a,b,2026-03-01,\r\n')
                        continue
            else:
                previous = number
            writer.writerow(row)
    return wrong


def errors_of(path: Path) -> list[int]:
    """The lines that a file of errors names."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [int(row["error_line"]) for row in csv.DictReader(file)]


def measure_import(bar: Bar, folder: Path, rows: int, seed: int) -> None:
    """A list with bad rows: time, memory, and each bad row told once; then again, which changes nothing."""
    wrong = write_list(folder / "leads.csv", rows, seed)
    made = command(folder, "create", "recall.yaml")
    bar.require(made.code == 0, f"the campaign is made: {made.err.strip()}")
    size = (folder / "leads.csv").stat().st_size / 1e6
    for again in (False, True):
        ran = command(folder, "import", "recall", "leads.csv", "--json")
        found: dict[str, Any] = json.loads(ran.out) if ran.out else {"imported": 0, "already": 0, "errors_by_kind": {}}
        told = errors_of(Path(folder, found["error_file"])) if found.get("error_file") else []
        what = "again" if again else "first"
        bar.figure(
            f"{what}: {rows:,} rows ({size:.1f} MB) in {ran.took_s:.1f} s ({ran.processor_s:.1f} s of a processor) "
            f"with {ran.peak_mib:.0f} MiB, "
            f"{found['imported']:,} imported, {found['already']:,} there before, {len(told):,} wrong"
        )
        bar.require(ran.took_s <= LIMIT_S, f"{LIMIT_S:.0f} s ({ran.took_s:.1f})")
        bar.require(ran.peak_mib <= LIMIT_MIB, f"{LIMIT_MIB:.0f} MiB ({ran.peak_mib:.0f})")
        new = (0, rows - len(wrong)) if again else (rows - len(wrong), 0)
        bar.require((found["imported"], found["already"]) == new, "every right row is a lead, once")
        bar.require(sorted(told) == sorted(wrong), f"every bad row is told once ({len(told):,} of {len(wrong):,})")
        kinds = {kind: list(wrong.values()).count(kind) for kind in set(wrong.values())}
        bar.require(found["errors_by_kind"] == kinds, f"by its kind: {found['errors_by_kind']}, not {kinds}")
    ran = command(folder, "import", "recall", "leads.csv", "--json", "--dry-run")
    bar.note(f"dry run: {ran.took_s:.1f} s, {ran.peak_mib:.0f} MiB")


def measure_refusals(bar: Bar, folder: Path, huge: int) -> None:
    """Files that are refused: none leaves a lead, each is told in a sentence, and none takes memory."""
    right = "number,name\n" + "".join(f"+1212555{index:04},name\n" for index in range(5000))
    latin = right.encode() + "+12125559999,Zoë\n".encode("cp1252")
    objects = "".join(f'{{"number": "+1212555{index:04}"}}\n' for index in range(5000))
    files: list[tuple[str, bytes | int, list[str], str]] = [
        ("quote.csv", (right + '+12125559999,"a').encode(), [], "a quote that is opened here is never closed"),
        ("row.csv", (right + "+1212555").encode(), [], "breaks off in the middle of a row"),
        ("object.jsonl", (objects + '{"number": "+12').encode(), [], "breaks off in the middle of an object"),
        ("latin.csv", latin, ["--encoding", "utf-8"], "is not utf-8, as was promised"),
        ("packed.csv", gzip.compress(right.encode()), [], "is compressed"),
        ("columns.csv", b",".join(b"c%d" % one for one in range(10_000)) + b"\n", [], "has 10,000 columns"),
        ("field.csv", huge, [], "longer than"),
        ("quoted.csv", -huge, [], "longer than"),
        ("field.jsonl", huge, [], "longer than"),
    ]
    command(folder, "delete", "recall")
    command(folder, "create", "recall.yaml")
    worst = 0.0
    for name, data, options, said in files:
        path = folder / name
        _write(path, data)
        ran = command(folder, "import", "recall", name, *options)
        path.unlink()
        worst = max(worst, ran.peak_mib)
        bar.note(f"{name}: {ran.took_s:.1f} s, {ran.peak_mib:.0f} MiB: {ran.err.strip()[:150]}")
        bar.require(ran.code == 2 and said in ran.err, f"{name} is refused with {said!r}")
        bar.require(ran.peak_mib <= LIMIT_MIB, f"{name} in {LIMIT_MIB:.0f} MiB ({ran.peak_mib:.0f})")
    status = json.loads(command(folder, "status", "recall", "--json").out)
    bar.require(status["leads"] == 0, "nothing of a refused file is kept")
    bar.figure(f"{len(files)} files refused, one field of {huge / GIB:g} GiB among them, with {worst:.0f} MiB at most")


def _write(path: Path, data: bytes | int) -> None:
    """``data``, or that many bytes of one field, in quotes and with line breaks where it is negative."""
    with path.open("wb") as file:
        if isinstance(data, bytes):
            file.write(data)
            return
        json_lines = path.suffix == ".jsonl"
        file.write(b'{"number": "+12125551234", "name": "' if json_lines else b"number,name\n+12125551234,")
        chunk = (b"x" * 79 + b"\n" if data < 0 else b"x" * 80) * 13_107
        file.write(b'"' if data < 0 else b"")
        for _ in range(abs(data) // len(chunk)):
            file.write(chunk)


def measure_over_http(bar: Bar, folder: Path, rows: int, seed: int) -> None:
    """The same list over HTTP, and what is made of it; how long control takes to answer meanwhile."""
    write_list(folder / "leads.csv", rows, seed)
    plans = folder / "dialplans"
    plans.mkdir()
    (plans / "recall.yaml").write_text("{name: reception, greeting: Hello., flow: {bye: {hang_up: Goodbye.}}}")
    trunk = {"kind": "sip", "proxy": "sip:127.0.0.1:5099", "allow_prefixes": ["+1"], "caller_ids": ["+12025550100"]}
    settings = {"trunks": {"carrier": trunk}, "api.tokens": [TOKEN], "dialplans.paths": [str(plans)]}
    with Box(folder / "box", settings) as box:
        api = f"http://{HOST}:{box.http_port}/api/v1/campaigns"

        def ask(method: str, url: str, body: bytes | None = None) -> bytes:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/csv"}
            request = urllib.request.Request(url, data=body, method=method, headers=headers)
            with urllib.request.urlopen(request, timeout=600) as answer:
                found: bytes = answer.read()
            return found

        ask("POST", api, (folder / "recall.yaml").read_bytes())
        quiet_s = _answers(box, lambda: time.sleep(5))
        bar.note(f"control answers, with nothing to do: {percentiles(quiet_s)}")
        for what, work in (
            ("import", lambda: ask("POST", f"{api}/recall/leads", (folder / "leads.csv").read_bytes())),
            ("check", lambda: ask("GET", f"{api}/recall/check")),
            ("export", lambda: ask("GET", f"{api}/recall/export")),
        ):
            begun = time.monotonic()
            answers_s = _answers(box, work)
            took_s = time.monotonic() - begun
            bar.figure(f"{what} over HTTP in {took_s:.1f} s, control answers meanwhile {percentiles(answers_s)}")
            bar.require(sorted(answers_s)[int(len(answers_s) * 0.99)] <= ANSWER_S, f"p99 of {ANSWER_S * 1e3:.0f} ms")


def _answers(box: Box, work: Callable[[], object]) -> list[float]:
    """How long control takes to give a sign of life, every few milliseconds while ``work`` is done."""
    over = threading.Event()
    found: list[float] = []

    def ask() -> None:
        connection = http.client.HTTPConnection(HOST, box.http_port, timeout=60)
        while not over.wait(0.005):
            begun = time.perf_counter()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            found.append(time.perf_counter() - begun)
        connection.close()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        work()
    finally:
        over.set()
        asking.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--huge", type=int, default=GIB, help="bytes of the one huge field")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true", help="into PostgreSQL instead of SQLite")
    parser.add_argument("--http", action="store_true", help="over HTTP, and how long control takes to answer meanwhile")
    args = parser.parse_args()
    bar = Bar("6.6", f"lists of leads into {'PostgreSQL' if args.postgres else 'SQLite'}")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as servers:
        folder = Path(name)
        store = f'store: {{url: "{servers.enter_context(running_cluster()).url}"}}\n' if args.postgres else ""
        (folder / "appliance.yaml").write_text(_BOX + store)
        (folder / "recall.yaml").write_text(_CAMPAIGN)
        if args.http:
            measure_over_http(bar, folder, args.rows, args.seed)
        else:
            measure_import(bar, folder, args.rows, args.seed)
            measure_refusals(bar, folder, args.huge)
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
