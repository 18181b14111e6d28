"""Nothing of a call outlives it, whatever was under way when it ended: no task, and no ring of references."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from appliance.api.tools import Arguments, OngoingCall, Tool
from appliance.calls import builtin_tools
from appliance.dialplan.schema import Line
from appliance.ipc.messages import Generate, Token, ToolCall
from tests.calls.virtual_call import VirtualCall
from tests.engines.virtual_time import run_virtual


async def look_up(arguments: Arguments, call: OngoingCall) -> Any:
    await asyncio.sleep(5.0)
    return {"found": 3}


LOOK = Tool(name="look", description="Look it up.", parameters={"type": "object"}, run=look_up, side_effects=False)
WHEN = {
    "a draft is held": lambda call: call.session._speaker._held is not None,
    "the model is asked": lambda call: len(call.engines.prompts) == 1,
    "a tool runs": lambda call: call.session._dialogue._thinking is not None and len(call.engines.prompts) == 1,
    "a filler is said": lambda call: call.session._dialogue._turn.bridged,
    "the reply is spoken": lambda call: len(call.engines.prompts) == 2 and bool(call.media.playout),
    "the agent pauses": lambda call: call.session._speaker.paused,
}


@pytest.mark.parametrize("when", list(WHEN))
def test_nothing_remains_of_a_call_that_ends_while(when: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(builtin_tools, "builtin_tools", lambda *of_the_call: [LOOK])

    async def call() -> None:
        line = Line.model_validate({"name": "helper", "agent": "llm", "prompt": "Be kind.", "greeting": "Hello there."})
        made = VirtualCall(line, llm=True)
        made.engines.partials = True

        async def generate(request: Generate) -> AsyncIterator[Token]:
            made.engines.prompts.append(request)
            await asyncio.sleep(0.1)
            for word in ("There ", "are ", "three ", "of ", "them, ", "and ", "here ", "they ", "are. "):
                yield Token(request.request, word, False)
            if request.messages[-1].role != "tool" and when != "a draft is held":
                yield Token(request.request, "", True, (ToolCall("", "look", "{}"),))
            yield Token(request.request, "", True)

        made.engines.generate = generate  # type: ignore[method-assign]
        await made.until_quiet()
        made.engines.probability = 0.1 if when == "a draft is held" else 0.98
        made.speaks(0.8, "how many are there")
        if when == "the agent pauses":
            await made.until(lambda: bool(made.media.playout))
            await asyncio.sleep(0.3)
            made.speaks(0.8, "wait")
        await made.until(lambda: WHEN[when](made))
        session = made.session
        assert session._dialogue is not None
        parts = [session._dialogue, session._listening, session._speaker, session._dialogue.brain, session]
        gone = [weakref.ref(part) for part in parts if part is not None]
        made.hangs_up()
        await made.over(20.0)
        made.media.listener = None
        made.engines.generate = None  # type: ignore[assignment, method-assign]
        del made.session, made.task, session, parts
        await asyncio.sleep(7.0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert [type(part()).__name__ for part in gone if part() is not None] == []

    gc.collect()
    gc.disable()
    try:
        run_virtual(call())
    finally:
        gc.enable()
