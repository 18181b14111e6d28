from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from appliance.ipc.messages import Drained, RecordingStopped, SilenceRecording, StartRecording, StopRecording
from appliance.ipc.rings import FRAME_SAMPLES, RING_FRAMES, AudioRings
from appliance.store.recorder import RETRY_S, STOP_PATIENCE_S, Recorder
from tests.store.facts import largest_file
from tests.store.test_wav import frames, read


class HandClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def utc(self) -> datetime:
        return datetime(2026, 3, 2, tzinfo=UTC)


class Media:
    """Writes frames of slots as the media process does: caller's samples are the frame's number + 1, agent's minus
    that."""

    def __init__(self, capacity: int = 4) -> None:
        self.rings = AudioRings.create(capacity)

    def open(self, slot: int = 0, generation: int = 1) -> None:
        self.rings.open(slot, generation)

    def talk(self, count: int, slot: int = 0) -> None:
        for _ in range(count):
            number = int(self.rings.frames[slot])
            caller = np.full((1, FRAME_SAMPLES), number + 1, np.int16)
            self.rings.record(np.array([slot]), caller, -caller, np.array([0]), np.array([False]))


@pytest.fixture
def media() -> Media:
    media = Media()
    media.open()
    return media


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def recorder(media: Media, clock: HandClock) -> Iterator[Recorder]:
    recorder = Recorder(media.rings, clock)
    yield recorder
    recorder.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.wav"


def start(path: Path, name: str = "a", slot: int = 0, generation: int = 1, start_frame: int = 0) -> StartRecording:
    return StartRecording(name, slot, generation, str(path), start_frame)


def test_a_recording_has_every_frame_from_its_start_to_its_end(media: Media, recorder: Recorder, path: Path) -> None:
    media.talk(7)
    recorder.handle(start(path, start_frame=5))
    media.talk(3)
    assert recorder.poll() == []
    assert np.array_equal(read(path)[:, 0], frames(5, 6))
    media.talk(4)
    recorder.handle(StopRecording("a", 13))
    assert recorder.poll() == [RecordingStopped("a", str(path), 8, "")]
    assert np.array_equal(read(path)[:, 0], frames(8, 6))
    assert np.array_equal(read(path)[:, 1], -frames(8, 6))
    assert recorder.active == 0


def test_parts_are_silence_and_the_length_is_kept(media: Media, recorder: Recorder, path: Path) -> None:
    media.talk(2)
    recorder.handle(start(path, start_frame=2))
    media.talk(6)
    recorder.handle(SilenceRecording("a", ((7, None),)))
    media.talk(6)
    recorder.poll()
    recorder.handle(SilenceRecording("a", ((7, 10), (12, 13))))
    media.talk(2)
    recorder.handle(StopRecording("a", 16))
    assert recorder.poll() == [RecordingStopped("a", str(path), 14, "")]
    heard = read(path)[::FRAME_SAMPLES]
    assert heard[:, 0].tolist() == [3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 15, 16]
    assert heard[:, 1].tolist() == [-sample for sample in heard[:, 0].tolist()]


def test_what_was_written_before_it_was_private_is_taken_out_again(
    media: Media, recorder: Recorder, path: Path
) -> None:
    recorder.handle(start(path))
    media.talk(8)
    recorder.poll()
    recorder.handle(SilenceRecording("a", ((3, 5), (6, None))))
    media.talk(2)
    recorder.handle(StopRecording("a", 10))
    recorder.poll()
    assert read(path)[::FRAME_SAMPLES, 0].tolist() == [1, 2, 3, 0, 0, 6, 0, 0, 0, 0]


def test_a_recorder_that_is_started_again_knows_what_is_silence(
    media: Media, recorder: Recorder, path: Path, clock: HandClock
) -> None:
    recorder.handle(start(path))
    media.talk(4)
    recorder.poll()
    again = Recorder(media.rings, clock)
    again.handle(StartRecording("a", 0, 1, str(path), 0, ((2, 6),)))
    media.talk(4)
    again.handle(StopRecording("a", 8))
    again.poll()
    assert read(path)[::FRAME_SAMPLES, 0].tolist() == [1, 2, 0, 0, 0, 0, 7, 8]


def test_a_recording_that_is_over_has_nothing_to_silence(recorder: Recorder) -> None:
    recorder.handle(SilenceRecording("gone", ((0, 1),)))
    assert recorder.poll() == []


def test_the_last_frames_are_waited_for(media: Media, recorder: Recorder, path: Path) -> None:
    recorder.handle(start(path))
    media.talk(3)
    recorder.handle(StopRecording("a", 5))
    assert recorder.poll() == []
    media.talk(2)
    assert recorder.poll() == [RecordingStopped("a", str(path), 5, "")]


def test_last_frames_that_never_come_are_not_waited_for_long(
    media: Media, recorder: Recorder, path: Path, clock: HandClock
) -> None:
    recorder.handle(start(path))
    media.talk(3)
    recorder.handle(StopRecording("a", 1000))
    assert recorder.poll() == []
    clock.now += STOP_PATIENCE_S
    assert recorder.poll() == [RecordingStopped("a", str(path), 3, "")]


def test_a_recorder_that_was_killed_continues_without_a_gap(media: Media, path: Path, clock: HandClock) -> None:
    first = Recorder(media.rings, clock)
    first.handle(start(path, start_frame=2))
    media.talk(100)
    first.poll()
    media.talk(1000)
    second = Recorder(media.rings, clock)
    second.handle(start(path, start_frame=2))
    second.handle(StopRecording("a", 1100))
    assert second.poll() == [RecordingStopped("a", str(path), 1098, "")]
    assert np.array_equal(read(path)[:, 0], frames(1098, 3))
    first.close()


def test_a_restart_that_took_too_long_leaves_silence_and_says_so(media: Media, path: Path, clock: HandClock) -> None:
    first = Recorder(media.rings, clock)
    first.handle(start(path))
    media.talk(100)
    first.poll()
    media.talk(RING_FRAMES + 50)
    second = Recorder(media.rings, clock)
    second.handle(start(path))
    second.handle(StopRecording("a", 1750))
    assert second.poll() == [
        RecordingStopped("a", str(path), 1750, "2.0 s of it are silence: the recorder fell behind")
    ]
    left = read(path)[:, 0]
    assert np.array_equal(left[: 100 * 160], frames(100))
    assert not left[100 * 160 : 200 * 160].any()
    assert np.array_equal(left[200 * 160 :], frames(1550, 201))
    first.close()


def test_the_same_start_twice_changes_nothing(media: Media, recorder: Recorder, path: Path) -> None:
    recorder.handle(start(path))
    media.talk(5)
    recorder.poll()
    recorder.handle(start(path))
    media.talk(5)
    recorder.handle(StopRecording("a", 10))
    assert recorder.poll() == [RecordingStopped("a", str(path), 10, "")]
    assert np.array_equal(read(path)[:, 0], frames(10))


def test_a_full_disk_for_less_than_the_ring_costs_nothing(
    media: Media, recorder: Recorder, path: Path, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.handle(start(path))
    media.talk(10)
    recorder.poll()
    with largest_file(44 + 15 * 640):
        for _ in range(5):
            media.talk(10)
            clock.now += RETRY_S
            assert recorder.poll() == []
    assert len([r for r in caplog.records if "cannot be written" in r.message]) == 1
    clock.now += RETRY_S
    media.talk(10)
    recorder.handle(StopRecording("a", 70))
    assert recorder.poll() == [RecordingStopped("a", str(path), 70, "")]
    assert np.array_equal(read(path)[:, 0], frames(70))
    assert "is being written again" in caplog.text


def test_a_full_disk_for_long_leaves_silence_and_stays_aligned(
    media: Media, recorder: Recorder, path: Path, clock: HandClock
) -> None:
    recorder.handle(start(path))
    media.talk(10)
    recorder.poll()
    with largest_file(44 + 10 * 640):
        media.talk(RING_FRAMES)
        recorder.poll()
    media.talk(40)
    clock.now += RETRY_S
    recorder.handle(StopRecording("a", RING_FRAMES + 50))
    (stopped,) = recorder.poll()
    assert isinstance(stopped, RecordingStopped)
    assert stopped.problem == "1.8 s of it are silence: File too large"
    left = read(path)[:, 0]
    assert len(left) == 160 * (RING_FRAMES + 50)
    assert np.array_equal(left[100 * 160 :], frames(RING_FRAMES - 50, 101))


def test_a_disk_that_stays_full_ends_the_recording_with_the_reason(
    media: Media, recorder: Recorder, path: Path, clock: HandClock
) -> None:
    recorder.handle(start(path))
    media.talk(10)
    recorder.poll()
    with largest_file(44 + 10 * 640):
        media.talk(10)
        recorder.handle(StopRecording("a", 20))
        assert recorder.poll() == []
        clock.now += STOP_PATIENCE_S
        (stopped,) = recorder.poll()
    assert isinstance(stopped, RecordingStopped)
    assert "File too large" in stopped.problem
    assert len(read(path)) >= 1600


def test_no_space_on_a_real_file_system(media: Media, recorder: Recorder, tmp_path: Path, clock: HandClock) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root; run the tests as root")
    try:
        path = folder / "a.wav"
        recorder.handle(start(path))
        media.talk(300)
        recorder.poll()
        recorder.handle(StopRecording("a", 300))
        clock.now += STOP_PATIENCE_S
        (stopped,) = recorder.poll()
        assert isinstance(stopped, RecordingStopped)
        assert stopped.problem == "6.0 s of it are silence: No space left on device"
        assert len(read(path)) == 300 * 160
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_folder_that_cannot_be_made_is_a_problem_of_that_recording_alone(
    media: Media, recorder: Recorder, tmp_path: Path, clock: HandClock
) -> None:
    (tmp_path / "file").write_text("")
    media.open(1, 7)
    recorder.handle(start(tmp_path / "file" / "a.wav"))
    recorder.handle(start(tmp_path / "b.wav", name="b", slot=1, generation=7))
    media.talk(10)
    media.talk(10, slot=1)
    recorder.handle(StopRecording("a", 10))
    recorder.handle(StopRecording("b", 10))
    assert recorder.poll() == [RecordingStopped("b", str(tmp_path / "b.wav"), 10, "")]
    clock.now += STOP_PATIENCE_S
    assert recorder.poll() == [
        RecordingStopped("a", str(tmp_path / "file" / "a.wav"), 0, "there is no file: Not a directory")
    ]


def test_a_slot_that_has_a_new_owner_is_never_recorded_into_the_old_file(
    media: Media, recorder: Recorder, path: Path
) -> None:
    recorder.handle(start(path))
    media.talk(10)
    recorder.poll()
    media.talk(5)
    media.open(0, 2)
    media.talk(50)
    assert recorder.poll() == []
    recorder.handle(StopRecording("a", 15))
    assert recorder.poll() == [
        RecordingStopped("a", str(path), 15, "0.1 s of it are silence: the call's audio was gone before it was copied")
    ]
    assert np.array_equal(read(path)[: 10 * 160, 0], frames(10))
    assert not read(path)[10 * 160 :].any()


def test_close_writes_what_is_there_and_finishes_every_file(media: Media, recorder: Recorder, tmp_path: Path) -> None:
    media.open(1, 7)
    recorder.handle(start(tmp_path / "a.wav"))
    recorder.handle(start(tmp_path / "b.wav", name="b", slot=1, generation=7))
    media.talk(10)
    media.talk(300, slot=1)
    assert sorted(recorder.close(), key=str) == [
        RecordingStopped("a", str(tmp_path / "a.wav"), 10, ""),
        RecordingStopped("b", str(tmp_path / "b.wav"), 300, ""),
    ]
    assert recorder.active == 0


def test_one_call_that_is_far_behind_does_not_keep_the_others_waiting(
    media: Media, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.open(1, 7)
    media.talk(1500)
    recorder.handle(start(tmp_path / "a.wav"))
    recorder.handle(start(tmp_path / "b.wav", name="b", slot=1, generation=7))
    media.talk(10, slot=1)
    order: list[int] = []
    copy = media.rings.read_frames

    def spy(slot: int, generation: int, begin: int, end: int) -> object:
        order.append(slot)
        return copy(slot, generation, begin, end)

    monkeypatch.setattr(media.rings, "read_frames", spy)
    recorder.poll()
    assert order[:2] == [0, 1]
    assert len(read(tmp_path / "a.wav")) == 1500 * 160


KILLED = """
import sys
from pathlib import Path
from appliance.ipc.messages import StartRecording
from appliance.ipc.rings import AudioRings
from appliance.store.recorder import Recorder

recorder = Recorder(AudioRings.attach(int(sys.argv[1]), 4))
recorder.handle(StartRecording("a", 0, 1, sys.argv[2], 0))
for _ in sys.stdin:
    recorder.poll()
    print("polled", flush=True)
"""


def test_a_recording_whose_recorder_is_killed_plays_and_is_continued(media: Media, path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(media.rings.fd), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[media.rings.fd],
        env={**os.environ, "PYTHONPATH": "."},
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(20):
            media.talk(10)
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "polled\n"
        process.kill()
    assert np.array_equal(read(path)[:, 0], frames(200))
    media.talk(40)
    heir = Recorder(media.rings)
    heir.handle(start(path))
    heir.handle(StopRecording("a", 240))
    assert heir.poll() == [RecordingStopped("a", str(path), 240, "")]
    assert np.array_equal(read(path)[:, 1], -frames(240))


def test_stopping_what_was_never_started_is_answered(recorder: Recorder) -> None:
    recorder.handle(StopRecording("x", 5))
    assert recorder.poll() == [RecordingStopped("x", "", 0, "the recorder does not know this recording")]


def test_other_messages_are_refused(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match="does not take Drained"):
        recorder.handle(Drained())
