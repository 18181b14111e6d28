"""The softphone's RTP: two streams on loopback talk to each other."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from appliance.cli.rtp_stream import (
    FRAME_SAMPLES,
    Arrival,
    Codecs,
    RtpStream,
    Ticker,
    speech_bounds,
    speech_segments,
)
from tests.waiting import LIMIT_S

HOST = "127.0.0.1"


def tone(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    t = np.arange(int(8000 * seconds)) / 8000
    return (8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)


class Pair:
    """Two connected streams on one clock."""

    def __init__(self, codecs: Codecs = Codecs()) -> None:  # noqa: B008
        self.ticker = Ticker(phases=2)
        self.one = RtpStream(HOST, ticker=self.ticker)
        self.two = RtpStream(HOST, ticker=self.ticker)
        self.codecs = codecs

    async def __aenter__(self) -> Pair:
        self.one.start((HOST, self.two.port), self.codecs)
        self.two.start((HOST, self.one.port), self.codecs)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.one.close()
        self.two.close()
        await asyncio.sleep(0)


async def heard(stream: RtpStream, packets: int) -> None:
    done = asyncio.Event()
    stream.on_arrival(lambda _: done.set() if len(stream.arrivals) >= packets else None)
    await asyncio.wait_for(done.wait(), LIMIT_S)


@pytest.mark.parametrize("payload_type", [0, 8])
async def test_what_is_played_is_what_is_received(payload_type: int) -> None:
    async with Pair(Codecs(payload_type)) as pair:
        speech = tone(0.1)
        end = await pair.one.play(speech)
        await heard(pair.two, 8)
    received = pair.two.received()
    assert len(received) >= 8 * FRAME_SAMPLES
    loud = np.flatnonzero(np.abs(received) > 500)
    assert abs((loud[-1] - loud[0]) - len(speech)) < 20
    last = max(index for index, arrival in enumerate(pair.two.arrivals) if arrival.level_dbfs > -50)
    assert pair.two.arrivals[last - 1].at < end < pair.two.arrivals[last + 1].at
    assert pair.two.foreign == 0


async def test_silence_flows_when_nothing_is_played() -> None:
    async with Pair() as pair:
        await heard(pair.two, 5)
    assert {a.level_dbfs for a in pair.two.arrivals} == {-96.0}
    steps = np.diff([a.timestamp for a in pair.two.arrivals])
    assert set(steps.tolist()) == {FRAME_SAMPLES}


async def test_keys_take_the_place_of_audio_packets() -> None:
    async with Pair() as pair:
        await heard(pair.two, 2)
        pair.one.send_digits("5")
        await heard(pair.two, 8)
    sequences = [a.sequence for a in pair.two.arrivals]
    assert sequences[-1] - sequences[0] > len(sequences) - 1
    assert pair.two.foreign == 0


async def test_keys_need_an_agreement() -> None:
    async with Pair(Codecs(dtmf_payload_type=None)) as pair:
        with pytest.raises(ValueError, match="telephone-event"):
            pair.one.send_digits("5")


async def test_playing_is_cancelled_when_the_stream_closes() -> None:
    async with Pair() as pair:
        playing = asyncio.create_task(pair.one.play(tone(60.0)))
        await heard(pair.two, 2)
        pair.one.close()
        with pytest.raises(asyncio.CancelledError):
            await playing


async def test_noise_on_the_port_is_counted_not_heard() -> None:
    async with Pair() as pair:
        pair.one._sock.sendto(b"\x00", (HOST, pair.two.port))
        await heard(pair.two, 2)
    assert pair.two.foreign == 1


def test_speech_is_found_by_level() -> None:
    pcm = np.concatenate([np.zeros(800, np.int16), tone(0.5), np.full(800, 3, np.int16)])
    assert speech_bounds(pcm, 8000) == (800, 4800)


def test_segments_join_over_short_pauses() -> None:
    levels = [-96.0] * 10 + [-20.0] * 10 + [-96.0] * 10 + [-20.0] * 10 + [-96.0] * 50 + [-20.0] * 5
    arrivals = [Arrival(i * 0.02, i, i * 160, level) for i, level in enumerate(levels)]
    assert [(round(a, 2), round(b, 2)) for a, b in speech_segments(arrivals)] == [(0.2, 0.8), (1.8, 1.9)]
