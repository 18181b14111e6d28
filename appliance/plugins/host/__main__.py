"""``python -m appliance.plugins.host``: started by the supervisor, or with ``--describe`` to answer questions."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import threading
from pathlib import Path

_STACK_BYTES = 2 << 20


def limit_memory(memory_mb: int) -> None:
    """Refuse more address space than that to this process, and take little of it for each thread."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    threading.stack_size(_STACK_BYTES)


def main() -> int:
    parser = argparse.ArgumentParser(prog="appliance-plugins", description="Started by the appliance.")
    parser.add_argument("--describe", action="store_true", help="answer questions on standard input")
    parser.add_argument("--memory-mb", type=int, default=1024)
    parser.add_argument("--limit-s", type=float, default=30.0, help="for one question")
    parser.add_argument("--runtime-dir", type=Path)
    parser.add_argument("--state-dir", type=Path)
    parser.add_argument("--hang-s", type=float, default=1.0)
    parser.add_argument("--egress", help="hosts that may be connected to, a JSON list; any where it is not given")
    parser.add_argument("--log-level", default="info")
    arguments = parser.parse_args()
    limit_memory(arguments.memory_mb)
    # Compiled files are told apart by whole seconds: one beside a plugin could be of its last but one state.
    sys.dont_write_bytecode = True
    if arguments.describe:
        from appliance.plugins.host.describing import serve

        serve(arguments.limit_s)
        return 0
    from appliance.plugins.host.process import run

    egress = None if arguments.egress is None else json.loads(arguments.egress)
    return run(arguments.runtime_dir, arguments.state_dir, arguments.hang_s, arguments.log_level, egress)


if __name__ == "__main__":
    sys.exit(main())
