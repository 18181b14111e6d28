"""What is sent on legs whose audio is a stream: a little ahead of what their peers play.

One call of :meth:`SpeakingAhead.speak` a tick for each such leg: it fills the peer's buffer from the same sources as
the tick fills packets from (tones, a bridged caller, playout, hold music) and says which frame the peer plays now.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.ipc.messages import AnyMessage, PlayoutDone, PlayoutStarted
from appliance.ipc.rings import FRAME_SAMPLES, AudioRings
from appliance.media.leg import MediaLeg
from appliance.media.stream_leg import StreamEnd

_SILENCE: Final = np.zeros(FRAME_SAMPLES, np.int16)


class SpeakingAhead:
    """Sends on stream legs.

    Args:
        rings: told how far the synthesis ring has been read.
        publish: where PlayoutStarted and PlayoutDone go.
        hold_music: int16 [samples] at 8 kHz, whole frames.

    Attributes:
        sent: frames.
        underruns: times that a peer had nothing left to play while an utterance went on.
    """

    def __init__(self, rings: AudioRings, publish: Callable[[AnyMessage], None], hold_music: NDArray[np.int16]) -> None:
        self._rings = rings
        self._publish = publish
        self._hold_music = hold_music
        self.sent = self.underruns = 0

    def speak(
        self, leg: MediaLeg, stream: StreamEnd, bridged: NDArray[np.int16] | None, out: NDArray[np.int16]
    ) -> None:
        """Send what there is room for, and fill ``out`` (int16 [160], zeroed) with what the peer plays now.

        Args:
            bridged: what the caller of the other leg has just said, int16 [160]; None where there is no bridge.
        """
        now = time.monotonic()
        if bridged is not None:
            if leg.tones_out is not None:
                bridged = np.empty(FRAME_SAMPLES, np.int16)
                leg.next_tone(bridged)
            stream.send_live(bridged, now)
            self.sent += 1
        else:
            for _ in range(stream.room(now)):
                if not self._send_next(leg, stream, now):
                    break
                self.sent += 1
        for heard in stream.finished(now):
            self._over(leg, heard.utterance, heard.samples)
        stream.show(out, now)

    def _send_next(self, leg: MediaLeg, stream: StreamEnd, now: float) -> bool:
        """Send one frame; False where there is none."""
        if leg.tones_out is not None:
            frame = np.empty(FRAME_SAMPLES, np.int16)
            leg.next_tone(frame)
            stream.send(frame, now)
        elif leg.playout:
            return self._send_speech(leg, stream, now)
        elif leg.music_at >= 0:
            stream.send(self._hold_music[leg.music_at : leg.music_at + FRAME_SAMPLES], now)
            leg.music_at = (leg.music_at + FRAME_SAMPLES) % len(self._hold_music)
        else:
            return False
        return True

    def _send_speech(self, leg: MediaLeg, stream: StreamEnd, now: float) -> bool:
        frame = _SILENCE.copy()
        dry = stream.dry(now)
        before = leg.playout.underruns
        popped = leg.playout.pop(frame)
        if dry:
            # Synthesis that pauses while the peer still has something to play is none.
            self.underruns += leg.playout.underruns - before
        self._rings.tts_played[leg.slot] = leg.playout.position
        if popped.filled:
            utterance = popped.done if popped.done >= 0 else leg.playout.current
            stream.send(frame, now, utterance, popped.filled, popped.done >= 0)
        elif popped.done >= 0:
            stream.end(popped.done)
        if popped.started >= 0 and popped.filled:
            frame_number = int(self._rings.frames[leg.slot])
            self._publish(PlayoutStarted(leg.slot, leg.generation, popped.started, frame_number, now))
        return popped.filled > 0

    def flush(self, leg: MediaLeg, stream: StreamEnd) -> tuple[int, int]:
        """Stop at once: (utterance that was being heard or -1, its samples that were)."""
        waiting, _ = leg.playout.flush()
        self._rings.tts_played[leg.slot] = leg.playout.position
        now = time.monotonic()
        for over in stream.over_by(now):
            self._over(leg, over.utterance, over.samples)
        heard = stream.clear(now)
        if heard.utterance >= 0:
            return heard.utterance, heard.samples
        return waiting, leg.carried.samples if leg.carried.utterance == waiting else 0

    def part(self, leg: MediaLeg, stream: StreamEnd) -> None:
        """The leg's stream is gone: what was sent on it is over, and what was cut short goes on with the next one."""
        over, under_way = stream.leave(time.monotonic())
        for heard in over:
            self._over(leg, heard.utterance, heard.samples)
        if under_way.utterance >= 0 or leg.carried.utterance != leg.playout.current:
            leg.carried = under_way

    def _over(self, leg: MediaLeg, utterance: int, samples: int) -> None:
        frame = int(self._rings.frames[leg.slot])
        self._publish(PlayoutDone(leg.slot, leg.generation, utterance, samples, frame))
