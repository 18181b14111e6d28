"""The built-in voice activity models. They lie below the media process and the engines, for both name them."""

from __future__ import annotations

from appliance.hookspecs import Provider, ProviderOptions, Providers, Resources, hookimpl


def _silero(options: ProviderOptions, resources: Resources) -> bytes:
    return resources.model("silero_vad")


def _none(options: ProviderOptions, resources: Resources) -> None:
    return None


@hookimpl
def appliance_vad_providers() -> Providers:
    return {
        "silero": Provider(_silero, "Silero VAD, one batch over all calls", models=("silero_vad",)),
        "none": Provider(_none, "levels alone; for quiet lines and tests"),
    }
