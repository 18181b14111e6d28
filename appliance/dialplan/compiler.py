"""The process that reads dialplans for the control process, which must not stand still for them.

It is started for one reading, with the settings and an empty anonymous file. Into that it writes the lines, what else
is known of the dialplan, and how long that is; then it ends. The plugins that lines use are looked at on the way, as
``appliance check`` does.
"""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import struct
import sys
from typing import Final

import msgspec

from appliance.config import Settings
from appliance.config.load import secrets_of
from appliance.dialplan.loader import Dialplan, load_lines, surroundings_of
from appliance.dialplan.planned import packed, refused
from appliance.errors import ApplianceError, ConfigError, Mistake
from appliance.ipc.settings import read_settings
from appliance.plugins.describe import PluginChecker
from appliance.plugins.discovery import find_sources, stamped
from appliance.plugins.plan import make_plan

LENGTH: Final = struct.Struct("<Q")
"""The last bytes of the file: how long what stands before them and behind the lines is."""
_NICE: Final = 10
"""Behind the calls, which it runs beside, but before the engines: it does not take long, and somebody waits for it."""


def examine_lines(settings: Settings, plugins: PluginChecker) -> tuple[Dialplan | None, list[Mistake]]:
    """The dialplans, and every mistake in them and in the plugins that they and the box use."""
    mistakes = [
        settings.mistake(".".join(map(str, ("plugins", "enabled", *path))), what, hint)
        for path, what, hint in plugins.box_problems()
    ]
    plan = None
    try:
        plan = load_lines(settings, surroundings_of(settings, plugins))
    except ConfigError as error:
        mistakes += error.mistakes
    finally:
        plugins.close()
    return plan, mistakes + plugins.file_mistakes()


def _compile(settings: Settings, fd: int) -> None:
    """Read the dialplans and write what comes of it."""
    secrets = secrets_of(settings)
    checker = PluginChecker(settings.plugins, secrets=secrets)
    plan, mistakes = examine_lines(settings, checker)
    files = [str(file) for file in plan.files + plan.numbers.paths] if plan is not None else []
    files += [str(file) for file in checker.yaml.files]
    if plan is None or mistakes:
        blobs, contents = list[bytes](), refused(sorted(mistakes), files)
    else:
        sources = find_sources(settings.plugins.paths)
        used = make_plan(sources, settings.plugins.chosen, ((line.name, line.plugins) for line in plan.lines))
        used = msgspec.structs.replace(used, sources=tuple(map(stamped, used.sources)))
        blobs, contents = packed(
            plan.lines,
            plan.written,
            lists=plan.numbers.found,
            plugins=msgspec.msgpack.encode(used),
            yaml=pickle.dumps(checker.used_yaml, protocol=5),
            warnings=plan.warnings,
            files=files,
        )
    told = pickle.dumps(contents, protocol=5)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.writelines(blobs)
        file.write(told)
        file.write(LENGTH.pack(len(told)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="appliance-dialplan", description="Started by the control process.")
    parser.add_argument("--settings-fd", type=int, required=True)
    parser.add_argument("--result-fd", type=int, required=True)
    arguments = parser.parse_args()
    os.setpgid(0, 0)  # not a session: the kernel shares time between sessions first
    gc.disable()  # it will be gone before there is anything to collect
    os.nice(_NICE)
    settings = read_settings(arguments.settings_fd)
    try:
        _compile(settings, arguments.result_fd)
    except (ApplianceError, OSError) as error:
        print(f"appliance: {error}", file=sys.stderr)
        sys.exit(1)
    os._exit(0)  # spares the time to take a million objects apart


if __name__ == "__main__":
    main()
