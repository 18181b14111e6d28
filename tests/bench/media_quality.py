"""Bar 2.4: what a bad network leaves of a voice, how much later it is heard. Run: python -m tests.bench.media_quality

Thirty recorded prompts are sent as RTP over loopback sockets into the audio clock that answers calls, which is ticked
by hand, so that 20 ms of the call take as long as they take. The network between is arithmetic: every packet is lost
with a probability of 5 % or delayed by 0 to 60 ms, uniform and independent of the others (so packets overtake one
another), each call beginning at a phase of its own within the tick. There is no lead-in: the buffer learns of the
jitter from the first syllables. What the box heard is compared with the recording by PESQ (ITU-T P.862, narrow band,
mapped by P.862.1).

The delay is measured on the audio, not asked of the buffer: a frame is found again in what was heard by its samples;
its delay is from when its packet was sent to the tick in which it was played, the network's delay included.
"""

from __future__ import annotations

import argparse
import heapq
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.audio.codec import Codec, new_codec
from appliance.ipc.rings import FRAME_SAMPLES, AudioRings
from appliance.media.leg import MediaLeg
from appliance.media.playout import Playout
from appliance.media.ports import PortPool
from appliance.media.tick import AudioClock
from appliance.rtp.packet import build
from appliance.rtp_params import RtpParams
from tests.bench import prompts
from tests.bench.report import Bar

PROMPTS = 30
SEEDS = 3
LOSS = 0.05
JITTER_S = 0.06
MIN_SAMPLES = 2 * prompts.RATE_HZ
TAIL_FRAMES = 20
_TICK_S = 0.02
_FIRST_PORT = 30000
_PAYLOAD_TYPES = {"pcmu": 0, "pcma": 8, "g722": 9, "opus": 111}
_FIND_WITHIN = 10
"""Ticks after its own in which a frame is looked for."""


@dataclass
class Heard:
    """One call: what came out, and the delay of every frame that could be told from its neighbours, in seconds."""

    name: str
    pcm: NDArray[np.int16]
    sent: NDArray[np.int16]
    delays_s: list[float]


class Call:
    """A prompt as packets on their way into one leg."""

    def __init__(self, name: str, pcm: NDArray[np.int16], codec: str, random: np.random.Generator, lossy: bool) -> None:
        self.name = name
        self.pcm = pcm
        self.frames = len(pcm) // FRAME_SAMPLES + TAIL_FRAMES
        padded = np.zeros(self.frames * FRAME_SAMPLES, np.int16)
        padded[: len(pcm)] = pcm
        encoder, decoder = new_codec(codec), new_codec(codec)
        self._clock = encoder.rtp_clock_hz // 50
        self.payloads = [encoder.encode(part) for part in padded.reshape(-1, FRAME_SAMPLES)]
        self.decoded: list[NDArray[np.int16]] = [self._plain(decoder, payload) for payload in self.payloads]
        self.payload_type = _PAYLOAD_TYPES[codec]
        phase_s = random.random() * _TICK_S
        self.sent_s = [phase_s + n * _TICK_S for n in range(self.frames)]
        lost = random.random(self.frames) < (LOSS if lossy else 0.0)
        delays = random.random(self.frames) * (JITTER_S if lossy else 0.0)
        self.coming = [(self.sent_s[n] + delays[n], n) for n in range(self.frames) if not lost[n]]
        heapq.heapify(self.coming)

    @staticmethod
    def _plain(decoder: Codec, payload: bytes) -> NDArray[np.int16]:
        return decoder.decode(payload)

    def due(self, now: float) -> list[bytes]:
        """The datagrams that arrive until ``now``, in order."""
        out = []
        while self.coming and self.coming[0][0] <= now:
            n = heapq.heappop(self.coming)[1]
            out.append(
                build(self.payload_type, 65500 + n, (2**32 - 9000 + n * self._clock) % 2**32, 7, self.payloads[n])
            )
        return out

    def delays(self, heard: NDArray[np.int16]) -> list[float]:
        """The play-out delay of every frame that is found in what was heard, once and nowhere near twice."""
        frames = heard.reshape(-1, FRAME_SAMPLES)
        found = []
        for n, wanted in enumerate(self.decoded):
            if np.ptp(wanted) < 500:
                continue
            first = int(self.sent_s[n] / _TICK_S)
            window = frames[first : first + _FIND_WITHIN]
            at = np.flatnonzero((window == wanted).all(axis=1))
            if len(at) == 1:
                found.append((first + int(at[0])) * _TICK_S - self.sent_s[n])
        return found


def play(calls: list[Call], codec: str) -> list[Heard]:
    """All calls side by side through one audio clock."""
    rings = AudioRings.create(len(calls))
    clock = AudioClock(rings, None, lambda message: None, 3600.0)
    ours, theirs = PortPool("127.0.0.1", _FIRST_PORT, _FIRST_PORT + 499), PortPool("127.0.0.1", 30500, 30999)
    pairs = [(ours.bind(), theirs.bind()) for _ in calls]
    try:
        for slot, (pair, peer) in enumerate(pairs):
            rings.open(slot, 1)
            leg = clock.legs[slot] = MediaLeg(slot, 1, pair, Playout(rings.tts[slot]), 0xCAFE)
            clock.receiver.add(pair.rtp, slot)
            clock.receiver.add(pair.rtcp, ~slot)
            host, port = peer.rtp.getsockname()
            leg.connect(RtpParams(host, port, codec, _PAYLOAD_TYPES[codec], -1), 0.0)
            clock.begin(leg, 1, 1)
        longest = max(call.frames for call in calls)
        heard = np.zeros((len(calls), longest, FRAME_SAMPLES), np.int16)
        for tick in range(longest):
            for call, (pair, peer) in zip(calls, pairs, strict=True):
                for datagram in call.due(tick * _TICK_S):
                    peer.rtp.sendto(datagram, pair.rtp.getsockname())
            clock.run(1, 0.0)
            heard[:, tick] = rings.rx[:, tick % rings.rx.shape[1]]
            for _, peer in pairs:
                _drain(peer.rtp)
    finally:
        clock.receiver.close()
        for pair in (pair for both in pairs for pair in both):
            pair.rtp.close()
            pair.rtcp.close()
        os.close(rings.fd)
    out = []
    for slot, call in enumerate(calls):
        line = heard[slot, : call.frames].reshape(-1)
        out.append(Heard(call.name, line, call.pcm, call.delays(line)))
    return out


def _drain(sock: object) -> None:
    while True:
        try:
            sock.recv(2048)  # type: ignore[attr-defined]
        except BlockingIOError:
            return


def chosen() -> list[tuple[str, NDArray[np.int16]]]:
    """The first thirty prompts by name that are longer than two seconds."""
    out: list[tuple[str, NDArray[np.int16]]] = []
    where = prompts.folder()
    for path in sorted(Path(where).rglob("*.wav"), key=lambda path: str(path.relative_to(where))):
        pcm = prompts.read_wav(path)
        if len(pcm) > MIN_SAMPLES:
            out.append((str(path.relative_to(where)), pcm))
        if len(out) == PROMPTS:
            break
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description="PESQ and play-out delay under loss and jitter")
    parser.add_argument("--codec", choices=sorted(_PAYLOAD_TYPES), default="pcmu")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--each", action="store_true", help="print every prompt's score")
    arguments = parser.parse_args()
    try:
        from pesq import pesq
    except ImportError:
        print("skipped: PESQ is not installed (pip install '.[bench]'; it is compiled, so a C compiler is needed)")
        return 77
    try:
        recordings = chosen()
    except prompts.PromptsMissing as missing:
        print(f"skipped: {missing}")
        return 77
    bar = Bar("2.4", f"{len(recordings)} prompts by {arguments.codec}, 5 % loss and 0-60 ms of jitter, and clean")
    for lossy, least, most_s in ((True, 3.0, 0.100), (False, 4.0, 0.040)):
        scores: list[float] = []
        delays: list[float] = []
        for seed in range(arguments.seeds if lossy else 1):
            random = [np.random.default_rng([seed, n, lossy]) for n in range(len(recordings))]
            calls = [
                Call(name, pcm, arguments.codec, chance, lossy)
                for (name, pcm), chance in zip(recordings, random, strict=True)
            ]
            for call in play(calls, arguments.codec):
                scores.append(float(pesq(prompts.RATE_HZ, call.sent, call.pcm, "nb")))
                delays += call.delays_s
                if arguments.each:
                    bar.note(f"{call.name:40} seed {seed}: {scores[-1]:.2f}")
        title = "lossy" if lossy else "clean"
        mean = float(np.mean(scores))
        bar.figure(f"{title} PESQ mean {mean:.2f} (least {min(scores):.2f}, {len(scores)} calls)")
        bar.require(mean >= least, f"{title} PESQ at least {least}")
        if delays:
            late_s = float(np.percentile(delays, 95))
            bar.figure(f"{title} play-out delay p50 {np.median(delays) * 1e3:.0f} / p95 {late_s * 1e3:.0f} ms")
            bar.require(late_s <= most_s, f"{title} play-out delay p95 at most {most_s * 1e3:.0f} ms")
        else:
            bar.note("no delays: this codec's output depends on what came before, so no frame is found again")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
