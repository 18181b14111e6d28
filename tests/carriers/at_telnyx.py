"""A box whose number is at Telnyx: the settings of its trunk, and the way through the proxy in front of it."""

from __future__ import annotations

from appliance.cli.box import HOST, Box
from tests.carriers.at_twilio import MEDIA, PUBLIC
from tests.carriers.telnyx_sim import TelnyxSim


def telnyx_account() -> TelnyxSim:
    """An account whose Voice API application leads to the box; it sends every webhook twice, as Telnyx may."""
    return TelnyxSim(f"{PUBLIC}/telnyx/webhook", twice=True)


def trunk(sim: TelnyxSim) -> dict[str, object]:
    """Settings of a trunk at that account."""
    return {
        "kind": "telnyx", "api_key": sim.api_key, "public_key": sim.public_key, "connection_id": sim.connection_id,
        "public_url": PUBLIC, "api_url": sim.api_url, "allow_prefixes": ["+49"], "caller_id": "+4930111",
    }  # fmt: skip


def reach(sim: TelnyxSim, box: Box) -> None:
    """Lead the public address to the box."""
    media = f"ws://{HOST}:{box.settings['listen.media.port']}"
    sim.reach = {PUBLIC: f"http://{HOST}:{box.http_port}", MEDIA: media}
