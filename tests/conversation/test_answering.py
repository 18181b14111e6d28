"""Who has answered, told by rhythm, words and tones; all in virtual time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from appliance.audio.tones import RATE_HZ, sine
from appliance.conversation.answering import (
    AnsweringMachine,
    Beep,
    DetectionConfig,
    Event,
    HearWords,
    LeaveMessage,
    Tone,
    Verdict,
)

FRAME_S = 0.02
SPEECH = (-22.0, 0.95)
SILENCE = (-75.0, 0.02)
ROOM = (-45.0, 0.1)


class Callee:
    """Plays a script to the detection, and notes what it says.

    A script is (what, seconds): "talk", "quiet", "room" (background noise), or a frequency in hertz.
    """

    def __init__(self, config: DetectionConfig | None = None) -> None:
        self.machine = AnsweringMachine(config)
        self.events: list[Event] = []
        self.frame = 0

    @property
    def now(self) -> float:
        return self.frame * FRAME_S

    def play(self, *script: tuple[str | float, float]) -> Callee:
        for what, seconds in script:
            for _ in range(round(seconds / FRAME_S)):
                self._frame(what)
        return self

    def _frame(self, what: str | float) -> None:
        start = self.frame * 160
        self.frame += 1
        samples = np.zeros(160, np.int16)
        level, speech = SILENCE
        if isinstance(what, float):
            samples = sine(what, 160, -16.0, start=start)
            level, speech = -16.0, 0.6
        elif what == "talk":
            # A level that moves as syllables do.
            level, speech = SPEECH[0] + 3.0 * np.sin(self.now * 25.0), SPEECH[1]
        elif what == "room":
            level, speech = ROOM
        self._tell(self.machine.on_audio(self.now - FRAME_S, samples))
        self._tell(self.machine.on_tick(self.now, level, speech))
        due = self.machine.get_timer()
        if due is not None and self.now >= due:
            self._tell(self.machine.handle_timer(self.now))

    def text(self, text: str, *, final: bool = True) -> Callee:
        self._tell(self.machine.on_text(self.now, text, final))
        return self

    def agent(self, speaks: bool) -> Callee:
        self._tell(self.machine.on_agent(self.now, speaks))
        return self

    def _tell(self, events: Iterable[Event]) -> None:
        self.events += events

    @property
    def verdicts(self) -> list[str]:
        return [event.kind for event in self.events if isinstance(event, Verdict)]

    @property
    def message(self) -> LeaveMessage | None:
        return next((event for event in self.events if isinstance(event, LeaveMessage)), None)


@pytest.mark.parametrize("length_s", [0.3, 0.5, 0.8, 1.1])
@pytest.mark.parametrize("before", [("quiet", 0.2), ("quiet", 2.5), ("room", 1.5)])
def test_who_says_hello_and_waits_is_a_person_within_a_second_and_a_half(
    length_s: float, before: tuple[str | float, float]
) -> None:
    callee = Callee().play(before, ("talk", length_s), (before[0], 3.0))
    assert callee.verdicts == ["human"]
    verdict = callee.machine.verdict
    assert verdict is not None and verdict.at_s - before[1] <= 1.5 + 1e-6
    assert verdict.confidence >= 0.5


def test_who_says_hello_twice_is_a_person_still() -> None:
    assert Callee().play(("quiet", 0.5), ("talk", 0.5), ("quiet", 1.3), ("talk", 0.6), ("quiet", 4)).verdicts == [
        "human"
    ]


def test_a_company_that_answers_in_a_whole_sentence_is_a_person() -> None:
    script = (("talk", 0.9), ("quiet", 0.25), ("talk", 0.9), ("quiet", 0.2), ("talk", 0.8), ("quiet", 4.0))
    assert Callee().play(("room", 0.5), *script).verdicts == ["human"]


def test_who_talks_on_is_a_machine_before_it_has_finished() -> None:
    callee = Callee().play(("quiet", 0.5), ("talk", 2.0), ("quiet", 0.2), ("talk", 4.0))
    assert callee.verdicts == ["machine"]
    assert callee.machine.verdict is not None and "goes on" in callee.machine.verdict.why


def test_a_short_greeting_with_a_beep_is_a_machine_from_the_beep_on() -> None:
    callee = Callee().play(("quiet", 0.5), ("talk", 1.0), ("quiet", 0.8), (1000.0, 0.4), ("quiet", 1.0))
    assert callee.verdicts[-1] == "machine"
    assert any(isinstance(event, Beep) for event in callee.events)
    assert callee.message is not None and callee.message.after == "beep"


def test_a_beep_without_any_greeting_is_a_machine() -> None:
    assert Callee().play(("quiet", 2.0), (1400.0, 0.5), ("quiet", 1.0)).verdicts == ["machine"]


def test_a_tone_is_not_taken_for_a_voice() -> None:
    callee = Callee().play(("quiet", 1.0), (2100.0, 3.0))
    assert callee.verdicts == ["fax"]
    assert [event.kind for event in callee.events if isinstance(event, Tone)] == ["fax"]


def test_whoever_says_nothing_is_unsure_and_may_speak_later() -> None:
    callee = Callee().play(("quiet", 5.1))
    assert callee.verdicts == ["unsure"]
    assert callee.play(("talk", 0.5), ("quiet", 2.0)).verdicts == ["unsure", "human"]


@pytest.mark.parametrize(
    "text",
    [
        "Leave a message.",
        "please leave a message after the tone",
        "You have reached the voicemail of Tom",
        "I can’t come to the phone right now",
        "Deje su mensaje después de la señal",
        "laissez-moi un message après le bip",
        "Bitte hinterlassen Sie eine Nachricht nach dem Signalton",
        "Lasciate un messaggio dopo il segnale acustico",
        "Оставьте сообщение после сигнала",
    ],
)
def test_the_words_of_a_machine_tell_it_in_a_short_greeting(text: str) -> None:
    callee = Callee().play(("quiet", 0.5), ("talk", 1.2), ("quiet", 0.2)).text(text).play(("quiet", 3.0))
    assert callee.verdicts == ["machine"]
    assert callee.message is not None and callee.message.after == "silence"


def test_words_that_come_after_the_verdict_revise_it() -> None:
    callee = Callee().play(("quiet", 0.5), ("talk", 0.9), ("quiet", 0.8))
    assert callee.verdicts == ["human"]
    assert callee.text("please leave a message after the beep").verdicts == ["human", "machine"]


def test_the_words_of_a_person_keep_a_long_greeting_one() -> None:
    callee = (
        Callee().play(("quiet", 0.5), ("talk", 3.9)).text("Acme Plumbing, how can I help you?").play(("quiet", 3.0))
    )
    assert callee.verdicts == ["human"]


@pytest.mark.parametrize(
    "text",
    [
        "Hi, please state your name and why you're calling.",
        "Go ahead and say your name and the reason for your call",
        "this call is being screened by an assistant",
    ],
)
def test_an_assistant_that_asks_for_the_name_is_screening(text: str) -> None:
    callee = Callee().play(("quiet", 0.3), ("talk", 2.0)).text(text, final=False).play(("quiet", 3.0))
    assert callee.verdicts == ["screening"]
    assert callee.message is None


def test_a_person_who_takes_a_screened_call_is_one() -> None:
    callee = Callee().play(("quiet", 0.3), ("talk", 2.0)).text("please state your name").play(("quiet", 4.0))
    callee.play(("talk", 2.5), ("quiet", 3.0))
    assert callee.verdicts == ["screening"], "“please stay on the line” is the assistant's"
    assert callee.play(("talk", 0.5), ("quiet", 1.0)).verdicts == ["screening", "human"]


def test_a_voice_mail_that_asks_for_the_name_is_a_machine() -> None:
    callee = Callee().play(("quiet", 0.3), ("talk", 2.0)).text("leave your name and number after the tone")
    assert callee.verdicts == ["machine"]


def test_an_answer_to_the_agent_is_no_greeting_however_long() -> None:
    callee = Callee().agent(True).play(("quiet", 0.4), ("talk", 0.5), ("quiet", 3.0)).agent(False)
    callee.play(("quiet", 1.0), ("talk", 8.0), ("quiet", 2.0)).text("you can leave a message with my wife")
    assert callee.verdicts == ["human"]


def test_what_is_said_long_after_the_answer_revises_nothing() -> None:
    callee = Callee().play(("quiet", 0.4), ("talk", 0.5), ("quiet", 16.0)).text("leave a message after the tone")
    assert callee.verdicts == ["human"]


@pytest.mark.parametrize("pause_s", [0.5, 1.0, 2.0])
def test_the_message_waits_for_a_beep_after_a_pause(pause_s: float) -> None:
    callee = Callee().play(("quiet", 0.3), ("talk", 6.0), ("quiet", pause_s), (800.0, 0.3), ("quiet", 3.0))
    assert callee.message is not None and callee.message.after == "beep"
    assert callee.verdicts == ["machine"]


def test_the_message_does_not_wait_for_ever_while_a_machine_talks() -> None:
    callee = Callee().play(("quiet", 0.3), ("talk", 40.0))
    assert callee.message is not None and callee.message.after == "limit"
    assert sum(isinstance(event, LeaveMessage) for event in callee.events) == 1


def test_a_recogniser_is_asked_at_pauses_and_while_speech_goes_on_and_not_for_ever() -> None:
    callee = Callee(DetectionConfig(machine_above=100.0)).play(("quiet", 0.6), ("talk", 0.5), ("quiet", 0.3))
    asks = [event for event in callee.events if isinstance(event, HearWords)]
    assert [ask.final for ask in asks] == [True]
    assert asks[0].start_s == pytest.approx(0.3, abs=0.05)
    assert asks[0].end_s == pytest.approx(1.2, abs=0.05)
    callee.play(*[("talk", 2.2), ("quiet", 0.4)] * 20)
    asks = [event for event in callee.events if isinstance(event, HearWords)]
    assert 4 < len(asks) <= 12
    assert all(0.0 < ask.end_s - ask.start_s <= 8.3 for ask in asks)


def test_a_verdict_comes_once() -> None:
    callee = Callee().play(("quiet", 0.3), ("talk", 12.0), ("quiet", 3.0)).text("leave a message after the tone")
    assert callee.verdicts == ["machine"]


def test_without_a_speech_detector_the_level_decides() -> None:
    machine = AnsweringMachine()
    events: list[Event] = []
    for frame in range(250):
        t = (frame + 1) * FRAME_S
        events += machine.on_tick(t, -22.0 if 0.5 < t <= 1.0 else -70.0, -1.0)
    assert [event.kind for event in events if isinstance(event, Verdict)] == ["human"]


def test_the_pieces_of_audio_may_come_late() -> None:
    """Control reads samples in pieces of 100 ms, after the frames."""
    machine, events = AnsweringMachine(), []
    script: Sequence[tuple[float, float]] = ((0.0, 0.6), (-22.0, 0.8), (0.0, 0.6), (1000.0, 0.4), (0.0, 1.0))
    pcm: list[np.ndarray] = []
    for kind, seconds in script:
        samples = round(seconds * RATE_HZ)
        pcm.append(sine(kind, samples, -16.0) if kind > 0 else np.zeros(samples, np.int16))
        for _ in range(round(seconds / FRAME_S)):
            t = (len(events) + 1) * FRAME_S
            level = {0.0: -75.0, -22.0: -22.0}.get(kind, -16.0)
            events.append((t, level, 0.0 if kind == 0 else 0.9))
    whole, found = np.concatenate(pcm), []
    for index, (t, level, speech) in enumerate(events):
        found += machine.on_tick(t, level, speech)
        if index % 5 == 4:
            found += machine.on_audio((index - 4) * FRAME_S, whole[(index - 4) * 160 : (index + 1) * 160])
    assert [event.kind for event in found if isinstance(event, Verdict)][-1] == "machine"
