"""``appliance reload``: have the box that runs read its dialplans and plugins again."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from appliance.config import load_settings
from appliance.errors import ApplianceError, ChannelClosed, Mistake
from appliance.ipc.channel import connect
from appliance.ipc.messages import AnyMessage
from appliance.ipc.operator_messages import Reload, Reloaded
from appliance.server.reload import SOCKET

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_CONNECT_S: Final = 2.0
_ANSWER_S: Final = 120.0
_REFUSED: Final = 2


def add_parser(subparsers: Subparsers) -> None:
    """Add ``reload`` to the main command line."""
    parser = subparsers.add_parser(
        "reload",
        help="have the running box read its dialplans and plugins again",
        description=(
            "Have the box that runs read its dialplans, and the plugins that they use, again. Running calls go on as "
            "they began; new calls are answered by what was read, unless there is a mistake in it: then all of it "
            "stays as it was. Give the same -c and --set as to `appliance serve`: they say where the box's sockets "
            "are; settings of appliance.yaml itself are not read again."
        ),
        epilog="Exit status 2 where it was refused or failed, with every mistake printed.",
    )
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration of the box")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what has changed, or every mistake; 2 where nothing was taken over.

    Raises:
        ApplianceError: no box runs with these settings, or it does not answer.
    """
    settings = load_settings(args.config, args.set)
    told = asyncio.run(_asked(settings.runtime_dir.absolute()))
    refused = told.outcome not in ("changed", "unchanged")
    if args.json:
        print(json.dumps(_as_json(told), indent=2))
        return _REFUSED if refused else 0
    for warning in told.warnings:
        print(f"warning: {Mistake(*warning)}", file=sys.stderr)
    for mistake in told.mistakes:
        print(Mistake(*mistake))
    if told.outcome == "refused":
        count = f"{len(told.mistakes)} mistake{'s' if len(told.mistakes) > 1 else ''}{_more(told)}"
        print(f"appliance reload: refused, the box goes on as it was; {count}", file=sys.stderr)
    elif refused:
        print(f"appliance reload: failed, the box goes on as it was: {told.problem}", file=sys.stderr)
    else:
        print(summary(told))
    return _REFUSED if refused else 0


def summary(told: Reloaded) -> str:
    """What has changed, in a few lines."""
    lists = (("added", told.added), ("removed", told.removed), ("changed", told.changed))
    parts = [f"{what}: {', '.join(names)}" for what, names in lists if names]
    head = f"ok: {told.lines} line{'s' if told.lines != 1 else ''}, in {told.seconds:.2f} s"
    return "\n".join([head, *(parts or ["no line has changed"])]) + _more(told)


def _more(told: Reloaded) -> str:
    return f", and {told.left_out} more" if told.left_out else ""


def _as_json(told: Reloaded) -> dict[str, object]:
    found: dict[str, object] = msgspec.structs.asdict(told)
    for key in ("mistakes", "warnings"):
        entries = getattr(told, key)
        found[key] = [dict(zip(("file", "line", "key", "what", "hint"), entry, strict=True)) for entry in entries]
    return found


async def _asked(runtime_dir: Path) -> Reloaded:
    answer: asyncio.Future[Reloaded] = asyncio.get_running_loop().create_future()

    def received(message: AnyMessage) -> None:
        if isinstance(message, Reloaded) and not answer.done():
            answer.set_result(message)

    def gone() -> None:
        if not answer.done():
            answer.set_exception(ApplianceError("the box has stopped before it answered"))

    try:
        channel = await connect(runtime_dir / SOCKET, received, gone, timeout_s=_CONNECT_S)
    except ChannelClosed as error:
        hint = "start one with `appliance serve`, or give the same -c and --set as it has"
        raise ApplianceError(f"no box runs in {runtime_dir}; {hint}") from error
    channel.send(Reload())
    try:
        return await asyncio.wait_for(answer, _ANSWER_S)
    except TimeoutError as error:
        raise ApplianceError(f"the box has not answered within {_ANSWER_S:.0f} s; see its log") from error
    finally:
        if not answer.done():
            answer.cancel()
        channel.close()
