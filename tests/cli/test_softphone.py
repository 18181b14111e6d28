"""The scripted caller against a scripted other side: no SIP, real RTP on loopback."""

from __future__ import annotations

import asyncio
import wave
from pathlib import Path

import numpy as np
import pytest

from appliance.cli.rtp_stream import Codecs, RtpStream
from appliance.cli.softphone import (
    Answered,
    CallFailed,
    CallOver,
    NothingHeard,
    Softphone,
    read_wav,
    write_wav,
)
from appliance.errors import ApplianceError
from tests.waiting import LIMIT_S

HOST = "127.0.0.1"
SPEECH = (9000 * np.sin(2 * np.pi * 300 * np.arange(800) / 8000)).astype(np.int16)


class FakeCall:
    def __init__(self, answer: Answered) -> None:
        self.answer = answer
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def hangup(self) -> None:
        if not self.ended.done():
            self.ended.set_result("us")


class FakeDialler:
    """Answers every call with an agent that is one more RTP stream."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse = refuse
        self.agent = RtpStream(HOST)
        self.call: FakeCall | None = None

    async def dial(self, uri: str, rtp: tuple[str, int], timeout_s: float) -> FakeCall:
        if self.refuse:
            raise CallFailed(self.refuse, "Not Found")
        self.agent.start(rtp, Codecs())
        self.call = FakeCall(Answered((HOST, self.agent.port), Codecs()))
        return self.call

    def close(self) -> None:
        self.agent.close()


async def test_a_turn_is_timed_from_speech_end_to_the_first_reply_packet() -> None:
    dialler = FakeDialler()
    async with Softphone(dialler) as phone:
        await phone.dial("sip:100@box")
        greeting = asyncio.create_task(dialler.agent.play(SPEECH))
        await phone.wait_agent_silent(LIMIT_S, quiet_s=0.1)
        await greeting
        speech_end = await phone.play(SPEECH)
        reply = asyncio.create_task(dialler.agent.play(SPEECH))
        turn = await phone.wait_reply(speech_end, LIMIT_S)
        await reply
    dialler.close()
    assert turn.latency_s > 0
    assert len(phone.heard()) >= 1
    assert phone.ended


async def test_a_refused_call_says_why() -> None:
    dialler = FakeDialler(refuse=404)
    async with Softphone(dialler) as phone:
        with pytest.raises(CallFailed, match="404 Not Found") as failed:
            await phone.dial("sip:999@box")
    dialler.close()
    assert failed.value.status == 404


async def test_a_script_stops_when_the_other_side_hangs_up() -> None:
    dialler = FakeDialler()
    async with Softphone(dialler) as phone:
        await phone.dial("sip:100@box")
        playing = asyncio.create_task(phone.play(np.tile(SPEECH, 100)))
        await asyncio.sleep(0)
        assert dialler.call is not None
        dialler.call.ended.set_result("them")
        with pytest.raises(CallOver):
            await playing
        assert await phone.wait_hangup(LIMIT_S) == "them"
    dialler.close()


async def test_a_silent_agent_is_an_answer_too() -> None:
    dialler = FakeDialler()
    async with Softphone(dialler) as phone:
        await phone.dial("sip:100@box")
        with pytest.raises(NothingHeard, match=r"0\.1 s"):
            await phone.wait_agent_speech(0.1)
    dialler.close()


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (44100, 1)])
def test_any_rate_becomes_8_khz_mono(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "speech.wav"
    tone = (10000 * np.sin(2 * np.pi * 300 * np.arange(rate) / rate)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(tone, channels).tobytes())
    pcm = read_wav(path)
    assert abs(len(pcm) - 8000) <= 2
    assert abs(int(pcm[200:7800].max()) - 10000) < 300


def test_a_file_that_is_no_wav_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"RIFFnothing")
    with pytest.raises(ApplianceError, match=r"x\.wav"):
        read_wav(tmp_path / "x.wav")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", SPEECH)
    assert np.array_equal(read_wav(tmp_path / "x.wav"), SPEECH)
