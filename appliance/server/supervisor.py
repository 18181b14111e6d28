"""The supervisor: starts the processes of the box, restarts what dies, and ends it all in order.

It holds what must outlive any of them, the calls' audio memory, and does nothing else: no packet and no model passes
through it. A child is ready when it says so, dead when it exits or has not said Alive for a while, and gone for good
when it cannot start the first time round (then the operator must change something, and is told what).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from appliance.config import Settings
from appliance.errors import ApplianceError
from appliance.ipc.channel import Channel, Listener, serve
from appliance.ipc.child import EXIT_UNUSABLE
from appliance.ipc.messages import (
    Alive,
    AnyMessage,
    Drain,
    Drained,
    Hello,
    Need,
    ProcessState,
    Ready,
    Stop,
)
from appliance.ipc.rings import AudioRings
from appliance.ipc.settings import share_settings
from appliance.server.notify import notify, watchdog_interval_s
from appliance.server.plan import ProcessSpec, child_environment, command, plan
from appliance.sip.uri import join_host_port

logger = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 8.0
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_HEALTHY_AFTER_S: Final = 30.0
_MAX_RUNTIME_DIR: Final = 80
"""Socket addresses have 108 bytes (unix(7))."""


class StartError(ApplianceError):
    """The box could not come up. The reason is in the child's own log lines just above."""


@dataclass
class _Child:
    spec: ProcessSpec
    process: asyncio.subprocess.Process | None = None
    channel: Channel | None = None
    state: str = "starting"
    restarts: int = 0
    failures_in_a_row: int = 0
    started_at: float = 0.0
    alive_at: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """One running box. :meth:`run` returns the exit code when it has stopped.

    Args:
        settings: of the box.
        parent: the box stops at once when this process has not started it or is gone; None for any.
    """

    def __init__(self, settings: Settings, parent: int | None = None) -> None:
        self._settings = settings
        self._parent = parent
        self._runtime_dir = settings.runtime_dir.absolute()
        self._children: dict[str, _Child] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._demanded: list[_Child] = []
        self._stopping = asyncio.Event()
        self._abort = asyncio.Event()
        self._drained = asyncio.Event()
        self._failed: str | None = None

    async def run(self) -> int:
        """Start everything, say so in one line, and stay until a signal.

        Raises:
            StartError: a process could not start as configured.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        if not os.isatty(0):  # of a terminal that closes it means the end
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        capacity = self._settings.limits.max_calls
        rings = AudioRings.create(capacity)
        self._capacity = capacity
        self._rings_fd = rings.fd
        self._settings_fd = share_settings(self._settings)
        self._kept_fd = os.memfd_create("appliance-kept", 0)
        listener = await serve(self._runtime_dir / "supervisor.sock", self._connected)
        for spec in plan(frozenset(os.sched_getaffinity(0)), self._settings):
            self._children[spec.name] = _Child(spec)
        self._watchers = [
            asyncio.create_task(self._keep(child)) for child in self._children.values() if not child.spec.on_demand
        ]
        watchdog = asyncio.create_task(self._watch_silence())
        try:
            await self._until_ready()
            await self._stopping.wait()
            notify("STOPPING=1")
            if self._failed is None:
                await self._drain()
        finally:
            watchdog.cancel()
            await self._stop_children(listener)
        if self._failed is not None:
            raise StartError(self._failed)
        return 0

    # --- starting -------------------------------------------------------------------------------------------------

    async def _until_ready(self) -> None:
        needed = [child for child in self._children.values() if not child.spec.on_demand]
        everyone = asyncio.gather(*(child.ready.wait() for child in needed))
        stop = asyncio.create_task(self._stopping.wait())
        either: set[asyncio.Future[Any]] = {everyone, stop}
        await asyncio.wait(either, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        everyone.cancel()
        await asyncio.gather(everyone, stop, return_exceptions=True)
        if self._stopping.is_set():
            return
        late = [child.spec.name for child in needed if not child.ready.is_set()]
        if late:
            self._give_up(f"{', '.join(late)} not ready within {START_TIMEOUT_S:.0f} s; see the log lines above")
            return
        listen = self._settings.listen
        sip = ", ".join(f"{join_host_port(item.host, item.port)}/{item.transport}" for item in listen.sip)
        print(
            f"appliance ready: SIP {sip}, HTTP http://{join_host_port(listen.http.host, listen.http.port)}", flush=True
        )
        notify("READY=1\nSTATUS=answering calls")

    async def _keep(self, child: _Child) -> None:
        """Run one child, again and again, until the box stops."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            child.started_at = child.alive_at = loop.time()
            self._set_state(child, "starting" if child.restarts == 0 else "restarting")
            child.process = await self._spawn(child.spec)
            code = await child.process.wait()
            was_ready = child.ready.is_set()
            child.ready.clear()
            if self._abort.is_set() or self._stopping.is_set():
                return
            if code == EXIT_UNUSABLE and not was_ready and child.restarts == 0 and not child.spec.on_demand:
                self._give_up(f"{child.spec.name} cannot start; its reason is in the lines above")
                return
            if loop.time() - child.started_at > _HEALTHY_AFTER_S:
                child.failures_in_a_row = 0
            pause_s = _BACKOFF_S[min(child.failures_in_a_row, len(_BACKOFF_S) - 1)]
            child.failures_in_a_row += 1
            child.restarts += 1
            how = f"killed by signal {-code}" if code < 0 else f"exited with {code}"
            logger.error("%s %s; restart %d in %.1f s", child.spec.name, how, child.restarts, pause_s)
            self._set_state(child, "restarting")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _spawn(self, spec: ProcessSpec) -> asyncio.subprocess.Process:
        cores = spec.cores

        inherited = (self._settings_fd, self._rings_fd) if spec.settings else ()

        def pin() -> None:
            if cores is not None:
                os.sched_setaffinity(0, cores)

        return await asyncio.create_subprocess_exec(
            *command(spec, self._settings_fd, self._rings_fd, self._capacity, self._kept_fd),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(*inherited, self._kept_fd) if spec.kept else inherited,
            env=child_environment(dict(os.environ), secrets=spec.settings),
            preexec_fn=pin,
        )

    def _give_up(self, reason: str) -> None:
        self._failed = reason
        self._stopping.set()

    # --- running --------------------------------------------------------------------------------------------------

    def _connected(self, sock: socket.socket) -> Channel:
        owner: list[_Child] = []

        def received(message: AnyMessage) -> None:
            if isinstance(message, Hello):
                child = self._children.get(message.name)
                if child is not None:
                    owner[:] = [child]
                    child.channel = channel
            if owner:
                self._handle(owner[0], message)

        channel = Channel(sock, asyncio.get_running_loop(), received)
        return channel

    def _handle(self, child: _Child, message: AnyMessage) -> None:
        child.alive_at = asyncio.get_running_loop().time()
        match message:
            case Hello():
                if child.spec.name == "control":
                    for other in self._children.values():
                        if not other.spec.on_demand or other in self._demanded:
                            self._tell_control(other)
            case Ready():
                child.ready.set()
                self._set_state(child, "ready")
                if child.restarts:
                    logger.warning("%s is back after restart %d", child.spec.name, child.restarts)
            case Alive():
                pass
            case Drained():
                self._drained.set()
            case Need() if child.spec.name == "control" and message.name in self._children:
                self._need(self._children[message.name])
            case _:
                logger.error("%s sent %s", child.spec.name, type(message).__name__)

    def _need(self, child: _Child) -> None:
        """Control wants a process that is started on demand; from then on it is kept running."""
        if child.spec.on_demand and child.process is None and child not in self._demanded:
            self._demanded.append(child)
            self._watchers.append(asyncio.create_task(self._keep(child)))

    def _set_state(self, child: _Child, state: str) -> None:
        child.state = state
        self._tell_control(child)

    def _tell_control(self, child: _Child) -> None:
        control = self._children.get("control")
        if control is not None and control.channel is not None:
            pid = child.process.pid if child.process is not None else 0
            control.channel.send(ProcessState(child.spec.name, child.state, pid, child.restarts))

    async def _watch_silence(self) -> None:
        """Kill what has hung, tell systemd that we have not, and leave with the parent."""
        loop = asyncio.get_running_loop()
        interval_s = min(watchdog_interval_s() or 1.0, 1.0)
        while True:
            await asyncio.sleep(interval_s)
            notify("WATCHDOG=1")
            if self._parent not in (None, os.getppid()) and not self._stopping.is_set():
                logger.warning("the process that started the box is gone; the box stops")
                self._drained.set()
                self._stopping.set()
            for child in self._children.values():
                silent_s = loop.time() - child.alive_at
                limit_s = child.spec.silent_limit_s if child.ready.is_set() else START_TIMEOUT_S
                if silent_s > limit_s and child.process is not None and child.process.returncode is None:
                    logger.error("%s has said nothing for %.0f s and is killed", child.spec.name, silent_s)
                    child.process.kill()

    # --- stopping -------------------------------------------------------------------------------------------------

    def _signalled(self) -> None:
        if self._stopping.is_set():
            self._drained.set()
        self._stopping.set()

    def _reload(self) -> None:
        """Have control read certificates again; it does so by itself too, half a minute after they have changed."""
        control = self._children.get("control")
        if control is not None and control.process is not None and control.ready.is_set():
            control.process.send_signal(signal.SIGHUP)

    async def _drain(self) -> None:
        control = self._children["control"]
        if control.channel is None or not control.ready.is_set():
            return
        deadline_s = self._settings.limits.drain_s
        logger.info("no new calls; waiting up to %.0f s for the running ones", deadline_s)
        control.channel.send(Drain(deadline_s))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), deadline_s + 5.0)

    async def _stop_children(self, listener: Listener) -> None:
        """Control first, since it uses all the others; then the rest."""
        self._abort.set()
        self._stopping.set()
        control = [child for child in self._children.values() if child.spec.name == "control"]
        rest = [child for child in self._children.values() if child.spec.name != "control"]
        for group in (control, rest):
            for child in group:
                if child.channel is not None:
                    child.channel.send(Stop())
                elif child.process is not None and child.process.returncode is None:
                    child.process.terminate()
            await asyncio.gather(*(_ended(child) for child in group))
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        listener.close()

    # --- its own folders ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the state and the runtime directory; :meth:`run` must run within.

        Two boxes on one record would each take the calls of the other for interrupted ones.

        Raises:
            StartError: a directory cannot be made, or another box has it.
        """
        if len(str(self._runtime_dir)) > _MAX_RUNTIME_DIR:
            raise StartError(
                f"runtime_dir {self._runtime_dir} is too long for socket names; "
                f"set one of {_MAX_RUNTIME_DIR} characters"
            )
        with (
            _held("state_dir", self._settings.state_dir.absolute(), 0o755),
            _held("runtime_dir", self._runtime_dir, 0o700),
        ):
            yield


@contextlib.contextmanager
def _held(key: str, directory: Path, mode: int) -> Iterator[None]:
    """Make the directory where it is missing and lock it."""
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        file = (directory / "lock").open("w")
    except OSError as error:
        raise StartError(f"{key} {directory} cannot be used: {error.strerror}; set another one") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(f"another appliance runs with {key} {directory}; stop it, or set another one") from error
        yield


async def _ended(child: _Child) -> None:
    process = child.process
    if process is None or process.returncode is not None:
        return
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        logger.error("%s did not stop within %.0f s and is killed", child.spec.name, STOP_TIMEOUT_S)
        process.kill()
        await process.wait()
