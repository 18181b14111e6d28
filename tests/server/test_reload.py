"""Reloading: all or nothing, one after the other, and only when there is something new to read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import reload as command
from appliance.cli.main import main
from appliance.errors import ApplianceError, ConfigError, Mistake
from appliance.ipc.channel import MAX_MESSAGE_BYTES
from appliance.ipc.messages import encode
from appliance.server.reload import Commit, Outcome, Reloader, listen, stamps, watch
from tests.waiting import eventually

WRONG = Mistake("plans/a.yaml", 3, "flow.a", "is not a step", "give it one of say, ask")


@dataclass
class Lines:
    """Stands for the lines of a plan: names and what is in them."""

    held: dict[str, bytes]

    def __len__(self) -> int:
        return len(self.held)

    def names(self) -> list[str]:
        return list(self.held)

    def digest(self, name: str) -> bytes:
        return self.held.get(name, b"")


@dataclass
class FakePlan:
    lines: Lines
    warnings: tuple[Mistake, ...] = ()


def plan(**held: int) -> Any:
    return FakePlan(Lines({name: bytes([value]) for name, value in held.items()}))


@dataclass
class Bench:
    """A reloader whose files are ``next``, and all that it did."""

    next: Any = None
    log: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()
        self.reloader = Reloader(plan(a=1), self.read, [self.part("x"), self.part("y")], self.outcomes.append)

    async def read(self) -> Any:
        self.log.append("read")
        await self.gate.wait()
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def part(self, name: str) -> Callable[[Any], Any]:
        async def prepare(plan: Any) -> Commit:
            self.log.append(f"prepare {name}")
            await asyncio.sleep(0)
            if f"bad {name}" in plan.lines.held:
                raise ConfigError([WRONG])
            return lambda: self.log.append(f"commit {name}")

        return prepare


async def test_everything_is_prepared_before_anything_changes() -> None:
    bench = Bench(plan(a=2, b=1))
    outcome = await bench.reloader.reload("test")
    assert bench.log == ["read", "prepare x", "prepare y", "commit x", "commit y"]
    assert (outcome.what, outcome.added, outcome.removed, outcome.changed) == ("changed", ("b",), (), ("a",))
    assert bench.reloader.plan is bench.next
    assert bench.outcomes == [outcome]


async def test_a_mistake_anywhere_leaves_all_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    for wrong in (ConfigError([WRONG]), plan(**{"bad y": 1})):
        bench = Bench(wrong)
        before = bench.reloader.plan
        outcome = await bench.reloader.reload("test")
        assert (outcome.what, outcome.mistakes) == ("refused", (WRONG,))
        assert bench.reloader.plan is before
        assert not [entry for entry in bench.log if entry.startswith("commit")]
    assert "reload (test) refused, all stays as it was: 1 mistake" in caplog.text
    assert "plans/a.yaml:3: flow.a: is not a step; give it one of say, ask" in caplog.text


async def test_a_reader_that_fails_leaves_all_as_it_was() -> None:
    bench = Bench(ApplianceError("the dialplans could not be read within 60 s"))
    outcome = await bench.reloader.reload("test")
    assert (outcome.what, outcome.problem) == ("failed", "the dialplans could not be read within 60 s")
    bench.next = plan(a=1)
    assert (await bench.reloader.reload("test")).what == "unchanged"


async def test_what_nobody_thought_of_is_a_failed_reload_to_all_who_asked(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(RuntimeError("out of the blue"))
    before = bench.reloader.plan
    outcomes = await asyncio.gather(*(bench.reloader.reload(str(number)) for number in range(3)))
    assert {one.what for one in outcomes} == {"failed"}
    assert "out of the blue" in outcomes[0].problem
    assert bench.reloader.plan is before
    bench.next = plan(a=1)
    assert (await bench.reloader.reload("test")).what == "unchanged"


async def test_whoever_asks_while_it_reads_gets_the_next_reading_with_all_others() -> None:
    bench = Bench(plan(a=1))
    bench.gate.clear()
    first = asyncio.create_task(bench.reloader.reload("first"))
    await eventually(lambda: bench.log == ["read"])
    others = [asyncio.create_task(bench.reloader.reload(str(number))) for number in range(5)]
    await asyncio.sleep(0)
    bench.next = plan(b=1)
    bench.gate.set()
    outcomes = await asyncio.gather(first, *others)
    assert bench.log.count("read") == 2
    assert all(outcome is outcomes[1] for outcome in outcomes[1:])
    assert len(bench.outcomes) == 2


# --- files ------------------------------------------------------------------------------------------------------------


def test_stamps_tell_of_every_change(tmp_path: Path) -> None:
    file, beside = tmp_path / "a.yaml", tmp_path / "vip.txt"
    file.write_text("1")
    looked_at = [tmp_path, beside]
    seen = [stamps(looked_at)]

    def changed() -> bool:
        seen.append(stamps(looked_at))
        return seen[-1] != seen[-2]

    assert not changed()
    file.write_text("22")
    assert changed()
    os.utime(file, ns=(1, 1))
    assert changed()
    (tmp_path / "b.yaml").write_text("1")
    assert changed()
    beside.write_text("1")
    assert changed()
    (tmp_path / "notes.md").write_text("1")
    assert not changed()
    file.unlink()
    assert changed()
    assert stamps([tmp_path / "absent"]) == {}


def test_a_lock_that_an_editor_leaves_beside_files_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / ".#a.yaml").symlink_to("someone@somewhere.4711:1")
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    for name in "abc":
        (tmp_path / f"{name}.yaml").write_text("1")
    assert {Path(file).name for file in stamps([tmp_path])} == {"a.yaml", "b.yaml", "c.yaml"}


async def test_a_file_that_has_changed_is_read_once_it_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("1")
    causes: list[str] = []

    async def reload(cause: str) -> None:
        causes.append(cause)

    watching = asyncio.create_task(watch(lambda: [tmp_path], reload, poll_s=0.005))
    try:
        await asyncio.sleep(0.05)
        assert causes == []
        file.write_text("changed")
        await eventually(lambda: len(causes) == 1)
        assert causes == [f"{file} changed"]
        file.unlink()
        await eventually(lambda: len(causes) == 2)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_file_that_goes_while_others_are_read_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("1")
    causes: list[str] = []

    async def reload(cause: str) -> None:
        causes.append(cause)
        file.unlink(missing_ok=True)

    watching = asyncio.create_task(watch(lambda: [tmp_path], reload, poll_s=0.005))
    try:
        await asyncio.sleep(0.05)
        file.write_text("changed")
        await eventually(lambda: len(causes) == 2)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


# --- the command ------------------------------------------------------------------------------------------------------


def outcome(what: str, **more: Any) -> Outcome:
    return Outcome(what, 0.25, 3, **more)


async def told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: Outcome, *flags: str
) -> tuple[int, str, str]:
    """Exit status and output of the command, where a box answers so."""

    async def reload(cause: str) -> Outcome:
        return answer

    listener = await listen(tmp_path, reload)
    try:
        arguments = ["reload", "--set", f"runtime_dir={tmp_path}", *flags]
        status = await asyncio.to_thread(main, arguments)
    finally:
        listener.close()
    printed = capsys.readouterr()
    return status, printed.out, printed.err


async def test_the_command_says_what_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = await told(tmp_path, capsys, outcome("changed", added=("a", "b"), changed=("c",)))
    assert (status, out, err) == (0, "ok: 3 lines, in 0.25 s\nadded: a, b\nchanged: c\n", "")
    warned = outcome("unchanged", warnings=(WRONG,))
    status, out, err = await told(tmp_path, capsys, warned)
    assert (status, out) == (0, "ok: 3 lines, in 0.25 s\nno line has changed\n")
    assert err.startswith("warning: plans/a.yaml:3: flow.a: ")


async def test_the_command_prints_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = await told(tmp_path, capsys, outcome("refused", mistakes=(WRONG,)))
    assert (status, out) == (2, "plans/a.yaml:3: flow.a: is not a step; give it one of say, ask\n")
    assert err == "appliance reload: refused, the box goes on as it was; 1 mistake\n"
    status, out, err = await told(tmp_path, capsys, outcome("failed", problem="it was late"))
    assert (status, out, err) == (2, "", "appliance reload: failed, the box goes on as it was: it was late\n")
    status, out, _ = await told(tmp_path, capsys, outcome("refused", mistakes=(WRONG,)), "--json")
    assert status == 2
    assert '"hint": "give it one of say, ask"' in out


def test_without_a_box_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_CONNECT_S", 0.01)
    assert main(["reload", "--set", f"runtime_dir={tmp_path}"]) == 2
    assert "no box runs in" in capsys.readouterr().err


def test_an_answer_is_bounded() -> None:
    long = Mistake("f" * 999, 1, "k" * 999, "w" * 9999, "h" * 9999)
    names = tuple("n" * 60 + str(number) for number in range(10_000))
    message = outcome("refused", mistakes=(long,) * 5000, added=names, removed=names, changed=names).message()
    assert len(encode(message)) <= MAX_MESSAGE_BYTES
    assert len(message.mistakes) > 50
    assert message.left_out == 5000 + 3 * 10_000 - 4 * len(message.mistakes)
    short = outcome("refused", mistakes=(WRONG,) * 1000).message()
    assert (len(short.mistakes), short.left_out) == (1000, 0)
