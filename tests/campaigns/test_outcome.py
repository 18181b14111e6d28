"""What became of a call."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.calls.outgoing import OutgoingResult
from appliance.campaigns.outcome import (
    SIP_DISPOSITIONS,
    TONE_DISPOSITIONS,
    Disposition,
    disposition,
    fails_the_trunk,
)
from appliance.conversation.answering import Verdict

PAGE = Path(__file__).parents[2] / "docs" / "campaign-rules.md"


def verdict(kind: Any) -> Verdict:
    return Verdict(kind, 0.9, 1.0, "")


def answered(**facts: Any) -> OutgoingResult:
    return OutgoingResult(sip_code=200, answered_at=5.0, greeted_at=5.1, ended_at=30.0, **facts)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (486, "busy"),
        (600, "busy"),
        (408, "no_answer"),
        (480, "no_answer"),
        (487, "no_answer"),
        (403, "rejected"),
        (603, "rejected"),
        (607, "rejected"),
        (608, "rejected"),
        (404, "invalid"),
        (410, "invalid"),
        (484, "invalid"),
        (604, "invalid"),
        (503, "failed"),
        (500, "failed"),
        (488, "failed"),
        (0, "failed"),
        (699, "failed"),
    ],
)
def test_a_call_that_nobody_answered_ends_as_its_status_says(code: int, expected: str) -> None:
    assert disposition(OutgoingResult(sip_code=code)) == expected


@pytest.mark.parametrize(
    ("early", "expected"),
    [("busy", "busy"), ("reorder", "failed"), ("sit", "invalid"), ("ringback", "no_answer"), ("fax", "machine")],
)
def test_tones_before_the_answer_say_more_than_the_status(early: str, expected: str) -> None:
    assert disposition(OutgoingResult(sip_code=480, early=early)) == expected


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (answered(completed=True), "completed"),
        (answered(completed=False), "answered"),
        (answered(completed=True, verdict=verdict("human")), "completed"),
        (answered(verdict=verdict("machine")), "machine"),
        (answered(verdict=verdict("fax")), "machine"),
        (answered(verdict=verdict("screening")), "machine"),
        (answered(verdict=verdict("screening"), completed=True), "completed"),
        (answered(verdict=verdict("machine"), message_left=True), "voicemail_left"),
        (answered(verdict=verdict("machine"), completed=True), "machine"),
        (answered(opted_out=True, completed=True), "opted_out"),
        (answered(opted_out=True, transferred_to="+12025550199"), "opted_out"),
        (answered(transferred_to="+12025550199", completed=True), "transferred"),
        (answered(callback_at=datetime(2026, 11, 24, tzinfo=UTC), completed=True), "completed"),
        (answered(problem="media lost"), "failed"),
        (OutgoingResult(problem="no route"), "failed"),
        (OutgoingResult(sip_code=486, problem="no room"), "failed"),
    ],
)
def test_an_answered_call_ends_as_what_was_reached(result: OutgoingResult, expected: str) -> None:
    assert disposition(result) == expected


def test_a_call_that_the_box_ended_is_interrupted_unless_it_had_come_to_something() -> None:
    assert disposition(OutgoingResult(), stopped=True) is Disposition.INTERRUPTED
    assert disposition(answered(), stopped=True) is Disposition.INTERRUPTED
    assert disposition(answered(completed=True), stopped=True) is Disposition.COMPLETED
    assert disposition(answered(opted_out=True), stopped=True) is Disposition.OPTED_OUT


def test_a_human_who_was_left_waiting_is_abandoned_and_a_machine_is_not() -> None:
    assert disposition(answered(), abandoned=True) is Disposition.ABANDONED
    assert disposition(answered(verdict=verdict("machine")), abandoned=True) is Disposition.MACHINE


def test_what_the_called_party_does_says_nothing_against_the_trunk() -> None:
    for code in SIP_DISPOSITIONS:
        assert not fails_the_trunk(OutgoingResult(sip_code=code)), code
    for tone in TONE_DISPOSITIONS:
        assert not fails_the_trunk(OutgoingResult(sip_code=503, early=tone)), tone
    assert not fails_the_trunk(answered(problem="media lost"))
    assert fails_the_trunk(OutgoingResult(sip_code=503))
    assert fails_the_trunk(OutgoingResult())
    assert fails_the_trunk(OutgoingResult(problem="no route"))
