"""What is synthesised before anybody waits for it is what callers are then told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from appliance.calls.warm_up import GREETING_WAIT_S, MAX_CHARACTERS, WarmUp, box_phrases
from appliance.conversation import manners
from appliance.errors import EngineError
from appliance.ipc.messages import Synthesise
from appliance.signalling.leg import CallInfo
from tests.calls.virtual_call import VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

CALL = CallInfo("leg", "sip", "local", "100", "+49 30 123", "Ann", "127.0.0.1:5062", "cid", {})


class Pool:
    """The synthesis workers' side: remembers what was asked."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.numbers = itertools.count(1)
        self.asked: list[Synthesise] = []
        self.takes_s = 0.01
        self.fails: dict[str, EngineError] = {}
        self.on_worker_back: Callable[[int], None] = lambda index: None

    def number(self) -> int:
        return next(self.numbers)

    async def synthesise_ahead(self, request: Synthesise) -> None:
        self.asked.append(request)
        await asyncio.sleep(self.takes_s)
        if request.text in self.fails:
            raise self.fails[request.text]

    @property
    def texts(self) -> list[str]:
        return [request.text for request in self.asked]


def warm(pool: Pool, *lines: Any) -> WarmUp:
    workers: Any = pool
    return WarmUp(workers, lines)


async def run_for(warm_up: WarmUp, seconds: float) -> None:
    task = asyncio.create_task(warm_up.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await warm_up.close()


def test_everything_said_in_fixed_words_is_prepared_the_apologies_first_and_each_phrase_once() -> None:
    pool = Pool()
    line = flow_line(disclosure="You are speaking with a machine.")
    run_virtual(run_for(warm(pool, line, line), 5))
    assert pool.texts[:2] == [manners.apology("en"), manners.farewell("en")]
    assert pool.texts[len(box_phrases(line)) :] == [
        "You are speaking with a machine.",
        "Hello, this is the desk.",
        "Do you want tea or coffee?",
        "Are you there?",
        "Sorry, what was that?",
        "Please enter your four digit code.",
        "Thank you, goodbye.",
    ]
    assert all(request.keep and not request.urgent and request.slot == -1 for request in pool.asked)


def test_it_is_word_for_word_what_a_call_then_asks_for() -> None:
    line = flow_line(greeting="Hello! Dr. Lee's desk, open 9:00-17:00. We are at 5 Main St. in town.")
    pool = Pool()

    async def both() -> list[str]:
        await run_for(warm(pool, line), 5)
        call = VirtualCall(line)
        await call.until_quiet()
        call.hangs_up()
        await call.over()
        return call.engines.said

    said = run_virtual(both())
    assert len(said) >= 2
    assert set(said) <= set(pool.texts)


def test_what_has_variables_waits_for_the_call_and_is_ready_before_it_is_answered() -> None:
    pool = Pool()
    line = flow_line(greeting="Hello ${caller.number | digits}.")

    async def story() -> None:
        warm_up = warm(pool, line)
        await run_for(warm_up, 5)
        assert not [text for text in pool.texts if "Hello" in text]
        pool.asked.clear()
        await warm_up.opening(line, CALL, slot=0)
        await warm_up.close()

    run_virtual(story())
    first, *rest = sorted(pool.asked, key=lambda request: not request.urgent)
    assert first.urgent
    assert first.text == "Hello plus four nine three zero one two three."
    assert [request.text for request in rest] == ["Do you want tea or coffee?"]
    assert not any(request.keep for request in pool.asked)


def test_a_slow_synthesiser_delays_the_answer_by_a_second_at_most_and_a_broken_one_not_at_all() -> None:
    pool = Pool()
    line = flow_line()

    async def story() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        warm_up = warm(pool, line)
        pool.takes_s = 9.0
        start = loop.time()
        await warm_up.opening(line, CALL, slot=0)
        slow = loop.time() - start
        pool.takes_s, pool.fails = 0.0, {"Hello, this is the desk.": EngineError("no voice")}
        start = loop.time()
        await warm_up.opening(line, CALL, slot=0)
        broken = loop.time() - start
        await warm_up.close()
        return slow, broken

    slow, broken = run_virtual(story())
    assert abs(slow - GREETING_WAIT_S) < 0.01
    assert broken < 0.01


def test_every_worker_has_a_cache_of_its_own_and_a_new_one_is_warmed_again() -> None:
    pool = Pool(workers=3)

    async def story() -> None:
        warm_up = warm(pool, flow_line())
        task = asyncio.create_task(warm_up.run())
        await asyncio.sleep(5)
        assert {request.slot for request in pool.asked} == {-3, -2, -1}
        assert len({pool.texts.count(text) for text in pool.texts}) == 1
        pool.asked.clear()
        pool.on_worker_back(1)
        await asyncio.sleep(5)
        assert {request.slot for request in pool.asked} == {-2}
        await warm_up.opening(flow_line(), CALL, slot=7)
        assert pool.asked[-1].slot % 3 == 7 % 3
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await warm_up.close()

    run_virtual(story())


def test_what_fails_is_tried_again_unless_it_always_will() -> None:
    pool = Pool()
    pool.fails = {
        "Are you there?": EngineError("the server is away", retryable=True),
        "Sorry, what was that?": EngineError("no such voice", retryable=False),
    }

    async def story() -> None:
        warm_up = warm(pool, flow_line())
        task = asyncio.create_task(warm_up.run())
        await asyncio.sleep(45)
        pool.fails.clear()
        await asyncio.sleep(60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtual(story())
    assert pool.texts.count("Are you there?") == 3
    assert pool.texts.count("Sorry, what was that?") == 1


def test_only_so_much_is_prepared() -> None:
    pool = Pool()
    prompts = [" ".join(f"blah {number}{word}" for word in range(300)) for number in range(40)]
    run_virtual(run_for(warm(pool, flow_line(no_match={"prompts": prompts})), 60))
    assert sum(map(len, pool.texts)) > MAX_CHARACTERS / 2
    assert len(pool.texts) < 400


def test_a_model_led_line_is_prepared_too() -> None:
    pool = Pool()
    line = flow_line(agent="llm", prompt="Help.", flow={}, greeting="Hello. How can I help?")
    run_virtual(run_for(warm(pool, line), 5))
    assert "Hello. How can I help?" in pool.texts
    assert "Are you there?" in pool.texts


def test_other_lines_have_what_is_new_in_them_prepared_and_nothing_twice() -> None:
    pool = Pool(workers=2)
    before, after = flow_line(), flow_line(greeting="Good evening.")

    async def story() -> None:
        warm_up = warm(pool, before)
        task = asyncio.create_task(warm_up.run())
        await asyncio.sleep(5)
        pool.asked.clear()
        warm_up.take_over([after])
        await asyncio.sleep(5)
        assert pool.texts == ["Good evening."] * 2
        pool.asked.clear()
        warm_up.take_over([after])
        await asyncio.sleep(5)
        assert pool.texts == []
        pool.on_worker_back(1)
        await asyncio.sleep(5)
        assert "Good evening." in pool.texts
        assert len(pool.texts) == len(set(pool.texts)) > 5
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await warm_up.close()

    run_virtual(story())
