"""Whole conversations in virtual time: a table of what the caller does, and what is said and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config import shipped_dir
from appliance.dialplan.flow import (
    Action,
    DigitTimeout,
    Event,
    Flow,
    Hangup,
    Heard,
    Key,
    Listen,
    NoInput,
    Said,
    Say,
    SetSlot,
    State,
    Transfer,
    TransferFailed,
    opening,
)
from appliance.dialplan.loader import load_dialplans
from appliance.dialplan.schema import Line

SPEECH_S = 2.0
"""How long every Say lasts in these tests."""


def line(flow: dict[str, Any], **rest: Any) -> Line:
    return Line.model_validate({"name": "test", "flow": flow, **rest})


class Call:
    """Runs a flow as a session does, on a clock that only these tests move."""

    def __init__(self, of: Line, **numbers: str) -> None:
        self.flow = Flow(of, **numbers)
        self.now = 0.0
        self.log: list[str] = []
        self.slots: dict[str, str] = {}
        self.ended_at: float | None = None
        self._speech_ends = 0.0
        self._silence_at: float | None = None
        self._digit_at: float | None = None
        self._said_due = False
        self._do(self.flow.start())

    def says(self, text: str, *, accepted: bool = True) -> Call:
        return self._caller(Heard(text, accepted=accepted))

    def presses(self, keys: str) -> Call:
        for key in keys:
            self._caller(Key(key))
        return self

    def waits(self, seconds: float) -> Call:
        self._run_until(self.now + seconds)
        return self

    def _caller(self, event: Event) -> Call:
        self._cut_short()
        self._silence_at = self._digit_at = None
        actions = self.flow.handle(event)
        listen = self.flow.expectation
        if isinstance(event, Key) and not actions and listen is not None and listen.digits is not None:
            self._digit_at = self.now + listen.digits.timeout_s
        self._do(actions)
        return self

    def _cut_short(self) -> None:
        self._speech_ends = self.now
        self._tell_said()

    def _tell_said(self) -> None:
        if self._said_due and self.now >= self._speech_ends:
            self._said_due = False
            self._do(self.flow.handle(Said()))

    def _do(self, actions: Iterable[Action]) -> None:
        assert self.ended_at is None or not list(actions)
        for action in actions:
            if isinstance(action, Say):
                self.log.append(f"{self.now:g} {action.text}")
                self._speech_ends = max(self.now, self._speech_ends) + SPEECH_S
                self._said_due = True
            elif isinstance(action, Listen):
                self._silence_at = self._speech_ends + action.no_input_s
            elif isinstance(action, SetSlot):
                self.slots[action.name] = action.value
            else:
                self.log.append(f"{self.now:g} ({action.disposition})")
                self.ended_at, self._silence_at = self.now, None

    def _run_until(self, end: float) -> None:
        while self.ended_at is None:
            due = [(self._speech_ends, "said")] if self._said_due else []
            due += [(self._silence_at, "silence")] if self._silence_at is not None else []
            due += [(self._digit_at, "digits")] if self._digit_at is not None else []
            if not due or min(due)[0] > end:
                break
            self.now, what = min(due)
            if what == "said":
                self._tell_said()
            elif what == "silence":
                self._silence_at = None
                self._do(self.flow.handle(NoInput()))
            else:
                self._digit_at = None
                self._do(self.flow.handle(DigitTimeout()))
        self.now = end


ORDER: dict[str, Any] = {
    "what": {
        "ask": "Tea or coffee?",
        "expect": {"tea": ["some tea", "tea please"], "coffee": ["some coffee", "tea with coffee"]},
        "keys": {"1": "tea", "2": "coffee"},
        "slot": "drink",
        "next": {"tea": "milk", "default": "done"},
    },
    "milk": {"say": "We have no milk."},
    "done": {"hang_up": "Your ${slots.drink} is coming.", "disposition": "ordered"},
}


@pytest.fixture(scope="module")
def reception() -> Line:
    return load_dialplans([shipped_dir("dialplans")]).lines[0]


# --- the way through --------------------------------------------------------------------------------------------------


def test_a_conversation_from_greeting_to_farewell() -> None:
    call = Call(line(ORDER, disclosure="I am a machine.", greeting="Hello."))
    call.waits(7).says("Some tea!").waits(10)
    assert call.log == [
        "0 I am a machine.",
        "0 Hello.",
        "0 Tea or coffee?",
        "7 We have no milk.",
        "7 Your tea is coming.",
        "11 (ordered)",
    ]
    assert call.slots == {"drink": "tea"}


def test_the_disclosure_cannot_be_interrupted() -> None:
    of = line(ORDER, disclosure="I am a machine.", greeting="Hello ${caller.number}.")
    assert opening(of, {"caller.number": "12"}) == [
        Say("I am a machine.", interruptible=False),
        Say("Hello 12.", interruptible=True),
    ]
    quiet = line(ORDER, greeting={"text": "Hello.", "interruptible": False}, barge_in=False)
    assert [action.interruptible for action in Flow(quiet).start() if isinstance(action, Say)] == [False, False]


def test_the_next_question_is_known_while_the_prompt_is_still_being_said() -> None:
    flow = Flow(line(ORDER, no_input={"after_s": 4}, reject_unexpected=False))
    assert flow.expectation is None
    *_, listen = flow.start()
    assert flow.expectation == listen
    assert listen == Listen(
        phrases=("some tea", "tea please", "some coffee", "tea with coffee"),
        digits=None,
        keys=(("1", "tea"), ("2", "coffee")),
        no_input_s=4,
        reject=False,
    )
    flow.handle(Key("2"))
    assert flow.expectation is None


def test_barge_in_during_the_question_is_the_answer() -> None:
    call = Call(line(ORDER)).waits(0.5).says("some coffee").waits(9)
    assert call.log == ["0 Tea or coffee?", "0.5 Your coffee is coming.", "2.5 (ordered)"]


def test_nothing_the_caller_does_during_the_farewell_counts() -> None:
    flow = Flow(line(ORDER))
    flow.start()
    flow.handle(Key("2"))
    assert flow.state is State.CLOSING
    for event in (Heard("some tea"), Key("1"), NoInput(), DigitTimeout()):
        assert flow.handle(event) == []
    assert flow.handle(Said()) == [Hangup("ordered")]
    assert flow.state is State.ENDED
    assert flow.handle(Said()) == []


def test_a_call_without_a_farewell_ends_at_once_if_nothing_is_being_said() -> None:
    flow = Flow(line({"what": {"ask": "What?", "expect": ["x"]}, "bye": {"hang_up": None}}))
    flow.start()
    flow.handle(Said())
    assert flow.handle(Heard("x")) == [Hangup("completed")]


def test_a_line_may_only_speak() -> None:
    assert Call(line({"bye": {"hang_up": "We are closed."}})).waits(5).log == ["0 We are closed.", "2 (completed)"]


def test_branch_and_goto() -> None:
    flow = {
        "size": {"ask": "How many?", "expect": ["one", "two"], "slot": "size"},
        "which": {"branch": "size", "when": {"one": "alone"}, "default": "others"},
        "alone": {"say": "Alone."},
        "end": {"goto": "bye"},
        "others": {"say": "Together."},
        "bye": {"hang_up": "Goodbye."},
    }
    assert Call(line(flow)).waits(2).says("one").log[1:] == ["2 Alone.", "2 Goodbye."]
    assert Call(line(flow)).waits(2).says("two").log[1:] == ["2 Together.", "2 Goodbye."]


# --- what counts as an answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "meant"),
    [
        ("some tea", "tea"),
        ("Some TEA, please", "tea"),
        ("uh tea please thank you", "tea"),
        ("tea with coffee", "coffee"),
        ("some tea no some coffee", None),
        ("not some tea", None),
        ("i don't want tea please", None),
        ("awesome tea", None),
        ("milk", None),
        ("", None),
    ],
)
def test_what_a_caller_means(heard: str, meant: str | None) -> None:
    flow = Flow(line(ORDER))
    flow.start()
    actions = flow.handle(Heard(heard))
    assert [action.value for action in actions if isinstance(action, SetSlot)] == ([meant] if meant else [])


def test_a_guess_counts_only_where_the_line_takes_the_nearest() -> None:
    for reject, slots in ((True, {}), (False, {"drink": "tea"})):
        assert Call(line(ORDER, reject_unexpected=reject)).says("some tea", accepted=False).slots == slots


# --- no input, no match -----------------------------------------------------------------------------------------------


def test_a_silent_caller_is_asked_again_and_then_given_up() -> None:
    prompts = {"after_s": 5, "prompts": ["Hello?", "Still there?"]}
    assert Call(line(ORDER, no_input=prompts)).waits(60).log == [
        "0 Tea or coffee?",
        "7 Hello?",
        "14 Still there?",
        "21 (no_input)",
    ]


def test_without_prompts_the_question_is_repeated() -> None:
    assert Call(line(ORDER, no_input={"after_s": 5})).waits(60).log == [
        "0 Tea or coffee?",
        "7 Tea or coffee?",
        "14 Tea or coffee?",
        "21 (no_input)",
    ]


def test_the_last_prompt_serves_further_retries() -> None:
    call = Call(line(ORDER, no_match={"prompts": ["What?"], "retries": 2, "then": "done"}))
    call.waits(2).says("x").says("y").says("z").waits(3)
    assert call.log == ["0 Tea or coffee?", "2 What?", "2 What?", "2 Your is coming.", "4 (ordered)"]


def test_a_question_can_have_its_own_rules_and_keeps_the_rest() -> None:
    flow = {**ORDER, "what": {**ORDER["what"], "no_input": {"prompts": ["Tea?"]}, "no_match": {"retries": 0}}}
    of = line(flow, no_input={"after_s": 3, "prompts": ["a", "b"], "then": "done"}, no_match={"then": "milk"})
    assert Call(of).waits(20).log == ["0 Tea or coffee?", "5 Tea?", "10 Your is coming.", "12 (ordered)"]
    assert Call(of).waits(2).says("x").log[1:2] == ["2 We have no milk."]


def test_every_question_is_asked_with_fresh_patience() -> None:
    flow = {
        "a": {"ask": "A?", "expect": ["x"]},
        "b": {"ask": "B?", "expect": ["x"]},
        "bye": {"hang_up": None},
    }
    call = Call(line(flow, no_match={"retries": 1, "prompts": ["What?"]}))
    call.waits(2).says("y").says("x").says("y").says("x").waits(2)
    assert call.log == ["0 A?", "2 What?", "2 B?", "2 What?", "2 (completed)"]


def test_an_unexpected_key_is_a_no_match_only_where_keys_are_expected() -> None:
    assert Call(line(ORDER, no_match={"prompts": ["What?"]})).presses("9").log[1:] == ["0 What?"]
    voice_only = {"a": {"ask": "A?", "expect": ["x"]}, "bye": {"hang_up": None}}
    assert Call(line(voice_only)).presses("9").log == ["0 A?"]


def test_the_shipped_line_bears_with_a_silent_caller(reception: Line) -> None:
    call = Call(reception).waits(300)
    assert call.ended_at is not None
    assert call.ended_at - 3 * SPEECH_S > 20
    assert call.log[-1].endswith("(no_input)")


def test_the_shipped_line_by_voice_and_by_key(reception: Line) -> None:
    call = Call(reception).waits(6)
    call.says("opening hours").waits(4).says("yes please").waits(2).says("a table for two").waits(2)
    call.says("at half past seven").waits(2).says("no that's wrong").waits(4)
    call.presses("4").waits(2).says("six thirty").waits(2).presses("1").waits(9)
    assert call.slots == {"request": "hours", "people": "four", "time": "half past six"}
    assert call.log[-1].endswith("(booked)")
    assert "table for four at half past six" in call.log[-3]


# --- digits -----------------------------------------------------------------------------------------------------------


def digits(**spec: Any) -> Line:
    flow = {
        "number": {"ask": "Your number?", "digits": spec, "slot": "number", "no_match": {"prompts": ["Again?"]}},
        "bye": {"hang_up": "It is ${slots.number | digits}."},
    }
    return line(flow)


def test_the_last_digit_completes_the_number() -> None:
    call = Call(digits(min=2, max=4)).waits(2).presses("1234")
    assert call.log[1:] == ["2 It is 1 2 3 4."]
    assert call.slots == {"number": "1234"}


def test_the_terminator_completes_the_number_or_finds_it_short() -> None:
    assert Call(digits(min=2, max=4)).presses("12#").slots == {"number": "12"}
    short = Call(digits(min=2, max=4)).presses("1#")
    assert (short.slots, short.log[1:]) == ({}, ["0 Again?"])
    assert short.presses("34#").slots == {"number": "34"}, "what was pressed before does not count"


def test_a_pause_completes_the_number_or_finds_it_short() -> None:
    call = Call(digits(min=2, max=9, timeout_s=3)).waits(2).presses("1").waits(2).presses("2").waits(2.9)
    assert call.slots == {}
    assert call.waits(0.1).slots == {"number": "12"}
    assert Call(digits(min=2, max=9)).presses("1").waits(3).log[1:] == ["3 Again?"]


def test_a_key_that_is_no_digit_starts_over() -> None:
    call = Call(digits(min=2, max=4)).presses("12*")
    assert (call.slots, call.log[1:]) == ({}, ["0 Again?"])
    assert call.flow.pressed == ""


def test_digits_by_voice_are_counted_here() -> None:
    flow = Flow(digits(min=3, max=4))
    assert flow.start()[-1].phrases == ("<digits 3 4>",)  # type: ignore[union-attr]
    assert Call(digits(min=3, max=4)).says("one two oh").slots == {"number": "120"}
    assert Call(digits(min=3, max=4)).says("one two").slots == {}
    assert Call(digits(min=3, max=4)).says("one two three four five").slots == {}


def test_by_key_or_by_voice_alone() -> None:
    by_voice = Call(digits(max=2, by="voice")).presses("12")
    assert (by_voice.slots, by_voice.log[1:]) == ({}, [])
    by_key = Flow(digits(max=2, by="key"))
    assert by_key.start()[-1].phrases == ()  # type: ignore[union-attr]
    assert Call(digits(max=2, by="key")).says("one two").slots == {}


def test_speech_takes_the_place_of_half_a_number() -> None:
    call = Call(digits(min=2, max=4)).presses("9").says("one two")
    assert call.slots == {"number": "12"}


def test_silence_after_half_a_number_ends_it() -> None:
    flow = Flow(digits(min=1, max=4))
    flow.start()
    flow.handle(Key("7"))
    assert flow.handle(NoInput())[0] == SetSlot("number", "7")


def test_a_late_digit_timer_means_nothing() -> None:
    flow = Flow(digits(min=1, max=1))
    flow.start()
    assert flow.handle(DigitTimeout()) == []


def test_a_number_or_a_choice() -> None:
    flow = {
        "number": {
            "ask": "Your number?",
            "expect": {"lost": ["I don't know"]},
            "digits": {"max": 3},
            "next": {"lost": "help", "default": "bye"},
        },
        "help": {"say": "Look at your bill."},
        "bye": {"hang_up": "Goodbye."},
    }
    assert Call(line(flow)).says("I don't know").log[1] == "0 Look at your bill."
    assert Call(line(flow)).says("1 2 3").log[1] == "0 Goodbye."
    assert Call(line(flow)).presses("123").log[1] == "0 Goodbye."


# --- anything at all --------------------------------------------------------------------------------------------------

_events = st.one_of(
    st.sampled_from(["yes please", "book a table", "two people", "half past six", "no that's wrong", "bla"]).map(Heard),
    st.sampled_from("0123456789*#").map(Key),
    st.sampled_from([NoInput(), Said(), DigitTimeout(), Heard("yes", accepted=False)]),
)


@settings(max_examples=100, deadline=None)
@given(events=st.lists(_events, max_size=40))
def test_whatever_happens_a_call_listens_or_is_about_to_end(reception: Line, events: list[Event]) -> None:
    flow = Flow(reception)
    flow.start()
    hangups = 0
    for event in events:
        hangups += sum(isinstance(action, Hangup) for action in flow.handle(event))
        assert (flow.expectation is not None) == (flow.state is State.ASKING)
    assert hangups == (flow.state is State.ENDED)


# --- transfers --------------------------------------------------------------------------------------------------------

TRANSFER: dict[str, Any] = {
    "who": {"ask": "Sales or support?", "expect": {"sales": ["sales"], "support": ["support"]}, "slot": "team"},
    "hand": {
        "transfer": {"to": "${slots.team}", "kind": "attended", "announce": "A call from ${caller.number}."},
        "say": "One moment.",
        "failed": "sorry",
    },
    "sorry": {"hang_up": "Nobody is there. Goodbye."},
}


def transferring(flow: dict[str, Any]) -> tuple[Flow, list[Action]]:
    made = Flow(line(flow), caller="100")
    made.start()
    made.handle(Said())
    return made, made.handle(Heard("sales"))


def test_a_caller_is_handed_on_with_what_is_known() -> None:
    flow, actions = transferring(TRANSFER)
    said, transfer = actions[-2:]
    assert said == Say("One moment.", interruptible=False)
    assert isinstance(transfer, Transfer)
    assert (transfer.target.to, transfer.target.announce) == ("sales", "A call from 100.")
    assert flow.state is State.TRANSFERRING
    for event in (Said(), Heard("support"), Key("1"), NoInput()):
        assert flow.handle(event) == []


def test_when_nobody_could_be_reached_the_flow_goes_on() -> None:
    flow, _ = transferring(TRANSFER)
    assert flow.handle(TransferFailed()) == [Say("Nobody is there. Goodbye.")]
    assert flow.handle(Said()) == [Hangup("completed")]


def test_without_a_step_for_failure_the_call_ends() -> None:
    flow, _ = transferring({**TRANSFER, "hand": {"transfer": "200"}, "sorry": {"say": "x", "next": "hand"}} | {
        "who": TRANSFER["who"] | {"next": {"sales": "hand", "default": "sorry"}}
    })  # fmt: skip
    assert flow.handle(TransferFailed()) == [Hangup("transfer_failed")]
