"""A real plugin host, without the rest of the box: started, and started again when it ends, as the supervisor does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec

from appliance.ipc.channel import Channel, serve
from appliance.ipc.hook_messages import HookCall, HookOutcome
from appliance.ipc.messages import AnyMessage
from appliance.plugins.discovery import find_sources, stamped
from appliance.plugins.hooks import Hooks
from appliance.plugins.link import PluginLink
from appliance.plugins.plan import PluginPlan, make_plan

MODULE = "appliance.plugins.host"
QUICK = "tests.plugins.quick_host"
RESTART_S = 0.05


class Counted:
    """Stands in for the box's metrics."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str, str, float]] = []
        self.ended: list[tuple[str, str]] = []

    def hook_ran(self, hook: str, plugin: str, outcome: str, seconds: float) -> None:
        self.ran.append((hook, plugin, outcome, seconds))

    def plugin_host_ended(self, plugin: str, how: str) -> None:
        self.ended.append((plugin, how))


class RealHost:
    """Plugins in a host.

    Args:
        directory: for sockets, state and the plugins' files (in ``plugins``).
        hang_s: see ``plugins.hang_s``.
        memory_mb: see ``plugins.memory_mb``.
        module: what is run.
        egress: see ``egress``.

    Attributes:
        link: control's end.
        troubles: (call id, hook, how a plugin did) for everything that was no success.
        starts: how often the host has been started.
    """

    def __init__(
        self,
        directory: Path,
        *,
        hang_s: float = 1.0,
        memory_mb: int = 1024,
        module: str = MODULE,
        egress: Sequence[str] | None = None,
    ) -> None:
        self.directory = directory
        self.plugins = directory / "plugins"
        self.plugins.mkdir(parents=True, exist_ok=True)
        # Names of sockets are short, and those of a test's folder are not.
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="host-"))
        self.metrics = Counted()
        self.link = PluginLink(self.runtime_dir, hang_s, self._needed, self.metrics)
        self.link.on_trouble = lambda call_id, hook, outcome: self.troubles.append((call_id, hook, outcome))
        self.troubles: list[tuple[str, str, HookOutcome]] = []
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._module = module
        self._arguments = ["--hang-s", str(hang_s), "--memory-mb", str(memory_mb)]
        self._arguments += [] if egress is None else ["--egress", json.dumps(egress)]
        self._keeping: asyncio.Task[None] | None = None

    def write(self, name: str, source: str) -> None:
        """Write a plugin's file."""
        (self.plugins / f"{name}.py").write_text(dedent(source))

    def plan(
        self, enabled: Mapping[str, Mapping[str, Any]], lines: Mapping[str, Mapping[str, Any]] | None = None
    ) -> PluginPlan:
        sources = find_sources([self.plugins], installed=False)
        plan = make_plan(sources, enabled, (lines or {"a": {}, "b": {}}).items())
        return msgspec.structs.replace(plan, sources=tuple(map(stamped, plan.sources)))

    async def hooks(
        self, enabled: Mapping[str, Mapping[str, Any]], lines: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Hooks:
        """Set these plugins up, on lines ``a`` and ``b`` unless others are named."""
        return await self.link.set_up(self.plan(enabled, lines))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[RealHost]:
        listener = await serve(self.runtime_dir / "supervisor.sock", self._accepted)
        try:
            yield self
        finally:
            await self.link.close()
            if self._keeping is not None:
                self._keeping.cancel()
                await asyncio.gather(self._keeping, return_exceptions=True)
            if self.process is not None:
                self.process.kill()
                self.process.wait()
            listener.close()
            for file in self.runtime_dir.iterdir():
                file.unlink()
            self.runtime_dir.rmdir()

    def _accepted(self, sock: socket.socket) -> Channel:
        def received(message: AnyMessage) -> None:
            pass

        return Channel(sock, asyncio.get_running_loop(), received)

    def _needed(self) -> None:
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        where = ["--runtime-dir", str(self.runtime_dir), "--state-dir", str(self.directory)]
        while True:
            self.starts += 1
            # Not asyncio's: that leaves threads behind when a loop ends.
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module, *where, *self._arguments, "--log-level", "warning"],
                env={**os.environ, "MALLOC_ARENA_MAX": "2"},
            )
            while self.process.poll() is None:
                await asyncio.sleep(RESTART_S)


def call(call_id: str = "c1", line: str = "a") -> HookCall:
    """A call on a line."""
    return HookCall(call_id, line=line, trunk="t", caller="+4930123", called="100", language="en")
