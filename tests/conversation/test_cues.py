from __future__ import annotations

import pytest

from appliance.conversation.cues import NO_CUES, Cues, cues_of
from appliance.conversation.endpointing import FRAME_S, TurnConfig, required_silence
from appliance.conversation.evidence import Evidence, likelihood
from appliance.conversation.pauses import Pauses
from appliance.conversation.turn_actions import SpeechResumed, TurnCommitted
from tests.conversation.turn_lines import SILENCE, SPEECH, Line, only

PHRASES = ("tea please", "tea with milk", "coffee")
FELL = (-5.0, -8.0, -14.0)
HELD_UP = (1.0, 0.0, -4.0)


@pytest.mark.parametrize(
    ("text", "accepted", "cues"),
    [
        ("tea please", True, Cues(completes=True)),
        ("tea", False, Cues(unfinished=True)),
        ("banana", False, NO_CUES),
        ("", False, NO_CUES),
    ],
)
def test_of_what_is_expected(text: str, accepted: bool, cues: Cues):
    assert cues_of(text, accepted=accepted, phrases=PHRASES) == cues


@pytest.mark.parametrize("phrases", [(), ("yes please",)])
def test_words_that_are_not_all_that_was_spoken_complete_nothing(phrases: tuple[str, ...]):
    assert cues_of("yes please", phrases=phrases, sound_s=0.8).completes
    assert not cues_of("yes please", phrases=phrases, sound_s=1.2).completes


def test_of_a_number_with_a_known_length():
    digits = ("<digits 4 4>",)
    assert cues_of("one two", accepted=False, phrases=digits, min_digits=4) == Cues(unfinished=True)
    assert cues_of("one two three four", phrases=digits, min_digits=4) == Cues(completes=True)
    assert cues_of("12 34", min_digits=4) == Cues(completes=True)
    assert cues_of("it is 12", min_digits=4) == Cues(unfinished=True)


@pytest.mark.parametrize(
    ("text", "cues"),
    [
        ("my number is five five", Cues(counting=True)),
        ("555 12", Cues(counting=True)),
        ("a table for two", NO_CUES),
        ("I would like, um", Cues(trailing_filler=True)),
        ("Yes, please.", Cues(completes=True)),
        ("That's all", Cues(completes=True)),
        ("yes but", Cues(trailing_filler=True)),
        ("when does it open", NO_CUES),
    ],
)
def test_of_anything(text: str, cues: Cues):
    assert cues_of(text) == cues


def test_a_voice_that_falls_says_what_the_turn_model_cannot():
    assert likelihood(0.5, ()) == 0.5
    assert likelihood(0.5, FELL) > 0.75
    assert likelihood(0.5, HELD_UP) < 0.1
    assert likelihood(0.99, HELD_UP) < likelihood(0.01, FELL)
    assert 0.0 < likelihood(0.0, HELD_UP) < likelihood(1.0, FELL) < 1.0


def test_the_ending_changes_how_long_is_waited():
    waits = []
    for sounds in (FELL, HELD_UP):
        line = Line(TurnConfig())
        _, ask = line.pause()
        line.machine.verdict(ask.ask, 0.5, sounds)
        (committed,) = only(line.hear(SILENCE, 3.0), TurnCommitted)
        waits.append((committed.at + 1 - committed.speech_end) * FRAME_S)
    assert waits == [pytest.approx(0.4, abs=0.021), pytest.approx(1.56, abs=0.021)]


def test_words_heard_before_the_pause_hold_until_there_are_others():
    evidence = Evidence(TurnConfig(), Pauses())
    evidence.words(Cues(unfinished=True), final=False)
    evidence.begin(text_due=True)
    evidence.judged(0.9, ())
    assert evidence.required == 80
    assert evidence.text_due
    evidence.words(NO_CUES, final=True)
    assert evidence.required == 20
    assert not evidence.text_due


def test_words_of_one_utterance_say_nothing_of_the_next():
    line = Line()
    line.hear(SPEECH, 0.5)
    line.machine.partial(0, Cues(unfinished=True))
    _, ask = line.pause()
    line.machine.verdict(ask.ask, 0.99)
    assert only(line.hear(SILENCE, 3.0), TurnCommitted)
    _, ask = line.pause()
    line.machine.verdict(ask.ask, 0.99)
    assert only(line.hear(SILENCE, 0.2), TurnCommitted)


def pause_of(line: Line, seconds: float) -> list[object]:
    """Speech, a silence of which the model says that it is no end, and speech again."""
    _, ask = line.pause()
    line.machine.verdict(ask.ask, 0.2)
    return line.hear(SILENCE, seconds - 0.1) + line.hear(SPEECH, 0.5)


def test_a_caller_who_pauses_is_waited_for_longer():
    line = Line(TurnConfig())
    before = required_silence(line.machine.config, 0.5)
    assert only(pause_of(line, 0.8), SpeechResumed)
    stretch = line.machine.pauses.stretch
    assert stretch > 1.15
    assert required_silence(line.machine.config, 0.5, stretch=stretch) > before
    assert required_silence(line.machine.config, 0.9, stretch=stretch) == line.machine.config.sure[1]


def test_a_turn_cut_off_teaches_more_than_a_pause_waited_out():
    line = Line()
    _, ask = line.pause()
    line.machine.verdict(ask.ask, 0.99)
    line.hear(SILENCE, 0.6)
    line.hear(SPEECH, 0.5)
    assert line.machine.pauses.stretch == pytest.approx(1.4, abs=0.1)


def test_patience_is_lost_again_over_turns_without_pauses():
    pauses = Pauses()
    pauses.cut_off(1.0)
    stretched = pauses.stretch
    for _ in range(10):
        pauses.finished()
    assert 1.0 < pauses.stretch < 1.0 + (stretched - 1.0) / 4


def test_the_pauses_of_everybody_change_nothing():
    pauses = Pauses()
    pauses.resumed(0.3)
    assert pauses.stretch == 1.0
