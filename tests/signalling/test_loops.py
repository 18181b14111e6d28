"""Work that must not end unseen."""

from __future__ import annotations

import asyncio

import pytest

from appliance.signalling.loops import keep_running

from ..engines.virtual_time import run_virtual


def test_what_fails_is_logged_and_begins_again_after_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    begun: list[float] = []

    async def work() -> None:
        begun.append(asyncio.get_running_loop().time())
        if len(begun) < 3:
            raise ValueError("a mistake of ours")

    async def story() -> None:
        await keep_running(work, "the work", pause_s=5.0)

    run_virtual(story())
    assert begun == [1000.0, 1005.0, 1010.0]
    assert caplog.messages == ["the work failed; it begins again in 5 s"] * 2
    assert "ValueError: a mistake of ours" in caplog.text


def test_it_can_be_cancelled_while_it_works_and_while_it_pauses() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise ValueError("a mistake of ours")

    async def story() -> None:
        for work in (never, fails):
            task = keep_running(work, "the work")
            await asyncio.sleep(0.5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run_virtual(story())
