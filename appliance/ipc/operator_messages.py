"""Messages between the command line and the box that runs: over ``control.sock`` in ``runtime_dir``."""

from __future__ import annotations

from typing import TypeAlias

from appliance.ipc.message_base import Message


class Reload(Message, frozen=True):
    """Read the dialplans and plugins again. Answered by ``Reloaded``."""


class Reloaded(Message, frozen=True):
    """What came of it.

    ``outcome`` is ``changed``, ``unchanged``, ``refused`` (because of ``mistakes``) or ``failed`` (because of
    ``problem``). ``lines`` says how many there are now. ``mistakes`` and ``warnings`` are (file, line, key, what is
    wrong, what would be right); ``left_out`` says how many more there are, or more names of lines.
    """

    outcome: str
    seconds: float
    lines: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    mistakes: tuple[tuple[str, int, str, str, str], ...] = ()
    warnings: tuple[tuple[str, int, str, str, str], ...] = ()
    problem: str = ""
    left_out: int = 0


OperatorMessage: TypeAlias = Reload | Reloaded
