"""Whole calls on lines that record: who is told or asked, what the recording is without, and what is on record."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.calls.call_recording import TAIL_FRAMES
from appliance.conversation.inputs import PRIVATE
from appliance.dialplan.schema import Line
from appliance.events import Consent, RecordingConsent, RecordingPaused, RecordingStarted
from appliance.ipc.messages import RecordingStopped
from appliance.ipc.rings import FRAME_SAMPLES
from appliance.plugins.hooks import Hooks
from tests.calls.virtual_call import SAMPLES_PER_CHARACTER, VirtualCall, flow_line
from tests.engines.virtual_time import run_virtual

ASKED = "May we record this call?"
PLAIN: dict[str, Any] = {"no_input": {"after_s": 3}, "disclosure": "You are talking to a machine."}


class Tape:
    """The recorder's part: remembers what it was told."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.silent: tuple[Any, ...] = ()
        self.running = False

    def active(self, recording: str) -> bool:
        return self.running

    def frame(self, media: Any) -> int:
        return int(media.frame)

    def start(
        self, recording: str, slot: int, generation: int, path: Path, start_frame: int, silent: tuple[Any, ...] = ()
    ) -> None:
        self.started.append((str(path), start_frame))
        self.silent = silent
        self.running = True

    def silence(self, recording: str, silent: tuple[Any, ...]) -> None:
        self.silent = silent

    async def stop(self, recording: str, media: Any) -> RecordingStopped:
        self.running = False
        return RecordingStopped(recording, self.started[0][0], self.frame(media) - self.started[0][1], "")


class RecordedCall(VirtualCall):
    """A call in a box with a recorder."""

    def __init__(self, line: Line, **more: Any) -> None:
        self.tape = Tape()
        super().__init__(line, recorder=self.tape, **more)


def events(call: RecordedCall, kind: type[Any]) -> list[Any]:
    return [event for event in call.log.events if isinstance(event, kind)]


def consent_of(call: RecordedCall) -> list[Consent]:
    return [event.consent for event in events(call, RecordingConsent)]


def test_a_line_that_just_records_does_so_from_the_first_frame() -> None:
    async def call() -> None:
        made = RecordedCall(flow_line(record=True))
        await made.ends()
        (started,) = events(made, RecordingStarted)
        assert (started.start_frame, started.delete_utc) == (0, None)
        assert consent_of(made) == []

    run_virtual(call())


def test_a_caller_is_told_after_the_disclosure_and_before_the_recording_begins() -> None:
    async def call() -> None:
        made = RecordedCall(flow_line(**PLAIN, record={"consent": "announce", "keep_days": 7}))
        await made.until(lambda: made.tape.running)
        assert made.engines.said[:2] == ["You are talking to a machine.", "This call is recorded."]
        told_frames = sum(len(said) for said in made.engines.said[:2]) * SAMPLES_PER_CHARACTER // FRAME_SAMPLES
        await made.until_says("Hello, this is the desk.")
        ended = await made.ends()
        (started,) = events(made, RecordingStarted)
        assert told_frames <= started.start_frame < told_frames + 50
        assert datetime(2026, 1, 8, tzinfo=UTC) < started.delete_utc < datetime(2026, 1, 8, 1, tzinfo=UTC)
        assert consent_of(made) == [Consent.ANNOUNCED]
        assert ended.slots == {}
        assert made.engines.said.count("You are talking to a machine.") == 1

    run_virtual(call())


@pytest.mark.parametrize(
    ("said", "consent"),
    [("yes please", Consent.GIVEN), ("no thank you", Consent.REFUSED), ("1", Consent.GIVEN), ("2", Consent.REFUSED)],
)
@pytest.mark.parametrize("agent", ["flow", "llm"])
def test_a_caller_is_asked_and_recorded_only_after_a_yes(said: str, consent: Consent, agent: str) -> None:
    async def call() -> None:
        rule = {"consent": "ask", "ask": ASKED, "refused": "As you wish."}
        line = flow_line(**PLAIN, record=rule)
        if agent == "llm":
            about = {"agent": "llm", "prompt": "Be brief.", "greeting": "Hello, this is the desk."}
            line = Line.model_validate({"name": "desk", **about, "record": rule})
        made = RecordedCall(line, llm=agent == "llm")
        await made.until_says(ASKED)
        await made.until_quiet()
        assert not made.tape.running
        if said.isdigit():
            made.session.on_digit(said, made.media.frame)
        else:
            made.speaks(0.8, said)
        await made.until_says("Hello, this is the desk.")
        assert made.tape.running == (consent is Consent.GIVEN)
        assert ("As you wish." in made.engines.said) == (consent is Consent.REFUSED)
        await made.ends()
        assert consent_of(made) == [consent]
        assert len(events(made, RecordingStarted)) == (consent is Consent.GIVEN)

    run_virtual(call())


def test_the_model_knows_what_was_heard_of_its_own_words_after_the_consent() -> None:
    async def call() -> None:
        rule = {"consent": "announce", "announce": "We record this."}
        about = {"agent": "llm", "prompt": "Be brief.", "greeting": "Hello, this is the desk."}
        made = RecordedCall(Line.model_validate({"name": "desk", **about, "record": rule}), llm=True)
        made.engines.tokens = ["Fine."]
        await made.until_says("Hello, this is the desk.")
        await made.until_quiet()
        made.speaks(0.8, "hello")
        await made.until_says("Fine.")
        said = [message.content for message in made.engines.prompts[0].messages if message.role == "assistant"]
        assert said == ["Hello, this is the desk."]
        await made.ends()

    run_virtual(call())


def test_no_answer_is_a_no_and_the_question_comes_twice() -> None:
    async def call() -> None:
        made = RecordedCall(flow_line(**PLAIN, record={"consent": "ask", "ask": ASKED}))
        await made.until_says("Hello, this is the desk.")
        assert made.engines.said.count(ASKED) == 2
        assert made.engines.said.count("You are talking to a machine.") == 1
        await made.ends()
        assert consent_of(made) == [Consent.UNANSWERED]
        assert made.tape.started == []

    run_virtual(call())


class Listener(Hooks):
    """Plugins that want to know what is said and pressed."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def wanted(self, hook: str, line: str) -> bool:
        return hook in ("key", "final_transcript", "partial_transcript")

    def tell(self, hook: str, call: Any, **arguments: Any) -> None:
        self.told.append((hook, arguments))

    async def chain(self, hook: str, call: Any, value: Any, **arguments: Any) -> Any:
        self.told.append((hook, {"value": value}))
        return value

    def over(self, call_id: str) -> None:
        pass


def private_line(**changes: Any) -> Line:
    line = flow_line().model_dump(exclude_unset=True, mode="json")
    line["flow"]["pin"]["private"] = True
    return Line.model_validate({**line, "record": True, **changes})


@pytest.mark.parametrize("spoken", [False, True])
def test_a_private_answer_is_nowhere_but_in_the_flow(spoken: bool) -> None:
    async def call() -> None:
        hooks = Listener()
        made = RecordedCall(private_line(), hooks=hooks)
        await made.until_quiet()
        made.session.on_digit("1", made.media.frame)
        await made.until_says("Please enter your four digit code.")
        begun = made.media.frame
        assert made.tape.silent[-1][1] is None
        assert begun - made.tape.silent[0][0] < 50
        await made.until_quiet()
        if spoken:
            made.speaks(1.5, "four seven one one")
            await made.until_says("Thank you, goodbye.")
        else:
            for digit in "4711":
                made.session.on_digit(digit, made.media.frame)
                await asyncio.sleep(0.2)
        ended = await made.over()
        ((start, end),) = made.tape.silent
        assert end is not None
        assert end > begun + TAIL_FRAMES
        assert events(made, RecordingPaused)[-1].parts == ((start, end),)
        assert ended.slots == {"drink": "tea", "pin": PRIVATE, "ending": "done"}
        everything = repr(made.log.events) + repr(hooks.told)
        assert "4711" not in everything and "four seven" not in everything
        assert "'7'" not in everything
        assert [turn.caller_text for turn in made.log.turns] == ["", "1", PRIVATE]
        assert ("key", {"digit": "1"}) in hooks.told

    run_virtual(call())
