"""One call in one zip file, for whoever has to find out what happened in it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from appliance.store.records import CallRecord, TurnRecord

_BAR_COLUMNS: Final = 40
_ABOUT: Final = """One call of the appliance.

call.json        the record: the call and its turns
timeline.json    what happened when, in seconds after the call began
transcript.txt   who said what; the agent's words as far as they were heard
prompts.json     the messages that were new to the language model, turn by turn
tools.json       the tools that the agent used, turn by turn
sip.txt          the SIP messages, without keys and credentials
recording.wav    the audio: the caller on the left, the agent on the right
"""


def write_bundle(path: Path, call: CallRecord, trace: list[dict[str, Any]]) -> list[str]:
    """Write the zip file; a file of that name is replaced once the new one is complete.

    Args:
        path: where to.
        call: with its turns.
        trace: its SIP messages, as :meth:`CallReader.trace` gives them.

    Returns:
        What it holds. What there is none of is left out.

    Raises:
        OSError: it cannot be written.
    """
    parts: dict[str, str] = {
        "README.txt": _ABOUT,
        "call.json": _json(call.as_json()),
        "timeline.json": _json(timeline(call, trace)),
        "transcript.txt": transcript(call),
    }
    prompts = [{"turn": turn.number, "messages": _read(turn.asked)} for turn in call.turns if turn.asked]
    tools = [{"turn": turn.number, **tool} for turn in call.turns for tool in turn.tools]
    if prompts:
        parts["prompts.json"] = _json(prompts)
    if tools:
        parts["tools.json"] = _json(tools)
    if trace:
        parts["sip.txt"] = "\n".join(map(_message, trace))
    unfinished = path.with_name(path.name + ".part")
    recording = Path(call.recording_path) if call.recording_path else None
    try:
        with (
            open(unfinished, "wb", opener=_not_for_everybody) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle,
        ):
            for name, text in parts.items():
                bundle.writestr(name, text)
            if recording is not None and recording.is_file():
                bundle.write(recording, "recording.wav")
            held = bundle.namelist()
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return held


def _not_for_everybody(path: str, flags: int) -> int:
    """As recordings are."""
    return os.open(path, flags, 0o640)


def timeline(call: CallRecord, trace: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Everything that happened, in order: ``at_s`` after the call began and ``what``, with the facts beside them."""
    happened: list[dict[str, Any]] = [{"at_s": 0.0, "what": "started", "calling": call.calling, "called": call.called}]
    marks = (("ringing", call.ringing_at), ("answered", call.answered_at), ("ended", call.ended_at))
    happened += [{"at_s": _after(call, at), "what": what} for what, at in marks if at is not None]
    for turn in call.turns:
        happened += _turn(call, turn)
    for message in trace:
        first = str(message["text"]).partition("\n")[0]
        happened.append({"at_s": message["at_s"], "what": "sip", "sent": message["sent"], "first_line": first})
    return sorted(happened, key=lambda event: event["at_s"])


def transcript(call: CallRecord) -> str:
    """One line for everything that was said, with the seconds after the call began."""
    lines = []
    for turn in call.turns:
        answered = _answered(call)
        if turn.by != "none":
            how = " (by key)" if turn.by == "key" else ""
            lines.append(f"{_clock(answered, turn.speech_start_s)}  caller{how}: {turn.caller_text or '(nothing)'}")
        heard = turn.heard_text or "(nothing)"
        cut = " (interrupted)" if turn.interrupted else ""
        if turn.agent_text:
            lines.append(f"{_clock(answered, _reply_s(turn))}  agent{cut}: {heard}")
    return "\n".join([*lines, ""])


def waterfall(spans: Mapping[str, list[float]]) -> list[str]:
    """Stages as bars on one scale of ms after speech end, in order of their start."""
    if not spans:
        return []
    begin = min(0.0, *(start for start, _ in spans.values()))
    length = max(max(end for _, end in spans.values()) - begin, 1.0)
    name_width = max(map(len, spans))
    lines = []
    for stage, (start, end) in sorted(spans.items(), key=lambda item: (item[1][0], item[1][1])):
        first = round((start - begin) / length * _BAR_COLUMNS)
        last = max(round((end - begin) / length * _BAR_COLUMNS), first + 1)
        bar = (" " * first + "#" * (last - first))[: _BAR_COLUMNS + 1]
        lines.append(f"{stage:<{name_width}} |{bar:<{_BAR_COLUMNS + 1}}| {start:.0f} to {end:.0f} ms")
    return lines


def _turn(call: CallRecord, turn: TurnRecord) -> list[dict[str, Any]]:
    answered = _answered(call)
    number = {"turn": turn.number}
    events: list[dict[str, Any]] = []
    if turn.speech_start_s is not None:
        at_s = round(answered + turn.speech_start_s, 3)
        events.append({"at_s": at_s, "what": "caller begins", **number, "by": turn.by, "text": turn.caller_text})
    if turn.speech_end_s is not None:
        zero = answered + turn.speech_end_s
        events.append({"at_s": round(zero, 3), "what": "caller ends", **number, "ended_by": turn.ended_by})
        for stage, (start, end) in turn.waterfall.items():
            ends = round(zero + end / 1000, 3)
            events.append(
                {"at_s": round(zero + start / 1000, 3), "what": "stage", **number, "stage": stage, "ends_s": ends}
            )
    reply_s = _reply_s(turn)
    if reply_s is not None:
        events.append({"at_s": round(answered + reply_s, 3), "what": "reply", **number, "text": turn.agent_text})
    zero_s = answered + (turn.speech_end_s or 0.0)
    for tool in turn.tools:
        at_s = round(zero_s + tool["start_ms"] / 1000, 3)
        events.append({"at_s": at_s, "what": "tool", **number, "name": tool["name"], "problem": tool["problem"]})
    over = {"at_s": _after(call, turn.finished_at), "what": "turn over", **number, "interrupted": turn.interrupted}
    return [*events, {**over, "heard": turn.heard_text, "problem": turn.problem}]


def _reply_s(turn: TurnRecord) -> float | None:
    """When the reply began, in seconds after the answer."""
    if turn.latency_ms is None or turn.speech_end_s is None:
        return None
    return turn.speech_end_s + turn.latency_ms / 1000


def _answered(call: CallRecord) -> float:
    return _after(call, call.answered_at) if call.answered_at is not None else 0.0


def _after(call: CallRecord, at: datetime) -> float:
    return round((at - call.started_at).total_seconds(), 3)


def _clock(answered_s: float, after_s: float | None) -> str:
    return f"{'':8}" if after_s is None else f"{answered_s + after_s:8.2f}"


def _message(message: Mapping[str, Any]) -> str:
    way = "to" if message["sent"] else "from"
    return f"--- {message['at_s']:.4f} s, {way} {message['peer']}\n{message['text']}\n"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _read(text: str) -> object:
    """JSON that was cut at the record's limit is given as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text
