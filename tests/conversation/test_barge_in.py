from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from appliance.audio.prosody import is_held
from appliance.conversation.barge_in import Agent, Words, is_backchannel, may_become_backchannel, weigh
from appliance.conversation.endpointing import FRAME_S, TurnConfig
from appliance.conversation.levels import Echo
from appliance.conversation.turn_actions import (
    AskTurnModel,
    FirstSilence,
    HearSound,
    JudgeSound,
    NoInput,
    PauseAgent,
    ResumeAgent,
    SpeechDropped,
    SpeechStarted,
    StopAgent,
    StopReason,
    TurnCommitted,
)
from appliance.conversation.turn_states import State
from tests.conversation.turn_lines import SILENCE, SPEECH, Line, features, on_a_line, only, read_wav

UNSURE = (-20.0, 0.6)
LONGEST_PAUSE_S = 0.56


def talking(*, interruptible: bool = True, awaits_text: bool = False) -> Line:
    """A call whose agent has been speaking for a second."""
    line = Line(TurnConfig(no_input_s=2.0))
    line.machine.awaits_text = awaits_text
    line.machine.agent_speaking(True, interruptible=interruptible)
    line.hear(SILENCE, 1.0)
    return line


def kinds(actions: list[object] | tuple[object, ...]) -> list[type]:
    return [type(action) for action in actions]


def test_a_voice_over_the_agent_pauses_it_and_stops_it_when_it_goes_on():
    line = talking()
    started, pause, stop = line.hear(SPEECH, 1.0)
    assert isinstance(started, SpeechStarted)
    assert pause == PauseAgent(at=52, start=50)
    assert (pause.at + 1 - pause.start) * FRAME_S <= 0.06
    assert stop == StopAgent(at=78, start=50, reason=StopReason.SUSTAINED)
    line.machine.agent_speaking(False)
    assert only(line.hear(SILENCE, 1.0), TurnCommitted)


def test_a_hum_lets_the_agent_go_on_while_it_lasts():
    line = talking()
    line.held = True
    said = line.hear(SPEECH, 1.1) + line.hear(SILENCE, 2.0)
    assert kinds(said) == [SpeechStarted, PauseAgent, ResumeAgent]
    assert (said[2].at - said[1].at) * FRAME_S <= LONGEST_PAUSE_S
    line.machine.agent_speaking(False)
    assert kinds(line.hear(SILENCE, 3.0)) == [NoInput]


def test_a_hum_that_does_not_end_stops_the_agent():
    line = talking()
    line.held = True
    said = line.hear(SPEECH, 2.0)
    assert kinds(said) == [SpeechStarted, PauseAgent, ResumeAgent, SpeechStarted, PauseAgent, StopAgent]
    line.machine.agent_speaking(False)
    assert only(line.hear(SILENCE, 1.0), TurnCommitted)


def test_a_sound_that_nobody_judges_is_speech():
    line = talking()
    said: list[object] = []
    for _ in range(50):
        said += line.machine.step(line.frame, *SPEECH)
        line.frame += 1
    assert kinds(said) == [SpeechStarted, PauseAgent, JudgeSound, StopAgent]
    assert line.machine.sounded(True) == ()


def test_a_short_sound_lets_the_agent_go_on():
    line = talking()
    said = line.hear(SPEECH, 0.3) + line.hear(SILENCE, 1.0)
    assert kinds(said) == [SpeechStarted, PauseAgent, FirstSilence, ResumeAgent]
    assert (said[3].at + 1 - 65) * FRAME_S == pytest.approx(0.24)
    assert line.machine.state is State.QUIET
    line.machine.agent_speaking(False)
    assert kinds(line.hear(SILENCE, 3.0)) == [NoInput]


def test_a_click_does_not_even_pause():
    line = talking()
    assert line.hear(SPEECH, 0.04) == []
    assert line.hear(SILENCE, 1.0) == []


def test_a_voice_that_may_be_something_else_has_to_last():
    line = talking()
    assert line.hear(UNSURE, 0.06) == []
    assert kinds(line.hear(UNSURE, 0.02)) == [SpeechStarted, PauseAgent]


def test_a_sound_of_a_moment_pauses_for_a_moment():
    line = talking()
    said = line.hear(SPEECH, 0.08) + line.hear(SILENCE, 1.0)
    assert kinds(said) == [SpeechStarted, PauseAgent, FirstSilence, ResumeAgent]
    assert (said[3].at - said[1].at) * FRAME_S <= 0.2


def test_a_long_sound_is_recognised_before_it_has_ended():
    line = talking(awaits_text=True)
    said = line.hear(SPEECH, 0.4)
    assert kinds(said) == [SpeechStarted, PauseAgent, HearSound]
    assert said[2].start == said[1].start
    assert (said[2].at - said[1].at) * FRAME_S == pytest.approx(0.28)


def test_a_backchannel_by_its_first_words_lets_the_agent_go_on_beside_it():
    line = talking(awaits_text=True)
    line.hear(SPEECH, 0.4)
    assert line.machine.heard_over_agent(0, "okay", accepted=True, final=False) == ()
    said = line.hear(SPEECH, 0.3) + line.hear(SILENCE, 1.0)
    assert kinds(said) == [ResumeAgent]
    line.machine.agent_speaking(False)
    assert kinds(line.hear(SILENCE, 3.0)) == [NoInput]


def test_who_only_began_with_a_backchannel_stops_the_agent_after_all():
    line = talking(awaits_text=True)
    line.hear(SPEECH, 0.4)
    line.machine.heard_over_agent(0, "okay", accepted=True, final=False)
    said = line.hear(SPEECH, 1.0)
    assert kinds(said) == [ResumeAgent, SpeechStarted, PauseAgent, StopAgent]
    assert (said[3].at - said[0].at) * FRAME_S <= 0.3
    line.machine.agent_speaking(False)
    (turn,) = only(line.hear(SILENCE, 3.0), TurnCommitted)
    assert turn.speech_start == 50


def test_what_goes_on_in_pieces_after_something_like_a_hum_stops_the_agent_at_once():
    line = talking()
    line.held = True
    line.hear(SPEECH, 0.58)
    line.hear(SILENCE, 0.2)
    line.held = False
    assert kinds(line.hear(SPEECH, 0.2) + line.hear(SILENCE, 0.2)) == []
    said = line.hear(SPEECH, 0.5)
    assert kinds(said) == [SpeechStarted, PauseAgent, StopAgent]
    assert (said[2].at - said[1].at) * FRAME_S <= 0.1


@pytest.mark.parametrize("dip_s", [0.08, 0.2])
def test_the_dip_in_a_hum_is_no_end_of_it(dip_s: float):
    line = talking()
    line.held = True
    said = line.hear(SPEECH, 0.56) + line.hear(SILENCE, dip_s) + line.hear(SPEECH, 0.3) + line.hear(SILENCE, 1.0)
    assert kinds(said) == [SpeechStarted, PauseAgent, ResumeAgent]


@pytest.mark.parametrize("text", ["Mm-hm.", "Yeah, okay.", "I see", ""])
def test_a_backchannel_resumes_as_soon_as_its_words_are_there(text: str):
    line = talking(awaits_text=True)
    line.hear(SPEECH, 0.3)
    (first,) = line.hear(SILENCE, 0.12)
    (resume,) = line.machine.heard_over_agent(first.attempt, text, accepted=True)
    assert isinstance(resume, ResumeAgent)
    assert line.machine.partial(first.attempt) == ()
    assert line.hear(SILENCE, 2.0) == []


@pytest.mark.parametrize("text", ["stop", "no", "wait", "yeah but"])
def test_short_words_stop_the_agent_and_are_a_turn(text: str):
    line = talking(awaits_text=True)
    line.hear(SPEECH, 0.3)
    (first,) = line.hear(SILENCE, 0.12)
    stop, ask = line.machine.heard_over_agent(first.attempt, text, accepted=True)
    assert stop.reason is StopReason.WORDS
    line.machine.partial(first.attempt)
    line.machine.agent_speaking(False)
    assert only(line.machine.verdict(ask.ask, 0.99), TurnCommitted) or only(line.hear(SILENCE, 0.3), TurnCommitted)


def test_yes_is_an_answer_where_it_is_expected():
    line = talking(awaits_text=True)
    line.hear(SPEECH, 0.3)
    (first,) = line.hear(SILENCE, 0.12)
    said = line.machine.heard_over_agent(first.attempt, "yes", accepted=True, expected=True)
    assert kinds(said) == [StopAgent, AskTurnModel]


def test_words_that_nobody_stands_by_leave_it_to_the_length():
    line = talking(awaits_text=True)
    line.hear(SPEECH, 0.3)
    (first,) = line.hear(SILENCE, 0.12)
    assert kinds(line.machine.heard_over_agent(first.attempt, "tea please", accepted=False)) == [ResumeAgent]


def test_words_that_do_not_come_are_not_waited_for():
    line = talking(awaits_text=True)
    (_, pause) = line.hear(SPEECH, 0.16)
    said = line.hear(SILENCE, 1.0)
    assert kinds(said) == [FirstSilence, ResumeAgent]
    assert (said[1].at - pause.at) * FRAME_S <= LONGEST_PAUSE_S
    assert line.machine.heard_over_agent(said[0].attempt, "stop", accepted=True) == ()


def test_a_partial_result_stops_the_agent_before_the_sound_has_ended():
    line = talking(awaits_text=True)
    line.hear(SPEECH, 0.3)
    assert line.machine.heard_over_agent(0, "i", accepted=True, final=False) == ()
    assert line.machine.heard_over_agent(0, "okay", accepted=True, final=False) == ()
    assert kinds(line.machine.heard_over_agent(0, "I want", accepted=True, final=False)) == [StopAgent]
    assert only(line.hear(SPEECH, 1.0), StopAgent) == []


@pytest.mark.parametrize("seconds", [0.2, 0.4, 0.5, 0.56, 0.6, 0.62, 0.66, 0.7])
@pytest.mark.parametrize("awaits_text", [False, True])
def test_no_pause_that_ends_lasts_long(seconds: float, awaits_text: bool):
    line = talking(awaits_text=awaits_text)
    said = line.hear(SPEECH, seconds) + line.hear(SILENCE, 1.0)
    (pause,) = only(said, PauseAgent)
    (end,) = [action for action in said if isinstance(action, ResumeAgent | StopAgent)]
    assert (end.at - pause.at) * FRAME_S <= LONGEST_PAUSE_S
    assert isinstance(end, StopAgent) == (seconds > 0.56)


def test_a_caller_who_begins_again_after_a_resume_pauses_again():
    line = talking()
    line.hear(SPEECH, 0.3)
    line.hear(SILENCE, 0.4)
    assert only(line.actions, ResumeAgent)
    assert kinds(line.hear(SPEECH, 1.0)) == [SpeechStarted, PauseAgent, StopAgent]


def test_what_was_taken_for_nothing_belongs_to_what_follows_at_once():
    """ "I'd like" lets the agent go on; "to book a table" must not be all that is understood."""
    line = Line()
    line.machine.awaits_text = True
    line.hear(SILENCE, 1.0)
    line.machine.agent_speaking(True)
    began = line.frame
    line.hear(SPEECH, 0.38)
    (first,) = only(line.hear(SILENCE, 0.14), FirstSilence)
    assert line.machine.heard_over_agent(first.attempt, "i'd like", accepted=False) == (
        ResumeAgent(line.machine.frame),
    )
    line.hear(SPEECH, 1.0)
    assert only(line.actions, StopAgent)
    line.machine.agent_speaking(False)
    (second,) = only(line.hear(SILENCE, 0.14), FirstSilence)
    assert abs(second.speech_start - began) <= 2
    (turn,) = only(line.hear(SILENCE, 4.0), TurnCommitted)
    assert turn.speech_start == second.speech_start


def test_what_comes_later_stands_by_itself():
    line = Line()
    line.machine.awaits_text = True
    line.hear(SILENCE, 1.0)
    line.machine.agent_speaking(True)
    line.hear(SPEECH, 0.3)
    (first,) = only(line.hear(SILENCE, 0.14), FirstSilence)
    line.machine.heard_over_agent(first.attempt, "mm hm", accepted=True)
    line.hear(SILENCE, 1.0)
    line.machine.agent_speaking(False)
    began = line.frame
    line.hear(SPEECH, 1.0)
    (second,) = only(line.hear(SILENCE, 0.14), FirstSilence)
    assert abs(second.speech_start - began) <= 2


def test_a_caller_already_speaking_as_the_agent_begins_pauses_it():
    line = Line()
    line.hear(SPEECH, 0.5)
    line.machine.agent_speaking(True)
    pause, stop = line.hear(SPEECH, 0.8)
    assert (pause.at - 24) * FRAME_S == pytest.approx(0.08)
    assert isinstance(stop, StopAgent)


def test_an_agent_that_ends_by_itself_leaves_the_caller_the_turn():
    line = talking()
    line.hear(SPEECH, 0.3)
    line.machine.agent_speaking(False)
    line.hear(SPEECH, 0.3)
    said = line.hear(SILENCE, 1.0)
    assert kinds(said) == [FirstSilence, AskTurnModel, TurnCommitted]
    assert only(line.actions, StopAgent) == only(line.actions, ResumeAgent) == []


def test_what_is_said_over_an_uninterruptible_agent_is_no_turn():
    line = talking(interruptible=False)
    assert line.hear(SPEECH, 1.0) + line.hear(SILENCE, 1.0) == []
    line.machine.agent_speaking(False)
    assert kinds(line.hear(SILENCE, 3.0)) == [NoInput]


def test_who_still_speaks_when_an_uninterruptible_agent_ends_has_the_turn():
    line = talking(interruptible=False)
    assert line.hear(SPEECH, 0.5) == []
    line.machine.agent_speaking(False)
    (started,) = line.hear(SPEECH, 0.5)
    assert started.start == 50
    (committed,) = only(line.hear(SILENCE, 1.0), TurnCommitted)
    assert committed.speech_start == 50


def test_speech_that_ends_just_as_an_uninterruptible_agent_does_is_no_turn():
    line = talking(interruptible=False)
    line.hear(SPEECH, 0.5)
    line.machine.agent_speaking(False)
    assert kinds(line.hear(SILENCE, 3.0)) == [NoInput]


def test_speech_that_began_before_an_uninterruptible_agent_is_dropped():
    line = Line()
    line.hear(SPEECH, 0.5)
    line.machine.agent_speaking(True, interruptible=False)
    assert line.hear(SPEECH, 0.5) == []
    assert kinds(line.hear(SILENCE, 1.0)) == [SpeechDropped]


def test_a_key_in_the_middle_of_a_pause_leaves_the_agent_silent():
    line = talking()
    line.hear(SPEECH, 0.3)
    line.machine.reset()
    assert not line.machine.paused
    assert line.hear(SILENCE, 2.0) == []


# --- the agent's own echo ------------------------------------------------------------------------------------------


def agent_levels(seconds: float, seed: int) -> list[float]:
    """Levels of 20 ms frames like those of speech: syllables, and now and then a pause."""
    random = np.random.default_rng(seed)
    levels: list[float] = []
    while len(levels) < seconds / FRAME_S:
        syllable = int(random.integers(5, 14))
        peak = random.uniform(-24, -14)
        levels += [peak - 18 * abs(2 * i / syllable - 1) ** 2 + random.normal(0, 1) for i in range(syllable)]
        levels += [-80.0] * int(random.choice([1, 2, 4, 20]))
    return levels


def converse(line: Line, sent: list[float], delay: int, gain_db: float, known: bool) -> list[object]:
    """The agent says ``sent``; all that comes back is its echo."""
    actions: list[object] = []
    line.machine.agent_speaking(True)
    for index in range(len(sent) + 30):
        if index == len(sent):
            line.machine.agent_speaking(False)
        back = sent[index - delay] + gain_db if 0 <= index - delay < len(sent) else -90.0
        now = sent[index] if index < len(sent) else -90.0
        level = max(back, -62.0)
        actions += line.machine.step(line.frame, level, 0.95 if level > -60 else 0.05, now if known else None)
        line.frame += 1
    return actions


@pytest.mark.parametrize("gain_db", [-20.0, -30.0])
@pytest.mark.parametrize("delay", [3, 7, 15])
def test_the_agents_own_echo_never_pauses_it(gain_db: float, delay: int):
    line = Line(TurnConfig(no_input_s=None))
    for reply in range(30):
        said = converse(line, agent_levels(3.0, reply), delay, gain_db, True)
        assert said == [], f"reply {reply}"


@pytest.mark.parametrize(("level_dbfs", "frames"), [(-20.0, 3), (-30.0, 4)])
def test_a_voice_hardly_above_the_echo_has_to_last_longer(level_dbfs: float, frames: int):
    line = Line(TurnConfig(no_input_s=None))
    line.machine.agent_speaking(True)
    for _ in range(100):
        line.machine.step(line.frame, -40.0, 0.95, -20.0)
        line.frame += 1
    paused: list[int] = []
    for count in range(1, 6):
        if only(line.machine.step(line.frame, level_dbfs, 0.95, -20.0), PauseAgent):
            paused.append(count)
        line.frame += 1
    assert paused == [frames]


def test_the_echo_is_not_forgotten_between_sentences():
    echo, delay = Echo(-42.0, -20.0), 15
    sent = ([-20.0] * 60 + [-90.0] * 28) * 3
    for frame, now in enumerate(sent):
        echo.sends(frame, now, True)
        if echo.audible(frame):
            echo.learn(max(sent[frame - delay] - 20.0 if frame >= delay else -90.0, -75.0))
        assert echo.gain_db >= -21.0, frame


def test_who_interrupts_an_agent_with_an_echo_is_heard():
    for gain_db in (-20.0, -30.0, -70.0):
        line = Line(TurnConfig(no_input_s=None))
        for reply in range(3):
            converse(line, agent_levels(3.0, reply), 7, gain_db, True)
        line.machine.agent_speaking(True)
        sent = agent_levels(2.0, 99)
        for level in sent[:50]:
            line.machine.step(line.frame, max(level + gain_db, -62.0), 0.6, level)
            line.frame += 1
        begins = line.frame
        said: list[object] = []
        for level in sent[50:]:
            said += line.machine.step(line.frame, -24.0, 0.95, level)
            line.frame += 1
        (pause,) = only(said, PauseAgent)
        assert (pause.at + 1 - begins) * FRAME_S <= 0.16


def test_echo_of_unknown_speech_is_learnt_from_what_comes_back():
    line = Line()
    line.machine.agent_speaking(True)
    assert line.hear((-45.0, 0.95), 10.0) == []
    assert only(line.hear((-25.0, 0.95), 0.3), PauseAgent)


def test_a_line_without_echo_hears_quiet_callers_over_the_agent():
    line = Line()
    line.machine.agent_speaking(True)
    line.hear(SILENCE, 3.0)
    assert only(line.hear((-48.0, 0.95), 0.3), PauseAgent)


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["mm hm", "Uh-huh.", "yeah", "Right!", "okay", "I see", "oh okay, great", "um"])
def test_backchannels(text: str):
    assert weigh(text, 0.5, accepted=True) is Words.BACKCHANNEL
    assert weigh(text, 0.5, accepted=False) is Words.DOUBTFUL
    assert weigh(text, 0.5, accepted=True, expected=True) is Words.INTERRUPTION


@pytest.mark.parametrize("text", ["stop", "no", "what", "i see no", "okay hold on", "yes yes yes yes yes", "3"])
def test_interruptions(text: str):
    assert weigh(text, 0.5, accepted=True) is Words.INTERRUPTION


def test_a_whole_sentence_out_of_a_cough_is_not_believed():
    assert weigh("Thank you very much for watching this video.", 0.3, accepted=True) is Words.DOUBTFUL
    assert weigh("Could you hold on", 0.7, accepted=True) is Words.INTERRUPTION


def test_nothing_was_said():
    assert weigh("", 0.5, accepted=True) is Words.NONE
    assert weigh("...", 0.5, accepted=False) is Words.DOUBTFUL
    assert is_backchannel([])


def test_what_may_become_a_backchannel_is_waited_for():
    assert may_become_backchannel(["i"])
    assert may_become_backchannel(["uh"])
    assert not may_become_backchannel(["i", "want"])


# --- recorded voices -----------------------------------------------------------------------------------------------


def over_agent(path: Path, seed: int, silero: bytes) -> list[object]:
    """What the machine says of a clip, begun a second after frame 150, over an agent that has an echo of nothing."""
    line = Line()
    line.machine.agent_speaking(True)
    said: list[object] = []
    pcm = on_a_line(read_wav(path)[:32000], seed)
    for sound in [SILENCE] * 150 + features(pcm, silero):
        sent = -20.0 if line.machine.floor.agent is Agent.TALKING else -90.0
        for action in line.machine.step(line.frame, *sound, sent):
            if isinstance(action, JudgeSound):
                held = is_held(pcm[(action.start - 150) * 160 : (action.at - 149) * 160])
                said += line.machine.sounded(held)
            said.append(action)
        line.frame += 1
        if line.machine.floor.agent is Agent.STOPPED:
            line.machine.agent_speaking(False)
    return said


def test_recorded_voices_pause_the_agent_in_time_and_stop_it(shared_audio: Path, silero: bytes):
    with (shared_audio / "labels.tsv").open() as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row[0].startswith("utterances/spk")]
    delays = []
    for seed, (name, start, _) in enumerate(rows):
        said = over_agent(shared_audio / name, seed, silero)
        pause = only(said, PauseAgent)[0]
        delays.append((pause.at + 1 - 150) * FRAME_S - 1.0 - float(start))
        assert only(said, StopAgent), name
    assert sorted(delays)[len(delays) // 2] <= 0.16


def test_bangs_do_not_pause_the_agent(shared_audio: Path, silero: bytes):
    for seed, path in enumerate(sorted((shared_audio / "bursts").glob("*.wav"))):
        assert over_agent(path, seed, silero) == [], path.name


def test_most_backchannels_do_not_stop_the_agent(shared_audio: Path, silero: bytes):
    """By their sound alone."""
    clips = sorted((shared_audio / "backchannels").glob("*.wav"))
    stopped = [path.stem for seed, path in enumerate(clips) if only(over_agent(path, seed, silero), StopAgent)]
    assert len(stopped) <= 2, stopped
