"""The box runs on uvloop, whose transports are other classes and close sockets otherwise than asyncio's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.slow
def test_sockets_behave_the_same_on_uvloop() -> None:
    modules = (
        "test_connections",
        "test_endpoint_transports",
        "test_resolver",
        "test_tls",
        "test_transports",
        "test_trunk_links",
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.signalling.on_uvloop", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-o", "addopts=", *(str(HERE / f"{name}.py") for name in modules)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "event loop: uvloop" in done.stdout
