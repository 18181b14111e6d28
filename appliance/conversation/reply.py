"""A brain's reply on its way to being carried out: worked out by one task, taken step by step by another.

So it can be begun before the turn is certain, and the model can be stopped at once when the caller interrupts, without
losing what has been decided by then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from appliance.conversation.brain import OPEN, Brain, Gate, Input, Say, Step
from appliance.conversation.hooked import NONE, HooksOfCall


class Reply:
    """What ``brain`` says to ``value``, collected as it comes.

    Args:
        gate: opens when the caller's turn is certain to be over.
        on_step: called with every step as it comes; must return at once.
        hooks: asked how each piece is to be said, fillers aside.

    Attributes:
        failed: it has ended with an error, which :meth:`steps` raises.
    """

    def __init__(
        self,
        brain: Brain,
        value: Input,
        gate: Gate = OPEN,
        on_step: Callable[[Step], None] = lambda step: None,
        hooks: HooksOfCall = NONE,
    ) -> None:
        self.brain = brain
        self.value = value
        self.gate = gate
        self._on_step = on_step
        self._hooks = hooks
        self._steps: deque[Step] = deque()
        self._news = asyncio.Event()
        self._done = False
        self.failed = False
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = asyncio.create_task(self._collect())

    def abandon(self) -> None:
        """Nothing more is wanted of it; what has come by now can still be taken."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Abandon it, and return when nothing of it runs any more."""
        self.abandon()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def steps(self) -> AsyncIterator[Step]:
        """Every step, in order, as it comes. Raises what the brain raised, after the steps before."""
        while True:
            while self._steps:
                yield self._steps.popleft()
            if self._done:
                break
            self._news.clear()
            await self._news.wait()
        error, self._error = self._error, None  # its frames hold this object
        if error is not None:
            raise error

    def _add(self, step: Step) -> None:
        self._steps.append(step)
        self._news.set()
        self._on_step(step)

    async def _as_said(self, say: Say) -> list[Say]:
        """The piece in the words of the line's plugins."""
        pieces = await self._hooks.reply_text(say.text)
        if pieces == [say.text]:
            return [say]
        self.brain.was_said(say.text.strip(), " ".join(piece.strip() for piece in pieces))
        return [replace(say, text=piece) for piece in pieces]

    async def _collect(self) -> None:
        steps = self.brain.reply(self.value, self.gate)
        try:
            async for step in steps:
                if isinstance(step, Say) and not step.filler and self._hooks.wanted("reply_text"):
                    for piece in await self._as_said(step):
                        self._add(piece)
                else:
                    self._add(step)
        except Exception as error:
            self.failed, self._error = True, error
        finally:
            self._done = True
            self._on_step = lambda step: None
            self._news.set()
            close = getattr(steps, "aclose", None)
            if close is not None:
                await close()
            self._task = None  # its CancelledError holds the frames of the brain, which hold this object
