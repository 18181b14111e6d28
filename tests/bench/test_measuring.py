"""The benchmarks' own arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bench.asr_wire import align, exact, with_noise, wrongly_accepted
from tests.bench.load_calls import unwrapped
from tests.bench.lossy import LossyRelay
from tests.bench.pacing import errors
from tests.bench.prompts import Prompt
from tests.bench.report import Bar, percentiles
from tests.bench.uac import header, parse_answer


def turn(text: str, accepted: bool = True) -> dict[str, object]:
    return {"caller_text": text, "accepted": accepted, "by": "voice"}


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(text, Path(text), text) for text in texts]


def test_a_turn_too_many_costs_only_itself() -> None:
    played = prompts("one two three", "four five six", "seven eight nine")
    found = align(played, [turn("one two three"), turn("noise"), turn("four five six"), turn("seven eight nine")])
    assert exact(found) == 1.0


def test_a_missing_turn_costs_only_itself() -> None:
    played = prompts("one two three", "four five six", "seven eight nine")
    found = align(played, [turn("one two three"), turn("seven eight nine")])
    assert [pair.turn is not None for pair in found] == [True, False, True]
    assert exact(found) == pytest.approx(2 / 3)


def test_a_rejected_prompt_is_neither_exact_nor_accepted() -> None:
    found = align(prompts("one two three"), [turn("one two three", accepted=False)])
    assert (exact(found), wrongly_accepted(found)) == (0.0, 0.0)


def test_noise_lies_where_it_was_asked_for() -> None:
    chance = np.random.default_rng(1)
    speech = (3000 * chance.standard_normal(8000)).astype(np.int16)
    noisy = with_noise(speech, (100 * chance.standard_normal(4000)).astype(np.int16), 17)
    added = noisy.astype(float) - speech
    assert 10 * np.log10(np.mean(speech.astype(float) ** 2) / np.mean(added**2)) == pytest.approx(15.0, abs=0.2)


def test_sequence_numbers_go_on_past_16_bits() -> None:
    assert unwrapped([65534, 65535, 0, 1, 0]).tolist() == [65534, 65535, 65536, 65537, 65536]


def test_pacing_error_is_against_the_call_s_own_grid(tmp_path: Path) -> None:
    sequence = np.arange(100)
    at = 5.0 + 0.02 * sequence
    at[50] += 0.004
    keep = sequence != 70
    np.savez(tmp_path / "a.npz", at=at[keep], call=np.zeros(99), sequence=sequence[keep])
    found, missing = errors(tmp_path / "a.npz")
    assert missing == 1
    assert found.max() == pytest.approx(0.004)
    assert np.sort(found)[-2] == pytest.approx(0.0, abs=1e-9)


def test_the_same_seed_loses_the_same_datagrams() -> None:
    fates = [[relay._survives() for _ in range(200)] for relay in (LossyRelay(("", 0), 0.2, 7) for _ in range(2))]
    assert fates[0] == fates[1]
    assert 140 < sum(fates[0]) < 180


def test_a_bar_says_what_was_not_met(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(4, "a test")
    bar.figure("12 of 13")
    bar.require(False, "one is missing")
    assert bar.finish() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "BAR 4: a test: 12 of 13 FAIL (one is missing)"
    assert percentiles([0.001, 0.002, 0.003]) == "p50 2.00 / p95 2.90 / p99 2.98 ms"


def test_the_bare_caller_reads_answers() -> None:
    sdp = "v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 8 96\r\na=rtpmap:96 telephone-event/8000\r\n"
    answer = parse_answer(sdp)
    assert (answer.remote, answer.codecs.payload_type, answer.codecs.dtmf_payload_type) == (("10.0.0.1", 4000), 8, 96)
    assert header("SIP/2.0 200 OK\r\nCall-ID:  abc \r\n\r\n", "call-id") == "abc"
