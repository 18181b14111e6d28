"""How much silence ends a caller's turn: the numbers of a line, and the one function that weighs what is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FRAME_S: Final = 0.02
"""Seconds per frame."""


@dataclass(frozen=True, slots=True)
class TurnConfig:
    """What makes a turn. ``patience`` is the line's own multiplier on every required silence.

    Attributes:
        min_speech_s: a sound shorter than this is a click, not speech.
        barge_in_s: a voice over the agent must last this long to pause it; time in which it is certain, and louder
            than any echo, counts twice.
        max_pause_s: a voice that goes on after this pause of the agent stops it for good; a sound that ends just then
            is given 40 ms more.
        words_after_s: a voice that still goes on after this pause of the agent is recognised before it has ended.
        max_agreement_s: what its first words say to be a backchannel may go on for so long after the agent does.
        max_hum_s: one sound that is held (a hum) may go on for so long after the agent does.
        slight_silence_s: a sound over the agent that ends in so much silence, and has no words yet, was none.
        brief_silence_s: the same after a sound of no more than ``min_speech_s``.
        first_silence_s: after this silence the turn model is asked and speculation begins.
        second_verdict_after_s: when the model is asked again, if its first answer lay within ``ambiguous``.
        ambiguous: end-of-turn probabilities that do not settle the matter.
        sure: (probability, silence in seconds) from which on the least silence is enough.
        unsure: (probability, silence in seconds) up to which the most silence is required.
        no_verdict_silence_s: silence that commits while there is no verdict (worker dead or overloaded).
        completes_factor: on the required silence, when what was heard completes what is expected.
        completes_max_s: the most silence required then.
        unfinished_min_s: the least silence required after a trailing filler, an unfinished digit string or the
            beginning of an expected phrase.
        counting_min_s: the least silence required after a digit, where nobody knows how many there will be.
        text_wait_s: a turn is not committed before its words are there, but waits no longer for them than this.
        max_silence_s: no requirement exceeds this, whatever the patience.
        still_speech_s: added to the requirement while the speech probability has not fallen yet.
        max_utterance_s: a turn is committed after this much speech even though it goes on.
        no_input_s: silence while listening after which the caller is taken to say nothing; None for never.
        patience: multiplier of the line on the required silence.
        speech_on: probability from which a frame is speech.
        speech_off: probability below which a loud frame of an utterance is noise.
        fall_db: speech ends with the last frame this close to the utterance's loudest.
        floor_margin_db: speech is at least this far above the noise floor.
        min_level_dbfs: nothing below this is speech.
        echo_gain_db: the agent's echo relative to what it sends, before the line's own has been learnt.
        echo_level_dbfs: while the agent speaks nothing below this is the caller, where it is not known what it sends;
            the line's true echo is learnt from what comes back.
        echo_below_peak_db: nor is anything this far below the caller's usual loudness.
    """

    min_speech_s: float = 0.08
    barge_in_s: float = 0.08
    max_pause_s: float = 0.52
    words_after_s: float = 0.28
    max_agreement_s: float = 0.24
    max_hum_s: float = 0.6
    slight_silence_s: float = 0.24
    brief_silence_s: float = 0.16
    first_silence_s: float = 0.1
    second_verdict_after_s: float = 0.25
    ambiguous: tuple[float, float] = (0.25, 0.6)
    sure: tuple[float, float] = (0.65, 0.4)
    unsure: tuple[float, float] = (0.4, 1.55)
    no_verdict_silence_s: float = 0.7
    completes_factor: float = 0.5
    completes_max_s: float = 0.4
    unfinished_min_s: float = 1.6
    counting_min_s: float = 1.2
    text_wait_s: float = 0.7
    max_silence_s: float = 3.0
    still_speech_s: float = 0.15
    max_utterance_s: float = 15.0
    no_input_s: float | None = 6.0
    patience: float = 1.0
    speech_on: float = 0.5
    speech_off: float = 0.35
    fall_db: float = 30.0
    floor_margin_db: float = 8.0
    min_level_dbfs: float = -55.0
    echo_gain_db: float = -20.0
    echo_level_dbfs: float = -42.0
    echo_below_peak_db: float = 22.0


def required_silence(
    config: TurnConfig,
    probability: float | None,
    *,
    completes: bool = False,
    unfinished: bool = False,
    counting: bool = False,
    stretch: float = 1.0,
) -> float:
    """Seconds of silence that commit a turn.

    Args:
        config: the line's numbers.
        probability: how likely it is that the caller has finished, None without a verdict.
        completes: what was heard completes an expected phrase or digit count.
        unfinished: it ends in a filler, in fewer digits than expected, or inside a phrase. ``completes`` wins.
        counting: it ends in a digit, and nobody knows how many there will be.
        stretch: how much longer this caller's own pauses are than usual; ``completes`` is not stretched.

    Returns:
        Between ``config.sure[1]`` and ``config.max_silence_s``, falling continuously as the probability rises.
    """
    high, least = config.sure
    low, most = config.unsure
    if probability is None:
        silence = config.no_verdict_silence_s
    else:
        doubt = min(max((high - probability) / (high - low), 0.0), 1.0)
        silence = least + doubt * (most - least)
    if completes:
        silence = min(silence * config.completes_factor, config.completes_max_s)
    else:
        silence = least + (silence - least) * stretch
        if unfinished:
            silence = max(silence, config.unfinished_min_s)
        elif counting:
            silence = max(silence, config.counting_min_s)
    return min(max(silence * config.patience, least), config.max_silence_s)


def frames(seconds: float) -> int:
    """The smallest number of frames that lasts ``seconds``."""
    return math.ceil(seconds / FRAME_S - 1e-9)
