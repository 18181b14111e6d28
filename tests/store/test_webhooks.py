"""The queue of webhooks: what is put with the record, is due, fails, is given up and forgotten."""

from __future__ import annotations

from pathlib import Path

from appliance.plugins.declarative.webhooks import NewEvent
from appliance.store.calls import CallStore
from tests.store.facts import NOON, after, started


def event(number: int, at: float = 0.0, webhook: str = "calls") -> NewEvent:
    return NewEvent(f"evt_{number}", "crm", webhook, "desk", f"c{number}", "call.ended", '{"a": 1}', after(at))


async def use_the_queue(store: CallStore) -> None:
    """From being put to being forgotten; on whatever database."""
    queue = store.webhook_queue
    store.keep_events([event(1), event(2, 5), event(3, 10), event(4, 0, "other")])
    await store.flush()
    assert await queue.waiting() == {("crm", "calls"): (3, NOON), ("crm", "other"): (1, NOON)}
    key = ("crm", "calls")
    assert [one.id for one in await queue.due(key, after(6), 10, ())] == ["evt_1", "evt_2"]
    assert [one.id for one in await queue.due(key, after(60), 10, ("evt_1",))] == ["evt_2", "evt_3"]
    assert [one.id for one in await queue.due(key, after(60), 1, ())] == ["evt_1"]
    await queue.failed("evt_1", 1, after(100), "answered 500" * 100)
    (again,) = await queue.due(key, after(100), 1, ("evt_2", "evt_3"))
    assert (again.id, again.attempts, again.body) == ("evt_1", 1, '{"a": 1}')
    await queue.give_up("evt_2", 12, after(200), "no more")
    await queue.delivered(["evt_1", "evt_4"])
    assert await queue.waiting() == {key: (1, after(10))}
    assert await queue.expire(after(100)) == 0
    assert await queue.expire(after(300)) == 1
    await queue.delivered(["evt_3"])
    assert await queue.waiting() == {}


async def test_the_queue_from_beginning_to_end(tmp_path: Path) -> None:
    async with CallStore(f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}") as store:
        await use_the_queue(store)


async def test_a_box_sees_its_own_events_alone(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}"
    async with CallStore(url, box="one") as one, CallStore(url, box="two") as two:
        one.keep_events([event(1)])
        await one.flush()
        assert len(await one.webhook_queue.waiting()) == 1
        assert await two.webhook_queue.waiting() == {}


async def test_events_of_a_call_that_was_cut_off_are_kept_with_its_end(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}"
    async with CallStore(url) as store:
        await store.call_started(started())
    async with CallStore(url) as store:
        told: list[str] = []

        def tell(call: object, at: object) -> list[NewEvent]:
            told.append(call["line"])  # type: ignore[index]
            return [event(1)]

        assert await store.interrupt_open_calls("it stopped", tell) == 1
        assert told == ["reception"]
        assert list(await store.webhook_queue.waiting()) == [("crm", "calls")]
        assert await store.interrupt_open_calls("it stopped", tell) == 0
