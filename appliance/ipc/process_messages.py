"""Messages between the supervisor and every other process."""

from __future__ import annotations

from typing import TypeAlias

from appliance.ipc.message_base import Message


class Hello(Message, frozen=True):
    """First message of a child to the supervisor."""

    name: str
    pid: int


class Ready(Message, frozen=True):
    """The child has loaded and warmed everything and can take work."""

    name: str


class Alive(Message, frozen=True):
    """The child's event loop is turning; sent about once a second."""

    name: str


class ProcessState(Message, frozen=True):
    """Supervisor to control: how a process is. ``state`` is starting, ready, restarting or stopped."""

    name: str
    state: str
    pid: int
    restarts: int


class Drain(Message, frozen=True):
    """Supervisor to control: take no new calls, let the running ones end; hang up what is left at the deadline."""

    deadline_s: float


class Drained(Message, frozen=True):
    """Control to supervisor: no call is left."""


class Need(Message, frozen=True):
    """Control to supervisor: start this process, which is only started on demand, and keep it running."""

    name: str


class Stop(Message, frozen=True):
    """Supervisor to a child: finish and exit."""


ProcessMessage: TypeAlias = (
    Hello | Ready | Alive | ProcessState | Drain | Drained | Need | Stop
)  # fmt: skip
