"""One pull of a model at a time, over all processes of the machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from appliance.errors import ModelFileError

_ASK_S: Final = 0.2


@contextlib.contextmanager
def locked(path: Path, what: str, *, wait_s: float, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file ``path``, which is made, and gone again afterwards.

    Args:
        path: in the model directory, which exists.
        what: what messages call it.
        wait_s: for whoever has it.
        waiting: told once, in words, that somebody has it.

    Raises:
        ModelFileError: it was not to be had in time, or cannot be made.
    """
    until = time.monotonic() + wait_s
    told = False
    while (descriptor := _take(path)) is None:
        if not told:
            waiting(f"{what} is being pulled by {_holder(path)}; waiting for it")
            told = True
        if time.monotonic() >= until:
            raise ModelFileError(f"{what} is being pulled by {_holder(path)}, for more than {wait_s:g} s; try later")
        time.sleep(min(_ASK_S, wait_s))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(path: Path) -> int | None:
    """The locked file's descriptor; None if another has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be made ({error.strerror}); name a folder you may write to") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it before may have removed the file: then this is not the one that others see.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _holder(path: Path) -> str:
    try:
        return f"process {int(path.read_text('ascii'))}"
    except (OSError, ValueError):
        return "another process"
