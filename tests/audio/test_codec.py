from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from appliance.audio.codec import CODECS, Codec, new_codec
from appliance.audio.level import rms_dbfs_one
from appliance.audio.opus import MAX_SAMPLES, packet_samples
from appliance.audio.resample import resample
from appliance.audio.tones import sine
from appliance.errors import RtpError

VOICES = ("utterances/spk1_snt1.wav", "utterances/spk2_snt1.wav", "utterances/weather_question.wav")
PACKETS_MS = (10, 20, 40, 60)


def voice(path: Path) -> NDArray[np.int16]:
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return resample(samples, file.getframerate(), 8000)


def packets(codec: Codec, samples: NDArray[np.int16], size: int = 160) -> list[bytes]:
    return [codec.encode(samples[at : at + size]) for at in range(0, len(samples) - size + 1, size)]


def likeness(original: NDArray[np.int16], heard: NDArray[np.int16], max_delay: int = 80) -> float:
    """The correlation of the two at the delay, up to 10 ms, that suits them best: 1 for the same waveform."""
    length = min(len(original), len(heard)) - max_delay
    before = original[:length].astype(np.float64)
    scores = []
    for delay in range(max_delay):
        after = heard[delay : delay + length].astype(np.float64)
        scores.append(float(before @ after) / float(np.sqrt((before @ before) * (after @ after)) + 1.0))
    return max(scores)


@pytest.mark.parametrize("clip", VOICES)
@pytest.mark.parametrize("name", CODECS)
def test_a_voice_comes_through_as_loud_and_as_clear(name: str, clip: str, shared_audio: Path) -> None:
    codec, said = new_codec(name), voice(shared_audio / clip)
    heard = np.concatenate([codec.decode(payload) for payload in packets(codec, said)])
    assert len(heard) == len(said) // 160 * 160
    assert abs(rms_dbfs_one(heard) - rms_dbfs_one(said)) < 0.5
    assert likeness(said, heard) > (0.95 if name == "opus" else 0.995)


@pytest.mark.parametrize("size_ms", PACKETS_MS)
@pytest.mark.parametrize("name", CODECS)
def test_packets_of_every_length(name: str, size_ms: int) -> None:
    codec, size = new_codec(name), size_ms * 8
    for payload in packets(codec, sine(440, 4 * size), size):
        assert codec.samples_in(payload) == size
        assert len(codec.decode(payload)) == size


@pytest.mark.parametrize("name", ["pcmu", "pcma", "g722"])
def test_an_octet_is_a_sample_whatever_the_packet(name: str) -> None:
    codec = new_codec(name)
    assert [len(payload) for payload in packets(codec, sine(300, 640))] == [160] * 4
    assert codec.plc(160) is None


def test_legs_share_no_state() -> None:
    for name in CODECS:
        loud, quiet = new_codec(name), new_codec(name)
        for payload in packets(loud, sine(440, 1600)):
            loud.decode(payload)
        silence = quiet.decode(quiet.encode(np.zeros(160, np.int16)))
        assert np.abs(silence).max() < 32, name


def test_the_clocks() -> None:
    assert {name: new_codec(name).rtp_clock_hz for name in CODECS} == {
        "pcmu": 8000,
        "pcma": 8000,
        "g722": 8000,
        "opus": 48000,
    }


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(ValueError, match="'g729'; use one of pcmu, pcma, g722, opus"):
        new_codec("g729")


class TestG722:
    def test_a_wideband_telephone_is_heard_without_its_upper_band(self) -> None:
        from G722 import G722

        telephone = G722(16000, 64000)
        tone = np.concatenate([sine(1000, 16000, rate_hz=16000), sine(6000, 16000, rate_hz=16000)])
        heard = new_codec("g722").decode(telephone.encode(tone))
        assert len(heard) == 16000
        assert rms_dbfs_one(heard[1600:7900]) == pytest.approx(-13.0, abs=0.5)
        assert rms_dbfs_one(heard[8400:]) < -45.0

    def test_a_wideband_telephone_hears_us(self) -> None:
        from G722 import G722

        coded = new_codec("g722").encode(sine(1000, 8000))
        heard = np.frombuffer(G722(16000, 64000).decode(coded), np.int16)
        assert len(heard) == 16000
        assert rms_dbfs_one(heard[1600:]) == pytest.approx(-13.0, abs=0.5)


class TestOpus:
    def test_a_lost_packet_is_rebuilt_from_the_copy_in_the_next(self, shared_audio: Path) -> None:
        said = voice(shared_audio / VOICES[0])
        sent = packets(new_codec("opus"), said)
        with_copy, without, whole = new_codec("opus"), new_codec("opus"), new_codec("opus")
        clean = np.concatenate([whole.decode(payload) for payload in sent])
        rebuilt, made_up = [], []
        for number, payload in enumerate(sent):
            if number % 7 == 3 and number + 1 < len(sent):
                rebuilt.append(with_copy.plc(160, sent[number + 1]))
                made_up.append(without.plc(160))
            else:
                rebuilt.append(with_copy.decode(payload))
                made_up.append(without.decode(payload))
        assert likeness(clean, np.concatenate(rebuilt), 1) > likeness(clean, np.concatenate(made_up), 1)
        assert likeness(clean, np.concatenate(rebuilt), 1) > 0.9

    def test_concealment_fades(self) -> None:
        codec = new_codec("opus")
        for payload in packets(codec, sine(200, 1600)):
            codec.decode(payload)
        gaps = [codec.plc(160) for _ in range(50)]
        first, last = gaps[0], gaps[-1]
        assert first is not None and last is not None
        assert rms_dbfs_one(first) > -20.0
        assert rms_dbfs_one(last) < -40.0

    def test_a_broken_following_packet_still_conceals(self) -> None:
        concealed = new_codec("opus").plc(320, b"\xff")
        assert concealed is not None and len(concealed) == 320

    def test_what_is_no_opus_is_named(self) -> None:
        codec = new_codec("opus")
        for payload in (b"", b"\xff", b"\x03\x00", b"\x02\xff"):
            with pytest.raises(RtpError):
                codec.decode(payload)
        assert packet_samples(b"") == packet_samples(b"\x03") == packet_samples(b"\x03\x3f") == 0
        assert packet_samples(b"\x0a\x00\x00") == 320

    def test_a_length_opus_does_not_have(self) -> None:
        with pytest.raises(ValueError, match="no packet of 100 samples"):
            new_codec("opus").encode(np.zeros(100, np.int16))
        with pytest.raises(ValueError, match="in steps of 80"):
            new_codec("opus").plc(81)


@given(st.lists(st.binary(max_size=300), max_size=8), st.sampled_from(sorted(CODECS)))
def test_any_octets_raise_only_the_named_error(payloads: list[bytes], name: str) -> None:
    codec = new_codec(name)
    for payload in payloads:
        expected = codec.samples_in(payload)
        try:
            heard = codec.decode(payload)
        except RtpError:
            continue
        assert heard.dtype == np.int16
        assert len(heard) == expected <= max(MAX_SAMPLES, len(payload))
