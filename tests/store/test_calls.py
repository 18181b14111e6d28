from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import StoreError
from appliance.events import Disposition, RecordingKept
from appliance.store.calls import CallStore
from appliance.store.wav import StereoWavWriter
from tests.store.facts import (
    after,
    answered,
    ended,
    largest_file,
    measured,
    recorded,
    recording,
    ringing,
    started,
    turn,
)
from tests.waiting import eventually


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'var' / 'appliance.db'}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[CallStore]:
    async with CallStore(url, box="here", linger_s=0.0, retry_first_s=0.005, retry_max_s=0.02) as store:
        yield store


async def test_a_recording_that_a_plugin_has_put_elsewhere_is_on_record_as_there(store: CallStore) -> None:
    await store.call_started(started())
    kept = RecordingKept(call_id="c1", path="s3://calls/c1")
    for event in (ringing(), answered(), recording(), ended(), recorded(), kept):
        store.observe(event)
    await store.flush()
    call = await store.get("c1")
    assert call is not None
    assert (call.recording_path, call.recording_frames) == ("s3://calls/c1", 900)


async def test_a_whole_call_is_on_record(store: CallStore) -> None:
    await store.call_started(started())
    for event in (ringing(), answered(), recording(), turn(), measured(), ended(), recorded()):
        store.observe(event)
    await store.flush()
    call = await store.get("c1")
    assert call is not None
    assert (call.mos, call.mos_far, call.loss_percent, call.jitter_ms) == (4.3, None, 0.5, 1.25)
    assert call.round_trip_ms == 40.0
    assert (call.started_at, call.ringing_at, call.answered_at, call.ended_at) == (
        after(0),
        after(0.1),
        after(1),
        after(20),
    )
    assert (call.disposition, call.hangup_by, call.hangup_code, call.hangup_text) == ("completed", "caller", 200, "BYE")
    assert (call.box, call.trunk, call.line, call.calling_name) == ("here", "local", "reception", "Anna")
    assert call.slots == {"day": "tuesday", "count": 3}
    assert (call.recording_path, call.recording_started_frame, call.recording_frames) == (
        "var/recordings/c1.wav",
        5,
        900,
    )
    assert call.talk_s == 19.0
    (only,) = call.turns
    assert (only.speech_start_s, only.speech_end_s, only.latency_ms) == (2.0, 3.0, 600.0)
    assert only.waterfall == {
        "endpointing": [100.0, 300.0],
        "asr": [100.0, 200.0],
        "tts": [300.0, 550.0],
        "playout": [550.0, 600.0],
    }
    assert (only.heard_text, only.interrupted, only.by) == ("We open at nine.", True, "voice")


async def test_a_started_call_is_in_the_file_before_it_is_answered(store: CallStore, url: str) -> None:
    await store.call_started(started())
    with sqlite3.connect(url.removeprefix("sqlite+aiosqlite:///")) as other:
        assert other.execute("select id, disposition from calls").fetchall() == [("c1", "in_progress")]
    other.close()


async def test_what_peers_send_is_stored_whatever_it_is(store: CallStore) -> None:
    await store.call_started(started(calling_name="a\x00b\ud800", protocol_call_id="x" * 50_000))
    call = await store.get("c1")
    assert call is not None
    assert call.calling_name == "a\ufffdb\ufffd"
    assert len(call.protocol_call_id) == 10_000


async def test_a_turn_without_speech_has_no_latency(store: CallStore) -> None:
    await store.call_started(started())
    store.turn(turn(number=0, speech_start_at=None, speech_end_at=None, confidence=None, caller_text=""))
    await store.flush()
    call = await store.get("c1")
    assert call is not None
    assert (call.turns[0].latency_ms, call.turns[0].speech_end_s, call.turns[0].waterfall) == (None, None, {})


async def test_a_thousand_calls_at_once_are_all_there(store: CallStore) -> None:
    async def one(name: str) -> None:
        await store.call_started(started(name))
        store.call_answered(answered(name))
        store.turn(turn(name, 0))
        store.turn(turn(name, 1))
        store.call_ended(ended(name))

    await asyncio.gather(*(one(f"c{number}") for number in range(1000)))
    await store.flush()
    calls = await store.recent(2000)
    assert len(calls) == 1000
    assert {call.disposition for call in calls} == {"completed"}
    assert store.stats.written == 5000
    assert store.stats.transactions < 50
    last = await store.get("c999")
    assert last is not None
    assert len(last.turns) == 2


async def test_the_newest_calls_come_first(store: CallStore) -> None:
    for number in range(5):
        await store.call_started(started(f"c{number}", at=float(number)))
    assert [call.id for call in await store.recent(3)] == ["c4", "c3", "c2"]


async def test_a_full_disk_loses_nothing_once_there_is_space(store: CallStore, tmp_path: Path) -> None:
    await store.call_started(started("before"))
    with largest_file(4096):
        waiting = asyncio.ensure_future(store.call_started(started("during")))
        await eventually(lambda: store.stats.retries >= 3)
        assert not waiting.done()
        assert store.stats.failing
    await waiting
    store.call_ended(ended("during"))
    await store.flush()
    assert {call.id for call in await store.recent()} == {"before", "during"}
    assert (store.stats.failing, store.stats.dropped) == ("", 0)


async def test_a_locked_database_delays_the_record_and_nothing_else(
    store: CallStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.store.database.BUSY_TIMEOUT_S", 0.01)
    other = sqlite3.connect(url.removeprefix("sqlite+aiosqlite:///"), isolation_level=None)
    other.execute("begin immediate")
    waiting = asyncio.ensure_future(store.call_started(started()))
    await eventually(lambda: store.stats.retries >= 2)
    assert "locked" in store.stats.failing
    other.execute("rollback")
    other.close()
    await waiting


async def test_calls_left_open_by_a_crash_are_interrupted_at_their_last_sign_of_life(url: str, tmp_path: Path) -> None:
    wav = tmp_path / "talk.wav"
    writer = StereoWavWriter.create(wav)
    silence = np.zeros(160 * 1000, np.int16)
    writer.append(silence, silence)
    writer.abandon()
    async with CallStore(url, box="here") as store:
        for name in ("rang", "talked", "recorded", "lost-file", "done"):
            await store.call_started(started(name))
        store.call_ringing(ringing("rang"))
        store.call_answered(answered("talked"))
        store.turn(turn("talked", 2))
        store.call_answered(answered("recorded"))
        store.recording_started(recording("recorded", str(wav)))
        store.recording_started(recording("lost-file", str(tmp_path / "gone.wav")))
        store.call_ended(ended("done"))
        await store.call_started(started("just-ended"))
        store.recording_started(recording("just-ended", str(wav)))
        store.call_ended(ended("just-ended"))
    async with CallStore(url, box="elsewhere") as other:
        assert await other.interrupt_open_calls("the box was restarted") == 0
    async with CallStore(url, box="here") as store:
        assert await store.interrupt_open_calls("the box was restarted") == 4
        assert await store.interrupt_open_calls("the box was restarted") == 0
        calls = {call.id: call for call in await store.recent()}
    assert {name for name, call in calls.items() if call.disposition == Disposition.INTERRUPTED.value} == {
        "rang",
        "talked",
        "recorded",
        "lost-file",
    }
    assert calls["done"].disposition == Disposition.COMPLETED.value
    assert (calls["just-ended"].disposition, calls["just-ended"].recording_frames) == ("completed", 1000)
    assert calls["just-ended"].ended_at == after(20)
    assert calls["rang"].ended_at == after(0.1)
    assert calls["talked"].ended_at == after(12)
    assert (calls["recorded"].ended_at, calls["recorded"].recording_frames) == (after(21), 1000)
    assert "No such file" in calls["lost-file"].recording_problem
    assert calls["rang"].hangup_text == "the box was restarted"


async def test_the_record_can_be_read_while_it_is_written(store: CallStore, url: str) -> None:
    await store.call_started(started("abc1"))
    reader = await CallStore.open_read_only(url)
    await store.call_started(started("abd2", at=1))
    assert [call.id for call in await reader.recent()] == ["abd2", "abc1"]
    assert await reader.find("ab") == ["abd2", "abc1"]
    assert await reader.find("a%") == []
    assert await reader.get("nobody") is None
    await reader.close()


async def test_reading_a_record_that_is_not_there_creates_nothing(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no call record at"):
        await CallStore.open_read_only(url)
    assert list(tmp_path.iterdir()) == []


async def test_a_database_that_cannot_be_opened_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot create the folder"):
        await CallStore(f"sqlite+aiosqlite:///{tmp_path / 'file' / 'x.db'}").open()
    (tmp_path / "garbage.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreError, match=r"not a database; check store\.url"):
        await CallStore(f"sqlite+aiosqlite:///{tmp_path / 'garbage.db'}").open()


@pytest.mark.parametrize(
    ("url", "message"),
    [("var/appliance.db", "not a database URL"), ("mysql://x/y", "mysql is not supported")],
)
def test_a_wrong_url_is_refused_at_once(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        CallStore(url)


KILLED = """
import asyncio, sys
from appliance.store.calls import CallStore
from tests.store.facts import started, answered, turn

async def main():
    store = CallStore(sys.argv[1], box="here")
    await store.open()
    number = 0
    while True:
        await store.call_started(started(f"c{number}"))
        print(f"c{number}", flush=True)
        store.call_answered(answered(f"c{number}"))
        store.turn(turn(f"c{number}"))
        number += 1

asyncio.run(main())
"""


async def test_every_call_that_was_answered_survives_kill_9(url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert process.stdout is not None
    answered_calls = [process.stdout.readline().strip() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    answered_calls += process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    process.wait()
    async with CallStore(url, box="here") as store:
        assert await store.interrupt_open_calls("killed") >= len(answered_calls)
        found = {call.id for call in await store.recent(100_000)}
    assert found >= set(filter(None, answered_calls))
