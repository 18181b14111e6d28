"""The streams that come with the appliance, registered through the same hook as everyone else's. PURE."""

from __future__ import annotations

from appliance.api.carriers import StreamKind, StreamKinds, StreamRequest
from appliance.api.streams import StreamProtocol, number_of, printable
from appliance.carriers.audiosocket import AudioSocketStream
from appliance.carriers.browser import BrowserStream
from appliance.carriers.pbx import PbxStream
from appliance.carriers.telnyx import TelnyxStream
from appliance.carriers.twilio import TwilioStream
from appliance.hookspecs import hookimpl


def _twilio(request: StreamRequest) -> StreamProtocol:
    return TwilioStream()


def _telnyx(request: StreamRequest) -> StreamProtocol:
    return TelnyxStream(request.path)


def _audiosocket(request: StreamRequest) -> StreamProtocol:
    return AudioSocketStream()


def _pbx(request: StreamRequest) -> StreamProtocol:
    """``?rate=16000&call=ID&called=100&calling=200``, each of which may be left out."""
    given = request.query
    return PbxStream(
        number_of(given.get("rate", "0"), "rate"),
        *(printable(given.get(name, "")) for name in ("call", "called", "calling")),
    )


def _browser(request: StreamRequest) -> StreamProtocol:
    return BrowserStream()


class BuiltinStreams:
    """The plugin object."""

    @hookimpl
    def appliance_stream_providers(self) -> StreamKinds:
        return {
            "twilio": StreamKind(_twilio, summary="Twilio Media Streams"),
            "telnyx": StreamKind(_telnyx, summary="Telnyx media streaming"),
            "audiosocket": StreamKind(_audiosocket, transport="tcp", unasked=True, summary="Asterisk's AudioSocket"),
            "pbx": StreamKind(
                _pbx,
                subprotocols=("media",),
                unasked=True,
                summary="Asterisk's chan_websocket, FreeSWITCH's mod_audio_stream",
            ),
            "browser": StreamKind(_browser, summary="the browser phone, a page of the box"),
        }
