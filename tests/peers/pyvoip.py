"""pyVoIP in a process of its own, driven by lines on its standard input and answering with JSON lines.

It is under the GPL and full of threads; nothing of it is imported by the tests themselves. Two things it cannot do
are done around it: it insists on a registrar (there is none: the box takes calls by address), and it cannot send
telephone events (they are put on its own RTP socket).
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

from appliance.cli.box import HOST, free_port
from tests.peers.phone import PeerError


def missing() -> str:
    """Why pyVoIP can't be used here; empty when it can."""
    if importlib.util.find_spec("pyVoIP") is None or importlib.util.find_spec("audioop") is None:
        return "pyVoIP (or audioop, which it needs) is not installed; make setup-dev, Python below 3.13"
    return ""


class PyVoip:
    """The parent's side."""

    name = "pyVoIP"

    def __init__(self, box_port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.peers.pyvoip", str(box_port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="pyvoip-reader")
        self._reader.start()
        self._wait("started", 10.0)

    def dial(self, uri: str) -> None:
        self._tell("dial", uri.partition(":")[2].partition("@")[0])
        self._wait("answered", 15.0)

    def press(self, digit: str) -> None:
        self._tell("press", digit)

    def hang_up(self) -> None:
        self._tell("hang_up")
        self._wait("closed", 10.0)

    def wait_closed(self, timeout_s: float) -> None:
        self._wait("closed", timeout_s)

    def close(self) -> None:
        try:
            self._tell("quit")
            self._process.wait(5.0)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _tell(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))
        self._said.put({"event": "gone"})

    def _wait(self, event: str, timeout_s: float) -> dict[str, Any]:
        try:
            said = self._said.get(timeout=timeout_s)
        except queue.Empty:
            raise PeerError(f"pyVoIP has not {event} within {timeout_s:.0f} s") from None
        if said["event"] != event:
            raise PeerError(f"pyVoIP says {said}, not {event}")
        return said


def main() -> None:
    """The child's side: obey lines until ``quit``."""
    warnings.simplefilter("ignore")
    from pyVoIP.VoIP import CallState, VoIPPhone

    def say(event: str, **more: Any) -> None:
        print(json.dumps({"event": event, **more}), flush=True)

    phone = VoIPPhone(
        HOST, int(sys.argv[1]), "tester", "secret", myIP=HOST, sipPort=free_port(),
        rtpPortLow=free_port(), rtpPortHigh=65534,
    )  # fmt: skip
    phone.sip.register = lambda: True  # type: ignore[method-assign]
    phone.start()
    say("started")
    call: Any = None

    def watch(watched: Any) -> None:
        while watched.state is CallState.DIALING:
            time.sleep(0.01)
        say("answered" if watched.state is CallState.ANSWERED else "closed")
        while watched.state is CallState.ANSWERED:
            time.sleep(0.01)
        say("closed")

    for line in sys.stdin:
        order, _, argument = line.strip().partition(" ")
        if order == "dial":
            call = phone.call(argument)
            threading.Thread(target=watch, args=(call,), daemon=True).start()
        elif order == "press":
            send_event(call.RTPClients[0], "0123456789*#ABCD".index(argument))
        elif order == "hang_up":
            call.hangup()
        else:
            break
    os._exit(0)


def send_event(client: Any, code: int) -> None:
    """Put one RFC 4733 event of 100 ms on pyVoIP's RTP socket, within its own sequence."""
    payload_type = next(number for number, kind in client.assoc.items() if "event" in str(kind).lower())
    timestamp = client.outTimestamp
    for step in (1, 2, 3, 4, 5, 5, 5):
        flags = (0x80 if step == 5 else 0) | 10
        header = bytes([0x80, payload_type | (0x80 if step == 1 else 0)])
        header += (
            client.outSequence.to_bytes(2, "big") + timestamp.to_bytes(4, "big") + client.outSSRC.to_bytes(4, "big")
        )
        client.outSequence += 1
        client.sout.sendto(
            header + bytes([code, flags]) + (160 * step).to_bytes(2, "big"), (client.outIP, client.outPort)
        )
        time.sleep(0.02)


if __name__ == "__main__":
    main()
