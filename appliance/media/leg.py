"""One call's media: its socket, what comes in and what goes out. Arrays over all calls live in media/tick.py."""

from __future__ import annotations

import socket
from collections.abc import Callable

from appliance.ipc.messages import ConnectLeg
from appliance.media.playout import Playout
from appliance.media.ports import Address, SourceFilter
from appliance.rtp.dtmf import DtmfReceiver, DtmfSender
from appliance.rtp.jitter import JitterBuffer


class MediaLeg:
    """State of one leg between OpenLeg and CloseLeg."""

    __slots__ = (
        "alaw",
        "concealed",
        "connected",
        "digits_out",
        "dtmf_in",
        "dtmf_payload_type",
        "generation",
        "heard_at",
        "hearing",
        "jitter",
        "lost_run",
        "mark_next",
        "payload_type",
        "playout",
        "quiet",
        "receive",
        "received",
        "send",
        "sendto",
        "slot",
        "sock",
        "source",
        "ssrc",
        "timed_out",
    )

    def __init__(self, slot: int, generation: int, sock: socket.socket, playout: Playout, ssrc: int) -> None:
        self.slot = slot
        self.generation = generation
        self.sock = sock
        self.sendto: Callable[[bytes | memoryview, Address], int] = sock.sendto
        self.playout = playout
        self.ssrc = ssrc
        self.jitter = JitterBuffer()
        self.dtmf_in = DtmfReceiver()
        self.digits_out: DtmfSender | None = None
        self.source = SourceFilter(("0.0.0.0", 0))
        self.payload_type = 0
        self.dtmf_payload_type = -1
        self.alaw = False
        self.send = True
        self.receive = True
        self.connected = False
        self.mark_next = True
        self.heard_at = 0.0
        self.timed_out = False
        self.lost_run = 1
        self.hearing = False
        self.quiet = True
        self.received = 0
        self.concealed = 0

    def connect(self, message: ConnectLeg, now: float) -> None:
        """Take the negotiated parameters; sent again for a re-negotiation mid-call."""
        described = (message.remote_host, message.remote_port)
        if self.connected:
            self.source.redirect(described)
            if message.payload_type != self.payload_type:
                self.jitter.reset()
        else:
            self.source = SourceFilter(described)
            self.heard_at = now
        self.payload_type = message.payload_type
        self.dtmf_payload_type = message.dtmf_payload_type
        self.alaw = message.codec == "pcma"
        self.send = message.send
        self.receive = message.receive
        self.mark_next = True
        self.connected = True
