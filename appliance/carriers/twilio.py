"""Twilio Media Streams, bidirectional (``<Connect><Stream>``). PURE.

Source: Twilio's documents on Media Streams, "WebSocket messages". The secret by which a stream is known is a custom
parameter: Twilio drops the query of a stream's URL.
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from appliance.api.streams import Started, parameters_of, printable
from appliance.carriers.json_stream import Frame, JsonStream, codec_of
from appliance.errors import CarrierError

TOKEN: Final = "token"
"""Name of the custom parameter that holds the secret."""


class _Format(msgspec.Struct, rename="camel"):
    encoding: str
    sample_rate: int
    channels: int = 1


class _Start(msgspec.Struct, rename="camel"):
    stream_sid: str
    media_format: _Format
    call_sid: str = ""
    custom_parameters: dict[str, str] = {}


class TwilioStream(JsonStream[_Start]):
    """One stream of Twilio's."""

    name: ClassVar[str] = "twilio"
    frame_type: ClassVar[type] = Frame[_Start]

    def __init__(self) -> None:
        super().__init__()
        self._stream_sid = ""

    def started(self, start: _Start) -> Started:
        if not start.stream_sid or len(start.stream_sid) > 64:
            raise CarrierError("start names no streamSid")
        self._stream_sid = start.stream_sid
        parameters = parameters_of(start.custom_parameters)
        form = start.media_format
        return Started(
            stream_id=printable(start.stream_sid),
            call_id=printable(start.call_sid),
            codec=codec_of(form.encoding, form.sample_rate, form.channels),
            rate_hz=form.sample_rate,
            token=parameters.pop(TOKEN, ""),
            parameters=parameters,
        )

    def outgoing(self, event: str, **parts: object) -> str:
        return super().outgoing(event, streamSid=self._stream_sid, **parts)
