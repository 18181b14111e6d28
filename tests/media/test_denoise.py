"""Which line gets which suppressor, what is heard through it, and what is given up under load."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from appliance.api import Suppression
from appliance.audio import level
from appliance.config import Settings
from appliance.errors import EngineError
from appliance.ipc.messages import OpenLeg, Tick
from appliance.media.denoise import CallerVoice, LineDenoise
from appliance.media.process import _load_denoise
from appliance.media.vad import BatchVad
from appliance.models.catalogue import SILERO_VAD
from appliance.models.store import ModelStore, model_directory
from tests.media.leg_bench import Bench

Pcm = NDArray[np.int16]


class Halving:
    """Takes half of everything off; one instance is one caller's."""

    def __init__(self, opened: list[str], name: str) -> None:
        opened.append(name)

    def process(self, frame: Pcm) -> Pcm:
        return (frame // 2).astype(np.int16)


class Failing:
    def process(self, frame: Pcm) -> Pcm:
        raise ValueError("no such frame")


@pytest.fixture
def opened() -> list[str]:
    return []


@pytest.fixture
def offered(opened: list[str]) -> dict[str, Suppression]:
    return {
        "webrtc": Suppression(lambda: Halving(opened, "webrtc")),
        "rnnoise": Suppression(lambda: Halving(opened, "rnnoise"), most_lines=2),
    }


def frames(count: int, value: int = 1000) -> Pcm:
    return np.full((count, 160), value, np.int16)


def test_each_line_gets_what_it_names_and_the_others_what_the_box_has(
    offered: dict[str, Suppression], opened: list[str]
) -> None:
    denoise = LineDenoise(4, offered, "webrtc")
    for slot, choice in enumerate(("", "off", "rnnoise", "webrtc")):
        denoise.begin(slot, choice)
    assert opened == ["webrtc", "rnnoise", "webrtc"]
    assert denoise.on.tolist() == [True, False, True, True]
    assert denoise.lines() == 3
    clean = denoise.suppress(np.array([0, 1, 2]), frames(3))
    assert clean[:, 0].tolist() == [500, 1000, 500]


@pytest.mark.parametrize("default", ["none", "off"])
def test_a_box_without_suppression_gives_it_to_lines_that_ask(offered: dict[str, Suppression], default: str) -> None:
    denoise = LineDenoise(2, offered, default)
    denoise.begin(0, "")
    denoise.begin(1, "webrtc")
    assert denoise.on.tolist() == [False, True]


def test_what_comes_is_not_changed_in_place(offered: dict[str, Suppression]) -> None:
    denoise = LineDenoise(1, offered, "webrtc")
    denoise.begin(0, "")
    heard = frames(1)
    denoise.suppress(np.array([0]), heard)
    assert (heard == 1000).all()


def test_more_lines_than_rnnoise_may_have_get_webrtc(offered: dict[str, Suppression], opened: list[str]) -> None:
    denoise = LineDenoise(4, offered, "rnnoise")
    for slot in range(3):
        denoise.begin(slot, "")
    assert opened == ["rnnoise", "rnnoise", "webrtc"]
    assert denoise.replaced == 1
    denoise.end(0)
    denoise.begin(3, "")
    assert opened[-1] == "rnnoise"
    assert denoise.lines() == 3


def test_a_line_that_names_one_the_box_lacks_gets_webrtc_and_the_log_says_so_once(
    offered: dict[str, Suppression], opened: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    del offered["rnnoise"]
    denoise = LineDenoise(3, offered, "none")
    denoise.begin(0, "rnnoise")
    denoise.begin(1, "rnnoise")
    assert opened == ["webrtc", "webrtc"]
    assert len(caplog.records) == 1
    assert "'rnnoise'" in caplog.text


def test_a_late_clock_makes_costly_suppressors_give_way_and_the_others_stay(
    offered: dict[str, Suppression], opened: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    denoise = LineDenoise(4, offered, "webrtc")
    denoise.begin(0, "rnnoise")
    denoise.begin(1, "")
    for _ in range(12):
        denoise.began_late(0.015)
    assert opened == ["rnnoise", "webrtc", "webrtc"]
    assert denoise.replaced == 1
    assert denoise.on.tolist() == [True, True, False, False]
    assert "give up" in caplog.text
    denoise.begin(2, "rnnoise")
    assert opened[-1] == "webrtc"
    assert denoise.replaced == 2
    for _ in range(3000):
        denoise.suppress(np.array([0]), frames(1))
    denoise.begin(3, "rnnoise")
    assert opened[-1] == "rnnoise"


def test_a_clock_that_is_late_now_and_then_changes_nothing(offered: dict[str, Suppression]) -> None:
    denoise = LineDenoise(1, offered, "rnnoise")
    denoise.begin(0, "")
    for tick in range(2000):
        denoise.began_late(0.015 if tick % 10 == 0 else 0.0)
    assert denoise.replaced == 0


def test_a_suppressor_that_fails_leaves_the_line_as_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    denoise = LineDenoise(1, {"webrtc": Suppression(Failing)}, "webrtc")
    denoise.begin(0, "")
    for _ in range(2):
        assert (denoise.suppress(np.array([0]), frames(1)) == 1000).all()
    assert len(caplog.records) == 1
    assert not denoise.on[0]


def test_a_suppressor_that_cannot_be_opened_leaves_the_line_as_it_comes(
    offered: dict[str, Suppression], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody answers for a leg whose opening raises."""

    def no_memory() -> Halving:
        raise MemoryError("no state")

    denoise = LineDenoise(2, {**offered, "webrtc": Suppression(no_memory)}, "webrtc")
    denoise.begin(0, "")
    denoise.begin(1, "rnnoise")
    assert denoise.on.tolist() == [False, True]
    for _ in range(20):
        denoise.began_late(0.02)
    assert denoise.on.tolist() == [False, False]
    came = frames(2)
    np.testing.assert_array_equal(denoise.suppress(np.arange(2), came), came)
    assert "cannot be opened" in caplog.text


def test_levels_are_those_without_noise_and_lines_without_suppression_are_as_they_came(
    offered: dict[str, Suppression],
) -> None:
    vad = BatchVad(ModelStore(model_directory()).read(SILERO_VAD.name), 2)
    plain = BatchVad(ModelStore(model_directory()).read(SILERO_VAD.name), 2)
    voice = CallerVoice(2, vad, LineDenoise(2, offered, "none"))
    voice.begin(0, "webrtc")
    voice.begin(1, "")
    rows = np.array([0, 1])
    noise = np.random.default_rng(0).normal(0, 2000, (40, 2, 160)).astype(np.int16)
    for both in noise:
        levels, speech = voice.tick(rows, both)
        plain.tick(rows, both)
    assert levels[0] == pytest.approx(level.rms_dbfs(noise[-1] // 2)[0], abs=0.01)
    assert levels[1] == level.rms_dbfs(noise[-1])[1]
    assert speech[1] == plain.speech[1]
    assert voice.denoised == 1


def test_without_a_voice_detector_levels_are_all_there_is(offered: dict[str, Suppression]) -> None:
    voice = CallerVoice(1, None, LineDenoise(1, offered, "webrtc"))
    voice.begin(0, "")
    levels, speech = voice.tick(np.array([0]), frames(1))
    assert speech.tolist() == [-1.0]
    assert levels[0] == level.rms_dbfs(frames(1) // 2)[0]


def test_what_is_recorded_and_recognised_is_what_came(offered: dict[str, Suppression]) -> None:
    bench = Bench()
    bench.clock.voice = CallerVoice(4, None, LineDenoise(4, offered, "webrtc"))
    try:
        bench.clock.voice.begin(bench.slot, "")
        for _ in range(12):
            bench.say(np.full(160, 4000))
            bench.tick()
        assert abs(int(bench.heard().max()) - 4000) < 100
        ticks = bench.of_type(Tick)
        loudest = max(float(np.frombuffer(message.levels, np.float32)[0]) for message in ticks)
        assert loudest == pytest.approx(20 * np.log10(2000 / 32768), abs=0.3)
        assert bench.clock.take_stats(0).denoised == 1
    finally:
        bench.close()


def test_control_says_what_a_leg_gets() -> None:
    assert OpenLeg(1, 2).denoise == ""
    assert OpenLeg(1, 2, True, "rnnoise").denoise == "rnnoise"


def loaded(engine: str) -> LineDenoise:
    settings = Settings.model_validate({"engines": {"denoise": {"provider": engine}}})
    return _load_denoise(settings, 2)


def test_the_media_process_loads_what_lines_may_ask_for_whatever_the_box_has() -> None:
    for engine, runs in (("none", False), ("webrtc", True)):
        denoise = loaded(engine)
        denoise.begin(0, "")
        assert denoise.lines() == runs
        denoise.begin(1, "webrtc")
        assert denoise.on[1]
        assert denoise.suppress(np.array([0, 1]), frames(2)).shape == (2, 160)


def test_a_box_whose_suppressor_is_not_installed_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match="RNNoise is not installed"):
        loaded("rnnoise")
    assert loaded("webrtc").lines() == 0
