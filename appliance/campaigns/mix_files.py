"""Where a simulation's mix comes from: a file, or the calls of an earlier campaign."""

from __future__ import annotations

from pathlib import Path

from appliance.campaigns.definition import Definition
from appliance.campaigns.mix import Measuring, Mix
from appliance.campaigns.pacing import Gate
from appliance.config.load import read_document
from appliance.config.validation import validate
from appliance.errors import ConfigError, StoreError
from appliance.store.campaigns import CampaignStore


def read_mix(path: Path) -> Mix:
    """The mix in a file, YAML or JSON.

    Raises:
        ConfigError: with every mistake.
    """
    checked = validate(Mix, read_document(path))
    if checked.mistakes or checked.value is None:
        raise ConfigError(list(checked.mistakes))
    return checked.value


async def mix_of_campaign(store: CampaignStore, name: str) -> Mix:
    """What the calls of a campaign have come to so far.

    Raises:
        StoreError: there is no such campaign, none of its calls is over, or it cannot be read.
    """
    pacing = Definition.of(await store.definition_of(name)).pacing
    measuring = Measuring(Gate(pacing.calls_per_s).distance_s)
    async for attempt in store.attempts(name):
        measuring.add(attempt)
    try:
        return measuring.mix()
    except ValueError as error:
        raise StoreError(f"campaign {name!r}: {error}") from error
