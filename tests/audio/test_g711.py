from __future__ import annotations

import numpy as np
import pytest

from appliance.audio import g711

CODES = np.arange(256, dtype=np.uint8)


@pytest.mark.parametrize("alaw", [False, True])
def test_bytes_of_the_other_law_sound_the_same_in_this_one(alaw: bool) -> None:
    other = g711.decode(CODES, not alaw).astype(int)
    translated = np.frombuffer(CODES.tobytes().translate(g711.OTHER_LAW[alaw]), np.uint8)
    this = g711.decode(translated, alaw).astype(int)
    assert (np.abs(this - other) <= np.abs(other) // 16 + 8).all()


@pytest.mark.parametrize("alaw", [False, True])
def test_every_code_survives_decoding_and_encoding(alaw: bool) -> None:
    again = g711.encode(g711.decode(CODES, alaw), alaw)
    expected = CODES.copy()
    if not alaw:
        expected[0x7F] = 0xFF  # minus zero
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize(
    ("alaw", "code", "value"),
    [
        # Character signals and decoder output values of G.711 tables 2a and 1a, scaled to 16 bits.
        (False, 0x80, 8031 * 4),
        (False, 0x00, -8031 * 4),
        (False, 0x8F, 4191 * 4),
        (False, 0x9F, 2079 * 4),
        (False, 0xAF, 1023 * 4),
        (False, 0xBF, 495 * 4),
        (False, 0xCF, 231 * 4),
        (False, 0xDF, 99 * 4),
        (False, 0xEF, 33 * 4),
        (False, 0xFE, 2 * 4),
        (False, 0xFF, 0),
        (False, 0x7F, 0),
        (False, 0x7E, -2 * 4),
        (True, 0xFF ^ 0x55, 4032 * 8),
        (True, 0x7F ^ 0x55, -4032 * 8),
        (True, 0xF0 ^ 0x55, 2112 * 8),
        (True, 0xE0 ^ 0x55, 1056 * 8),
        (True, 0xD0 ^ 0x55, 528 * 8),
        (True, 0xC0 ^ 0x55, 264 * 8),
        (True, 0xB0 ^ 0x55, 132 * 8),
        (True, 0xA0 ^ 0x55, 66 * 8),
        (True, 0x90 ^ 0x55, 33 * 8),
        (True, 0x80 ^ 0x55, 8),
        (True, 0x00 ^ 0x55, -8),
    ],
)
def test_values_are_those_of_the_standard(alaw: bool, code: int, value: int) -> None:
    assert int(g711.decode(np.array([code], np.uint8), alaw)[0]) == value


@pytest.mark.parametrize(
    ("alaw", "decision", "below", "above"),
    [
        # Decision values at the segment ends, and the values to either side (G.711 tables 2a and 1a).
        (False, 1, 0, 2),
        (False, 31, 30, 33),
        (False, 95, 93, 99),
        (False, 223, 219, 231),
        (False, 479, 471, 495),
        (False, 991, 975, 1023),
        (False, 2015, 1983, 2079),
        (False, 4063, 3999, 4191),
        (False, 7903, 7775, 8031),
        (True, 2, 1, 3),
        (True, 32, 31, 33),
        (True, 64, 63, 66),
        (True, 128, 126, 132),
        (True, 1024, 1008, 1056),
        (True, 2048, 2016, 2112),
        (True, 3968, 3904, 4032),
    ],
)
def test_decisions_are_those_of_the_standard(alaw: bool, decision: int, below: int, above: int) -> None:
    scale = 8 if alaw else 4
    samples = np.array([decision * scale - 1, decision * scale], np.int16)
    assert (g711.decode(g711.encode(samples, alaw), alaw) // scale).tolist() == [below, above]
    mirrored = (-samples - alaw).astype(np.int16)
    assert (g711.decode(g711.encode(mirrored, alaw), alaw) // scale).tolist() == [-below, -above]


@pytest.mark.parametrize("alaw", [False, True])
def test_louder_samples_never_get_quieter_values(alaw: bool) -> None:
    samples = np.arange(-32768, 32768).astype(np.int16)
    coded = g711.decode(g711.encode(samples, alaw), alaw).astype(np.int32)
    assert np.all(np.diff(coded) >= 0)
    assert np.max(np.abs(coded - samples)) <= 644


@pytest.mark.parametrize("alaw", [False, True])
def test_silence_is_the_idle_code(alaw: bool) -> None:
    idle = 0xD5 if alaw else 0xFF
    assert np.all(g711.encode(np.zeros(160, np.int16), alaw) == idle)
    assert abs(int(g711.decode(np.array([idle], np.uint8), alaw)[0])) <= 8


def test_each_row_has_its_own_law() -> None:
    payload = np.random.default_rng(1).integers(0, 256, (6, 160)).astype(np.uint8)
    law = np.array([False, True, True, False, True, False])
    samples = g711.decode(payload, law)
    assert samples.dtype == np.int16
    assert samples.shape == (6, 160)
    coded = g711.encode(samples, law)
    assert coded.dtype == np.uint8
    for row, alaw in enumerate(law):
        np.testing.assert_array_equal(samples[row], g711.decode(payload[row], bool(alaw)))
        np.testing.assert_array_equal(coded[row], g711.encode(samples[row], bool(alaw)))


def test_no_calls_are_no_rows() -> None:
    assert g711.decode(np.zeros((0, 160), np.uint8), np.zeros(0, np.bool_)).shape == (0, 160)
    assert g711.encode(np.zeros((0, 160), np.int16), np.zeros(0, np.bool_)).shape == (0, 160)


def test_views_that_are_not_contiguous_are_encoded() -> None:
    wide = np.arange(320, dtype=np.int16).reshape(2, 160)
    law = np.array([False, True])
    np.testing.assert_array_equal(g711.encode(wide[:, ::2], law), g711.encode(wide[:, ::2].copy(), law))
