"""Control's side of the media process: slots to give out, and what each call hears."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from appliance.errors import ChannelClosed, MediaError
from appliance.ipc.channel import LAST_BREATH_S, Channel, connect
from appliance.ipc.messages import (
    AnyMessage,
    Bridge,
    CloseLeg,
    ConnectLeg,
    ConnectStream,
    Digit,
    Flush,
    Flushed,
    HoldMusic,
    LegClosed,
    LegFailed,
    LegOpened,
    MediaStats,
    MediaTimeout,
    OpenLeg,
    Play,
    PlayoutDone,
    PlayoutStarted,
    SendDigits,
    StreamEnded,
    StreamOffered,
    StreamStarted,
    Tick,
)
from appliance.rtp_params import RtpParams

logger = logging.getLogger(__name__)

_OPEN_TIMEOUT_S: Final = 2.0
_CLOSE_TIMEOUT_S: Final = 2.0
_RECONNECT_S: Final = 60.0


class MediaListener(Protocol):
    """What a call wants to hear from its leg. Called on control's event loop; must return at once."""

    def on_tick(self, at: float, frame: int, level_dbfs: float, speech: float, sent_dbfs: float) -> None: ...
    def on_digit(self, digit: str, frame: int) -> None: ...
    def on_playout_started(self, utterance: int, frame: int, at: float) -> None: ...
    def on_playout_done(self, utterance: int, played: int, frame: int) -> None: ...
    def on_flushed(self, utterance: int, played: int, frame: int) -> None: ...
    def on_media_timeout(self, silent_s: float) -> None: ...
    def on_media_lost(self) -> None: ...


class MediaLegHandle:
    """One open leg: commands go out, the listener hears what happens. Satisfies signalling's MediaSlot."""

    def __init__(self, client: MediaClient, slot: int, generation: int, host: str) -> None:
        self._client = client
        self.slot = slot
        self.generation = generation
        self.local_host = host
        self.local_port = 0
        self.told: Callable[[StreamStarted | StreamEnded], None] | None = None
        self.opened: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[LegClosed | None] = asyncio.get_running_loop().create_future()

    def connect(self, params: RtpParams) -> None:
        """Start, or change, what is sent and received."""
        self._client.send(ConnectLeg(self.slot, self.generation, params))

    def connect_stream(
        self, kind: str, token: str, timeout_s: float, told: Callable[[StreamStarted | StreamEnded], None]
    ) -> None:
        """Have the stream that brings ``token`` be the audio; ``told`` hears what becomes of it."""
        self.told = told
        self._client.send(ConnectStream(self.slot, self.generation, kind, token, timeout_s))

    def bridge(self, other: MediaLegHandle | None) -> None:
        """Join the two callers: each hears the other instead of playout. None parts this leg and its partner."""
        slot, generation = (other.slot, other.generation) if other is not None else (-1, 0)
        self._client.send(Bridge(self.slot, self.generation, slot, generation))

    def hold_music(self, on: bool) -> None:
        """Let the peer hear the hold music whenever nothing is queued for playout, or no longer."""
        self._client.send(HoldMusic(self.slot, self.generation, on))

    def play(self, utterance: int, tts_start: int, tts_end: int, last: bool) -> None:
        self._client.send(Play(self.slot, self.generation, utterance, tts_start, tts_end, last))

    def flush(self) -> None:
        self._client.send(Flush(self.slot, self.generation))

    def send_digits(self, digits: str) -> None:
        self._client.send(SendDigits(self.slot, self.generation, digits))

    async def close(self) -> LegClosed | None:
        """Close the leg; its statistics, or None where media is gone. Its audio can be read until :meth:`release`."""
        self._client.send(CloseLeg(self.slot, self.generation))
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                return await asyncio.shield(self.closed)
        except TimeoutError:
            logger.error("slot %d was not closed by media within %.0f s", self.slot, _CLOSE_TIMEOUT_S)
            return None

    def release(self) -> None:
        """Give the slot back: nobody needs the leg's audio any more."""
        self._client.release(self)


class MediaClient:
    """The connection to the media process, kept up across its restarts.

    Slots are given out lowest first, so that the memory that short calls touch stays the same.
    """

    def __init__(self, runtime_dir: Path, capacity: int, local_host: str) -> None:
        self._path = runtime_dir / "media.sock"
        self._host = local_host
        self._free = list(range(capacity))
        self._generations = itertools.count(1)
        self._legs: dict[int, MediaLegHandle] = {}
        # Not kept in the handles: signalling holds those, and calls hold signalling.
        self._listeners: dict[int, MediaListener] = {}
        self._channel: Channel | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self.on_stats: Callable[[MediaStats], None] = lambda stats: None
        self.on_stream_offered: Callable[[StreamOffered], None] = lambda offer: None

    @property
    def connected(self) -> bool:
        return self._channel is not None and not self._channel.closed

    async def start(self) -> None:
        """Connect, and from now on reconnect by itself.

        Raises:
            ChannelClosed: media does not come up.
        """
        await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._channel is not None:
            self._channel.close()

    async def open_leg(self, listener: MediaListener, *, rtp: bool = True, denoise: str = "off") -> MediaLegHandle:
        """A new leg, with an RTP port of its own where ``rtp`` asks for one, and this noise suppression ("" the box's).

        Raises:
            MediaError: every slot is taken, no port is free, or media is down.
        """
        if not self.connected:
            raise MediaError("the media process is down; it is being restarted")
        if not self._free:
            raise MediaError("every media slot is in use; raise limits.max_calls")
        slot = heapq.heappop(self._free)
        leg = MediaLegHandle(self, slot, next(self._generations), self._host)
        self._legs[slot] = leg
        self._listeners[slot] = listener
        self.send(OpenLeg(slot, leg.generation, rtp, denoise))
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                leg.local_port = await leg.opened
        except (TimeoutError, MediaError) as error:
            self.send(CloseLeg(slot, leg.generation))
            self.release(leg)
            raise MediaError(str(error) or "the media process does not answer") from error
        except asyncio.CancelledError:
            self.send(CloseLeg(slot, leg.generation))
            self.release(leg)
            raise
        return leg

    def send(self, message: AnyMessage) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def release(self, leg: MediaLegHandle) -> None:
        """Give the slot back."""
        if self._legs.get(leg.slot) is leg:
            del self._legs[leg.slot], self._listeners[leg.slot]
            heapq.heappush(self._free, leg.slot)

    async def _connect(self) -> None:
        self._lost.clear()
        self._channel = await connect(self._path, self._received, self._gone, timeout_s=_RECONNECT_S)

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            await asyncio.sleep(LAST_BREATH_S)
            try:
                await self._connect()
            except ChannelClosed as error:
                logger.error("media: %s", error)
                self._lost.set()

    def _gone(self) -> None:
        for leg in list(self._legs.values()):
            if not leg.opened.done():
                leg.opened.set_exception(MediaError("the media process went away"))
            elif not leg.closed.done():
                leg.closed.set_result(None)
                self._listeners[leg.slot].on_media_lost()
        self._lost.set()

    def _received(self, message: AnyMessage) -> None:
        match message:
            case Tick():
                self._tick(message)
            case LegOpened():
                leg = self._leg(message.slot, message.generation)
                if leg is not None and not leg.opened.done():
                    leg.opened.set_result(message.port)
            case LegFailed():
                leg = self._leg(message.slot, message.generation)
                if leg is not None and not leg.opened.done():
                    leg.opened.set_exception(MediaError(message.reason))
            case LegClosed():
                leg = self._leg(message.slot, message.generation)
                if leg is not None and not leg.closed.done():
                    leg.closed.set_result(message)
            case MediaStats():
                self.on_stats(message)
            case StreamStarted() | StreamEnded():
                leg = self._leg(message.slot, message.generation)
                if leg is not None and leg.told is not None:
                    leg.told(message)
            case StreamOffered():
                self.on_stream_offered(message)
            case Digit() | PlayoutStarted() | PlayoutDone() | Flushed() | MediaTimeout():
                leg = self._leg(message.slot, message.generation)
                if leg is not None:
                    _tell(self._listeners[leg.slot], message)
            case _:
                logger.error("media sent %s", type(message).__name__)

    def _leg(self, slot: int, generation: int) -> MediaLegHandle | None:
        leg = self._legs.get(slot)
        return leg if leg is not None and leg.generation == generation else None

    def _tick(self, tick: Tick) -> None:
        slots = np.frombuffer(tick.slots, np.int16).tolist()
        generations = np.frombuffer(tick.generations, np.int64).tolist()
        frames = np.frombuffer(tick.frames, np.int32).tolist()
        levels = np.frombuffer(tick.levels, np.float32).tolist()
        speech = np.frombuffer(tick.speech, np.float32).tolist()
        sent = np.frombuffer(tick.sent, np.float32).tolist()
        legs, listeners = self._legs, self._listeners
        for slot, generation, frame, level_dbfs, probability, sent_dbfs in zip(
            slots, generations, frames, levels, speech, sent, strict=True
        ):
            leg = legs.get(slot)
            if leg is not None and leg.generation == generation:
                listeners[slot].on_tick(tick.at, frame, level_dbfs, probability, sent_dbfs)


def _tell(listener: MediaListener, message: Digit | PlayoutStarted | PlayoutDone | Flushed | MediaTimeout) -> None:
    match message:
        case Digit():
            listener.on_digit(message.digit, message.frame)
        case PlayoutStarted():
            listener.on_playout_started(message.utterance, message.frame, message.at)
        case PlayoutDone():
            listener.on_playout_done(message.utterance, message.played, message.frame)
        case Flushed():
            listener.on_flushed(message.utterance, message.played, message.frame)
        case MediaTimeout():
            listener.on_media_timeout(message.silent_s)
