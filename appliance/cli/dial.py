"""``appliance dial``: have the running box call somebody, with the agent of a line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from appliance.cli.api_client import ApiClient
from appliance.config import load_settings
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_PIECE_S: Final = 20
_GOOD: Final = frozenset({200})


def add_parser(subparsers: Subparsers) -> None:
    """Add ``dial`` to the main command line."""
    parser = subparsers.add_parser(
        "dial",
        help="have the running box call somebody, with the agent of a line",
        description=(
            "Have the box that runs call a number; the agent of a line of its dialplans speaks. It is asked through "
            "its HTTP API, with a token of api.tokens: give the same -c and --set as to `appliance serve`. What may be "
            "dialled is what its trunks' allow_prefixes list, and nobody on the do-not-call list is called. Ctrl-C "
            "hangs up. Exit status 1 where nobody answered."
        ),
        epilog="Example: appliance dial +12025550123 --line recall --var name=Ann --owner 'Acme Plumbing'",
    )
    parser.add_argument("number", metavar="NUMBER", help="whom to call: +12025550123, or a name or SIP URI")
    parser.add_argument("--line", required=True, metavar="NAME", help="the line whose agent speaks")
    parser.add_argument("--var", action="append", default=[], metavar="KEY=VALUE", help="${lead.KEY} on the line")
    parser.add_argument("--trunk", default="", metavar="NAME", help="the trunk to use; by default the routes choose")
    parser.add_argument("--caller-id", default="", metavar="NUMBER", help="number shown, one of the trunk's")
    parser.add_argument("--owner", default="", metavar="NAME", help="on whose behalf: said before all else")
    parser.add_argument("--ring-timeout", type=float, default=30.0, metavar="S", help="let it ring so long (30)")
    parser.add_argument("--message", metavar="TEXT", help="leave this on an answering machine")
    parser.add_argument("--detect", action="store_true", help="hang up where a machine answers")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration of the box")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Call, and say how it goes; 1 where nobody answered.

    Raises:
        ApplianceError: no box answers, it refuses, or an argument is wrong.
    """
    client = ApiClient(load_settings(args.config, args.set))
    call_id = client.ask("POST", "/api/v1/calls", _body(args))["call_id"]
    told = _follow(client, call_id, quiet=args.json)
    if args.json:
        print(json.dumps(told, indent=2))
    else:
        print(summary(told["result"]))
    return 0 if told["result"]["sip_code"] in _GOOD else 1


def _body(args: argparse.Namespace) -> dict[str, Any]:
    body: dict[str, Any] = {
        "number": args.number,
        "line": args.line,
        "trunk": args.trunk,
        "caller_id": args.caller_id,
        "owner": args.owner,
        "ring_timeout_s": args.ring_timeout,
        "variables": dict(_pair(text) for text in args.var),
    }
    if args.message is not None:
        body["answering"] = {"on_machine": "message", "message": args.message}
    elif args.detect:
        body["answering"] = {"on_machine": "hang_up"}
    return body


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ApplianceError(f"--var {text!r} is no variable; write it as --var name=Ann")
    return key, value


def _follow(client: ApiClient, call_id: str, *, quiet: bool) -> Any:
    """What came of it; Ctrl-C hangs up."""
    state = ""
    path = f"/api/v1/calls/{call_id}"
    try:
        while True:
            told = client.ask("GET", f"{path}?wait={1 if not quiet else _PIECE_S}")
            if told["state"] != state and not quiet:
                state = told["state"]
                print(state, flush=True)
            if "result" in told:
                return told
    except KeyboardInterrupt:
        return client.ask("DELETE", path)


def summary(result: dict[str, Any]) -> str:
    """What came of it, in a line or two."""
    if result["problem"]:
        return f"not placed: {result['problem']}" if not result["sip_code"] else f"failed: {result['problem']}"
    if result["sip_code"] != 200:
        heard = f", {result['early']} was heard" if result["early"] else ""
        return f"not answered: {result['sip_code']} {result['sip_text']}{heard}"
    who = result["verdict"]
    parts = [
        f"answered, {result['talk_s']:.1f} s, ended by {result['ended_by']} ({result['reason']})",
        f"who answered: {who['kind']} ({who['confidence']:.0%}, {who['why']})" if who else "",
        "the message was left" if result["message_left"] else "",
        "does not want to be called again" if result["opted_out"] else "",
        f"call again at {result['callback_at']}" if result["callback_at"] else "",
        "".join(f"\n  {name}: {value}" for name, value in result["slots"].items()),
    ]
    return "; ".join(part for part in parts[:-1] if part) + parts[-1]
