"""Telnyx media streaming, bidirectional in ``rtp`` mode. PURE.

Source: Telnyx's documents, "Stream call media over WebSocket". Messages may come in any order; ``chunk`` says which.
The secret by which a stream is known is the last part of the URL that we gave.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from appliance.api.streams import Started, parameters_of, printable
from appliance.carriers.json_stream import Frame, JsonStream, codec_of


class _Format(msgspec.Struct):
    encoding: str
    sample_rate: int
    channels: int = 1


class _Start(msgspec.Struct):
    call_control_id: str
    media_format: _Format
    call_session_id: str = ""
    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    custom_parameters: dict[str, str] = {}


class TelnyxStream(JsonStream[_Start]):
    """One stream of Telnyx's; ``token`` is the last part of the URL that it was told."""

    name: ClassVar[str] = "telnyx"
    frame_type: ClassVar[type] = Frame[_Start]

    def __init__(self, token: str = "") -> None:
        super().__init__()
        self._token = token

    def started(self, start: _Start) -> Started:
        form = start.media_format
        return Started(
            stream_id=printable(start.call_session_id),
            call_id=printable(start.call_control_id),
            codec=codec_of(form.encoding, form.sample_rate, form.channels),
            rate_hz=form.sample_rate,
            token=self._token,
            called=printable(start.to),
            calling=printable(start.from_),
            parameters=parameters_of(start.custom_parameters),
        )
