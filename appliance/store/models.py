"""The tables of the call record.

``migrations/versions`` builds them; a test holds the two together. Times are UTC. See docs/records.md for what each
column means to people who query them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime: ``timestamptz`` where the database has one, naive UTC text in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the record takes timezone-aware times only")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables."""


class Call(Base):
    """One row per call, from the first INVITE on."""

    __tablename__ = "calls"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    box: Mapped[str] = mapped_column(String(255), default="")
    protocol: Mapped[str] = mapped_column(String(32), default="")
    protocol_call_id: Mapped[str] = mapped_column(Text, default="")
    trunk: Mapped[str] = mapped_column(String(255), default="")
    line: Mapped[str] = mapped_column(String(255), default="")
    called: Mapped[str] = mapped_column(Text, default="")
    calling: Mapped[str] = mapped_column(Text, default="")
    calling_name: Mapped[str] = mapped_column(Text, default="")
    direction: Mapped[str] = mapped_column(String(16), default="inbound")
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ringing_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    disposition: Mapped[str] = mapped_column(String(16), default="in_progress")
    hangup_by: Mapped[str] = mapped_column(String(16), default="")
    hangup_code: Mapped[int] = mapped_column(Integer, default=0)
    hangup_text: Mapped[str] = mapped_column(Text, default="")
    slots: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    recording_path: Mapped[str | None] = mapped_column(Text)
    recording_started_frame: Mapped[int | None] = mapped_column(Integer)
    recording_frames: Mapped[int | None] = mapped_column(Integer)
    recording_problem: Mapped[str] = mapped_column(Text, default="")
    recording_consent: Mapped[str] = mapped_column(String(16), default="", server_default="")
    recording_paused: Mapped[list[list[int | None]]] = mapped_column(JSON, default=list, server_default="[]")
    recording_delete_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    mos: Mapped[float | None] = mapped_column(Float)
    mos_far: Mapped[float | None] = mapped_column(Float)
    loss_percent: Mapped[float | None] = mapped_column(Float)
    jitter_ms: Mapped[float | None] = mapped_column(Float)
    round_trip_ms: Mapped[float | None] = mapped_column(Float)
    trace: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list, server_default="[]")

    __table_args__ = (
        Index("ix_calls_started_at", "started_at"),
        Index("ix_calls_open", "disposition", "box"),
    )


class Turn(Base):
    """One row per turn of a call; turn 0 is the greeting."""

    __tablename__ = "turns"

    call_id: Mapped[str] = mapped_column(String(64), ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    finished_at: Mapped[datetime] = mapped_column(UtcDateTime)
    by: Mapped[str] = mapped_column(String(8), default="none")
    caller_text: Mapped[str] = mapped_column(Text, default="")
    confidence: Mapped[float | None] = mapped_column(Float)
    accepted: Mapped[bool] = mapped_column(default=True)
    agent_text: Mapped[str] = mapped_column(Text, default="")
    heard_text: Mapped[str] = mapped_column(Text, default="")
    interrupted: Mapped[bool] = mapped_column(default=False)
    speech_start_s: Mapped[float | None] = mapped_column(Float)
    speech_end_s: Mapped[float | None] = mapped_column(Float)
    latency_ms: Mapped[float | None] = mapped_column(Float)
    waterfall: Mapped[dict[str, list[float]]] = mapped_column(JSON, default=dict)
    ended_by: Mapped[str] = mapped_column(Text, default="", server_default="")
    probability: Mapped[float | None] = mapped_column(Float)
    pauses: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    speculation: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict, server_default="{}")
    tools: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list, server_default="[]")
    asked: Mapped[str] = mapped_column(Text, default="", server_default="")
    server: Mapped[str] = mapped_column(Text, default="", server_default="")
    problem: Mapped[str] = mapped_column(Text, default="", server_default="")


class CallerMemory(Base):
    """What is remembered of a caller on a line, from one call to the next."""

    __tablename__ = "caller_memory"

    number: Mapped[str] = mapped_column(String(64), primary_key=True)
    line: Mapped[str] = mapped_column(String(255), primary_key=True)
    notes: Mapped[str] = mapped_column(Text, default="")
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index("ix_caller_memory_expires_at", "expires_at"),)


class DoNotCall(Base):
    """A number that is never to be called again."""

    __tablename__ = "do_not_call"

    number: Mapped[str] = mapped_column(String(64), primary_key=True)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(Text, default="")
    call_id: Mapped[str] = mapped_column(String(64), default="")
    line: Mapped[str] = mapped_column(String(255), default="")


class WebhookEvent(Base):
    """An event that a webhook has still to be told of, or could not be."""

    __tablename__ = "webhook_events"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    box: Mapped[str] = mapped_column(String(255), default="")
    plugin: Mapped[str] = mapped_column(String(64))
    webhook: Mapped[str] = mapped_column(String(64))
    line: Mapped[str] = mapped_column(String(255), default="")
    call_id: Mapped[str] = mapped_column(String(64), default="")
    event: Mapped[str] = mapped_column(String(32))
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
    problem: Mapped[str] = mapped_column(Text, default="")
    given_up_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index("ix_webhook_events_next", "box", "plugin", "webhook", "given_up_at", "next_at"),)
