"""The media process: RTP, VAD and playout for every call, and nothing else.

No plugin, database, HTTP client or model server runs here; one busy Python thread beside the audio would make
every call late. The garbage collector's full passes are off for the same reason: what is allocated at start is
frozen, and only the youngest generation is collected, between ticks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
from typing import Final

import uvloop

from appliance.config import Settings
from appliance.errors import ApplianceError, EngineError, MediaError, RtpError
from appliance.ipc.channel import Channel, serve
from appliance.ipc.child import EXIT_UNUSABLE, SupervisorLink, allow_open_files
from appliance.ipc.logs import configure_logging
from appliance.ipc.messages import (
    AnyMessage,
    Bridge,
    CloseLeg,
    ConnectLeg,
    ConnectStream,
    Flush,
    Flushed,
    HoldMusic,
    LegClosed,
    LegFailed,
    LegOpened,
    OpenLeg,
    Play,
    RefuseStream,
    SendDigits,
)
from appliance.ipc.rings import AudioRings
from appliance.ipc.settings import read_settings
from appliance.media import hold_music
from appliance.media.denoise import LineDenoise
from appliance.media.leg import MediaLeg
from appliance.media.playout import Playout
from appliance.media.ports import PortPool
from appliance.media.reports import quality
from appliance.media.streams import StreamServer
from appliance.media.tick import FRAME_S, AudioClock
from appliance.media.timer import Metronome
from appliance.media.vad import BatchVad
from appliance.models.store import ModelStore, model_directory
from appliance.plugins import noise_suppressors, vad_models
from appliance.plugins.providers import trunk_plugins, with_own
from appliance.plugins.registry import ProviderRegistry
from appliance.plugins.streams import stream_kinds

logger = logging.getLogger(__name__)

_REAL_TIME_PRIORITY: Final = 1
_STATS_EVERY_S: Final = 1.0
_COLLECT_EVERY_S: Final = 5.0
_COLLECT_CONNECTIONS: Final = 20
"""Connections that have ended before all generations are collected."""


class MediaProcess:
    """Opens, connects and closes legs as control says; the clock does the rest.

    Raises:
        MediaError: the hold music cannot be read.
        PluginError: a plugin that a trunk needs cannot be imported.
    """

    def __init__(
        self, settings: Settings, rings: AudioRings, vad: BatchVad | None, denoise: LineDenoise | None = None
    ) -> None:
        self._rings = rings
        first, last = settings.listen.rtp_port_range
        self._ports = PortPool(settings.listen.rtp_host, first, last)
        self._control: Channel | None = None
        music = hold_music.load(settings.media.hold_music)
        self.clock = AudioClock(rings, vad, self._publish, settings.media.rtp_timeout_s, music, denoise)
        self.streams = StreamServer(settings, stream_kinds(trunk_plugins(settings)), self.clock, self._publish)

    def connected(self, sock: socket.socket) -> Channel:
        """Control has (re)connected. Legs of a control process that is gone have no owner: they end."""
        self._close_all()
        if self._control is not None:
            self._control.close()
        self._control = Channel(sock, asyncio.get_running_loop(), self._handle, self._control_gone)
        return self._control

    def close(self) -> None:
        self._close_all()
        self.clock.receiver.close()

    def send_stats(self) -> None:
        outbox = self._control.outbox_depth if self._control is not None else 0
        self._publish(self.streams.add_stats(self.clock.take_stats(outbox)))

    def _publish(self, message: AnyMessage) -> None:
        if self._control is not None:
            self._control.send(message)

    def _control_gone(self) -> None:
        if self.clock.legs:
            logger.error("control is gone; its %d calls end here", len(self.clock.legs))
        self._control = None
        self._close_all()

    def _close_all(self) -> None:
        for leg in list(self.clock.legs.values()):
            self._close(leg)

    def _handle(self, message: AnyMessage) -> None:
        match message:
            case OpenLeg():
                self._open(message)
            case RefuseStream():
                self.streams.refuse(message.token, message.reason)
            case ConnectLeg() | ConnectStream() | Bridge() | HoldMusic() | Play() | Flush() | SendDigits() | CloseLeg():
                leg = self.clock.legs.get(message.slot)
                if leg is None or leg.generation != message.generation:
                    logger.debug("%s for a leg that is over", type(message).__name__)
                    return
                self._command(leg, message)
            case _:
                logger.error("control sent %s, which media does not take", type(message).__name__)

    def _open(self, message: OpenLeg) -> None:
        stale = self.clock.legs.get(message.slot)
        if stale is not None:
            self._close(stale)
        try:
            pair = self._ports.bind() if message.rtp else None
        except MediaError as error:
            logger.error("slot %d: %s", message.slot, error)
            self._publish(LegFailed(message.slot, message.generation, str(error)))
            return
        self._rings.open(message.slot, message.generation)
        playout = Playout(self._rings.tts[message.slot])
        leg = MediaLeg(message.slot, message.generation, pair, playout, secrets.randbits(32))
        self.clock.legs[message.slot] = leg
        self.clock.voice.begin(message.slot, message.denoise)
        if pair is not None:
            self.clock.receiver.add(pair.rtp, message.slot)
            self.clock.receiver.add(pair.rtcp, ~message.slot)
        self._publish(LegOpened(message.slot, message.generation, pair.port if pair is not None else 0))

    def _command(
        self,
        leg: MediaLeg,
        message: ConnectLeg | ConnectStream | Bridge | HoldMusic | Play | Flush | SendDigits | CloseLeg,
    ) -> None:
        match message:
            case ConnectLeg():
                self._connect(leg, message)
            case ConnectStream():
                self.streams.connect(leg, message)
            case Bridge():
                self._bridge(leg, message)
            case HoldMusic():
                leg.music_at = max(leg.music_at, 0) if message.on else -1
            case Play():
                if not leg.playout.add(message.utterance, message.tts_start, message.tts_end, message.last):
                    logger.error("slot %d: too many pieces wait to be played; one is dropped", leg.slot)
            case Flush():
                utterance, played = self.clock.flush(leg)
                frame = int(self._rings.frames[leg.slot])
                self._publish(Flushed(leg.slot, leg.generation, utterance, played, frame))
            case SendDigits():
                try:
                    sent = self.clock.send_digits(leg, message.digits)
                except ValueError as error:
                    logger.error("slot %d: digits not sent: %s", leg.slot, error)
                else:
                    if not sent:
                        logger.warning("slot %d: the peer takes no telephone-event; digits not sent", leg.slot)
            case CloseLeg():
                self._close(leg)

    def _connect(self, leg: MediaLeg, message: ConnectLeg) -> None:
        self.streams.forget(leg)  # a carrier may have been tried on the slot before
        first = not leg.connected
        try:
            leg.connect(message.rtp, time.monotonic())
        except (RtpError, MediaError, ValueError) as error:
            # Never without the keys that were agreed: the leg stays as it was, and times out where it was not up.
            logger.error("slot %d is not connected: %s", leg.slot, error)
            return
        if first:
            self.clock.begin(leg, secrets.randbits(15), secrets.randbits(32))
        else:
            self.clock.changed(leg)

    def _bridge(self, leg: MediaLeg, message: Bridge) -> None:
        leg.part()
        other = self.clock.legs.get(message.other_slot)
        if message.other_slot < 0 or other is leg:
            return
        if other is None or other.generation != message.other_generation:
            logger.warning("slot %d is not bridged: the other leg is over", leg.slot)
            return
        other.part()
        leg.partner, other.partner = other, leg
        for one in (leg, other):
            self.clock.flush(one)

    def _close(self, leg: MediaLeg) -> None:
        frames = int(self._rings.frames[leg.slot])
        self.clock.reports.goodbye(leg, time.monotonic())
        self.streams.forget(leg)
        if leg.pair is not None:
            for sock in leg.pair:
                self.clock.receiver.remove(sock)
            self._ports.release(leg.pair)
        self.clock.forget(leg)
        how = quality(leg)
        srtp = leg.srtp_rx
        self._publish(
            LegClosed(
                leg.slot,
                leg.generation,
                frames=frames,
                received=leg.received,
                lost=leg.jitter.lost,
                late=leg.jitter.late,
                concealed=leg.concealed,
                strangers=leg.source.strangers,
                duplicates=leg.jitter.duplicate + (srtp.replayed if srtp is not None else 0),
                srtp_failures=leg.srtp_failures + (srtp.failures if srtp is not None else 0),
                **how._asdict(),
            )
        )


async def run(settings: Settings, rings: AudioRings) -> None:
    """Serve until the supervisor says stop."""
    loop = asyncio.get_running_loop()
    link = SupervisorLink("media")
    await link.open(settings.runtime_dir)
    vad = _load_vad(settings, rings.capacity)
    media = MediaProcess(settings, rings, vad, _load_denoise(settings, rings.capacity))
    listener = await serve(settings.runtime_dir / "media.sock", media.connected)
    await media.streams.start()
    metronome = Metronome(FRAME_S, media.clock.run)
    gc.collect()
    gc.freeze()
    gc.disable()
    _take_priority()
    metronome.start(loop)
    housekeeping = asyncio.create_task(_housekeeping(media))
    link.ready()
    await link.stopping.wait()
    housekeeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await housekeeping
    metronome.stop(loop)
    media.close()
    await media.streams.close()
    listener.close()
    link.close()


def _load_vad(settings: Settings, capacity: int) -> BatchVad | None:
    """The configured model over all slots, warm; None where the energy alone is to decide.

    Raises:
        EngineError, ModelFileError: it cannot be loaded; says how to fix it.
    """
    engine = settings.engines.vad
    registry = _with_own(ProviderRegistry([("vad_models", vad_models)]), settings, "vad", engine.provider)
    models = ModelStore(model_directory(settings.models_dir))
    model: bytes | None = registry.create("vad", engine.provider, engine.options, models)
    if model is None:
        return None
    vad = BatchVad(model, capacity)
    vad.warm_up()
    return vad


def _with_own(registry: ProviderRegistry, settings: Settings, kind: str, wanted: str) -> ProviderRegistry:
    """With those of the plugins that may run beside the audio, where ``wanted`` is not built in."""
    return with_own(registry, settings.plugins, kind, [wanted], only=settings.plugins.media)


def _load_denoise(settings: Settings, capacity: int) -> LineDenoise:
    """Every noise suppressor that runs on this box, for lines may choose; only the box's own has to.

    Raises:
        EngineError: the configured one cannot be loaded; says how to fix it.
    """
    engine = settings.engines.denoise
    builtin = ProviderRegistry([("noise_suppressors", noise_suppressors)])
    registry = _with_own(builtin, settings, "denoise", engine.provider)
    models = ModelStore(model_directory(settings.models_dir))
    registry.provider("denoise", engine.provider)
    found = {}
    for name in registry.offers("denoise"):
        try:
            suppression = registry.create("denoise", name, engine.options if name == engine.provider else {}, models)
        except EngineError as error:
            if name == engine.provider:
                raise
            logger.info("lines cannot have noise suppression %r: %s", name, error)
            continue
        if suppression is not None:
            found[name] = suppression
    return LineDenoise(capacity, found, engine.provider)


async def _housekeeping(media: MediaProcess) -> None:
    """Statistics every second, and garbage: connections leave cycles that have grown old by the time they end."""
    seconds = 0.0
    collected = 0
    while True:
        await asyncio.sleep(_STATS_EVERY_S)
        try:
            media.send_stats()
            media.streams.sweep()
        except Exception:
            logger.exception("a fault of ours between two ticks")
        seconds += _STATS_EVERY_S
        if seconds >= _COLLECT_EVERY_S:
            seconds = 0.0
            gc.collect(0 if media.streams.closed - collected < _COLLECT_CONNECTIONS else 2)
            if media.streams.closed - collected >= _COLLECT_CONNECTIONS:
                collected = media.streams.closed


def _take_priority() -> None:
    """Run before everything else on the core: real-time where that is permitted. To be called when all is loaded.

    Nice values would not do: the kernel weighs them within a session only (autogroups), and a fair scheduler may let a
    process finish its slice before one that has just woken.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_REAL_TIME_PRIORITY))
    except PermissionError:
        logger.warning("media runs at normal priority: no CAP_SYS_NICE (see `appliance doctor`)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="appliance-media", description="Started by `appliance serve`.")
    parser.add_argument("--settings-fd", type=int, required=True)
    parser.add_argument("--rings-fd", type=int, required=True)
    parser.add_argument("--capacity", type=int, required=True)
    arguments = parser.parse_args()
    settings = read_settings(arguments.settings_fd)
    configure_logging("media", settings.log.level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if settings.media.core is not None:
        os.sched_setaffinity(0, {settings.media.core})
    allow_open_files()
    rings = AudioRings.attach(arguments.rings_fd, arguments.capacity)
    try:
        uvloop.run(run(settings, rings))
    except ApplianceError as error:
        logger.error("%s", error)
        sys.exit(EXIT_UNUSABLE)


if __name__ == "__main__":
    main()
