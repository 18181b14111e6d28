"""``appliance calls``: what is on record, also while the box runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from appliance.cli.call_bundle import waterfall, write_bundle
from appliance.config import load_settings
from appliance.store.callers import plain_number
from appliance.store.calls import CallStore
from appliance.store.records import CallRecord, TurnRecord

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_FRAME_S: Final = 0.02
_COLUMNS: Final = ("ID", "STARTED", "FROM", "TO", "LINE", "DISPOSITION", "TALK")


def add_parser(subparsers: Subparsers) -> None:
    """``appliance calls list|show|export|forget``."""
    parser = subparsers.add_parser("calls", help="list, show and export the calls on record", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the newest calls first")
    listing.add_argument("--limit", type=_positive, default=20, metavar="N", help="how many at most (default: 20)")
    listing.set_defaults(run=run_list)
    show = actions.add_parser("show", help="one call: what was said, when, and where the time went")
    show.add_argument("id", metavar="ID", help="the call, or the beginning of its id")
    show.set_defaults(run=run_show)
    export = actions.add_parser("export", help="one call as a zip file: record, timeline, audio, prompts, tools, SIP")
    export.add_argument("id", metavar="ID", help="the call, or the beginning of its id")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file to write (default: ID.zip)")
    export.set_defaults(run=run_export)
    forget = actions.add_parser(
        "forget",
        help="erase what lines remember of a caller (the calls stay on record until their retention is over)",
    )
    forget.add_argument("number", metavar="NUMBER", help="the caller's number, as the record has it")
    forget.set_defaults(run=run_forget)
    for action in (listing, show, forget):
        action.add_argument("--json", action="store_true", help="print JSON")
    for action in (listing, show, export, forget):
        action.add_argument("-c", "--config", type=Path, metavar="FILE", help="appliance.yaml of the box")
        action.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")


def run_list(args: argparse.Namespace) -> int:
    """0, also when there is no call yet."""

    async def main() -> list[CallRecord]:
        reader = await CallStore.open_read_only(load_settings(args.config, args.set).store.url)
        try:
            return await reader.recent(args.limit)
        finally:
            await reader.close()

    calls = asyncio.run(main())
    if args.json:
        print(json.dumps([_without_turns(call) for call in calls], indent=2))
    else:
        print(table(calls))
    return 0


def run_show(args: argparse.Namespace) -> int:
    """1 where no call, or more than one, has an id that begins so."""
    call, _ = _one_call(args)
    if call is None:
        return 1
    print(json.dumps(call.as_json(), indent=2) if args.json else describe(call))
    return 0


def run_export(args: argparse.Namespace) -> int:
    """1 where there is no such call, or the file cannot be written."""
    call, trace = _one_call(args)
    if call is None:
        return 1
    output: Path = args.output or Path(f"{call.id}.zip")
    try:
        held = write_bundle(output, call, trace)
    except OSError as error:
        print(f"appliance calls export: {output} cannot be written: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f"{output}: {', '.join(held)}")
    return 0


def _one_call(args: argparse.Namespace) -> tuple[CallRecord | None, list[dict[str, Any]]]:
    """The call whose id begins with ``args.id``, and its SIP; None, with the reason printed, where there is not one."""

    async def main() -> tuple[CallRecord | None, list[dict[str, Any]], list[str]]:
        reader = await CallStore.open_read_only(load_settings(args.config, args.set).store.url)
        try:
            call = await reader.get(args.id)
            found = [args.id] if call is not None else await reader.find(args.id)
            if call is None and len(found) == 1:
                call = await reader.get(found[0])
            return call, await reader.trace(call.id) if call is not None else [], found
        finally:
            await reader.close()

    call, trace, found = asyncio.run(main())
    if call is None:
        problem = (
            f"several calls begin with {args.id}: {', '.join(found)}" if found else f"no call begins with {args.id}"
        )
        what = f"appliance calls {args.action}"
        print(f"{what}: {problem}; `appliance calls list` shows what there is", file=sys.stderr)
    return call, trace


def run_forget(args: argparse.Namespace) -> int:
    """0, also when nothing was known; 2 where NUMBER is none."""
    number = plain_number(args.number)
    if not number:
        print(f"appliance calls forget: {args.number!r} is no telephone number", file=sys.stderr)
        return 2

    async def main() -> int:
        async with CallStore(load_settings(args.config, args.set).store.url) as store:
            return await store.callers.forget(number)

    erased = asyncio.run(main())
    print(json.dumps({"number": number, "erased": erased}) if args.json else _erased(number, erased))
    return 0


def _erased(number: str, erased: int) -> str:
    if not erased:
        return f"nothing was remembered of {number}"
    return f"{erased} note{'s' if erased > 1 else ''} about {number} erased"


def table(calls: Sequence[CallRecord]) -> str:
    """The calls in aligned columns, times in the machine's zone."""
    rows = [_COLUMNS, *(_row(call) for call in calls)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines if calls else [*lines, "no calls yet"])


def describe(call: CallRecord) -> str:
    """One call as a page of text."""
    caller = f"{printable(call.calling_name)} <{printable(call.calling)}>" if call.calling_name else call.calling
    facts = [
        ("call", f"{call.id}, {call.direction}, {call.disposition}"),
        ("from", printable(caller)),
        ("to", printable(call.called)),
        ("line", f"{printable(call.line) or '(none)'} on trunk {printable(call.trunk) or '(none)'}"),
        ("protocol", f"{call.protocol} {printable(call.protocol_call_id)}"),
        ("started", _local(call.started_at)),
        ("answered", _answer(call)),
        ("ended", _end(call)),
        ("slots", ", ".join(f"{printable(k)} = {printable(str(v))}" for k, v in call.slots.items())),
        ("recording", _recording(call)),
        ("consent", call.recording_consent),
        ("silent", _paused(call)),
        ("quality", _quality(call)),
    ]
    lines = [f"{name:<10} {value}" for name, value in facts if value]
    for turn in call.turns:
        lines += ["", *_turn(turn)]
    return "\n".join(lines)


def printable(text: str) -> str:
    """What a peer sent, without the characters that move a terminal's cursor."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _row(call: CallRecord) -> tuple[str, ...]:
    return (
        call.id,
        _local(call.started_at),
        _short(call.calling),
        _short(call.called),
        printable(call.line) or "-",
        call.disposition,
        "-" if call.talk_s is None else f"{call.talk_s:.1f} s",
    )


def _turn(turn: TurnRecord) -> list[str]:
    lines = []
    if turn.by != "none":
        said = printable(turn.caller_text) or "(nothing)"
        notes = ["by key"] if turn.by == "key" else []
        if turn.confidence is not None:
            notes.append(f"confidence {turn.confidence:.2f}")
        if not turn.accepted:
            notes.append("not expected")
        if turn.ended_by:
            notes.append(f"over by {turn.ended_by.replace('_', ' ')}")
        if turn.probability is not None:
            notes.append(f"end of turn {turn.probability:.2f}")
        lines.append(f"{_clock(turn.speech_start_s)}  caller  {said}{_in_brackets(notes)}")
    lines += [f"{'':7}  tool    {_tool(tool)}" for tool in turn.tools]
    replied_s = None
    if turn.latency_ms is not None and turn.speech_end_s is not None:
        replied_s = turn.speech_end_s + turn.latency_ms / 1000
    notes = [f"after {turn.latency_ms:.0f} ms"] if turn.latency_ms is not None else []
    if turn.pauses:
        notes.append(f"paused {turn.pauses} times" if turn.pauses > 1 else "paused once")
    if turn.interrupted:
        notes.append("interrupted")
    if turn.server:
        notes.append(f"by {printable(turn.server)}")
    reply = printable(turn.heard_text if turn.interrupted else turn.agent_text)
    if reply or notes:
        lines.append(f"{_clock(replied_s)}  agent   {reply or '(nothing heard)'}{_in_brackets(notes)}")
    if turn.problem:
        lines.append(f"{'':7}  problem {printable(turn.problem)}")
    if turn.speculation:
        lines.append(f"{'':17}{_in_advance(turn.speculation)}")
    lines += [f"{'':17}{line}" for line in waterfall(turn.waterfall)]
    return lines


def _tool(tool: dict[str, Any]) -> str:
    outcome = tool["problem"] or tool["result"]
    took = f"{tool['end_ms'] - tool['start_ms']:.0f} ms"
    asked = f", confirmed by {tool['confirmed']}" if tool.get("confirmed") else ""
    source = f" of {tool['source']}" if tool.get("source", "builtin") not in ("", "builtin") else ""
    text = f"{tool['name']}{source} {tool['arguments']}{asked} gave {outcome}"
    return f"{printable(text if len(text) <= 160 else text[:159] + '…')} ({took})"


def _in_advance(speculation: dict[str, Any]) -> str:
    """What was begun before the turn was certain, and what came of it."""
    begun, used = speculation["begun"], speculation["used"]
    text = f"begun in advance {begun} times" if begun > 1 else "begun in advance"
    text += f", used, heard {speculation['gained_s'] * 1000:.0f} ms earlier" if used else ", not used"
    wasted = speculation["wasted_tokens"], speculation["wasted_speech_s"]
    return text + (f"; {wasted[0]} tokens and {wasted[1]:.1f} s of speech for nothing" if any(wasted) else "")


def _answer(call: CallRecord) -> str:
    if call.answered_at is None:
        return ""
    return f"after {(call.answered_at - call.started_at).total_seconds():.2f} s"


def _end(call: CallRecord) -> str:
    if call.ended_at is None:
        return ""
    talk = "" if call.talk_s is None else f" after {call.talk_s:.1f} s of talk"
    reason = " ".join(part for part in (str(call.hangup_code or ""), printable(call.hangup_text)) if part)
    return f"{_local(call.ended_at)}{talk}, by {call.hangup_by or 'nobody'}{_in_brackets([reason] if reason else [])}"


def _recording(call: CallRecord) -> str:
    if call.recording_path is None:
        return ""
    length = "" if call.recording_frames is None else f", {call.recording_frames * _FRAME_S:.1f} s"
    problem = f", incomplete: {call.recording_problem}" if call.recording_problem else ""
    return f"{call.recording_path}{length}{problem}"


def _paused(call: CallRecord) -> str:
    """Where the recording is silence because something private was asked; "" for nowhere."""
    parts = []
    for begin, end in call.recording_paused:
        until = "its end" if end is None else f"{end * _FRAME_S:.1f} s"
        parts.append(f"from {(begin or 0) * _FRAME_S:.1f} s to {until}")
    return ", ".join(parts)


def _quality(call: CallRecord) -> str:
    """How the line was; "" where nothing was measured."""
    sides = (("heard", call.mos), ("far end", call.mos_far))
    scores = [f"{side} MOS {score:.2f}" for side, score in sides if score is not None]
    if not scores or call.loss_percent is None or call.jitter_ms is None:
        return ""
    figures = [*scores, f"{call.loss_percent:.1f} % lost", f"jitter {call.jitter_ms:.1f} ms"]
    if call.round_trip_ms is not None:
        figures.append(f"round trip {call.round_trip_ms:.0f} ms")
    return ", ".join(figures)


def _local(when: datetime) -> str:
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _clock(seconds: float | None) -> str:
    """Minutes and seconds after the answer."""
    if seconds is None:
        return f"{'':7}"
    return f"{int(seconds // 60):d}:{seconds % 60:04.1f}".rjust(7)


def _in_brackets(notes: list[str]) -> str:
    return f" ({', '.join(notes)})" if notes else ""


def _short(address: str) -> str:
    """A SIP address without scheme and parameters, cut to a column."""
    text = printable(address).removeprefix("sip:").removeprefix("sips:").partition(";")[0]
    return text if len(text) <= 32 else f"{text[:31]}…"


def _without_turns(call: CallRecord) -> dict[str, object]:
    plain = call.as_json()
    del plain["turns"]
    return plain


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text[:9]) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, 1 or more")
    return int(text[:9])
