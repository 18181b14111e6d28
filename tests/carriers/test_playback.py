"""What was heard of what was sent ahead, against a carrier that buffers and plays as carriers do."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from appliance.carriers.playback import FRAME, LEAD, Heard, Playback

TICK_S = 0.02


@dataclass
class Carrier:
    """A buffer at the far end of a network: ``out_s`` and ``back_s`` are delays, ``stalls`` (begin, end) its pauses.

    Everything is in ticks of a millisecond, so that it plays 8 samples in each.
    """

    out_s: float = 0.03
    back_s: float = 0.03
    stalls: list[tuple[float, float]] = field(default_factory=list)
    jitter_s: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    now: float = 0.0
    heard: int = 0
    largest: int = 0
    gaps: int = 0
    _coming: deque[tuple[float, str, object]] = field(default_factory=deque)
    _buffer: deque[object] = field(default_factory=deque)
    _left: int = 0
    _back: deque[tuple[float, str]] = field(default_factory=deque)

    def take(self, kind: str, what: object) -> None:
        before = self._coming[-1][0] if self._coming else 0.0
        self._coming.append((max(before, self.now + self.out_s + self.jitter_s * self.chance.random()), kind, what))

    def step(self) -> None:
        """A millisecond passes."""
        self.now += 0.001
        if any(begin <= self.now < end for begin, end in self.stalls):
            return
        while self._coming and self._coming[0][0] <= self.now:
            _, kind, what = self._coming.popleft()
            if kind == "clear":
                for item in self._buffer:
                    if isinstance(item, str):
                        self._return(item)
                self._buffer.clear()
                self._left = 0
            else:
                self._buffer.append(what)
        self._play()
        self.largest = max(self.largest, sum(item for item in self._buffer if isinstance(item, int)))

    def _play(self) -> None:
        left = 8
        while left and (self._left or self._buffer):
            if not self._left:
                item = self._buffer.popleft()
                if isinstance(item, str):
                    self._return(item)
                    continue
                self._left = int(item)  # type: ignore[call-overload]
            played = min(left, self._left)
            self._left -= played
            self.heard += played
            left -= played
            while self._buffer and not self._left and isinstance(self._buffer[0], str):
                self._return(str(self._buffer.popleft()))

    def _return(self, name: str) -> None:
        before = self._back[-1][0] if self._back else 0.0
        self._back.append((max(before, self.now + self.back_s + self.jitter_s * self.chance.random()), name))

    def marks(self) -> list[str]:
        came = []
        while self._back and self._back[0][0] <= self.now:
            came.append(self._back.popleft()[1])
        return came


def speak(
    carrier: Carrier, playback: Playback, frames: int, *, until: float | None = None, utterance: int = 1
) -> list[Heard]:
    """Send an utterance of whole frames until all has been heard, or for ``until`` seconds."""
    end = carrier.now + until if until is not None else carrier.now + frames * TICK_S + 20.0
    next_tick = carrier.now
    sent = 0
    over: list[Heard] = []
    while carrier.now < end and not over:
        carrier.step()
        for name in carrier.marks():
            playback.mark(name, carrier.now)
        over += playback.finished(carrier.now)
        if carrier.now >= next_tick:
            next_tick += TICK_S
            for _ in range(min(playback.room(carrier.now), frames - sent)):
                sent += 1
                for name in [FRAME, *playback.send(utterance, FRAME, sent == frames, carrier.now)]:
                    carrier.take("media", name)
    return over


@pytest.mark.parametrize("marks", [True, False])
def test_an_utterance_is_heard_to_its_end(marks: bool) -> None:
    carrier, playback = Carrier(), Playback(marks)
    assert speak(carrier, playback, 100) == [Heard(1, 100 * FRAME)]
    assert carrier.heard == 100 * FRAME or not marks
    assert carrier.largest <= LEAD
    assert playback.played(carrier.now) == playback.sent


def test_the_first_frames_go_at_once_and_then_one_a_tick() -> None:
    playback = Playback(True)
    counts = []
    for tick in range(20):
        now = tick * TICK_S
        counts.append(playback.room(now))
        for _ in range(counts[-1]):
            playback.send(1, FRAME, False, now)
    assert counts[0] == LEAD // FRAME
    assert set(counts[1:]) == {1}


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("stalled", [False, True])
def test_what_was_heard_when_it_was_cut_short(seed: int, stalled: bool) -> None:
    """Within 60 ms of the truth, which is a fifth of a word, for a network of any delay and a carrier that stalls."""
    chance = random.Random(seed)
    carrier = Carrier(chance.uniform(0.005, 0.15), chance.uniform(0.005, 0.15), jitter_s=0.02, chance=chance)
    playback = Playback(True)
    speak(carrier, playback, chance.randrange(30, 60), utterance=1)
    if stalled:
        begin = carrier.now + chance.uniform(0.3, 1.0)
        carrier.stalls.append((begin, begin + chance.uniform(0.1, 1.0)))
    before = carrier.heard
    speak(carrier, playback, 400, utterance=2, until=chance.uniform(2.3, 5.0))
    heard = playback.clear(carrier.now)
    carrier.take("clear", None)
    while carrier.now < carrier._coming[-1][0] + 0.001 if carrier._coming else False:
        carrier.step()
    for _ in range(400):
        carrier.step()
    assert heard.utterance == 2
    assert abs(heard.samples - (carrier.heard - before)) <= 0.06 * 8000


def test_marks_that_a_clear_returns_confirm_nothing() -> None:
    carrier, playback = Carrier(), Playback(True)
    speak(carrier, playback, 400, until=1.0)
    heard = playback.clear(carrier.now)
    carrier.take("clear", None)
    for _ in range(300):
        carrier.step()
        for name in carrier.marks():
            playback.mark(name, carrier.now)
    assert playback.finished(carrier.now) == []
    assert playback.played(carrier.now) == playback.sent
    assert heard.samples == pytest.approx(carrier.heard, abs=480)
    assert speak(carrier, playback, 20, utterance=2) == [Heard(2, 20 * FRAME)]


def test_nothing_is_sent_while_the_carrier_stands_still() -> None:
    carrier, playback = Carrier(stalls=[(1.0, 3.0)]), Playback(True)
    assert speak(carrier, playback, 200) == [Heard(1, 200 * FRAME)]
    assert carrier.largest <= 2 * LEAD + 0.3 * 8000, "not two seconds at once when it goes on"


@pytest.mark.parametrize("name", ["", "0", "0.", "0.x", "1.160", "0.-5", "hello", ".160", "0.1" + "0" * 5000])
def test_strange_marks_say_nothing(name: str) -> None:
    playback = Playback(True)
    assert playback.send(1, FRAME, True, 0.0) == ["0.160"]
    playback.mark(name, 0.01)
    assert playback.finished(0.02) == []


def test_a_short_end_counts_what_is_the_utterances() -> None:
    playback = Playback(True)
    playback.send(1, FRAME, False, 0.0)
    playback.mark(*playback.send(1, 40, True, 0.0), 0.1)
    assert playback.finished(0.1) == [Heard(1, 200)]
