from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.conversation import barge_in
from appliance.conversation.cues import Cues
from appliance.conversation.endpointing import FRAME_S, TurnConfig, required_silence
from appliance.conversation.turn_actions import (
    AskTurnModel,
    CommitReason,
    FirstSilence,
    NoInput,
    PauseAgent,
    ResumeAgent,
    SpeechDropped,
    SpeechResumed,
    SpeechStarted,
    StopAgent,
    TurnCommitted,
)
from appliance.conversation.turn_states import TRANSITIONS, Event, State, barge_in_diagram, turn_diagram
from tests.conversation.turn_lines import LAG, NOISE, SILENCE, SPEECH, Line, features, on_a_line, only, read_wav


def test_a_turn_from_onset_to_commit():
    line = Line()
    line.hear(SILENCE, 1.0)
    assert line.hear(SPEECH, 1.0) == [SpeechStarted(at=53, start=50)]
    first, ask = line.hear(SILENCE, 0.1)
    assert first == FirstSilence(at=104, attempt=1, speech_start=50, speech_end=100)
    assert ask == AskTurnModel(at=104, ask=1, speech_start=50)
    assert line.machine.verdict(1, 0.97) == ()
    assert line.hear(SILENCE, 0.06) == [TurnCommitted(107, 1, 50, 100, CommitReason.VERDICT, 0.97)]
    assert line.machine.state is State.QUIET


def test_a_late_but_sure_verdict_commits_at_once():
    line = Line()
    _, ask = line.pause()
    line.hear(SILENCE, 0.3)
    (committed,) = line.machine.verdict(ask.ask, 0.99)
    assert isinstance(committed, TurnCommitted)


def test_without_a_verdict_silence_alone_commits():
    line = Line()
    first, _ = line.pause()
    assert line.hear(SILENCE, 0.58) == []
    (committed,) = line.hear(SILENCE, 0.02)
    assert committed.reason is CommitReason.NO_VERDICT
    assert committed.attempt == first.attempt
    assert (committed.at + 1 - committed.speech_end) * FRAME_S == pytest.approx(0.7)


def test_an_unsure_verdict_waits_long():
    line = Line()
    _, ask = line.pause()
    line.machine.verdict(ask.ask, 0.05)
    assert line.hear(SILENCE, 1.38) == []
    assert only(line.hear(SILENCE, 0.02), TurnCommitted)


def test_going_on_cancels_and_the_turn_is_one():
    line = Line()
    first, ask = line.pause()
    (resumed,) = line.hear(SPEECH, 0.5)
    assert resumed == SpeechResumed(at=first.at + 3, attempt=1)
    assert line.machine.verdict(ask.ask, 0.99) == ()
    assert line.machine.partial(first.attempt, Cues(completes=True)) == ()
    second, _ = line.hear(SILENCE, 0.1)
    assert second.attempt == 2
    assert second.speech_start == first.speech_start
    assert second.speech_end > first.speech_end


def test_a_verdict_of_an_earlier_pause_is_dropped():
    line = Line()
    _, old = line.pause()
    line.hear(SPEECH, 0.5)
    line.hear(SILENCE, 0.12)
    assert line.machine.verdict(old.ask, 0.99) == ()
    assert line.hear(SILENCE, 0.3) == []


def test_the_model_is_asked_again_only_if_ambiguous():
    line = Line()
    first, ask = line.pause()
    line.machine.verdict(ask.ask, 0.5)
    (again,) = line.hear(SILENCE, 0.3)
    assert isinstance(again, AskTurnModel)
    assert again.ask != ask.ask
    assert again.at - first.at == 13
    assert only(line.machine.verdict(again.ask, 0.98), TurnCommitted)

    sure = Line()
    _, ask = sure.pause()
    sure.machine.verdict(ask.ask, 0.2)
    assert only(sure.hear(SILENCE, 1.0), AskTurnModel) == []


def test_second_verdicts_are_given_up_under_load():
    line = Line()
    _, ask = line.pause()
    line.machine.second_verdicts = False
    line.machine.verdict(ask.ask, 0.5)
    assert only(line.hear(SILENCE, 0.5), AskTurnModel) == []


def test_what_completes_an_expectation_shortens_the_wait():
    line = Line()
    first, ask = line.pause()
    line.machine.verdict(ask.ask, 0.2)
    assert line.machine.partial(first.attempt, Cues(completes=True)) == ()
    (committed,) = line.hear(SILENCE, 0.3)
    assert (committed.at + 1 - committed.speech_end) * FRAME_S == pytest.approx(0.4)


@pytest.mark.parametrize("cue", [Cues(trailing_filler=True), Cues(unfinished=True)])
def test_what_breaks_off_lengthens_the_wait(cue):
    line = Line()
    first, ask = line.pause()
    line.machine.partial(first.attempt, cue)
    line.machine.verdict(ask.ask, 0.99)
    assert line.hear(SILENCE, 1.48) == []
    assert only(line.hear(SILENCE, 0.02), TurnCommitted)


def test_a_sure_verdict_waits_for_the_words_but_not_for_ever():
    line = Line()
    line.machine.awaits_text = True
    _, ask = line.pause()
    assert line.machine.verdict(ask.ask, 0.99) == ()
    assert line.hear(SILENCE, 0.4) == []
    (commit,) = only(line.machine.partial(1), TurnCommitted)
    assert commit.at == line.frame - 1

    _, ask = line.pause()
    line.machine.verdict(ask.ask, 0.99)
    (commit,) = only(line.hear(SILENCE, 2.0), TurnCommitted)
    assert (commit.at + 1 - commit.speech_end) * FRAME_S == pytest.approx(0.8)


def test_patience_multiplies_and_the_cap_holds():
    patient = TurnConfig(patience=4.0)
    assert required_silence(patient, 0.99) == pytest.approx(1.6)
    assert required_silence(patient, 0.0) == patient.max_silence_s
    assert required_silence(TurnConfig(patience=0.1), 0.99) == pytest.approx(0.4)


@given(st.floats(0, 1), st.floats(0, 1), st.booleans(), st.booleans())
def test_the_silence_required_falls_continuously(a, b, completes, unfinished):
    config = TurnConfig()
    low, high = sorted((a, b))
    at_low = required_silence(config, low, completes=completes, unfinished=unfinished)
    at_high = required_silence(config, high, completes=completes, unfinished=unfinished)
    assert config.sure[1] <= at_high <= at_low <= config.max_silence_s
    assert at_low - at_high <= 5.0 * (high - low) + 1e-9


def test_the_ends_of_the_silence_function():
    config = TurnConfig()
    assert required_silence(config, 0.65) == required_silence(config, 1.0) == pytest.approx(0.4)
    assert required_silence(config, 0.4) == required_silence(config, 0.0) == pytest.approx(1.55)
    assert required_silence(config, None) == 0.7
    assert required_silence(config, None, completes=True) == pytest.approx(0.4)
    assert required_silence(config, 1.0, counting=True) == pytest.approx(config.counting_min_s)


def test_a_click_is_no_turn():
    line = Line()
    line.hear(SILENCE, 1.0)
    assert line.hear(SPEECH, 0.06) == []
    assert line.hear(SILENCE, 2.0) == []
    assert line.machine.state is State.QUIET


def test_a_bang_without_speech_is_no_turn():
    line = Line()
    line.hear(SILENCE, 1.0)
    assert line.hear((-10.0, 0.2), 0.3) == []
    assert line.hear(SILENCE, 1.0) == []


def test_the_start_is_where_energy_rose_not_where_the_probability_did():
    line = Line()
    line.hear(SILENCE, 1.0)
    line.hear((-22.0, 0.1), 0.06)
    (started,) = line.hear(SPEECH, 0.4)
    assert started.start == 50


def test_the_start_is_not_moved_far_back_into_noise():
    line = Line()
    line.hear(SILENCE, 1.0)
    line.hear((-30.0, 0.1), 1.0)
    (started,) = line.hear(SPEECH, 0.4)
    assert 100 - started.start <= 15


def test_speech_ends_with_the_last_frame_within_30_db_of_the_loudest():
    line = Line()
    line.hear(SPEECH, 1.0)
    line.hear((-49.0, 0.9), 0.2)
    (first, _) = line.hear((-51.0, 0.9), 0.1)
    assert first.speech_end == 60


def test_a_lagging_probability_holds_the_commit_for_a_while_only():
    line = Line()
    _, ask = line.pause()
    line.machine.verdict(ask.ask, 1.0)
    assert line.hear(LAG, 0.2) == []
    assert only(line.hear(LAG, 0.02), TurnCommitted)


def test_energy_rising_holds_the_commit_until_the_probability_follows():
    line = Line()
    _, ask = line.pause()
    line.machine.verdict(ask.ask, 0.9)
    line.hear(SILENCE, 0.1)
    assert line.hear((-22.0, 0.1), 0.06) == []
    assert only(line.hear(SPEECH, 0.1), SpeechResumed)


def test_noise_in_the_pause_does_not_hold_the_commit_for_ever():
    line = Line()
    _, ask = line.pause()
    line.machine.verdict(ask.ask, 1.0)
    assert only(line.hear((-25.0, 0.05), 0.3), TurnCommitted)


def test_the_released_plosive_belongs_to_the_turn():
    line = Line()
    first, ask = line.pause()
    line.hear((-35.0, 0.9), 0.04)
    line.hear(SILENCE, 0.2)
    (committed,) = line.machine.verdict(ask.ask, 0.99)
    assert committed.attempt == first.attempt
    assert committed.speech_end == first.speech_end + 7


def test_background_noise_near_the_speech():
    line = Line()
    line.hear(NOISE, 5.0)
    assert line.actions == []
    assert line.machine.noise_floor_dbfs == pytest.approx(-40.0, abs=1.0)
    line.hear((-24.0, 0.95), 1.0)
    said = line.hear(NOISE, 1.0)
    (committed,) = only(said, TurnCommitted)
    assert (committed.speech_start, committed.speech_end) == (250, 300)


def test_speech_within_the_noise_floor_is_followed_by_its_probability():
    line = Line()
    line.hear((-30.0, 0.05), 5.0)
    (started,) = line.hear((-26.0, 0.95), 1.0)
    assert isinstance(started, SpeechStarted)
    (committed,) = only(line.hear((-30.0, 0.05), 1.0), TurnCommitted)
    assert committed.speech_end == 300


def test_without_probabilities_energy_decides():
    line = Line()
    line.hear((-70.0, -1.0), 1.0)
    assert only(line.hear((-20.0, -1.0), 1.0), SpeechStarted)
    assert only(line.hear((-70.0, -1.0), 1.0), TurnCommitted)


def test_no_input_is_said_once_after_the_agent_ends():
    line = Line(TurnConfig(no_input_s=2.0))
    line.machine.agent_speaking(True)
    line.hear(SILENCE, 5.0)
    line.machine.agent_speaking(False)
    assert line.hear(SILENCE, 1.98) == []
    assert [type(action) for action in line.hear(SILENCE, 10.0)] == [NoInput]
    line.machine.listen()
    assert only(line.hear(SILENCE, 2.1), NoInput)


def test_speech_ends_the_wait_for_input():
    line = Line(TurnConfig(no_input_s=2.0))
    line.machine.listen()
    line.hear(SILENCE, 1.5)
    line.hear(SPEECH, 1.0)
    assert only(line.hear(SILENCE, 10.0), NoInput) == []


def test_noise_does_not_count_as_input():
    line = Line(TurnConfig(no_input_s=2.0))
    line.machine.listen()
    assert only(line.hear((-25.0, 0.05), 2.1), NoInput)


def test_no_input_can_be_switched_off():
    line = Line(TurnConfig(no_input_s=None))
    line.machine.listen()
    assert line.hear(SILENCE, 60.0) == []


def test_an_endless_utterance_is_committed_and_the_next_begins():
    line = Line(TurnConfig(max_utterance_s=2.0))
    said = line.hear(SPEECH, 3.0)
    kinds = [type(action) for action in said]
    assert kinds == [SpeechStarted, FirstSilence, TurnCommitted, SpeechStarted]
    assert said[2].reason is CommitReason.MAX_UTTERANCE
    assert said[1].attempt == said[2].attempt
    assert said[3].start >= said[2].speech_end


def test_reset_forgets_the_utterance():
    line = Line()
    _, ask = line.pause()
    line.machine.reset()
    assert line.machine.verdict(ask.ask, 1.0) == ()
    assert line.hear(SILENCE, 3.0) == []


def test_frames_nobody_heard_count_as_time_and_old_ones_not_at_all():
    line = Line()
    first, _ = line.pause()
    machine = line.machine
    assert machine.step(first.at, *SPEECH) == ()
    assert only(machine.step(first.at + 50, *SILENCE), TurnCommitted)


def test_the_table_names_every_state_and_event_and_the_diagram_shows_them():
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)
    diagram = turn_diagram()
    assert diagram.startswith("stateDiagram-v2\n")
    for (state, event), to in TRANSITIONS.items():
        assert f"{state.value} --> {to.value}: {event.value}" in diagram
    assert {state for state, _ in barge_in.TRANSITIONS} == set(barge_in.Agent)
    assert {event for _, event in barge_in.TRANSITIONS} == set(barge_in.Overlap)
    assert barge_in_diagram().count("-->") == len(barge_in.TRANSITIONS) + 1


sounds = st.tuples(st.sampled_from([-90.0, -70.0, -45.0, -30.0, -15.0]), st.sampled_from([-1.0, 0.02, 0.4, 0.6, 0.95]))
script = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), sounds, st.integers(1, 40)),
        st.tuples(st.just("verdict"), st.integers(0, 6), st.floats(0, 1)),
        st.tuples(st.just("partial"), st.integers(0, 4), st.booleans()),
        st.tuples(st.just("words"), st.integers(0, 4), st.sampled_from(["", "yeah", "stop that"])),
        st.tuples(st.just("agent"), st.booleans(), st.booleans()),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(script)
def test_the_actions_of_any_call_are_in_order(steps):
    line = Line()
    line.machine.awaits_text = bool(len(steps) % 2)
    for step in steps:
        match step:
            case ("hear", sound, frames):
                line.hear(sound, frames * FRAME_S)
            case ("verdict", ask, probability):
                line.actions += line.machine.verdict(ask, probability)
            case ("partial", attempt, completes):
                line.actions += line.machine.partial(attempt, Cues(completes=completes, trailing_filler=not completes))
            case ("words", attempt, text):
                line.actions += line.machine.heard_over_agent(attempt, text, accepted=True)
            case ("agent", speaking, interruptible):
                line.machine.agent_speaking(speaking, interruptible=interruptible)
    follows = {
        SpeechStarted: {FirstSilence, ResumeAgent, SpeechDropped},
        FirstSilence: {SpeechResumed, TurnCommitted, ResumeAgent, SpeechDropped},
        SpeechResumed: {FirstSilence, ResumeAgent, SpeechDropped},
        TurnCommitted: {SpeechStarted},
        ResumeAgent: {SpeechStarted},
        SpeechDropped: {SpeechStarted},
    }
    over = [action for action in line.actions if isinstance(action, PauseAgent | StopAgent | ResumeAgent)]
    for before, after in pairwise([None, *over]):
        assert isinstance(before, PauseAgent) or isinstance(after, PauseAgent)
    main = [action for action in line.actions if type(action) in follows]
    if main:
        assert isinstance(main[0], SpeechStarted)
    for before, after in pairwise(main):
        assert type(after) in follows[type(before)]
        assert after.at >= before.at
    for action in line.actions:
        if isinstance(action, FirstSilence | TurnCommitted):
            assert 0 <= action.speech_start < action.speech_end <= action.at + 1
    committed = only(line.actions, TurnCommitted)
    assert all(a.speech_end <= b.speech_start for a, b in pairwise(committed))


# --- recorded voices ----------------------------------------------------------------------------------------------


def test_speech_ends_of_recorded_voices_agree_with_their_labels(shared_audio: Path, silero: bytes):
    with (shared_audio / "labels.tsv").open() as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if "libri" not in row[0]][::4]
    errors, delays = [], []
    for seed, (name, _, end) in enumerate(rows):
        line = Line()
        for sound in features(on_a_line(read_wav(shared_audio / name), seed), silero):
            line.hear(sound, FRAME_S)
        (committed,) = only(line.actions, TurnCommitted)
        errors.append(abs(committed.speech_end * FRAME_S - 1.0 - float(end)))
        last = only(line.actions, FirstSilence)[-1]
        delays.append((last.at + 1) * FRAME_S - 1.0 - float(end))
    assert sorted(errors)[round(len(errors) * 0.9)] <= 0.05
    assert sorted(delays)[len(delays) // 2] <= 0.12


def test_bangs_and_noise_are_no_turns(shared_audio: Path, silero: bytes):
    for seed, path in enumerate(sorted((shared_audio / "bursts").glob("*.wav"))):
        line = Line()
        for sound in features(on_a_line(read_wav(path), seed), silero):
            line.hear(sound, FRAME_S)
        assert line.actions == [], path.name
