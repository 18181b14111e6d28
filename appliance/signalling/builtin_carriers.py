"""The carriers that come with the appliance, registered through the same hook as everyone else's.

No carrier's own package is imported before a trunk of its kind is configured: each factory imports what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.carriers.builtin import BuiltinStreams
from appliance.hookspecs import Provider, Providers, hookimpl
from appliance.plugins.registry import CarrierRegistry
from appliance.signalling.browser_options import BrowserOptions
from appliance.signalling.pbx import PbxCarrier, PbxOptions
from appliance.signalling.telnyx import TelnyxCarrier, TelnyxOptions
from appliance.signalling.twilio_options import TwilioOptions


def carrier_registry(plugins: Sequence[tuple[str, object]] = ()) -> CarrierRegistry:
    """The built-in kinds of trunk, and those of ``plugins`` as (name, plugin) after them."""
    return CarrierRegistry([("builtin_streams", BuiltinStreams()), ("builtin_carriers", BuiltinCarriers()), *plugins])


def _twilio(options: TwilioOptions, box: Any) -> Any:
    from appliance.signalling.twilio import TwilioCarrier

    return TwilioCarrier(options, box)


def _pbx(options: PbxOptions, box: Any) -> Any:
    return PbxCarrier("pbx", options, box)


def _audiosocket(options: PbxOptions, box: Any) -> Any:
    return PbxCarrier("audiosocket", options, box)


def _browser(options: BrowserOptions, box: Any) -> Any:
    from appliance.signalling.browser import BrowserCarrier

    return BrowserCarrier(options, box)


class BuiltinCarriers:
    """The plugin object."""

    @hookimpl
    def appliance_carrier_providers(self) -> Providers:
        return {
            "twilio": Provider(_twilio, "Twilio: webhooks, Media Streams and its REST API", TwilioOptions),
            "telnyx": Provider(TelnyxCarrier, "Telnyx: its Voice API and media streaming", TelnyxOptions),
            "pbx": Provider(_pbx, "Asterisk's chan_websocket and FreeSWITCH's mod_audio_stream", PbxOptions),
            "audiosocket": Provider(_audiosocket, "Asterisk's AudioSocket", PbxOptions),
            "browser": Provider(_browser, "the browser phone, a page of the box", BrowserOptions),
        }
