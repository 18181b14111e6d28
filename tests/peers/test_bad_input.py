"""Bad input of every kind against a running box: a clear answer or log line, and no other call disturbed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from appliance.cli.box import HOST, Box
from appliance.cli.dialler import SipDialler
from appliance.cli.rtp_stream import Pcm, RtpStream
from appliance.cli.softphone import CallFailed, Softphone, read_wav
from appliance.models.store import model_directory
from tests.bench import crash, lines, records
from tests.peers.raw_sip import RawSip, sdp
from tests.peers.small_disk import full, small_disk
from tests.waiting import LIMIT_S, eventually

pytestmark = pytest.mark.peer

RECORD_DISK, RECORDING_DISK = "record", "recordings"


def quick_settings(folder: Path) -> dict[str, object]:
    """Engines that load at once: what they understand is not the question here."""
    return {
        **lines.settings(folder),
        "engines.asr": {"provider": "fake", "delay_ms": 100, "text": lines.ANSWER, "workers": 1},
        "engines.turn": {"provider": "fake"},
    }


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One box for the whole file, its record and its recordings on small disks of their own where that is permitted."""
    folder = tmp_path_factory.mktemp("bad")
    box = Box(folder / "box", quick_settings(folder))
    box.database = box.directory / RECORD_DISK / "appliance.db"
    box.settings["store.url"] = f"sqlite+aiosqlite:///{box.database}"
    with small_disk(box.directory / RECORD_DISK), small_disk(box.directory / RECORDING_DISK):
        with box:
            yield box
        assert box.stop() == 0, box.log_tail()
        assert "Traceback" not in box.log.read_text()


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Pcm:
    return read_wav(lines.question(tmp_path_factory.mktemp("voice")))


def need_disk(box: Box, name: str) -> Path:
    disk = box.directory / name
    if not os.path.ismount(disk):
        pytest.skip("a disk to fill can be mounted by root only; run the tests as root")
    return disk


@contextlib.asynccontextmanager
async def on_a_call(box: Box, number: str) -> AsyncIterator[Softphone]:
    """A caller who is through and hears the agent."""
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        await phone.dial(box.uri(number))
        await phone.wait_agent_speech(LIMIT_S, since=phone.dialled_at)
        yield phone


async def refusal(box: Box, number: str) -> int:
    """The status a new call is refused with; 200 where it is answered."""
    async with SipDialler(HOST) as dialler, Softphone(dialler) as phone:
        try:
            await phone.dial(box.uri(number))
        except CallFailed as failed:
            return failed.status
    return 200


async def heard_for(phone: Softphone, packets: int) -> None:
    """Wait until the caller got this many packets more."""
    wanted = len(phone.rtp.arrivals) + packets
    await eventually(lambda: len(phone.rtp.arrivals) >= wanted, f"{packets} packets more")


def assert_undisturbed(phone: Softphone) -> None:
    """Every packet came, and in order; how evenly is a bar of its own (``make bars``)."""
    arrivals = phone.rtp.arrivals
    assert not phone.ended
    steps = np.diff([arrival.sequence for arrival in arrivals]) % 65536
    assert set(steps.tolist()) == {1}


async def newest(box: Box, count: int) -> records.Row:
    """The last of ``count`` calls, when all are on record and over."""
    found = await asyncio.to_thread(records.wait_settled, box.database, count)
    assert len(found) == count
    return found[-1]


def logged(box: Box, since: int, words: str) -> int:
    """How many lines of the box's log from byte ``since`` on have ``words``."""
    return sum(words in line for line in box.log.read_bytes()[since:].decode().splitlines())


def log_end(box: Box) -> int:
    return box.log.stat().st_size


async def wait_logged(box: Box, since: int, words: str) -> None:
    await eventually(lambda: logged(box, since, words), lambda: f"{words!r} in the log\n{box.log_tail()}")


# --- from the network -----------------------------------------------------------------------------------------------


async def test_random_bytes_and_truncated_sip_hold_up_nobody(box: Box) -> None:
    before = len(records.calls(box.database))
    chance = random.Random(8)
    with RawSip(box.sip_port) as peer:
        invite = peer.request("INVITE", lines.LISTENER, sdp())
        async with on_a_call(box, lines.LISTENER) as phone:
            for number in range(600):
                await peer.send(chance.randbytes(chance.randrange(1, 1400)))
                await peer.send(invite[: 1 + number % (len(invite) - 1)])
                if number % 50 == 0:
                    await heard_for(phone, 2)
            with RawSip(box.sip_port) as another:
                assert await another.status("OPTIONS") == 200
            assert await refusal(box, lines.LISTENER) == 200
            await heard_for(phone, 25)
            assert_undisturbed(phone)
    assert (await newest(box, before + 2))["disposition"] == "completed"


@pytest.mark.parametrize(
    ("offer", "status"),
    [
        (sdp("m=audio 40000 RTP/AVP 18\r\na=rtpmap:18 G729/8000\r\n"), 488),
        (sdp("m=video 40000 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n"), 488),
        ("this is no session description", 400),
    ],
    ids=["codec", "video", "garbage"],
)
async def test_an_offer_that_cannot_be_answered_is_refused_in_plain_words(box: Box, offer: str, status: int) -> None:
    since = log_end(box)
    with RawSip(box.sip_port) as peer:
        assert await peer.status("INVITE", lines.LISTENER, offer) == status
    await wait_logged(box, since, "refused: ")


async def test_a_stranger_on_the_rtp_port_is_not_heard_and_is_counted(box: Box, speech: Pcm) -> None:
    before, counted = len(records.calls(box.database)), strangers(box)
    async with on_a_call(box, lines.ASSISTANT) as phone:
        await phone.wait_agent_silent()
        intruder = RtpStream("127.0.0.2")
        remote = phone.rtp._remote
        assert remote is not None
        intruder.start(remote, phone._call.answer.codecs)  # type: ignore[union-attr]
        await intruder.play(speech)
        await heard_for(phone, 50)
        assert intruder.arrivals == []
        intruder.close()
        await phone.wait_reply(await phone.play(speech))
        assert_undisturbed(phone)
    turns = [turn for turn in (await newest(box, before + 1))["turns"] if turn["by"] == "voice"]
    assert len(turns) == 1
    assert strangers(box) - counted >= len(speech) // 160


def strangers(box: Box) -> float:
    found = re.search(r'^appliance_rtp_packets_bad_total\{reason="stranger"\} (\S+)', box.get("/metrics")[1], re.M)
    return float(found.group(1)) if found else 0.0


# --- a worker dies --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def killed_in_the_act(box: Box, name: str) -> Iterator[int]:
    """Hold a process still, so that it has begun whatever it is asked for, and kill it at the end of the block."""
    pid = box.processes()[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


async def until_back(box: Box, name: str, old_pid: int) -> None:
    assert await asyncio.to_thread(crash.wait_restarted, box, name, old_pid)


async def test_a_turn_is_answered_though_the_recogniser_died_over_it(box: Box, speech: Pcm) -> None:
    before, since = len(records.calls(box.database)), log_end(box)
    async with on_a_call(box, lines.ASSISTANT) as phone:
        await phone.wait_agent_silent()
        with killed_in_the_act(box, "asr-0") as pid:
            spoken = await phone.play(speech)
            await heard_for(phone, 25)
        await phone.wait_reply(spoken)
        assert_undisturbed(phone)
    turns = (await newest(box, before + 1))["turns"]
    assert [turn["caller_text"] for turn in turns if turn["by"] == "voice"] == [lines.ANSWER]
    assert logged(box, since, "asr-0 died with 1 requests; they are asked again") == 1
    await until_back(box, "asr-0", pid)


async def test_the_agent_goes_on_though_synthesis_died_over_a_sentence(box: Box) -> None:
    before = len(records.calls(box.database))
    async with on_a_call(box, lines.KEYS) as phone:
        with killed_in_the_act(box, "tts-0") as pid:
            phone.send_digits("1")
            await heard_for(phone, 50)
        pressed = phone.rtp.arrivals[-1].at
        await phone.wait_agent_speech(LIMIT_S, since=pressed)
        phone.send_digits("2")
        assert await phone.wait_hangup(LIMIT_S) == "them"
    call = await newest(box, before + 1)
    assert call["disposition"] == "completed"
    assert "pressed two" in call["turns"][-1]["agent_text"]
    await until_back(box, "tts-0", pid)


async def test_without_the_turn_model_silence_decides(box: Box, speech: Pcm) -> None:
    since = log_end(box)
    async with on_a_call(box, lines.ASSISTANT) as phone:
        await phone.wait_agent_silent()
        with killed_in_the_act(box, "turn-0") as pid:
            await phone.wait_reply(await phone.play(speech))
        await wait_logged(box, since, "silence alone decides")
        assert_undisturbed(phone)
    await until_back(box, "turn-0", pid)


async def test_a_dead_recorder_leaves_no_gap(box: Box) -> None:
    before = len(records.calls(box.database))
    async with on_a_call(box, lines.TALKER) as phone:
        await heard_for(phone, 50)
        pid = box.processes()["recorder"]
        os.kill(pid, signal.SIGKILL)
        await until_back(box, "recorder", pid)
        await phone.wait_agent_silent()
        assert_undisturbed(phone)
        expected = len(phone.rtp.arrivals) * 0.02
        heard = loud_frames(phone.received())
    call = await newest(box, before + 1)
    assert call["recording_problem"] == ""
    with wave.open(str(box.recordings / call["recording_path"])) as file:
        agent = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)[:, 1]
    assert len(agent) / 8000 >= expected - 0.3
    assert len(heard) > 100
    assert len(heard ^ loud_frames(agent)) <= 2, "what the caller heard is what was recorded"


def loud_frames(samples: Pcm) -> set[int]:
    """The frames with sound in them, counted from the first."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160).astype(float)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) > 1000)
    return set((loud - loud[0]).tolist())


async def test_dead_media_ends_its_calls_and_the_box_takes_new_ones(box: Box) -> None:
    before = len(records.calls(box.database))
    async with on_a_call(box, lines.LISTENER) as phone:
        pid = box.processes()["media"]
        os.kill(box.pid, signal.SIGSTOP)  # nobody starts it again before the new call is tried
        try:
            os.kill(pid, signal.SIGKILL)
            assert await phone.wait_hangup(LIMIT_S) == "them"
            assert await refusal(box, lines.LISTENER) == 503
        finally:
            os.kill(box.pid, signal.SIGCONT)
    await until_back(box, "media", pid)
    assert await refusal(box, lines.LISTENER) == 200
    await newest(box, before + 3)
    assert [call["disposition"] for call in records.calls(box.database)[before:]] == [
        "interrupted",
        "rejected",
        "completed",
    ]


# --- a full disk ----------------------------------------------------------------------------------------------------


async def test_a_call_goes_on_while_the_disk_of_the_recordings_is_full(box: Box) -> None:
    disk, before, since = need_disk(box, RECORDING_DISK), len(records.calls(box.database)), log_end(box)
    with full(disk):
        async with on_a_call(box, lines.LISTENER) as phone:
            await heard_for(phone, 100)
            assert_undisturbed(phone)
        call = await newest(box, before + 1)
        assert call["disposition"] == "completed"
        assert "No space left" in call["recording_problem"]
    assert logged(box, since, "cannot be written: No space left") == 1


async def test_a_recording_is_complete_when_there_is_room_again_in_time(box: Box) -> None:
    disk, before, since = need_disk(box, RECORDING_DISK), len(records.calls(box.database)), log_end(box)
    async with on_a_call(box, lines.LISTENER) as phone:
        with full(disk):
            await wait_logged(box, since, "cannot be written: No space left")
            await heard_for(phone, 50)
        await wait_logged(box, since, "is being written again")
        assert_undisturbed(phone)
        expected = len(phone.rtp.arrivals) * 0.02
    call = await newest(box, before + 1)
    assert call["recording_problem"] == ""
    assert records.recording_seconds(call["recording_path"], box.recordings) >= expected - 0.5


async def test_new_calls_are_refused_while_the_record_cannot_be_written(box: Box) -> None:
    disk, before, since = need_disk(box, RECORD_DISK), len(records.calls(box.database)), log_end(box)
    async with on_a_call(box, lines.KEYS) as phone:
        with full(disk):
            assert await refusal(box, lines.KEYS) == 503
            assert logged(box, since, "the call record cannot be written") == 1
            assert logged(box, since, "refused: the record") == 1
            assert_undisturbed(phone)
        await wait_logged(box, since, "the call record is being written again")
        assert await refusal(box, lines.KEYS) == 200
        phone.send_digits("2")
        assert await phone.wait_hangup(LIMIT_S) == "them"
    await newest(box, before + 3)
    assert [call["disposition"] for call in records.calls(box.database)[before:]] == [
        "completed",
        "rejected",
        "completed",
    ]


# --- what cannot start ------------------------------------------------------------------------------------------------


def refused(settings: Mapping[str, object], command: str = "serve") -> tuple[int, list[str]]:
    """Exit status and what an operator reads when the box does not start."""
    words = [sys.executable, "-m", "appliance.cli.main", command]
    for key, value in settings.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60.0, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, (done.stdout + done.stderr).splitlines()


TEN_MISTAKES = """\
nme: front
match: {trunk: locla, called: "12x"}
langauge: en
max_duration_s: soon
greeting: 7
no_input: {after_s: -1, then: nowhere}
flow:
  ask: {ask: "Hello ${nobody}?", expect: {good: [xyzzyq]}, next: {bad: end}}
  end: {hang_up: Bye., say: Bye.}
  lost: {next: end}
"""


@pytest.mark.parametrize("command", ["serve", "check"])
def test_every_mistake_of_a_dialplan_is_said_at_once(tmp_path: Path, command: str) -> None:
    plan = tmp_path / "front.yaml"
    plan.write_text(TEN_MISTAKES)
    settings = {**Box(tmp_path / "box").settings, "dialplans.paths": [str(plan)]}
    code, said = refused(settings, command)
    assert code != 0
    found = [line for line in said if re.fullmatch(rf"{re.escape(str(plan))}:\d+: [\w.]+: [^;]+(; .+)?", line)]
    assert len(found) >= 10, "\n".join(said)
    assert said[-1] == f"appliance {command}: {len(found)} mistakes"


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_a_bad_model_file_is_named_with_the_remedy(tmp_path: Path, damage: str) -> None:
    models = tmp_path / "models"
    models.mkdir()
    if damage == "corrupt":
        intact = (model_directory() / "silero_vad.onnx").read_bytes()
        (models / "silero_vad.onnx").write_bytes(intact[:-1] + b"!")
    code, said = refused(Box(tmp_path / "box", {**quick_settings(tmp_path), "models_dir": str(models)}).settings)
    assert code == 1
    assert len(said) == 1
    assert f"{models / 'silero_vad.onnx'} is {damage}" in said[0]
    assert "models pull silero_vad" in said[0]


@pytest.mark.parametrize(
    ("kind", "what"), [(socket.SOCK_DGRAM, "SIP"), (socket.SOCK_STREAM, "HTTP")], ids=["sip", "http"]
)
def test_a_port_in_use_is_one_line(tmp_path: Path, kind: socket.SocketKind, what: str) -> None:
    starting = Box(tmp_path / "box", quick_settings(tmp_path))
    port = starting.sip_port if what == "SIP" else starting.http_port
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((HOST, port))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        code, said = refused(starting.settings)
    assert code == 1
    assert len(said) == 1
    assert f"cannot listen for {what} on {HOST}:{port}/" in said[0]
    assert "Address already in use; stop the program that has it, or set another listen." in said[0]


@pytest.mark.parametrize("key", ["state_dir", "runtime_dir"])
def test_two_boxes_do_not_share_a_directory(box: Box, tmp_path: Path, key: str) -> None:
    second = Box(tmp_path / "second", {**quick_settings(tmp_path), key: box.settings[key]})
    code, said = refused(second.settings)
    assert code == 1
    assert said == [
        f"appliance serve: another appliance runs with {key} {box.settings[key]}; stop it, or set another one"
    ]
