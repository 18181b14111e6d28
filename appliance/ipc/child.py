"""What every process that the supervisor starts has in common: its line to the supervisor, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.ipc.channel import Channel, connect
from appliance.ipc.messages import Alive, AnyMessage, Hello, Ready, Stop

EXIT_UNUSABLE: Final = 3
"""Exit code of a child that cannot work as configured: restarting it would not help."""

_ALIVE_EVERY_S: Final = 1.0


def allow_open_files() -> None:
    """Take as many as the hard limit allows: the usual soft one ends at 500 calls or a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class SupervisorLink:
    """The channel to the supervisor.

    ``stopping`` is set when the supervisor says Stop, or when it is gone: a child never outlives it.
    """

    def __init__(self, name: str, on_message: Callable[[AnyMessage], None] | None = None) -> None:
        self.name = name
        self.stopping = asyncio.Event()
        self._on_message = on_message
        self._channel: Channel | None = None
        self._alive: asyncio.TimerHandle | None = None

    async def open(self, runtime_dir: Path) -> None:
        """Connect and say Hello; from now on Alive is said once a second.

        Raises:
            ChannelClosed: there is no supervisor.
        """
        self._channel = await connect(runtime_dir / "supervisor.sock", self._received, self.stopping.set)
        self._channel.send(Hello(self.name, os.getpid()))
        self._say_alive()

    def ready(self) -> None:
        """Everything is loaded and warm."""
        self.send(Ready(self.name))

    def send(self, message: AnyMessage) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def close(self) -> None:
        if self._alive is not None:
            self._alive.cancel()
        if self._channel is not None:
            self._channel.close()

    def _say_alive(self) -> None:
        self.send(Alive(self.name))
        self._alive = asyncio.get_running_loop().call_later(_ALIVE_EVERY_S, self._say_alive)

    def _received(self, message: AnyMessage) -> None:
        if isinstance(message, Stop):
            self.stopping.set()
        elif self._on_message is not None:
            self._on_message(message)
