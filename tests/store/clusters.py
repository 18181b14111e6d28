"""A PostgreSQL server of the test's own, on a Unix socket, in a folder that goes with it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Cluster:
    """A running server. ``url`` is that of an empty database."""

    def __init__(self, folder: Path) -> None:
        self.url = f"postgresql+asyncpg://postgres@/postgres?host={folder}"
        self._folder = folder
        # PostgreSQL refuses to run as root.
        self._as_whom: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if self._as_whom:
            shutil.chown(folder, **self._as_whom)

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """At once: whoever is connected is cut off."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    def make(self) -> None:
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "--no-sync")

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(find_program(program)), *arguments], check=True, cwd=self._folder, timeout=60,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as_whom,
        )  # fmt: skip


def find_program(name: str) -> str | None:
    found = shutil.which(name)
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found or (str(installed[-1]) if installed else None)


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A server for as long as the block lasts. Skips the test where PostgreSQL is not installed."""
    assert importlib.util.find_spec("asyncpg"), "asyncpg is not installed; make setup-dev installs it"
    if not all(find_program(name) for name in ("initdb", "pg_ctl")):
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="appliance-pg-"))
    cluster = Cluster(folder)
    cluster.make()
    cluster.start()
    try:
        yield cluster
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            cluster.stop()
        shutil.rmtree(folder)
