"""``appliance serve``: run the box."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.check import examine
from appliance.errors import ConfigError
from appliance.ipc.logs import configure_logging
from appliance.server import preflight
from appliance.server.supervisor import StartError, Supervisor

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """``appliance serve [-c FILE] [--set KEY=VALUE …] [--with-parent]``."""
    parser = subparsers.add_parser(
        "serve",
        help="run the box",
        description=(
            "Run the box until SIGTERM or Ctrl-C, then let the running calls end (limits.drain_s). Without a file it "
            "listens on loopback (SIP 5060/udp, HTTP 8080) with the shipped dialplans. One line says when it is ready."
        ),
    )
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="appliance.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument(
        "--with-parent", action="store_true", help="stop at once when the process that started this one is gone"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 after an orderly stop, 1 where the box could not start.

    Raises:
        ConfigError: settings, engine options or dialplans are wrong; with every mistake in any of them.
    """
    parent = os.getppid() if args.with_parent else None
    report = examine(args.config, args.set)
    if report.mistakes or report.settings is None:
        raise ConfigError(list(report.mistakes))
    settings = report.settings
    configure_logging("supervisor", settings.log.level)
    supervisor = Supervisor(settings, parent)
    try:
        with supervisor.alone():
            problems = preflight.problems(settings)
            for problem in problems:
                print(f"appliance serve: {problem}", file=sys.stderr)
            return 1 if problems else asyncio.run(supervisor.run())
    except StartError as error:
        print(f"appliance serve: {error}", file=sys.stderr)
        return 1
