"""The benchmarks' own arithmetic."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from appliance.cli.playout import Codec, Playout, Run
from tests.bench.asr_wire import align, exact, with_noise, wrongly_accepted
from tests.bench.load_calls import unwrapped
from tests.bench.lossy import LossyRelay
from tests.bench.pacing import errors
from tests.bench.prompts import Prompt
from tests.bench.report import Bar, percentiles
from tests.bench.rtp_caller import RtpPlayout, between
from tests.bench.turn_callers import fell_silent
from tests.bench.uac import header, parse_answer
from tests.bench.voices import Clip, with_pause
from tests.bench.wire import silences, sounds


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


PCMU = Codec("pcmu")
LOUD, SILENT = PCMU.encode(np.full(160, 8000, np.int16)), PCMU.silence(160)


def test_sounds_are_joined_over_short_breaks_and_keep_their_beginning() -> None:
    playout = Playout(PCMU)
    for at, payload in ((1.0, LOUD), (1.02, LOUD), (1.08, LOUD), (1.5, LOUD), (1.52, SILENT), (1.9, LOUD)):
        playout.receive(payload, at)
    assert sounds(playout, 1.05, 1.8) == [Run(1.0, pytest.approx(1.1)), Run(1.5, pytest.approx(1.52))]
    assert sounds(playout, 1.3, join_s=0.45) == [Run(1.0, pytest.approx(1.92))]


def test_what_is_between_sounds_is_silence() -> None:
    runs = [Run(1.0, 1.2), Run(1.5, 2.0)]
    assert silences(runs, 1.1, 2.5) == [Run(1.2, 1.5), Run(2.0, 2.5)]
    assert silences(runs, 1.6, 1.9) == []
    assert (fell_silent(runs, 1.6), fell_silent(runs, 1.3)) == (2.0, None)


def test_packets_of_silence_are_no_sound_and_a_late_packet_is_heard_where_it_belongs() -> None:
    playout = RtpPlayout(PCMU)
    for number, late in enumerate((0.0, 0.004, 0.0, 0.0)):
        playout.stamped(number * 160, SILENT if number == 2 else LOUD, 5.0 + number * 0.02 + late)
    assert playout.end == pytest.approx(5.08)
    heard = between(playout, 5.0, 5.08)
    assert [bool(heard[at : at + 160].all()) for at in range(0, 640, 160)] == [True, True, False, True]


def test_a_break_in_what_is_said_by_rtp_is_an_underrun_unless_the_caller_spoke() -> None:
    playout = RtpPlayout(PCMU)
    for number in (0, 1, 10, 11):
        playout.stamped(number * 160, LOUD, 5.0 + number * 0.02)
    assert [round(gap.seconds, 2) for gap in playout.gaps] == [0.16]
    playout.caller_active(5.26)
    playout.stamped(20 * 160, LOUD, 5.4)
    assert len(playout.gaps) == 1


def test_a_pause_is_put_where_it_is_quiet_and_moves_the_end() -> None:
    chance = np.random.default_rng(1)
    pcm = (3000 * chance.standard_normal(16000)).astype(np.int16)
    pcm[7000:7800] //= 100
    paused = with_pause(Clip("a", pcm, 0, 16000), 0.5, random.Random(1))
    ((first, last),) = paused.pauses
    assert 7000 <= first <= 7800 and last - first == 4000
    assert paused.end == 20000 and len(paused.pcm) == 20000
    assert np.abs(paused.pcm[first:last].astype(int)).max() < 300
