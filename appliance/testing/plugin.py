"""The pytest plugin: runs ``async`` tests that take ``scripted_call`` in virtual time, and closes their calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

FIXTURE = "scripted_call"


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> list[Any] | None:
    """Make a plain test of each that is to run in virtual time."""
    if not inspect.iscoroutinefunction(obj) or not collector.istestfunction(obj, name):
        return None
    if FIXTURE not in inspect.signature(obj).parameters:
        return None
    test = _in_virtual_time(obj)
    setattr(collector.obj, name, test)
    return list(collector._genfunctions(name, test))


def _in_virtual_time(test: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        from appliance.testing.virtual_time import run_virtual

        calls: Calls = fixtures[FIXTURE]

        async def whole() -> None:
            try:
                await test(*arguments, **fixtures)
            except BaseException:
                await calls.close(failed=True)
                raise
            await calls.close(failed=False)

        run_virtual(whole())

    return run


class Calls:
    """What the fixture is: places calls as :func:`appliance.testing.scripted_call` does, and closes them at the end."""

    def __init__(self) -> None:
        self._calls: list[Any] = []

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        from appliance.testing.scripted import scripted_call as place

        call = await place(*arguments, **options)
        self._calls.append(call)
        return call

    async def close(self, *, failed: bool) -> None:
        """Close every call; a test that has failed is not told of further failures."""
        while self._calls:
            call = self._calls.pop()
            call.expects_trouble = call.expects_trouble or failed
            await call.close()


@pytest.fixture
def scripted_call() -> Iterator[Calls]:
    """Places a call in virtual time: ``call = await scripted_call(line=..., plugins=..., model=...)``."""
    yield Calls()
