"""Old calls are forgotten with their recordings; young and running ones are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from appliance.events import CallEnded, CallStarted, Direction, Disposition, HangupBy, RecordingStarted
from appliance.store.calls import CallStore
from appliance.store.retention import expire, expire_recordings

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def started(call_id: str, days_ago: float) -> CallStarted:
    return CallStarted(
        call_id=call_id,
        started_at=0.0,
        started_utc=NOW - timedelta(days=days_ago),
        direction=Direction.INBOUND,
        protocol="sip",
        protocol_call_id=call_id,
        trunk="local",
        line="desk",
        called="100",
        calling="200",
    )


def ended(call_id: str, days_ago: float) -> CallEnded:
    return CallEnded(
        call_id=call_id,
        ended_at=1.0,
        ended_utc=NOW - timedelta(days=days_ago),
        disposition=Disposition.COMPLETED,
        hangup_by=HangupBy.CALLER,
    )


async def test_old_calls_go_with_their_recordings(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}"
    recordings = {name: tmp_path / f"{name}.wav" for name in ("old", "young")}
    async with CallStore(url) as store:
        for name, days_ago in (("old", 31), ("young", 29), ("running", 40)):
            await store.call_started(started(name, days_ago))
        for name, path in recordings.items():
            path.write_bytes(b"RIFF")
            store.observe(RecordingStarted(call_id=name, path=str(path), start_frame=0))
            store.observe(ended(name, 31 if name == "old" else 29))
        await store.flush()
        assert await expire(url, NOW - timedelta(days=30)) == 1
        assert {call.id for call in await store.recent(10)} == {"young", "running"}
    assert not recordings["old"].exists()
    assert recordings["young"].exists()


async def test_a_recording_that_cannot_be_deleted_keeps_its_record(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}"
    folder = tmp_path / "a folder.wav"
    folder.mkdir()
    async with CallStore(url) as store:
        await store.call_started(started("odd", 31))
        store.observe(RecordingStarted(call_id="odd", path=str(folder), start_frame=0))
        store.observe(ended("odd", 31))
        await store.flush()
        assert await expire(url, NOW - timedelta(days=30)) == 0
        assert [call.id for call in await store.recent(10)] == ["odd"]


async def test_calls_of_another_box_are_its_own_to_forget(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}"
    async with CallStore(url, box="other") as store:
        await store.call_started(started("theirs", 31))
        store.observe(ended("theirs", 31))
        await store.flush()
        assert await expire(url, NOW - timedelta(days=30), box="mine") == 0
        assert await expire(url, NOW - timedelta(days=30), box="other") == 1


async def test_a_recording_goes_before_its_call_where_its_line_keeps_it_for_less(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}"
    recordings = {name: tmp_path / f"{name}.wav" for name in ("due", "kept", "running")}
    async with CallStore(url) as store:
        for name, path in recordings.items():
            await store.call_started(started(name, 8))
            path.write_bytes(b"RIFF")
            days = 1 if name == "kept" else -1
            delete_utc = NOW + timedelta(days=days)
            store.observe(RecordingStarted(call_id=name, path=str(path), start_frame=0, delete_utc=delete_utc))
            if name != "running":
                store.observe(ended(name, 8))
        await store.flush()
        assert await expire_recordings(url, NOW) == 1
        assert await expire_recordings(url, NOW) == 0
        found = {call.id: call for call in await store.recent(10)}
    assert [name for name, path in recordings.items() if path.exists()] == ["kept", "running"]
    assert (found["due"].recording_path, found["due"].recording_delete_at) == (None, NOW - timedelta(days=1))
    assert found["kept"].recording_path == str(recordings["kept"])
