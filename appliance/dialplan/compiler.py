"""The process that reads dialplans for the control process, which must not stand still for them.

It is started for one reading, with the settings and an empty anonymous file. Into that it writes the lines, what else
is known of the dialplan, and how long that is; then it ends. The plugins that lines use are looked at on the way, as
``appliance check`` does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import mmap
import os
import pickle
import signal
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.config import Settings
from appliance.config.load import secrets_of
from appliance.dialplan.loader import Dialplan, load_lines, routing_among, surroundings_of
from appliance.dialplan.planned import Contents, PlannedLines, packed, refused
from appliance.dialplan.routing import Routing
from appliance.errors import ApplianceError, ConfigError, Mistake
from appliance.ipc.settings import read_settings, share_settings
from appliance.plugins.declarative.loader import DeclarativePlugin
from appliance.plugins.describe import PluginChecker
from appliance.plugins.discovery import find_sources
from appliance.plugins.plan import PluginPlan, make_plan

MODULE: Final = "appliance.dialplan.compiler"
TIMEOUT_S: Final = 60.0
_LENGTH: Final = struct.Struct("<Q")
_NICE: Final = 10
"""Behind the calls, which it runs beside, but before the engines: it does not take long, and somebody waits for it."""


@dataclass(frozen=True)
class Plan:
    """A dialplan, ready to answer calls by.

    Attributes:
        lines: in order.
        routing: the choice among them.
        plugins: which Python plugins run on which line.
        yaml: the YAML plugins in use, by name.
        warnings: what an operator should know.
        files: every file that was read.
        raw: all of it, as the other process has written it.
    """

    lines: PlannedLines
    routing: Routing
    plugins: PluginPlan
    yaml: Mapping[str, DeclarativePlugin]
    warnings: tuple[Mistake, ...]
    files: tuple[str, ...]
    raw: memoryview


async def compiled(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> Plan:
    """Have the dialplans of a box read and checked by a process of its own.

    Args:
        settings: of the box.
        timeout_s: it is killed where it takes longer.

    Raises:
        ConfigError: with every mistake in them.
        ApplianceError: the process has failed.
    """
    settings_fd = share_settings(settings)
    result_fd = os.memfd_create("appliance-dialplan", 0)
    process = None
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", MODULE, "--settings-fd", str(settings_fd), "--result-fd", str(result_fd)),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(settings_fd, result_fd),
        )
        try:
            status = await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError as error:
            raise ApplianceError(f"the dialplans could not be read within {timeout_s:g} s") from error
        if status != 0:
            raise ApplianceError(f"the process that reads the dialplans ended with status {status}; see the log above")
        return _received(result_fd, settings)
    finally:
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # that has not come so far as to have a group
            await process.wait()
        os.close(settings_fd)
        os.close(result_fd)


def _received(fd: int, settings: Settings) -> Plan:
    size = os.fstat(fd).st_size
    return opened(memoryview(mmap.mmap(fd, size, prot=mmap.PROT_READ)), settings)


def opened(data: memoryview, settings: Settings) -> Plan:
    """The plan in what such a process has written.

    Args:
        data: from nowhere else: it is unpickled.
        settings: of the box.

    Raises:
        ConfigError: with every mistake in the dialplans.
    """
    (length,) = _LENGTH.unpack(data[-_LENGTH.size :])
    end = len(data) - _LENGTH.size
    contents: Contents = pickle.loads(data[end - length : end])
    if contents.mistakes:
        raise ConfigError(list(contents.mistakes))
    lines = PlannedLines(data[: end - length], contents)
    routing = routing_among(lines, contents.lists, settings, contents.index)
    plugins = msgspec.msgpack.decode(contents.plugins, type=PluginPlan)
    yaml: dict[str, DeclarativePlugin] = pickle.loads(contents.yaml)
    return Plan(lines, routing, plugins, yaml, contents.warnings, contents.files, data)


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
        file.write(_LENGTH.pack(len(told)))


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
