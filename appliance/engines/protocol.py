"""The seam between a worker and its engine, in terms of the messages of the box.

:class:`appliance.api.Engine` is the protocol itself; plugins and built-in engines implement the same one. The messages
of :mod:`appliance.ipc.messages` have the shape of the requests there.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

from appliance.api import Engine, EngineContext, Pcm
from appliance.errors import EngineError
from appliance.ipc.messages import (
    Converse,
    Failed,
    Generate,
    JudgeTurn,
    Recognise,
    Recognised,
    Spoken,
    Synthesise,
    Token,
    TurnVerdict,
)

__all__ = ["Engine", "EngineContext", "Pcm", "RequestMessage", "accepts", "check_engine", "deadline_of"]

RequestMessage: TypeAlias = Recognise | JudgeTurn | Synthesise | Generate | Converse
AnswerMessage: TypeAlias = Recognised | TurnVerdict | Spoken | Token | Failed

_REQUESTS: Final[dict[str, type[RequestMessage]]] = {
    "asr": Recognise,
    "turn": JudgeTurn,
    "tts": Synthesise,
    "llm": Generate,
    "speech": Converse,
}


def accepts(kind: str, message: object) -> bool:
    """Whether ``message`` is a request for an engine of ``kind``."""
    return isinstance(message, _REQUESTS[kind])


def deadline_of(message: RequestMessage) -> float:
    """When the answer stops being of use; never, where the request does not say."""
    return math.inf if isinstance(message, Synthesise | Converse) else message.deadline


def check_engine(engine: object, kind: str, provider: str) -> Engine:
    """``engine``, if it can serve ``kind``.

    Raises:
        EngineError: the provider's factory made something else.
    """
    if not isinstance(engine, Engine):
        raise EngineError(
            f"engines.{kind}.provider: {provider!r} made a {type(engine).__name__}, which lacks parts of "
            "appliance.api.Engine",
            retryable=False,
        )
    if engine.kind != kind or kind not in _REQUESTS:
        raise EngineError(
            f"engines.{kind}.provider: {provider!r} made an engine of kind {engine.kind!r}", retryable=False
        )
    return engine
