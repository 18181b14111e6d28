from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.errors import StoreError
from appliance.store.wav import StereoWavWriter, repair
from tests.store.facts import largest_file


def frames(count: int, first: int = 1) -> NDArray[np.int16]:
    """``count`` frames, every sample of one the same, counting from ``first``."""
    return np.repeat(np.arange(first, first + count, dtype=np.int16), 160)


def read(path: Path) -> NDArray[np.int16]:
    """[sample, channel] as Python's own reader sees it."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls" / "one.wav"


def test_the_caller_is_left_and_the_agent_right(path: Path) -> None:
    writer = StereoWavWriter.create(path)
    writer.append(frames(2), -frames(2))
    writer.close()
    assert np.array_equal(read(path), np.stack([frames(2), -frames(2)], axis=1))


def test_the_file_plays_after_every_write_without_being_closed(path: Path) -> None:
    writer = StereoWavWriter.create(path)
    assert len(read(path)) == 0
    for number in range(1, 4):
        writer.append(frames(5), frames(5))
        assert len(read(path)) == number * 800
    writer.abandon()


def test_an_existing_file_is_never_overwritten(path: Path) -> None:
    StereoWavWriter.create(path).close()
    with pytest.raises(FileExistsError):
        StereoWavWriter.create(path)


def test_resume_continues_on_the_frame_after_the_last_whole_one(path: Path) -> None:
    writer = StereoWavWriter.create(path)
    writer.append(frames(3), frames(3))
    writer.abandon()
    with path.open("ab") as file:
        file.write(b"\x7f" * 333)
    writer = StereoWavWriter.resume(path)
    assert writer.frames == 3
    writer.append(frames(2, 4), frames(2, 4))
    writer.close()
    assert np.array_equal(read(path)[:, 0], frames(5))


def test_resume_takes_a_file_that_was_only_just_created(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"RIFF\x00")
    writer = StereoWavWriter.resume(path)
    writer.append(frames(1), frames(1))
    writer.close()
    assert len(read(path)) == 160


@pytest.mark.parametrize("content", [b"hello", b"RIFF" + b"\x00" * 60, b"\x00" * 44])
def test_a_file_that_is_not_ours_is_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for act in (StereoWavWriter.resume, repair):
        with pytest.raises(StoreError, match="is not a recording of the appliance"):
            act(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("torn", [0, 1, 3, 4, 641])
def test_repair_makes_the_header_agree_with_the_file(path: Path, torn: int) -> None:
    writer = StereoWavWriter.create(path)
    writer.append(frames(3), frames(3))
    writer.abandon()
    with path.open("ab") as file:
        file.write(b"\x01" * torn)
    repaired = repair(path)
    assert repaired.changed == (torn > 0)
    assert repaired.frames == 3 + -(-(torn // 4) // 160)
    assert len(read(path)) == 480 + torn // 4
    assert repair(path).changed is False


def test_repair_finds_a_header_that_promises_more_than_there_is(path: Path) -> None:
    writer = StereoWavWriter.create(path)
    writer.append(frames(10), frames(10))
    writer.abandon()
    os.truncate(path, 44 + 640 * 4)
    assert repair(path).frames == 4
    assert len(read(path)) == 640


def test_what_is_skipped_reads_as_silence(path: Path) -> None:
    writer = StereoWavWriter.create(path)
    writer.append(frames(1), frames(1))
    writer.skip(2)
    writer.append(frames(1, 9), frames(1, 9))
    writer.skip(1)
    writer.close()
    left = read(path)[:, 0]
    assert np.array_equal(left, np.concatenate([frames(1), np.zeros(320), frames(1, 9), np.zeros(160)]))


def test_a_failed_write_moves_nothing_and_can_be_repeated(path: Path) -> None:
    writer = StereoWavWriter.create(path)
    writer.append(frames(1), frames(1))
    with largest_file(44 + 640 + 1000), pytest.raises(OSError) as failure:
        writer.append(frames(5, 2), frames(5, 2))
    assert failure.value.errno == errno.EFBIG
    assert writer.frames == 1
    assert len(read(path)) == 160
    writer.append(frames(5, 2), frames(5, 2))
    writer.close()
    assert np.array_equal(read(path)[:, 0], frames(6))


def test_a_length_beyond_32_bits_keeps_the_largest_size_in_the_header(path: Path) -> None:
    writer = StereoWavWriter.create(path)
    writer.skip(40 * 3600 * 50)
    writer.append(frames(1), frames(1))
    writer.close()
    with path.open("rb") as file:
        header = file.read(44)
    assert header[4:8] == (0xFFFF_FFFF - 8).to_bytes(4, "little")
    assert header[40:44] == (0xFFFF_FFFF - 44).to_bytes(4, "little")


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from appliance.store.wav import StereoWavWriter

writer = StereoWavWriter.create(Path(sys.argv[1]))
block = np.repeat(np.arange(10, dtype=np.int16), 160)
while True:
    writer.append(block, block)
    print(writer.frames, flush=True)
"""


def test_the_file_plays_to_the_last_write_after_kill_9(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert process.stdout is not None
    for _ in range(100):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    told = [int(word) for word in process.stdout.read().split()[:-1]]
    process.stdout.close()
    process.wait()
    written = told[-1] if told else 1000
    assert len(read(path)) >= written * 160
    assert np.array_equal(read(path)[:1600, 0], np.repeat(np.arange(10), 160))
    assert repair(path).frames >= written
