"""What every test gets: leak checks, free ports, the recorded voices, and a whole running box."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from appliance.cli.box import Box, free_port
from tests.waiting import LIMIT_S

LEAK_PASSES = 100
"""How often the loop comes round before a task that is left counts as leaked."""
SHARED_AUDIO = Path(__file__).parents[1] / ".." / "shared" / "audio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a test that needs other programs a second attempt, which the summary shows with what went wrong first.

    They keep their own time, and on a machine with other work an answer can come too late. A few attempts for a whole
    run (``--max-suite-reruns``): more is a fault.
    """
    for item in items:
        if item.get_closest_marker("peer"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(autouse=True)
def no_leaked_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test ends with the threads it began with, and those that its loop keeps for the tests after it."""
    before = set(threading.enumerate())
    yield
    marker = request.node.get_closest_marker("asyncio")
    kept = "asyncio_" if marker is not None and "loop_scope" in marker.kwargs else "-"
    leaked = [
        thread
        for thread in threading.enumerate()
        if thread not in before and thread.is_alive() and not thread.name.startswith(kept)
    ]
    for thread in leaked:
        thread.join(LIMIT_S)
    names = [thread.name for thread in leaked if thread.is_alive()]
    assert not names, f"threads still running after the test: {names}"


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """An async test ends with no task but its own."""
    yield
    for _ in range(LEAK_PASSES):
        leaked = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if not leaked:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"tasks still running after the test: {[task.get_coro() for task in leaked]}")


@pytest.fixture(autouse=True)
def _watch_tasks_of_async_tests(request: pytest.FixtureRequest, no_leaked_threads: None) -> None:
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("no_leaked_tasks")


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def free_udp_port() -> int:
    """A UDP port on loopback that nobody has bound."""
    return free_port()


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    """The folder of recorded human voices and noises; the test is skipped where it does not lie beside the clone."""
    if not (SHARED_AUDIO / "labels.tsv").exists():
        pytest.skip(f"no recorded voices beside this clone; they go into {SHARED_AUDIO}, with labels.tsv")
    return SHARED_AUDIO


@pytest.fixture
def start_box(tmp_path: Path) -> Iterator[Callable[..., Box]]:
    """``start_box(settings)`` starts ``appliance serve`` on free ports and waits until it is ready.

    Every box is stopped at the end and must have left with exit code 0, unless the test stopped it itself.
    """
    boxes: list[Box] = []

    def start(settings: Mapping[str, object] | None = None) -> Box:
        box = Box(tmp_path / f"box{len(boxes)}", settings)
        boxes.append(box)
        box.start()
        return box

    yield start
    codes = [box.stop() for box in boxes]
    assert not any(codes), "\n".join(
        f"appliance serve left with {c}:\n{b.log_tail()}" for b, c in zip(boxes, codes, strict=True)
    )


@pytest.fixture
def box(start_box: Callable[..., Box]) -> Box:
    """A whole box with the shipped dialplans, ready for calls."""
    return start_box()
