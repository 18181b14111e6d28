"""A call's frames for the turn machine: scripted ones, and those of recordings."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import soxr

from appliance.conversation.endpointing import FRAME_S, TurnConfig
from appliance.conversation.turn_actions import AskTurnModel, FirstSilence, JudgeSound
from appliance.conversation.turns import TurnMachine
from appliance.media.vad import BatchVad

SPEECH = (-20.0, 0.95)
SILENCE = (-70.0, 0.02)
LAG = (-70.0, 0.9)  # energy has fallen, the probability has not yet
NOISE = (-40.0, 0.05)


QUICK = TurnConfig(sure=(0.95, 0.15), unsure=(0.1, 1.5))


class Line:
    """A call's frames, one after another, and everything the machine said."""

    def __init__(self, config: TurnConfig | None = None) -> None:
        self.machine = TurnMachine(config or QUICK)
        self.frame = 0
        self.actions: list[object] = []
        self.held = False
        """Whether sounds over the agent are held ones."""

    def hear(self, sound: tuple[float, float], seconds: float) -> list[object]:
        said: list[object] = []
        for _ in range(round(seconds / FRAME_S)):
            for action in self.machine.step(self.frame, *sound):
                said += self.machine.sounded(self.held) if isinstance(action, JudgeSound) else (action,)
            self.frame += 1
        self.actions += said
        return said

    def pause(self) -> tuple[FirstSilence, AskTurnModel]:
        """Speak for a second and fall silent until the machine notices."""
        self.hear(SPEECH, 1.0)
        first, ask = self.hear(SILENCE, 0.1)
        assert isinstance(first, FirstSilence)
        assert isinstance(ask, AskTurnModel)
        return first, ask


def only(actions: list[object] | tuple[object, ...], kind: type) -> list:
    return [action for action in actions if isinstance(action, kind)]


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getnchannels()]
        rate = file.getframerate()
    if rate != 8000:
        pcm = soxr.resample(pcm.astype(np.float32), rate, 8000).clip(-32768, 32767)
    return pcm.astype(np.int16)


def features(pcm: np.ndarray, model: bytes) -> list[tuple[float, float]]:
    """(level dBFS, speech probability) of every 20 ms frame."""
    vad = BatchVad(model, 1)
    slot = np.zeros(1, np.int64)
    rows = []
    for frame in pcm[: len(pcm) // 160 * 160].reshape(-1, 160):
        vad.tick(slot, frame[None])
        rms = float(np.sqrt(np.mean(frame.astype(np.float64) ** 2))) / 32768
        rows.append((20 * float(np.log10(max(rms, 1e-5))), float(vad.speech[0])))
    return rows


def on_a_line(clip: np.ndarray, seed: int) -> np.ndarray:
    """The clip after one second of a quiet line, followed by one."""
    padded = np.concatenate([np.zeros(8000), clip.astype(np.float64), np.zeros(8000)])
    padded += np.random.default_rng(seed).normal(0, 8, len(padded))
    return padded.clip(-32768, 32767).astype(np.int16)
