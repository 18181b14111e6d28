"""Having dialplans read by a process of their own (:mod:`appliance.dialplan.compiler`), and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import pickle
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.config import Settings
from appliance.dialplan import compiler
from appliance.dialplan.loader import routing_among
from appliance.dialplan.planned import Contents, PlannedLines
from appliance.dialplan.routing import Routing
from appliance.errors import ApplianceError, ConfigError, Mistake
from appliance.ipc.settings import share_settings
from appliance.plugins.declarative.loader import DeclarativePlugin
from appliance.plugins.plan import PluginPlan

TIMEOUT_S: Final = 60.0


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
            *(sys.executable, "-m", compiler.__name__),
            *("--settings-fd", str(settings_fd), "--result-fd", str(result_fd)),
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
    (length,) = compiler.LENGTH.unpack(data[-compiler.LENGTH.size :])
    end = len(data) - compiler.LENGTH.size
    contents: Contents = pickle.loads(data[end - length : end])
    if contents.mistakes:
        raise ConfigError(list(contents.mistakes))
    lines = PlannedLines(data[: end - length], contents)
    routing = routing_among(lines, contents.lists, settings, contents.index)
    plugins = msgspec.msgpack.decode(contents.plugins, type=PluginPlan)
    yaml: dict[str, DeclarativePlugin] = pickle.loads(contents.yaml)
    return Plan(lines, routing, plugins, yaml, contents.warnings, contents.files, data)
