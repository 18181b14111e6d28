"""The ``appliance`` command: one argument parser, one module per subcommand."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from appliance.errors import ApplianceError, ConfigError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

COMMANDS: Final = {
    "serve": "run the box",
    "check": "check the configuration and the dialplans without starting anything",
    "route-test": "tell which line answers a call, and why those before it do not",
    "schema": "print the JSON Schema of appliance.yaml, a dialplan, a plugin in YAML or a campaign, for editors",
    "reload": "have the running box read its dialplans and plugins again",
    "demo": "a whole call on this machine: a caller speaks, is understood and answered",
    "dial": "have the running box call somebody, with the agent of a line",
    "call": "a softphone: dial a SIP URI, speak or play a file, listen",
    "bench": "place many simulated calls by a carrier's protocol and tell how they went",
    "doctor": "look for what would keep the box from working here",
    "calls": "list and show the calls on record",
    "campaign": "outbound campaigns: make, check, fill, start, watch, export",
    "models": "list, pull and verify model files",
    "plugins": "list and show plugins, and begin a new one",
}
EXIT_PROBLEM: Final = 2
_EXIT_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status.

    0 is success, 1 the answer "no" (a check that failed, say), 2 a problem that the message on stderr explains.
    Only the module of the command that was asked for is imported, so that ``appliance call`` starts without the
    database and ``appliance doctor`` runs where a library is missing.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    try:
        args = _parser(command).parse_args(words)
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except ConfigError as error:
        print(error, file=sys.stderr)
        print(f"appliance {command}: {_count(len(error.mistakes))}", file=sys.stderr)
        return EXIT_PROBLEM
    except ApplianceError as error:
        print(f"appliance {command}: {error}", file=sys.stderr)
        return EXIT_PROBLEM
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("appliance"):
            raise
        print(
            f"appliance {command}: {error.name} is not installed; `pip install -e .` (or make setup)", file=sys.stderr
        )
        return EXIT_PROBLEM
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`appliance calls list | head`); Python would complain at exit too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="appliance", description="A single-box daemon that answers and places phone calls with a voice agent."
    )
    parser.add_argument("--version", action="version", version=f"appliance {_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name == command:
            importlib.import_module(f"appliance.cli.{name.replace('-', '_')}").add_parser(subparsers)
            made = subparsers.choices[name]
            made.description = (made.description or "").replace("``", "")
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def _version() -> str:
    try:
        return version("appliance")
    except PackageNotFoundError:
        return "(not installed)"


def _count(mistakes: int) -> str:
    return "1 mistake" if mistakes == 1 else f"{mistakes} mistakes"


if __name__ == "__main__":
    sys.exit(main())
