"""How loud the background and the agent's own echo are, so that neither is taken for the caller. PURE.

Levels are RMS dBFS of 20 ms frames.
"""

from __future__ import annotations

from typing import Final

QUIETEST_DBFS: Final = -90.0
"""Nothing is tracked below this."""

_FLOOR_START_DBFS: Final = -65.0
_FLOOR_MAX_DBFS: Final = -25.0
_FLOOR_FALL: Final = 0.2
_FLOOR_RISE: Final = 0.02
_FLOOR_CREEP_DB: Final = 0.01

_ECHO_FRAMES: Final = 30
_ECHO_MARGIN_DB: Final = 6.0
_ECHO_RISE_DB: Final = 1.0
_ECHO_FALL_DB: Final = 0.05
_ECHO_MAX_DBFS: Final = -40.0
_AGENT_AUDIBLE_DBFS: Final = -50.0
_GAIN_RISE_DB: Final = 1.0
_GAIN_FALL_DB: Final = 0.15
_GAIN_MAX_DB: Final = -10.0
_GAIN_MIN_DB: Final = -50.0
_ACTIVE_FRAMES: Final = 20
"""Of the last 600 ms: where the agent spoke for less, it says nothing that little has come back."""


class NoiseFloor:
    """The level of the background: down at once, up slowly, and hardly at all while somebody speaks."""

    def __init__(self) -> None:
        self.dbfs = _FLOOR_START_DBFS

    def follow(self, level_dbfs: float, background: bool) -> float:
        """Take a frame; ``background`` says that it surely holds no speech. Returns the new estimate."""
        floor = self.dbfs
        if level_dbfs < floor:
            floor += _FLOOR_FALL * (level_dbfs - floor)
        elif background:
            floor += _FLOOR_RISE * (level_dbfs - floor)
        else:
            floor += _FLOOR_CREEP_DB
        self.dbfs = floor = floor if floor < _FLOOR_MAX_DBFS else _FLOOR_MAX_DBFS
        return floor


class Echo:
    """The level below which a sound may be the agent's own voice come back.

    Where it is known what the agent sends, the echo is bounded by the loudest frame sent within the last 600 ms, which
    covers every delay up to that, times a gain that is learnt during the call. Where it is not, the level of what
    comes back while the agent speaks is learnt instead. Both go up too slowly for a caller who interrupts to raise
    them, and down as nothing is heard.

    Args:
        level_dbfs: the echo to expect before anything was learnt, where it is not known what is sent.
        gain_db: the echo relative to what is sent, before anything was learnt.
    """

    def __init__(self, level_dbfs: float, gain_db: float) -> None:
        self.gain_db = gain_db
        self._level = level_dbfs - _ECHO_MARGIN_DB
        self._sent = [QUIETEST_DBFS] * _ECHO_FRAMES
        self._loudest = QUIETEST_DBFS
        self._audible_until = -1
        self._active = 0
        self._known = False

    def sends(self, frame: int, level_dbfs: float | None, speaking: bool) -> None:
        """What the agent sent with ``frame``; None where only it is known whether it speaks."""
        self._known = level_dbfs is not None
        if level_dbfs is None:
            if speaking:
                self._audible_until = frame + _ECHO_FRAMES
            return
        at = frame % _ECHO_FRAMES
        self._active += (level_dbfs > _AGENT_AUDIBLE_DBFS) - (self._sent[at] > _AGENT_AUDIBLE_DBFS)
        self._sent[at] = level_dbfs
        if level_dbfs > _AGENT_AUDIBLE_DBFS:
            self._audible_until = frame + _ECHO_FRAMES
        elif frame >= self._audible_until:
            return
        self._loudest = max(self._sent)

    def audible(self, frame: int) -> bool:
        """Whether echo may still arrive with ``frame``."""
        return frame < self._audible_until

    def threshold(self) -> float:
        """What is louder than this is not echo alone, dBFS; while it is :meth:`audible`."""
        if self._known:
            return self._loudest + self.gain_db + _ECHO_MARGIN_DB
        return self._level + _ECHO_MARGIN_DB

    def learn(self, level_dbfs: float) -> None:
        """Take a frame heard while echo may arrive, and the caller is not known to speak."""
        if not self._known:
            if level_dbfs > self._level:
                self._level = min(self._level + min(level_dbfs - self._level, _ECHO_RISE_DB), _ECHO_MAX_DBFS)
            else:
                self._level -= _ECHO_FALL_DB
            return
        gain = level_dbfs - self._loudest
        if gain > self.gain_db:
            self.gain_db = min(self.gain_db + min(gain - self.gain_db, _GAIN_RISE_DB), _GAIN_MAX_DB)
        elif self._active >= _ACTIVE_FRAMES:
            self.gain_db = max(self.gain_db - _GAIN_FALL_DB, _GAIN_MIN_DB)
