"""The record of every call: written while the calls go on, read by the command line and the API."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Engine, Row, Table, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.dml import Insert, Update

from appliance.clock import Clock, SystemClock
from appliance.errors import StoreError
from appliance.events import (
    CallAnswered,
    CallEnded,
    CallEvent,
    CallPlaced,
    CallRinging,
    CallStarted,
    CallTraced,
    Disposition,
    HangupBy,
    LineMeasured,
    RecordingConsent,
    RecordingFinished,
    RecordingKept,
    RecordingPaused,
    RecordingStarted,
    ToolRun,
    TurnAmended,
    TurnFinished,
    TurnProgress,
)
from appliance.plugins.declarative import webhooks
from appliance.store import schema, wav
from appliance.store.callers import CallerStore
from appliance.store.database import open_engine, open_sqlite_in_thread, parse_url
from appliance.store.models import Base
from appliance.store.records import CallRecord, TurnRecord
from appliance.store.webhooks import WebhookQueue, row_of
from appliance.store.writer import Batch, ChangedCall, NewEvent, NewTurn, Writer, WriterStats

log = logging.getLogger(__name__)

CLOSE_DEADLINE_S: Final = 5.0
FRAME_S: Final = 0.02

_calls: Table = Base.metadata.tables["calls"]
_turns: Table = Base.metadata.tables["turns"]
_events: Table = Base.metadata.tables["webhook_events"]
_told: Final = [column for column in _calls.c if column.name != "trace"]
"""What a call is shown by; its trace is long, and asked for by itself."""
_TEXT_LIMIT: Final = 10_000
_ASKED_LIMIT: Final = 100_000
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_UNFINISHED: Final[dict[str, Any]] = {
    "ringing_at": None,
    "answered_at": None,
    "ended_at": None,
    "disposition": Disposition.IN_PROGRESS.value,
    "hangup_by": "",
    "hangup_code": 0,
    "hangup_text": "",
    "slots": {},
    "recording_path": None,
    "recording_started_frame": None,
    "recording_frames": None,
    "recording_problem": "",
    "recording_consent": "",
    "recording_paused": [],
    "recording_delete_at": None,
    "mos": None,
    "mos_far": None,
    "loss_percent": None,
    "jitter_ms": None,
    "round_trip_ms": None,
    "trace": [],
}


class CallStore:
    """A :class:`~appliance.events.CallObserver` that keeps what it is told.

    Only :meth:`call_started` is awaited, before the answer: so no answered call is ever missing from the record.
    Everything else is queued and never holds up a call (see :mod:`appliance.store.writer`).

    Args:
        url: a database URL, ``sqlite+aiosqlite:///...`` or ``postgresql+asyncpg://...``.
        box: the name of this box; of a shared database, only its own calls are marked interrupted.
    """

    def __init__(self, url: str, *, box: str | None = None, clock: Clock | None = None, **writer_options: Any) -> None:
        self._url = url
        self._box = socket.gethostname() if box is None else box
        self._engine: AsyncEngine | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._thread_engine: Engine | None = None
        self._clock = clock or SystemClock()
        self._writer = Writer(self._commit, self._clock, **writer_options)
        self._updates: dict[frozenset[str], Update] = {}
        dialect = parse_url(url).get_backend_name()
        self._insert_calls = _upsert(dialect, _calls, ["id"])
        self._insert_turns = _upsert(dialect, _turns, ["call_id", "number"])
        self._insert_events = _upsert(dialect, _events, ["id"])

    @property
    def stats(self) -> WriterStats:
        """Queue depth and counters of the writer."""
        return self._writer.stats

    async def open(self) -> None:
        """Connect, bring the schema up to date and start writing.

        Raises:
            StoreError: the database cannot be opened, or belongs to a newer version; the message has the remedy.
        """
        engine = open_engine(self._url)
        try:
            async with engine.connect() as connection:
                if engine.dialect.name == "sqlite":
                    await connection.exec_driver_sql("BEGIN IMMEDIATE")
                await connection.run_sync(schema.upgrade)
                await connection.commit()
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            raise _cannot("open", self._url, error) from error
        except StoreError:
            await engine.dispose()
            raise
        self._engine = engine
        if engine.dialect.name == "sqlite":
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._writer.start()

    async def close(self, deadline_s: float = CLOSE_DEADLINE_S) -> None:
        """Write what is pending and disconnect; what cannot be written by then is logged and lost."""
        await self._writer.close(deadline_s)
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._dispose_in_thread)
            self._thread.shutdown()
            self._thread = None
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    @property
    def callers(self) -> CallerStore:
        """What is kept of callers beside their calls; usable while the record is open."""
        return CallerStore(self._require_engine(), self._clock)

    @property
    def webhook_queue(self) -> WebhookQueue:
        """What webhooks have still to be told; usable while the record is open."""
        return WebhookQueue(self._require_engine(), self._box)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- what calls say -------------------------------------------------------------------------------------------

    def call_started(self, started: CallStarted) -> asyncio.Future[None]:
        """Queue the call at once; awaiting the result waits until it is committed. Nobody has to.

        Raises:
            StoreError: at once, when the record is so far behind that no call should be taken; when awaited, if the
                database refuses the row for good.
        """
        return self._writer.put_call(
            {
                "id": started.call_id,
                "box": self._box,
                "protocol": started.protocol,
                "protocol_call_id": _clean(started.protocol_call_id),
                "trunk": _clean(started.trunk),
                "line": _clean(started.line),
                "called": _clean(started.called),
                "calling": _clean(started.calling),
                "calling_name": _clean(started.calling_name),
                "direction": started.direction.value,
                "started_at": started.started_utc,
                **_UNFINISHED,
            }
        )

    def call_ringing(self, ringing: CallRinging) -> None:
        self._change(ringing.call_id, ringing_at=ringing.ringing_utc)

    def call_answered(self, answered: CallAnswered) -> None:
        self._change(answered.call_id, answered_at=answered.answered_utc)

    def recording_started(self, recording: RecordingStarted) -> None:
        self._change(
            recording.call_id,
            recording_path=recording.path,
            recording_started_frame=recording.start_frame,
            recording_delete_at=recording.delete_utc,
        )

    def turn(self, turn: TurnFinished) -> None:
        latency_s = turn.latency_s
        self._writer.put(
            NewTurn(
                {
                    "call_id": turn.call_id,
                    "number": turn.number,
                    "finished_at": turn.finished_utc,
                    "by": turn.by.value,
                    "caller_text": _clean(turn.caller_text),
                    "confidence": turn.confidence,
                    "accepted": turn.accepted,
                    "agent_text": _clean(turn.agent_text),
                    "heard_text": _clean(turn.heard_text),
                    "interrupted": turn.interrupted,
                    "speech_start_s": _rounded(turn.after_answer_s(turn.speech_start_at)),
                    "speech_end_s": _rounded(turn.after_answer_s(turn.speech_end_at)),
                    "latency_ms": None if latency_s is None else round(latency_s * 1000, 1),
                    "waterfall": {stage: list(span) for stage, span in turn.waterfall_ms().items()},
                    "ended_by": turn.ended_by,
                    "probability": turn.probability,
                    "pauses": turn.pauses,
                    "speculation": asdict(turn.speculation) if turn.speculation.begun else {},
                    "tools": [_tool(turn, tool) for tool in turn.tools],
                    "asked": _clean(turn.asked, _ASKED_LIMIT),
                    "server": _clean(turn.server),
                    "problem": _clean(turn.problem),
                }
            )
        )

    def call_ended(self, ended: CallEnded) -> None:
        self._change(
            ended.call_id,
            ended_at=ended.ended_utc,
            disposition=ended.disposition.value,
            hangup_by=ended.hangup_by.value,
            hangup_code=ended.hangup_code,
            hangup_text=_clean(ended.hangup_text),
            slots={_clean(k): _clean(v) if isinstance(v, str) else v for k, v in ended.slots.items()},
        )

    def recording_finished(self, recording: RecordingFinished) -> None:
        self._change(recording.call_id, recording_frames=recording.frames, recording_problem=_clean(recording.problem))

    def line_measured(self, line: LineMeasured) -> None:
        self._change(
            line.call_id,
            mos=line.mos,
            mos_far=line.mos_far,
            loss_percent=line.loss_percent,
            jitter_ms=line.jitter_ms,
            round_trip_ms=line.round_trip_ms,
        )

    def call_traced(self, traced: CallTraced) -> None:
        self._change(
            traced.call_id,
            trace=[
                {key: _clean(value) if isinstance(value, str) else value for key, value in message.items()}
                for message in traced.messages
            ],
        )

    def keep_events(self, events: Iterable[webhooks.NewEvent]) -> None:
        """Keep events for webhooks until they are delivered.

        Said before what they tell of: a box that is killed in between tells of it twice rather than never.
        """
        for event in events:
            self._writer.put(NewEvent(row_of(event, self._box)))

    def observe(self, event: CallEvent) -> None:
        """Keep any event but CallStarted, which goes through :meth:`call_started` so that it can be awaited."""
        match event:
            case CallPlaced():
                self._change(
                    event.call_id,
                    protocol=event.protocol,
                    protocol_call_id=_clean(event.protocol_call_id),
                    trunk=_clean(event.trunk),
                )
            case CallRinging():
                self.call_ringing(event)
            case CallAnswered():
                self.call_answered(event)
            case RecordingStarted():
                self.recording_started(event)
            case RecordingConsent(call_id=call_id, consent=consent):
                self._change(call_id, recording_consent=consent.value)
            case RecordingPaused(call_id=call_id, parts=parts):
                self._change(call_id, recording_paused=[list(part) for part in parts])
            case TurnFinished():
                self.turn(event)
            case TurnAmended():
                self.turn(event.turn)
            case LineMeasured():
                self.line_measured(event)
            case CallEnded():
                self.call_ended(event)
            case RecordingFinished():
                self.recording_finished(event)
            case RecordingKept():
                self._change(event.call_id, recording_path=_clean(event.path))
            case CallTraced():
                self.call_traced(event)
            case CallStarted() | TurnProgress():
                pass

    async def stored(self, call_id: str) -> dict[str, Any] | None:
        """A call as :meth:`CallRecord.as_json` has it, once all that was said of it so far is on record.

        Raises:
            StoreError: the record cannot be written or read.
        """
        await self._writer.reached(call_id)
        record = await self.get(call_id)
        return None if record is None else record.as_json()

    async def flush(self) -> None:
        """Wait until everything said so far is committed."""
        await self._writer.flush()

    # --- after a crash --------------------------------------------------------------------------------------------

    async def interrupt_open_calls(
        self, reason: str, tell: Callable[[Mapping[str, Any], datetime], Iterable[webhooks.NewEvent]] | None = None
    ) -> int:
        """Mark every call of this box that the record still has in progress as interrupted; say how many.

        Run at start, before the first call. ``ended_at`` is the last sign of life: the newest of start, ringing,
        answer, last turn and the end of the recording. Recordings that were not closed are repaired, those of calls
        that had just ended included.

        Args:
            reason: in words.
            tell: what webhooks are to be told of such a call, given its columns and its end.
        """
        engine = self._require_engine()
        last_turn = (
            select(_turns.c.call_id, func.max(_turns.c.finished_at).label("last")).group_by(_turns.c.call_id).subquery()
        )
        query = (
            select(_calls, last_turn.c.last)
            .outerjoin(last_turn, last_turn.c.call_id == _calls.c.id)
            .where(
                _calls.c.box == self._box,
                or_(
                    _calls.c.disposition == Disposition.IN_PROGRESS.value,
                    and_(_calls.c.recording_path.is_not(None), _calls.c.recording_frames.is_(None)),
                ),
            )
        )
        try:
            async with engine.connect() as connection:
                rows = (await connection.execute(query)).all()
            changes = await asyncio.to_thread(lambda: {row.id: _after_crash(row, reason) for row in rows})
            ended = [(row._asdict(), changes[row.id]["ended_at"]) for row in rows if "ended_at" in changes[row.id]]
            told = [event for call, at in ended for event in (tell(call, at) if tell is not None else ())]
            if changes:
                events = {event.id: row_of(event, self._box) for event in told}
                await self._commit(Batch(changes=changes, events=events))
        except (SQLAlchemyError, OSError) as error:
            raise _cannot("write", self._url, error) from error
        return sum("disposition" in change for change in changes.values())

    # --- reading --------------------------------------------------------------------------------------------------

    @classmethod
    async def open_read_only(cls, url: str) -> CallReader:
        """Read a record that another process may be writing.

        Raises:
            StoreError: there is none, or its schema is not the one this version reads.
        """
        engine = open_engine(url, read_only=True)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(schema.check)
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            raise _cannot("read", url, error) from error
        except StoreError:
            await engine.dispose()
            raise
        return CallReader(engine, url)

    async def recent(self, limit: int = 20) -> list[CallRecord]:
        """The newest calls first, without their turns."""
        return await CallReader(self._require_engine(), self._url).recent(limit)

    async def get(self, call_id: str) -> CallRecord | None:
        """One call with its turns."""
        return await CallReader(self._require_engine(), self._url).get(call_id)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _require_engine(self) -> AsyncEngine:
        if self._engine is None:
            raise StoreError("the call record is not open; await open() first")
        return self._engine

    def _change(self, call_id: str, **row: Any) -> None:
        self._writer.put(ChangedCall(call_id, row))

    async def _commit(self, batch: Batch) -> None:
        """One transaction. Writing the same batch twice leaves the same rows, so a doubtful commit can be repeated."""
        by_columns: dict[frozenset[str], list[dict[str, Any]]] = {}
        for call_id, row in batch.changes.items():
            by_columns.setdefault(frozenset(row), []).append({"the_id": call_id, **row})
        steps: list[tuple[Insert | Update, list[dict[str, Any]]]] = []
        if batch.calls:
            steps.append((self._insert_calls, list(batch.calls.values())))
        steps += [(self._update(columns), rows) for columns, rows in by_columns.items()]
        if batch.turns:
            steps.append((self._insert_turns, list(batch.turns.values())))
        if batch.events:
            steps.append((self._insert_events, list(batch.events.values())))
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._commit_in_thread, steps)
            return
        async with self._require_engine().begin() as connection:
            for statement, parameters in steps:
                await connection.execute(statement, parameters)

    def _commit_in_thread(self, steps: list[tuple[Insert | Update, list[dict[str, Any]]]]) -> None:
        if self._thread_engine is None:
            self._thread_engine = open_sqlite_in_thread(self._url)
        with self._thread_engine.begin() as connection:
            for statement, parameters in steps:
                connection.execute(statement, parameters)

    def _dispose_in_thread(self) -> None:
        if self._thread_engine is not None:
            self._thread_engine.dispose()
            self._thread_engine = None

    def _update(self, columns: frozenset[str]) -> Update:
        statement = self._updates.get(columns)
        if statement is None:
            values: dict[str, Any] = {name: bindparam(name) for name in sorted(columns)}
            statement = update(_calls).where(_calls.c.id == bindparam("the_id")).values(values)
            self._updates[columns] = statement
        return statement


class CallReader:
    """Reads the record. Close it with :meth:`close`."""

    def __init__(self, engine: AsyncEngine, url: str) -> None:
        self._engine = engine
        self._url = url

    async def close(self) -> None:
        await self._engine.dispose()

    async def recent(self, limit: int = 20) -> list[CallRecord]:
        """The newest calls first, without their turns.

        Raises:
            StoreError: the database cannot be read.
        """
        query = select(*_told).order_by(_calls.c.started_at.desc(), _calls.c.id).limit(limit)
        return [_call_record(row) for row in await self._all(query)]

    async def find(self, prefix: str, limit: int = 10) -> list[str]:
        """Ids of calls that begin with ``prefix``, newest first."""
        query = (
            select(_calls.c.id)
            .where(_calls.c.id.startswith(prefix, autoescape=True))
            .order_by(_calls.c.started_at.desc())
            .limit(limit)
        )
        return [row.id for row in await self._all(query)]

    async def get(self, call_id: str) -> CallRecord | None:
        """One call with its turns in order; None where there is none.

        Raises:
            StoreError: the database cannot be read.
        """
        rows = await self._all(select(*_told).where(_calls.c.id == call_id))
        if not rows:
            return None
        turns = await self._all(select(_turns).where(_turns.c.call_id == call_id).order_by(_turns.c.number))
        return _call_record(rows[0], turns)

    async def trace(self, call_id: str) -> list[dict[str, Any]]:
        """The SIP messages of a call, as CallTraced has them; empty where none are on record.

        Raises:
            StoreError: the database cannot be read.
        """
        rows = await self._all(select(_calls.c.trace).where(_calls.c.id == call_id))
        return list(rows[0].trace) if rows else []

    async def _all(self, query: Any) -> list[Row[Any]]:
        try:
            async with self._engine.connect() as connection:
                return list((await connection.execute(query)).all())
        except (SQLAlchemyError, OSError) as error:
            raise _cannot("read", self._url, error) from error


def _upsert(dialect: str, table: Table, key: list[str]) -> Insert:
    statement: Any = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    others = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
    upsert: Insert = statement.on_conflict_do_update(index_elements=key, set_=others)
    return upsert


def _after_crash(row: Row[Any], reason: str) -> dict[str, Any]:
    """The columns to set on a call, or on its recording, that a crash cut off."""
    change: dict[str, Any] = {}
    signs: list[datetime] = [
        when for when in (row.started_at, row.ringing_at, row.answered_at, row.last) if when is not None
    ]
    if row.recording_path is not None and row.recording_frames is None:
        frames = 0
        try:
            frames = wav.repair(Path(row.recording_path)).frames
        except (StoreError, OSError) as error:
            change["recording_problem"] = str(error)
        change["recording_frames"] = frames
        signs.append((row.answered_at or row.started_at) + timedelta(seconds=frames * FRAME_S))
    if row.disposition == Disposition.IN_PROGRESS.value:
        change["disposition"] = Disposition.INTERRUPTED.value
        change["hangup_by"] = HangupBy.BOX.value
        change["hangup_text"] = reason
        change["ended_at"] = max(signs)
    return change


def _call_record(row: Row[Any], turns: list[Row[Any]] | None = None) -> CallRecord:
    values = dict(row._mapping)
    records = []
    for turn in turns or []:
        fields = dict(turn._mapping)
        del fields["call_id"]
        records.append(TurnRecord(**fields))
    return CallRecord(**values, turns=tuple(records))


def _tool(turn: TurnFinished, tool: ToolRun) -> dict[str, Any]:
    """A tool's run; its times are ms after speech end, or after the call was answered where nobody spoke."""
    zero = turn.answered_at if turn.speech_end_at is None else turn.speech_end_at
    return {
        "name": _clean(tool.name),
        "arguments": _clean(tool.arguments),
        "result": _clean(tool.result),
        "problem": _clean(tool.problem),
        "source": _clean(tool.source),
        "confirmed": tool.confirmed.value,
        "key": _clean(tool.key),
        "start_ms": round((tool.start_at - zero) * 1000, 1),
        "end_ms": round((tool.end_at - zero) * 1000, 1),
    }


def _clean(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Text a database will take: peers may send anything."""
    return _UNSTORABLE.sub("\ufffd", text[:limit])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _cannot(verb: str, url: str, error: Exception) -> StoreError:
    name = parse_url(url).render_as_string(hide_password=True)
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return StoreError(
        f"cannot {verb} the call record {name}: {cause}; check store.url, the permissions of its folder and the "
        "space on its disk"
    )
