"""The plugin host at work: the supervisor starts it, control is its only client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from appliance.errors import ApplianceError
from appliance.ipc.channel import Channel, serve
from appliance.ipc.child import EXIT_UNUSABLE, SupervisorLink
from appliance.ipc.hook_messages import (
    BodyPart,
    CallOver,
    CallUsed,
    ForgetPlan,
    ForgetRun,
    HttpAsked,
    Ping,
    Pong,
    RunHook,
    RunTool,
    SetUp,
    SetUpDone,
)
from appliance.ipc.logs import configure_logging
from appliance.ipc.messages import AnyMessage
from appliance.plugins.host.calls import Calls
from appliance.plugins.host.context import Printed, Running, keep_tasks
from appliance.plugins.host.http import HttpRuns
from appliance.plugins.host.installed import Plugins
from appliance.plugins.host.outgoing import hold_to
from appliance.plugins.host.runs import HookRuns, in_thread, invoked
from appliance.plugins.host.threads import Threads
from appliance.plugins.host.tools import ToolRuns
from appliance.plugins.host.watch import Watch
from appliance.plugins.http_limits import parts
from appliance.plugins.marker import MarkerPage
from appliance.plugins.plan import PluginPlan

logger = logging.getLogger(__name__)

NAME: Final = "plugins"
SOCKET: Final = "plugins.sock"
_NICE: Final = 10
_OOM_SCORE: Final = "700"
"""Of 1000: before every other process of the box, which together have the calls."""
_STOP_S: Final = 5.0


class PluginHost:
    """One running host.

    Args:
        runtime_dir: where the sockets of the box are.
        state_dir: the box's own folder.
        hang_s: a thread that computes for so long after it was given up has hung.
    """

    def __init__(self, runtime_dir: Path, state_dir: Path, hang_s: float) -> None:
        self._runtime_dir = runtime_dir
        self._state_dir = state_dir
        self._hang_s = hang_s
        self._channel: Channel | None = None
        self._parts: dict[int, bytearray] = {}
        self._wanted: set[int] = set()
        self._busy: asyncio.Lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the supervisor says Stop.

        Raises:
            ApplianceError: there is no supervisor.
        """
        loop = asyncio.get_running_loop()
        directory = self._runtime_dir
        link = SupervisorLink(NAME)
        page = MarkerPage(directory)
        slot = page.slot()
        keep_tasks(loop, slot)
        self._calls = Calls()
        self._watch = Watch(self._hang_s, self._send)
        plugins = self._plugins = Plugins(
            lambda hook, plugin, line, arguments, budget_s: invoked(runs, hook, plugin, line, arguments, budget_s),
            lambda plugin, what, function, budget_s: in_thread(runs, Running(plugin, what, ""), function, budget_s),
            _version(),
            self._state_dir.absolute(),
        )
        runs = self._runs = HookRuns(loop, plugins, self._calls, Threads(page), slot, self._watch)
        self._tools = ToolRuns(runs, self._send)
        self._http = HttpRuns(runs, self._send)
        await link.open(directory)
        listener = await serve(directory / SOCKET, self._connected)
        link.ready()
        await link.stopping.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await plugins.stop()
        listener.close()
        link.close()

    def _connected(self, sock: socket.socket) -> Channel:
        """Control has come, or come again: what another one left is of no use to it."""
        if self._channel is not None:
            self._channel.close()

        def closed() -> None:
            if self._channel is channel:
                self._channel = None
                self._parts.clear()
                self._wanted.clear()
                self._runs.clear()
                self._tools.clear()
                self._http.clear()
                self._calls.clear()
                self._plugins.plans.clear()

        channel = self._channel = Channel(sock, asyncio.get_running_loop(), self._received, closed)
        return channel

    def _send(self, message: AnyMessage) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _received(self, message: AnyMessage) -> None:
        match message:
            case RunHook():
                self._runs.run(message, self._send)
            case RunTool():
                self._tools.run(message)
            case CallUsed():
                self._tools.used(message)
            case ForgetRun():
                self._runs.forget(message.number)
                self._tools.forget(message.number)
                self._http.forget(message.number)
            case CallOver():
                self._calls.over(message.call_id)
            case Ping():
                self._send(Pong(message.number, self._calls.leaked, self._watch.waiting))
            case HttpAsked():
                self._http.asked(message)
            case BodyPart():
                self._http.part(message)
            case SetUp():
                self._set_up(message)
            case ForgetPlan():
                self._wanted.discard(message.plan)
                if self._plugins.plans.pop(message.plan, None) is not None:
                    self._later(self._retire())
            case _:
                logger.error("control sent %s", type(message).__name__)

    def _set_up(self, message: SetUp) -> None:
        data = self._parts.setdefault(message.plan, bytearray())
        data += message.part
        if not message.more:
            del self._parts[message.plan]
            self._wanted.add(message.plan)
            plan = msgspec.json.decode(bytes(data), type=PluginPlan)
            self._later(self._install(message.plan, plan))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _retire(self) -> None:
        async with self._busy:
            await self._plugins.retire()

    async def _install(self, number: int, plan: PluginPlan) -> None:
        async with self._busy:
            channel = self._channel
            manifest = await self._plugins.set_up(number, plan)
            if channel is not self._channel or number not in self._wanted:
                self._plugins.plans.pop(number, None)
                if number not in self._wanted:
                    await self._plugins.retire()
                return
            cut = parts(msgspec.json.encode(manifest))
            for index, part in enumerate(cut, 1):
                self._send(SetUpDone(number, part, more=index < len(cut)))


def run(runtime_dir: Path, state_dir: Path, hang_s: float, log_level: str, egress: Sequence[str] | None = None) -> int:
    """The whole life of the process; its exit status. ``egress``: hosts that plugins may connect to; None for any."""
    configure_logging(NAME, log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):  # where memory runs out, it is the first that the kernel ends
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    printed: Any = (Printed(logging.INFO), Printed(logging.WARNING))
    sys.stdout, sys.stderr = printed
    begin: Callable[[Any], Any] = uvloop.run
    if egress is not None:
        begin = asyncio.run  # uvloop connects in C, and Python does not hear of it
        hold_to(egress)
    try:
        begin(PluginHost(runtime_dir, state_dir, hang_s).run())
    except (ApplianceError, OSError) as error:
        logger.error("%s", error)
        return EXIT_UNUSABLE
    # A thread that a plugin holds must not keep the process.
    logging.shutdown()
    os._exit(0)


def _version() -> str:
    try:
        return version("appliance")
    except PackageNotFoundError:
        return ""
