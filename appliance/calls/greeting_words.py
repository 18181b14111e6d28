"""Has the recogniser hear the greeting of whoever has answered, for phrases that tell who it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from appliance.engines.client import EnginePool
from appliance.engines.greetings import GREETING
from appliance.errors import EngineError
from appliance.ipc.messages import Recognise

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 2.0
"""What comes later than this after it was asked for decides nothing any more."""


class GreetingWords:
    """One call's. It asks for one stretch at a time; what is asked for meanwhile is left out.

    Args:
        asr: the workers; None where there are none.
        slot, generation: of the media leg, whose ring they read.
        language: of the line.
    """

    def __init__(self, asr: EnginePool | None, slot: int, generation: int, language: str) -> None:
        self._asr = asr
        self._slot = slot
        self._generation = generation
        self._language = language
        self._task: asyncio.Task[None] | None = None

    def hear(self, start: int, end: int, final: bool, tell: Callable[[str, bool], None]) -> None:
        """Have the samples [start, end) heard, and ``tell`` the words, if they come, and ``final``."""
        if self._asr is None or not self._asr.connected or (self._task is not None and not self._task.done()):
            return
        self._task = asyncio.get_running_loop().create_task(self._ask(self._asr, start, end, final, tell))

    def close(self) -> None:
        """No words are wanted any more."""
        self._asr = None
        if self._task is not None:
            self._task.cancel()

    async def _ask(self, asr: EnginePool, start: int, end: int, final: bool, tell: Callable[[str, bool], None]) -> None:
        deadline = asyncio.get_running_loop().time() + _TIMEOUT_S
        place = (asr.number(), self._slot, self._generation, start, end)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                heard = await asr.recognise(Recognise(*place, self._language, (GREETING,), (), False, deadline))
        except TimeoutError:
            logger.debug("the words of the greeting in slot %d came too late", self._slot)
        except EngineError as error:
            logger.debug("no words of the greeting in slot %d: %s", self._slot, error)
            if not error.retryable:
                self._asr = None
        else:
            tell(heard.text, final)
