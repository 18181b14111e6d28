"""Signals of networks and machines are told from one another, and neither speech nor music is taken for one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.audio import g711
from appliance.audio.call_tones import RATE_HZ, Beep, CallTones, Tone
from tests.bench.prompts import SOUNDS, read_wav

Sound = NDArray[np.float64]
MUSIC = SOUNDS.parent / "moh"
SIT_PIECES = {
    "intercept": ((913.8, 0.274), (1370.6, 0.274), (1776.7, 0.38)),
    "vacant": ((985.2, 0.38), (1370.6, 0.274), (1776.7, 0.38)),
    "reorder": ((913.8, 0.274), (1428.5, 0.38), (1776.7, 0.38)),
    "no_circuit": ((985.2, 0.38), (1428.5, 0.38), (1776.7, 0.38)),
    "unknown": ((950.0, 0.33), (1400.0, 0.33), (1800.0, 0.33)),
}


def tone(*hz: float, s: float, amplitude: float = 3000.0) -> Sound:
    at = np.arange(round(s * RATE_HZ)) / RATE_HZ
    return np.sum([amplitude * np.sin(2 * np.pi * one * at) for one in hz], axis=0)


def silence(s: float) -> Sound:
    return np.zeros(round(s * RATE_HZ))


def on_the_line(pieces: Sequence[Sound], noise: float = 8.0) -> NDArray[np.int16]:
    whole = np.concatenate(pieces)
    whole = whole + np.random.default_rng(1).normal(0, noise, len(whole))
    pcm = np.clip(np.rint(whole), -32768, 32767).astype(np.int16)
    return g711.decode(g711.encode(pcm, np.False_), np.False_)


def heard(pcm: NDArray[np.int16], *, answered: bool = True, step: int = 160) -> list[Tone | Beep]:
    listener = CallTones(answered=answered)
    found: list[Tone | Beep] = []
    for start in range(0, len(pcm), step):
        found += listener.on_audio(start / RATE_HZ, pcm[start : start + step])
    return found


def kinds(found: Sequence[Tone | Beep]) -> list[str]:
    return [f"{one.kind} {one.detail}".strip() if isinstance(one, Tone) else "beep" for one in found]


@pytest.mark.parametrize("noise", [8.0, 400.0])
@pytest.mark.parametrize("cause", SIT_PIECES)
@pytest.mark.parametrize("answered", [True, False])
def test_a_special_information_tone_names_its_cause(cause: str, noise: float, answered: bool) -> None:
    pieces = [tone(hz, s=s) for hz, s in SIT_PIECES[cause]]
    assert kinds(heard(on_the_line([silence(0.3), *pieces, silence(1)], noise), answered=answered)) == [f"sit {cause}"]


@pytest.mark.parametrize(
    ("hz", "beat_s", "kind"),
    [
        ((480, 620), 0.5, "busy"),
        ((425,), 0.5, "busy"),
        ((400,), 0.375, "busy"),
        ((480, 620), 0.25, "reorder"),
        ((425,), 0.25, "reorder"),
    ],
)
@pytest.mark.parametrize("answered", [True, False])
def test_busy_and_reorder_are_told_by_their_beat(
    hz: tuple[float, ...], beat_s: float, kind: str, answered: bool
) -> None:
    beats = [tone(*hz, s=beat_s), silence(beat_s)] * 4
    assert kinds(heard(on_the_line([silence(0.2), *beats], 300.0), answered=answered)) == [kind]


@pytest.mark.parametrize(("hz", "on_s"), [((440, 480), 2.0), ((425,), 1.0)])
def test_ringing_is_heard_before_the_answer(hz: tuple[float, ...], on_s: float) -> None:
    ringing = on_the_line([tone(*hz, s=on_s), silence(4)] * 2)
    assert kinds(heard(ringing, answered=False)) == ["ringback"]


def test_a_fax_that_answers_and_one_that_calls_are_heard() -> None:
    assert kinds(heard(on_the_line([silence(1), tone(2100, s=3), silence(1)]))) == ["fax"]
    calling = on_the_line([silence(1), tone(1100, s=0.5), silence(3), tone(1100, s=0.5), silence(1)])
    assert kinds(heard(calling)) == ["fax"]


def test_the_fax_answer_tone_may_turn_its_phase() -> None:
    turns = [tone(2100, s=0.45) * sign for sign in (1, -1, 1, -1)]
    assert kinds(heard(on_the_line([silence(0.5), *turns, silence(1)]))) == ["fax"]


@pytest.mark.parametrize("hz", [400, 440, 700, 833, 1000, 1400, 2000])
@pytest.mark.parametrize("length_s", [0.15, 0.42, 1.0, 1.5])
@pytest.mark.parametrize("noise", [8.0, 300.0])
def test_a_beep_is_heard_at_any_pitch_and_length(hz: float, length_s: float, noise: float) -> None:
    found = heard(on_the_line([silence(1), tone(hz, s=length_s), silence(1.5)], noise))
    assert kinds(found) == ["beep"]
    (beep,) = found
    assert isinstance(beep, Beep)
    assert beep.hz == pytest.approx(hz, rel=0.01)
    assert beep.length_s == pytest.approx(length_s, abs=0.05)
    assert 0 < beep.at_s - (1 + length_s) < 0.9


def test_audio_may_come_in_pieces_of_any_size() -> None:
    pcm = on_the_line([silence(1), tone(1000, s=0.4), silence(1)])
    for step in (7, 160, 1600, len(pcm)):
        assert kinds(heard(pcm, step=step)) == ["beep"]


def test_two_beeps_in_a_row_are_one() -> None:
    pieces = [silence(1), tone(1000, s=0.2), silence(0.1), tone(1000, s=0.2), silence(1)]
    assert kinds(heard(on_the_line(pieces))) == ["beep"]


@pytest.mark.parametrize(
    "pieces",
    [
        [tone(1000, s=0.05), silence(1)],
        [tone(1000, s=3.0), silence(1)],
        [tone(1000, s=0.4), tone(1300, s=0.4), tone(1000, s=2.0)],
        [tone(697, 1209, s=0.3), silence(1)],
        [tone(150, s=0.4), silence(1)],
        [tone(2600, s=0.4), silence(1)],
    ],
    ids=["click", "too long", "a tune", "a key", "hum", "too high"],
)
def test_what_only_resembles_a_beep_is_none(pieces: list[Sound]) -> None:
    assert kinds(heard(on_the_line([silence(0.5), *pieces]))) == []


@pytest.mark.skipif(not MUSIC.exists(), reason="Debian's hold music is not installed (asterisk-moh-opsound-wav)")
def test_there_is_no_beep_in_two_minutes_of_music() -> None:
    for path in sorted(MUSIC.glob("*.wav")):
        assert heard(read_wav(path)[: 24 * RATE_HZ], step=1600) == []


@pytest.mark.skipif(not SOUNDS.exists(), reason="Debian's prompts are not installed (asterisk-core-sounds-en-wav)")
def test_there_is_no_tone_in_spoken_prompts() -> None:
    for path in sorted((SOUNDS / "en_US_f_Allison").glob("vm-*.wav"))[::4]:
        assert heard(np.concatenate([read_wav(path), np.zeros(8000, np.int16)]), step=1600) == [], path.name
