from __future__ import annotations

import gc
import weakref

from hypothesis import given
from hypothesis import strategies as st

from appliance.sip.timers import TimerQueue


def test_deadlines_come_in_order_and_only_when_due() -> None:
    queue: TimerQueue[str] = TimerQueue()
    queue.set("late", 3.0)
    queue.set("early", 1.0)
    assert queue.next() == 1.0
    assert queue.pop_due(0.9) is None
    assert queue.pop_due(1.0) == "early"
    assert queue.pop_due(1.0) is None
    assert queue.next() == 3.0


def test_setting_again_replaces_and_cancelling_forgets() -> None:
    queue: TimerQueue[str] = TimerQueue()
    queue.set("a", 1.0)
    queue.set("a", 5.0)
    queue.set("b", 2.0)
    queue.cancel("b")
    queue.cancel("never set")
    assert queue.pop_due(4.0) is None
    assert queue.pop_due(5.0) == "a"
    assert queue.next() is None


def test_deadlines_set_over_and_over_do_not_pile_up() -> None:
    queue: TimerQueue[int] = TimerQueue()
    for i in range(10_000):
        queue.set(i % 3, float(i))
    assert len(queue) == 3
    assert len(queue._heap) < 200


def test_a_cancelled_deadline_keeps_nothing_of_its_key_alive() -> None:
    class Owner:
        pass

    queue: TimerQueue[tuple[Owner, str]] = TimerQueue()
    owner = Owner()
    gone = weakref.ref(owner)
    queue.set((owner, "no answer"), 180.0)
    queue.set((owner, "no answer"), 90.0)
    queue.cancel((owner, "no answer"))
    del owner
    gc.collect()
    assert gone() is None


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 100), st.booleans())))
def test_what_is_live_comes_out_sorted(operations: list[tuple[int, float, bool]]) -> None:
    queue: TimerQueue[int] = TimerQueue()
    model: dict[int, float] = {}
    for key, when, cancel in operations:
        if cancel:
            queue.cancel(key)
            model.pop(key, None)
        else:
            queue.set(key, when)
            model[key] = when
    out = []
    while (key_out := queue.pop_due(100.0)) is not None:
        out.append(model[key_out])
    assert out == sorted(model.values())
