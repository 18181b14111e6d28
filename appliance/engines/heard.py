"""How a recogniser of free speech answers: as it was said, or as the phrase of a closed list that it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.api import EngineContext, RecogniseRequest
from appliance.engines.closed_list import meaning
from appliance.engines.greetings import GREETING
from appliance.engines.hypotheses import Word
from appliance.engines.lexicon import normalise
from appliance.engines.whisper_tokens import written

MAX_CHARACTERS: Final = 20_000
"""A longer transcript is not of what was said within an utterance."""
_HINT_CHARACTERS: Final = 600


def answer_final(
    request: RecogniseRequest,
    words: Sequence[Word],
    confidence: float,
    context: EngineContext,
    *,
    language: str = "",
    timed: bool,
) -> None:
    """The whole of what was said.

    Args:
        request: what is answered.
        words: of it, in order.
        confidence: 0 to 1.
        context: takes the answer.
        language: where it is not the request's.
        timed: the words know when they were said.
    """
    text = written((word.text for word in words), language or request.language)
    times = _spoken(words) if timed else []
    if _is_open(request):
        context.recognised(request, text, confidence=confidence, accepted=bool(text), words=times, stable=len(words))
        return
    meant = meaning(text, request.phrases, reject=request.reject)
    certain = confidence * meant.similarity if request.reject else float(meant.accepted)
    count = len(meant.text.split())
    context.recognised(
        request,
        meant.text,
        confidence=certain,
        accepted=meant.accepted,
        words=times if len(times) == count else (),
        stable=count,
    )


def answer_partial(
    request: RecogniseRequest,
    words: Sequence[Word],
    stable: int,
    confidence: float,
    context: EngineContext,
    *,
    language: str = "",
    timed: bool,
) -> None:
    """What was heard so far, ``stable`` words of it for good.

    Where phrases are expected the words come as phrases are written, and are accepted once they are one of them.
    """
    accepted = bool(words)
    if not _is_open(request):
        text = written((word.text for word in words), request.language)
        accepted = meaning(text, request.phrases, reject=True).accepted
        stable = sum(len(normalise(word.text).split()) for word in words[:stable])
        words = [Word(part, (), word.start, word.end) for word in words for part in normalise(word.text).split()]
    text = written((word.text for word in words), language or request.language)
    times = _spoken(words) if timed else []
    context.recognised(request, text, confidence=confidence, accepted=accepted, words=times, stable=stable)


def likely_words(request: RecogniseRequest) -> str:
    """The hints and phrases of a request as the prompt of a service: a list, not too long; "" where there are none."""
    chosen: list[str] = []
    for likely in dict.fromkeys([*request.hints, *(one for one in request.phrases if not one.startswith("<"))]):
        if sum(map(len, chosen)) + len(likely) > _HINT_CHARACTERS:
            break
        chosen.append(likely.strip())
    return ", ".join(chosen)


def _is_open(request: RecogniseRequest) -> bool:
    """Whether anything may be said, and is wanted as it was said."""
    return not request.phrases or request.phrases == (GREETING,)


def _spoken(words: Sequence[Word]) -> list[tuple[str, int, int]]:
    return [(word.text, word.start, word.end) for word in words]
