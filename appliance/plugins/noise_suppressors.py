"""The built-in noise suppressors. They lie below the media process and the engines, for both name them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from appliance.api.noise import Suppression
from appliance.hookspecs import Provider, ProviderOptions, Providers, Resources, hookimpl


class WebRtcOptions(ProviderOptions):
    strength: Annotated[int, Field(ge=1, le=4)] = 2


class RnnoiseOptions(ProviderOptions):
    lines: Annotated[int, Field(ge=1, le=64)] = 2


def _webrtc(options: WebRtcOptions, resources: Resources) -> Suppression:
    from appliance.audio.suppression import WebRtcSuppressor

    return Suppression(lambda: WebRtcSuppressor(options.strength))


def _rnnoise(options: RnnoiseOptions, resources: Resources) -> Suppression:
    from appliance.audio.suppression import RnnoiseLibrary, RnnoiseSuppressor

    library = RnnoiseLibrary()
    return Suppression(lambda: RnnoiseSuppressor(library), most_lines=options.lines)


def _none(options: ProviderOptions, resources: Resources) -> None:
    return None


@hookimpl
def appliance_denoise_providers() -> Providers:
    return {
        "webrtc": Provider(_webrtc, "WebRTC's noise suppression, for all lines", WebRtcOptions),
        "rnnoise": Provider(_rnnoise, "RNNoise, for a few lines at a time", RnnoiseOptions),
        "none": Provider(_none, "what the caller says is heard as it came"),
    }
