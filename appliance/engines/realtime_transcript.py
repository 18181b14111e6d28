"""OpenAI's Realtime protocol as far as it writes down what is said: one session's side of it. PURE.

The box decides where an utterance ends, so the service's own turn detection is off: audio is appended as it comes and
committed at each silence. A commit makes an *item*, which the service transcribes; an utterance with pauses in it has
several, and its text is theirs in order. Some models send the text of an item while its audio still comes, others only
after the commit.

Two dialects: ``ga`` as since August 2025, ``beta`` as before, which many other servers speak.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from appliance.api import Pcm
from appliance.audio import g711
from appliance.audio.resample import Resampler
from appliance.engines.asr_options import RealtimeAsrOptions

RATE_HZ: Final = 8000
LEAST_S: Final = 0.1
"""The shortest audio that can be committed."""

_OF_ITEM: Final = "conversation.item.input_audio_transcription."
_EMPTY: Final = "input_audio_buffer_commit_empty"
_BETA_FORMATS: Final = {"pcm": "pcm16", "pcmu": "g711_ulaw", "pcma": "g711_alaw"}
_MOST_IGNORED: Final = 256

Event: TypeAlias = dict[str, Any]


@dataclass
class Item:
    """Audio that was committed; ``name`` is the service's, "" until it has said it. ``failed``: why, in its words."""

    commit: str
    name: str = ""
    text: str = ""
    log_probability: float = 0.0
    done: bool = False
    failed: str = ""


class TranscriptProtocol:
    """One session. Times do not come into it.

    Attributes:
        outbox: events to send, in order; the owner takes them out.
        refused: why the service does not do what it was asked for; "" while it does.
    """

    def __init__(self, options: RealtimeAsrOptions) -> None:
        self.outbox: list[Event] = []
        self.refused = ""
        self._options = options
        self._configured: tuple[str, str] | None = None
        self._accepted = False
        self._numbers = 0
        self._items: list[Item] = []
        self._unnamed: list[Item] = []
        self._live = ""
        self._texts: dict[str, str] = {}
        self._ignored: dict[str, None] = {}
        self._buffered = 0
        self._resampler = self._new_resampler()

    @property
    def pending(self) -> bool:
        """Committed audio of this utterance has no text yet."""
        return any(not item.done for item in self._items)

    @property
    def failed(self) -> str:
        """Why an item of this utterance has no text, "" where all have or may."""
        return next((item.failed for item in self._items if item.failed), "")

    @property
    def log_probability(self) -> float:
        """Mean over the items of what the service says of its tokens; 0 where it says nothing."""
        known = [item.log_probability for item in self._items if item.text]
        return sum(known) / len(known) if known else 0.0

    def text(self) -> tuple[str, int]:
        """What was said so far, and how many of its first words stand."""
        done = " ".join(item.text.strip() for item in self._items if item.done)
        coming = [self._texts.get(item.name, "") for item in self._items if item.name and not item.done]
        coming.append(self._texts.get(self._live, "") if self._live else "")
        rest = " ".join(text.strip() for text in coming if text.strip())
        text = " ".join(part for part in (done.strip(), rest) if part)
        # Text only ever grows at its end, so that the last word may be half of one.
        return text, len(text.split()) - (1 if rest else 0)

    def configure(self, language: str, prompt: str) -> None:
        """Say what is to be understood, unless that is how it is already."""
        if self._configured == (language, prompt):
            return
        had_prompt = self._configured is not None and bool(self._configured[1])
        self._configured = (language, prompt)
        wanted: dict[str, Any] = {"model": self._options.model}
        if language:
            wanted["language"] = language
        if prompt or had_prompt:
            wanted["prompt"] = prompt
        include = ["item.input_audio_transcription.logprobs"] if self._options.logprobs else None
        if self._options.dialect == "beta":
            session: dict[str, Any] = {
                "input_audio_format": _BETA_FORMATS[self._options.format],
                "input_audio_transcription": wanted,
                "turn_detection": None,
            }
            self._send("transcription_session.update", session=session | ({"include": include} if include else {}))
            return
        kind: dict[str, Any] = {"type": f"audio/{self._options.format}"}
        if self._options.format == "pcm":
            kind["rate"] = self._options.rate_hz
        session = {
            "type": "transcription",
            "audio": {"input": {"format": kind, "transcription": wanted, "turn_detection": None}},
        }
        self._send("session.update", session=session | ({"include": include} if include else {}))

    def begin(self) -> None:
        """A new utterance: forget the one before, and its audio that was not committed."""
        if self._buffered:
            self._send("input_audio_buffer.clear")
        self._buffered = 0
        self._resampler = self._new_resampler()
        for name in (*(item.name for item in self._items), self._live):
            self._ignore(name)
        self._items, self._live = [], ""

    def hear(self, pcm: Pcm) -> None:
        """More of the utterance, at 8 kHz."""
        self._buffered += len(pcm)
        self._append(pcm, last=False)

    def commit(self) -> None:
        """All audio so far is to be written down; nothing where there is none."""
        if not self._buffered:
            return
        missing = max(round(LEAST_S * RATE_HZ) - self._buffered, 0)
        self._append(np.zeros(missing, np.int16), last=True)
        self._resampler = self._new_resampler()
        self._buffered = 0
        item = Item(self._send("input_audio_buffer.commit"))
        self._items.append(item)
        self._unnamed.append(item)

    def received(self, event: Mapping[str, Any]) -> None:
        """An event of the service; kinds that are not known say nothing."""
        kind = str(event.get("type", ""))
        if kind in ("session.updated", "transcription_session.updated"):
            self._accepted = True
        elif kind == "input_audio_buffer.committed":
            self._committed(str(event.get("item_id", "")))
        elif kind.startswith(_OF_ITEM):
            self._of_item(kind.removeprefix(_OF_ITEM), event)
        elif kind == "error":
            error = event.get("error")
            self._error(error if isinstance(error, Mapping) else {})

    def _committed(self, name: str) -> None:
        if not self._unnamed:
            return
        item = self._unnamed.pop(0)
        item.name = name
        if item not in self._items:
            self._ignore(name)
        if self._live == name:
            self._live = ""

    def _of_item(self, what: str, event: Mapping[str, Any]) -> None:
        name = str(event.get("item_id", ""))
        if not name or name in self._ignored:
            return
        item = next((one for one in self._items if one.name == name), None)
        if what == "delta":
            self._texts[name] = self._texts.get(name, "") + str(event.get("delta") or "")
            if item is None:
                self._live = name
        elif what == "completed" and item is not None:
            item.text, item.done = str(event.get("transcript") or ""), True
            item.log_probability = _mean(event.get("logprobs"))
            self._texts.pop(name, None)
        elif what == "failed" and item is not None:
            error = event.get("error")
            item.failed = _words(error if isinstance(error, Mapping) else {})

    def _error(self, error: Mapping[str, Any]) -> None:
        cause = error.get("event_id")
        for item in self._unnamed:
            if item.commit == cause or (error.get("code") == _EMPTY and cause is None):
                self._unnamed.remove(item)
                item.done = error.get("code") == _EMPTY
                item.failed = "" if item.done else _words(error)
                return
        if not self._accepted:
            self.refused = _words(error)

    def _append(self, pcm: Pcm, *, last: bool) -> None:
        if self._options.format == "pcm":
            samples = self._resampler.push(pcm)
            if last:
                samples = np.concatenate([samples, self._resampler.finish()])
            data = samples.astype("<i2").tobytes()
        else:
            data = g711.encode(pcm, self._options.format == "pcma").tobytes()
        if data:
            self._send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    def _new_resampler(self) -> Resampler:
        return Resampler(RATE_HZ, self._options.rate_hz, "LQ")

    def _ignore(self, name: str) -> None:
        if name:
            self._texts.pop(name, None)
            self._ignored[name] = None
        while len(self._ignored) > _MOST_IGNORED:
            del self._ignored[next(iter(self._ignored))]

    def _send(self, kind: str, **more: Any) -> str:
        self._numbers += 1
        name = f"box_{self._numbers}"
        self.outbox.append({"type": kind, "event_id": name, **more})
        return name


def _mean(logprobs: Any) -> float:
    if not isinstance(logprobs, list):
        return 0.0
    known = [
        one["logprob"] for one in logprobs if isinstance(one, dict) and isinstance(one.get("logprob"), int | float)
    ]
    return min(math.fsum(known) / len(known), 0.0) if known else 0.0


def _words(error: Mapping[str, Any]) -> str:
    return " ".join(str(error.get("message") or error.get("code") or "it does not say why").split())[:300]
