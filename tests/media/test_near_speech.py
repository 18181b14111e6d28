"""Who is near: told from the levels and probabilities of each 20 ms, as they come from the voice detector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from appliance.media.near_speech import NearSpeech

ROW = np.array([0])


class Line:
    """One line, fed with stretches of one loudness."""

    def __init__(self, seed: int = 0) -> None:
        self.near = NearSpeech(2)
        self._chance = np.random.default_rng(seed)

    def hears(self, seconds: float, dbfs: float, speech: float, ripple_db: float = 4.0) -> NDArray[np.float32]:
        """The probabilities that come out; the level wavers as speech does, by syllables."""
        out = []
        for tick in range(round(seconds / 0.02)):
            wave = ripple_db * np.sin(2 * np.pi * tick * 0.02 * 3.0) + self._chance.normal(0, 1.0)
            level = np.array([dbfs + wave], np.float32)
            out.append(float(self.near.step(ROW, level, np.array([speech], np.float32))[0]))
        return np.array(out, np.float32)

    def pause(self, seconds: float = 0.6, dbfs: float = -65.0) -> None:
        self.hears(seconds, dbfs, 0.02, 0.0)


def test_on_a_quiet_line_the_first_frame_of_speech_counts() -> None:
    line = Line()
    line.pause(1.0)
    assert line.hears(1.0, -24.0, 0.95).min() >= 0.9


def test_a_soft_word_of_a_loud_caller_counts() -> None:
    line = Line()
    for _ in range(4):
        line.pause()
        line.hears(2.0, -24.0, 0.95)
    line.pause()
    assert (line.hears(0.4, -35.0, 0.9) >= 0.85).mean() >= 0.9


def test_what_is_no_speech_stays_none() -> None:
    line = Line()
    assert line.hears(2.0, -20.0, 0.05).max() <= 0.06


def television(line: Line, seconds: float, dbfs: float) -> NDArray[np.float32]:
    """Somebody who talks with short pauses."""
    out = []
    for _ in range(round(seconds / 2.4)):
        out.append(line.hears(2.0, dbfs, 0.95))
        line.pause(0.4)
    return np.concatenate(out)


def test_a_television_well_below_the_caller_soon_counts_no_more() -> None:
    line = Line()
    line.hears(3.0, -24.0, 0.95)
    television(line, 9.6, -36.0)
    assert (television(line, 12.0, -36.0) < 0.2).mean() >= 0.95
    line.pause(0.4)
    assert (line.hears(1.5, -24.0, 0.95) >= 0.9).mean() >= 0.85
    assert line.near.usual_dbfs(0) > -26.0


def test_a_caller_who_becomes_softer_is_heard_again_in_the_end() -> None:
    line = Line()
    line.hears(3.0, -20.0, 0.95)
    television(line, 60.0, -30.0)
    assert (television(line, 9.6, -30.0) >= 0.9).mean() >= 0.9


def test_a_sentence_softer_than_the_last_is_heard_to_its_end() -> None:
    line = Line()
    for _ in range(4):
        line.hears(2.5, -20.0, 0.95)
        line.pause(4.0)
        assert line.hears(3.0, -27.0, 0.95)[5:].min() >= 0.9
        line.pause(4.0)


def test_a_crowd_without_pauses_is_nobody() -> None:
    """From the beginning of the call, when nothing is known of the caller yet."""
    line = Line()
    line.hears(6.0, -30.0, 0.95, ripple_db=1.5)
    assert (line.hears(10.0, -30.0, 0.95, ripple_db=1.5) < 0.2).mean() >= 0.95
    assert (line.hears(2.0, -18.0, 0.95) >= 0.9).mean() >= 0.75


def test_a_crowd_that_is_there_from_the_first_moment_is_nobody() -> None:
    line = Line()
    line.hears(0.3, -30.0, 0.1, ripple_db=1.5)
    assert line.hears(2.0, -30.0, 0.95, ripple_db=1.5).max() < 0.2


def test_what_sounds_like_speech_for_an_instant_in_the_noise_is_nobody() -> None:
    line = Line()
    line.hears(2.0, -20.0, 0.95)
    line.hears(5.0, -34.0, 0.1, ripple_db=2.0)
    for _ in range(10):
        assert line.hears(0.1, -32.0, 0.95, ripple_db=0.0).max() < 0.2
        line.hears(1.0, -34.0, 0.1, ripple_db=2.0)


def test_a_word_in_the_noise_counts() -> None:
    line = Line()
    line.hears(2.0, -20.0, 0.95)
    line.hears(5.0, -34.0, 0.1, ripple_db=2.0)
    assert (line.hears(0.4, -24.0, 0.95) >= 0.9).mean() >= 0.7


def test_bangs_make_nobody_speak_up() -> None:
    line = Line()
    line.hears(2.0, -20.0, 0.95)
    for _ in range(10):
        line.hears(0.1, -18.0, 0.1, ripple_db=0.0)
        line.hears(1.9, -38.0, 0.1, ripple_db=1.0)
    assert (line.hears(1.0, -26.0, 0.95) >= 0.9).mean() >= 0.8


def test_the_turn_can_end_while_the_crowd_goes_on() -> None:
    line = Line()
    line.hears(6.0, -34.0, 0.95, ripple_db=1.5)
    line.hears(2.0, -22.0, 0.95)
    after = line.hears(3.0, -34.0, 0.95, ripple_db=1.5)
    assert (after[75:] < 0.2).all()


def test_soft_callers_are_brought_to_the_level_of_others_slowly() -> None:
    line = Line()
    gains = []
    for _ in range(100):
        line.hears(0.02, -45.0, 0.95, 0.0)
        gains.append(20 * np.log10(float(line.near.gain(ROW)[0])))
    assert gains[0] <= 7.0
    assert 25.0 <= gains[-1] <= 30.01
    assert max(np.diff(gains)) <= 0.51
    loud = Line()
    for _ in range(100):
        loud.hears(0.02, -6.0, 0.95, 0.0)
        last = 20 * np.log10(float(loud.near.gain(ROW)[0]))
    assert -6.01 <= last <= 0.0


def test_each_slot_is_a_line_of_its_own_and_a_new_call_begins_anew() -> None:
    both = NearSpeech(3)
    rows = np.array([0, 2])
    for _ in range(10):
        both.step(rows, np.array([-60.0, -60.0], np.float32), np.array([0.02, 0.02], np.float32))
    for _ in range(100):
        both.step(rows, np.array([-20.0, -50.0], np.float32), np.array([0.95, 0.02], np.float32))
    assert both.usual_dbfs(0) > -22.0
    assert both.usual_dbfs(1) == both.usual_dbfs(2) == -60.0
    assert both.near.tolist() == [True, False, False]
    both.reset(0)
    assert both.usual_dbfs(0) == -60.0
    assert not both.near[0]
