"""Clips as control sees them: a level and Silero's speech probability per 20 ms, all clips in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from appliance.audio.level import rms_dbfs
from appliance.media.vad import BatchVad
from appliance.models.store import ModelStore, model_directory
from tests.bench.answering_clips import Answered

FRAME = 160


@dataclass(frozen=True)
class Heard:
    """A clip with the (level dBFS, speech probability) of every frame."""

    clip: Answered
    frames: list[tuple[float, float]] = field(repr=False)


def hear(clips: Sequence[Answered]) -> list[Heard]:
    """Run the voice activity detection over every clip."""
    count = max(len(clip.pcm) for clip in clips) // FRAME
    pcm = np.zeros((len(clips), count * FRAME), np.int16)
    for row, clip in zip(pcm, clips, strict=True):
        row[: len(clip.pcm)] = clip.pcm
    vad = BatchVad(ModelStore(model_directory()).read("silero_vad"), len(clips))
    slots = np.arange(len(clips))
    levels, speech = np.zeros((count, len(clips))), np.zeros((count, len(clips)))
    for frame in range(count):
        samples = pcm[:, frame * FRAME : (frame + 1) * FRAME]
        vad.tick(slots, samples)
        levels[frame], speech[frame] = rms_dbfs(samples), vad.speech[: len(clips)]
    return [
        Heard(clip, list(zip(levels[: len(clip.pcm) // FRAME, row].tolist(), speech[:, row].tolist(), strict=False)))
        for row, clip in enumerate(clips)
    ]
