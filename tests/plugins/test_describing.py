"""The process that answers questions about plugins, where nobody is there any more to end it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from appliance.plugins.describe import MODULE, Question, Reply
from appliance.plugins.discovery import Source

HANGS = {
    "computes": "while True:\n    pass\n",
    "holds_the_interpreter": 'import re\nre.match(r"(a+)+$", "a" * 60 + "b")\n',
    "waits": "import time\ntime.sleep(600)\n",
}


def ask(plugin: Path, limit_s: float) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-m", MODULE, "--describe", "--limit-s", str(limit_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    child.stdin.write(msgspec.json.encode(Question("describe", Source("p", "file", str(plugin)))) + b"\n")
    child.stdin.flush()
    return child


@pytest.mark.parametrize("fault", HANGS)
def test_a_plugin_that_does_not_come_back_outlives_nobody(tmp_path: Path, fault: str) -> None:
    plugin = tmp_path / "p.py"
    plugin.write_text(HANGS[fault])
    with ask(plugin, 0.5) as child:
        assert child.stdin is not None
        child.stdin.close()  # as when whoever asked was killed
        assert child.wait(30.0) == -signal.SIGALRM


def test_an_answer_stops_the_clock(tmp_path: Path) -> None:
    plugin = tmp_path / "p.py"
    plugin.write_text('"""Does nothing."""\n')
    with ask(plugin, 20.0) as child:
        assert child.stdin is not None and child.stdout is not None
        reply = msgspec.json.decode(child.stdout.readline(), type=Reply)
        assert reply.info is not None and not reply.info.problem
        child.stdin.close()
        assert child.wait(30.0) == 0
