"""Control's side of the recorder process."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec import structs

from appliance.errors import ChannelClosed, StaleSlot
from appliance.ipc.channel import LAST_BREATH_S, Channel, connect
from appliance.ipc.messages import AnyMessage, RecordingStopped, SilenceRecording, StartRecording, StopRecording
from appliance.ipc.recorder_messages import Part
from appliance.ipc.rings import AudioRings
from appliance.media.client import MediaLegHandle

logger = logging.getLogger(__name__)

_STOP_TIMEOUT_S: Final = 5.0
_RECONNECT_S: Final = 60.0


@dataclass
class _Active:
    start: StartRecording
    stopped: asyncio.Future[RecordingStopped]
    stop: StopRecording | None = None


class RecorderClient:
    """Starts and stops recordings. After a restart of the recorder every running recording is ordered again, and
    continues where its file ends."""

    def __init__(self, runtime_dir: Path, rings: AudioRings) -> None:
        self._path = runtime_dir / "recorder.sock"
        self._rings = rings
        self._channel: Channel | None = None
        self._active: dict[str, _Active] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def start_up(self) -> None:
        """Connect; from now on reconnect by itself."""
        up = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(up))
        await up.wait()

    async def shut_down(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._channel is not None:
            self._channel.close()

    def active(self, recording: str) -> bool:
        return recording in self._active

    def start(
        self, recording: str, slot: int, generation: int, path: Path, start_frame: int, silent: tuple[Part, ...] = ()
    ) -> None:
        """Record the leg from frame ``start_frame`` on, with silence in place of the parts ``silent``."""
        message = StartRecording(recording, slot, generation, str(path), start_frame, silent)
        self._active[recording] = _Active(message, asyncio.get_running_loop().create_future())
        self._send(message)

    def frame(self, media: MediaLegHandle) -> int:
        """The newest frame of a leg; 0 where its slot is another call's by now."""
        try:
            return self._rings.frame_count(media.slot, media.generation)
        except StaleSlot:
            return 0

    def silence(self, recording: str, silent: tuple[Part, ...]) -> None:
        """These are the parts of the leg that are silence in its recording; all of them, each time."""
        active = self._active[recording]
        active.start = structs.replace(active.start, silent=silent)
        self._send(SilenceRecording(recording, silent))

    async def stop(self, recording: str, media: MediaLegHandle) -> RecordingStopped:
        """Write what there is of the leg and close the file. To be called while the slot is still the call's."""
        active = self._active[recording]
        end_frame = self.frame(media)
        active.stop = StopRecording(recording, end_frame)
        self._send(active.stop)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                return await active.stopped
        except TimeoutError:
            problem = f"the recorder did not close it within {_STOP_TIMEOUT_S:.0f} s"
            logger.error("recording %s: %s", recording, problem)
            return RecordingStopped(recording, active.start.path, end_frame, problem)
        finally:
            del self._active[recording]

    def _send(self, message: AnyMessage) -> None:
        if self._channel is not None:
            self._channel.send(message)

    async def _keep(self, up: asyncio.Event) -> None:
        while True:
            lost = asyncio.Event()
            try:
                self._channel = await connect(self._path, self._received, lost.set, timeout_s=_RECONNECT_S)
            except ChannelClosed as error:
                logger.error("recorder: %s", error)
                continue
            up.set()
            for active in self._active.values():
                self._send(active.start)
                if active.stop is not None:
                    self._send(active.stop)
            await lost.wait()
            if self._active:
                logger.warning("the recorder is gone; %d recordings continue when it is back", len(self._active))
            await asyncio.sleep(LAST_BREATH_S)

    def _received(self, message: AnyMessage) -> None:
        if isinstance(message, RecordingStopped):
            active = self._active.get(message.recording)
            if active is not None and not active.stopped.done():
                active.stopped.set_result(message)
        else:
            logger.error("the recorder sent %s", type(message).__name__)
