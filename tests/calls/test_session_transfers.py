"""Whole calls in virtual time: what becomes of a caller who is handed on, and of a peer that hands us on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from appliance.dialplan.schema import Line
from appliance.events import Disposition, HangupBy
from tests.calls.virtual_call import VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

HAND_ON: dict[str, Any] = {
    "name": "desk",
    "no_input": {"after_s": 5},
    "flow": {
        "who": {"ask": "Tea or coffee?", "expect": {"tea": ["tea please"]}, "next": {"default": "hand"}},
        "hand": {"transfer": {"to": "200", "kind": "attended"}, "say": "One moment.", "failed": "sorry"},
        "sorry": {"ask": "Nobody is there. Anything else?", "expect": ["no thanks"], "next": {"default": "bye"}},
        "bye": {"hang_up": "Goodbye."},
    },
}


class HandsOn:
    """The transfers' part: says what it was asked, and how it ends after ``takes_s``."""

    def __init__(self, outcome: str | None, takes_s: float = 20.0) -> None:
        self.outcome, self.takes_s = outcome, takes_s
        self.asked: list[str] = []
        self.cancelled = False

    async def hand_on(self, leg: Any, media: Any, transfer: Any, values: Any, voicing: Any, keys_to: Any) -> str | None:
        self.asked.append(f"{transfer.to} {transfer.attended} {values['caller.number']}")
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self.outcome


async def _to_the_transfer(made: VirtualCall, transfers: HandsOn) -> None:
    await made.until_quiet()
    made.speaks(0.8, "tea please")
    await made.until(lambda: bool(transfers.asked))


def test_a_caller_is_handed_on_and_the_record_says_to_whom() -> None:
    async def call() -> None:
        transfers = HandsOn("put through to 200")
        made = VirtualCall(Line.model_validate(HAND_ON), transfers=transfers)
        await _to_the_transfer(made, transfers)
        said = len(made.engines.said)
        made.session.on_digit("1", made.media.frame)
        made.speaks(2.0, "hello there", accepted=False)
        ended = await made.over()
        assert transfers.asked == ["200 True 200"]
        assert len(made.engines.said) == said, "the agent keeps out of a call that is somebody else's"
        assert (ended.hangup_by, ended.hangup_text) == (HangupBy.AGENT, "put through to 200")
        assert ended.slots["transfer"] == "200: put through to 200"
        assert [turn.agent_text for turn in made.log.turns][-1] == "One moment."

    run_virtual(call())


def test_a_transfer_that_fails_brings_the_caller_back_to_the_agent() -> None:
    async def call() -> None:
        transfers = HandsOn(None)
        made = VirtualCall(Line.model_validate(HAND_ON), transfers=transfers)
        await _to_the_transfer(made, transfers)
        await made.until(lambda: "Nobody is there." in " ".join(made.engines.said))
        await made.until_quiet()
        made.speaks(0.8, "no thanks")
        ended = await made.over()
        assert ended.slots["transfer"] == "200: failed"
        assert made.log.turns[-1].agent_text == "Goodbye."

    run_virtual(call())


def test_a_caller_who_hangs_up_ends_the_transfer() -> None:
    async def call() -> None:
        transfers = HandsOn("put through", takes_s=3600)
        made = VirtualCall(Line.model_validate(HAND_ON), transfers=transfers)
        await _to_the_transfer(made, transfers)
        made.hangs_up()
        ended = await made.over()
        assert transfers.cancelled
        assert ended.slots["transfer"] == "200: under way when the call ended"
        assert (ended.disposition, ended.hangup_by) == (Disposition.COMPLETED, HangupBy.CALLER)

    run_virtual(call())


class Follows:
    """The transfers' part when the caller's side asks: who is called takes ``rings_s`` to answer, or does not."""

    def __init__(self, outcome: bool | Exception, rings_s: float = 40.0) -> None:
        self.outcome, self.rings_s = outcome, rings_s
        self.values: dict[str, str] = {}
        self.cancelled = False

    def admit(self, leg: Any, request: Any) -> list[str]:
        return ["an attempt"]

    async def follow(self, leg: Any, media: Any, request: Any, attempts: Any, values: dict[str, str]) -> bool:
        self.values = values
        try:
            await asyncio.sleep(self.rings_s)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Referral:
    target = "sip:200@pbx"


async def _asked_for_a_transfer(transfers: Follows) -> VirtualCall:
    made = VirtualCall(flow_line(), transfers=transfers)
    await made.until_quiet()
    assert made.leg.on_transfer is not None
    made.leg.on_transfer(Referral())
    return made


def test_a_peer_may_hang_up_once_its_transfer_was_accepted_and_the_call_goes_on_with_the_next_one() -> None:
    async def call() -> None:
        transfers = Follows(True)
        made = await _asked_for_a_transfer(transfers)
        said = len(made.engines.said)
        made.hangs_up()
        await asyncio.sleep(35)
        made.session.on_media_timeout(30.0)
        assert len(made.engines.said) == said, "the agent asks nobody"
        await made.until(lambda: "Are you there?" in made.engines.said)
        assert not made.task.done()
        made.hangs_up()
        ended = await made.over()
        assert (ended.disposition, ended.hangup_by) == (Disposition.COMPLETED, HangupBy.CALLER)
        assert ended.slots["transferred_to"] == "sip:200@pbx"
        assert transfers.values["call.id"] == "leg1"

    run_virtual(call())


@pytest.mark.parametrize("outcome", [False, ValueError("a bug below")], ids=["nobody answers", "it fails"])
def test_the_call_of_a_peer_that_hung_up_ends_when_its_transfer_comes_to_nothing(outcome: bool | Exception) -> None:
    async def call() -> None:
        made = await _asked_for_a_transfer(Follows(outcome))
        made.hangs_up(text="bye")
        await asyncio.sleep(39)
        assert not made.task.done()
        ended = await made.over(5.0)
        assert (ended.disposition, ended.hangup_by, ended.hangup_text) == (
            Disposition.COMPLETED,
            HangupBy.CALLER,
            "bye",
        )
        assert "transferred_to" not in ended.slots

    run_virtual(call())


def test_a_peer_that_stays_is_with_the_agent_again_when_its_transfer_comes_to_nothing() -> None:
    async def call() -> None:
        made = await _asked_for_a_transfer(Follows(False, rings_s=1.0))
        await made.until(lambda: "Are you there?" in made.engines.said)
        made.hangs_up()
        assert (await made.over(1.0)).hangup_by is HangupBy.CALLER

    run_virtual(call())


def test_a_drain_does_not_wait_for_a_transfer_of_the_peers() -> None:
    async def call() -> None:
        transfers = Follows(True)
        made = await _asked_for_a_transfer(transfers)
        made.hangs_up()
        await asyncio.sleep(1)
        made.session.end(Disposition.INTERRUPTED, "shutting down")
        assert (await made.over(1.0)).disposition is Disposition.INTERRUPTED
        await asyncio.sleep(0)
        assert transfers.cancelled

    run_virtual(call())
