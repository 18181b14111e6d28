"""The benchmark of answering machines: nothing leaks from one half into the other, and right is right."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.conversation.answering import Verdict
from tests.bench.answering import Outcome, best_threshold, shares
from tests.bench.answering_clips import (
    BACKCHANNELS,
    DIGITS,
    FOREIGN_VOICES,
    NOISES,
    READERS,
    SPEAKERS,
    VOICES,
    Answered,
)
from tests.bench.answering_texts import ENGLISH, FOREIGN, Half, Kind
from tests.bench.answering_train import fit


def sentences(half: Half) -> set[str]:
    foreign = [text for kinds in FOREIGN[half].values() for texts in kinds.values() for text in texts]
    return {text for texts in ENGLISH[half].values() for text in texts} | set(foreign)


def voices(half: Half) -> set[str]:
    foreign = [voice for some in FOREIGN_VOICES[half].values() for voice in some]
    others = (*READERS[half], DIGITS[half], *(f"flite {voice}" for voice in BACKCHANNELS[half]), *NOISES[half])
    return {*SPEAKERS[half], *VOICES[half], *foreign, *others}


def test_the_halves_share_no_sentence_speaker_voice_or_noise() -> None:
    assert not sentences("tune") & sentences("report")
    assert not voices("tune") & voices("report")


def outcome(kind: Kind, *verdicts: str) -> Outcome:
    clip = Answered("a clip", kind, "somebody", "", np.zeros(160, np.int16), 0.5, 0.4, 0.9, None, 60.0)
    return Outcome(clip, [Verdict(kind, 0.9, at, "") for at, kind in enumerate(verdicts, 1)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "verdicts", "right"),
    [
        ("human short", ["human"], True),
        ("human short", ["machine", "human"], False),
        ("human long", ["human", "machine"], False),
        ("human long", ["unsure"], False),
        ("human long", [], False),
        ("machine short", ["human", "machine"], True),
        ("machine long", ["machine"], True),
        ("machine long", ["human"], False),
        ("screening", ["screening"], True),
        ("screening", ["machine"], False),
    ],
)
def test_what_is_right(kind: Kind, verdicts: list[str], right: bool) -> None:
    assert outcome(kind, *verdicts).right is right


def test_the_best_length_divides_the_classes() -> None:
    lengths = [(True, 0.5), (True, 1.0), (True, 3.0), (False, 0.9), (False, 4.0), (False, 6.0), (False, 7.0)]
    threshold = best_threshold(lengths)
    assert 3.0 < threshold <= 4.0
    assert shares(lengths, threshold) == pytest.approx((1.0, 3 / 4))


def test_the_weights_of_the_length_are_never_negative() -> None:
    random = np.random.default_rng(1)
    clips = []
    for machine in (False, True) * 20:
        rows = random.uniform(0, 1, (5, 10))
        rows[:, 0] += 0.5 * (not machine)  # what speaks for a person as it gets longer
        rows[:, 1] += 0.5 * machine
        rows[:, -1] = 1.0
        clips.append((machine, rows.tolist()))
    weights = fit(clips)
    assert weights[0] == 0.0
    assert weights[1] > 0.5
