"""The recorder process: :class:`~appliance.store.recorder.Recorder` with a channel to control and a clock.

It is a process of its own so that a slow or full disk holds up neither the audio nor the conversation, and so that a
crash of any other process leaves recordings that are closed and complete.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket

from appliance.config import Settings
from appliance.ipc.channel import Channel, serve
from appliance.ipc.child import SupervisorLink
from appliance.ipc.logs import configure_logging
from appliance.ipc.messages import AnyMessage
from appliance.ipc.rings import AudioRings
from appliance.ipc.settings import read_settings
from appliance.store.recorder import POLL_S, Recorder

logger = logging.getLogger(__name__)


class RecorderProcess:
    """Takes orders from one control process at a time; when it is gone, everything open is closed."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._control: Channel | None = None

    def connected(self, sock: socket.socket) -> Channel:
        if self._control is not None:
            self._control.close()
        self._control = Channel(sock, asyncio.get_running_loop(), self._recorder.handle, self._control_gone)
        return self._control

    def poll(self) -> None:
        self._send(self._recorder.poll())

    def close(self) -> None:
        self._send(self._recorder.close())

    def _send(self, answers: list[AnyMessage]) -> None:
        for answer in answers:
            if self._control is not None:
                self._control.send(answer)

    def _control_gone(self) -> None:
        self._control = None
        if self._recorder.active:
            logger.error("control is gone; closing %d recordings", self._recorder.active)
            self._recorder.close()


async def run(settings: Settings, rings: AudioRings) -> None:
    """Serve until the supervisor says stop."""
    link = SupervisorLink("recorder")
    await link.open(settings.runtime_dir)
    process = RecorderProcess(Recorder(rings))
    listener = await serve(settings.runtime_dir / "recorder.sock", process.connected)
    link.ready()
    while not link.stopping.is_set():
        process.poll()
        try:
            async with asyncio.timeout(POLL_S):
                await link.stopping.wait()
        except TimeoutError:
            continue
    process.close()
    listener.close()
    link.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="appliance-recorder", description="Started by `appliance serve`.")
    parser.add_argument("--settings-fd", type=int, required=True)
    parser.add_argument("--rings-fd", type=int, required=True)
    parser.add_argument("--capacity", type=int, required=True)
    arguments = parser.parse_args()
    settings = read_settings(arguments.settings_fd)
    configure_logging("recorder", settings.log.level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(run(settings, AudioRings.attach(arguments.rings_fd, arguments.capacity)))


if __name__ == "__main__":
    main()
