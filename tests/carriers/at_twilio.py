"""A box whose number is at Twilio: the settings of its trunk, and the way through the proxy in front of it."""

from __future__ import annotations

from appliance.cli.box import HOST, Box
from tests.carriers.twilio_sim import TwilioSim

SID = "AC" + "5" * 32
TOKEN = "7" * 32
PUBLIC = "https://voice.example.com"
MEDIA = "wss://voice.example.com"


def twilio_account() -> TwilioSim:
    """The account of :func:`trunk`, with its number's webhooks."""
    return TwilioSim(f"{PUBLIC}/twilio/voice", status_url=f"{PUBLIC}/twilio/status", account_sid=SID, auth_token=TOKEN)


def trunk(api_url: str) -> dict[str, object]:
    """Settings of a trunk at that account."""
    return {
        "kind": "twilio", "account_sid": SID, "auth_token": TOKEN, "public_url": PUBLIC, "api_url": api_url,
        "allow_prefixes": ["+49"], "caller_id": "+4930111",
    }  # fmt: skip


def reach(sim: TwilioSim, box: Box, media_port: int = 0) -> None:
    """Lead the public address to the box, its media by another port where there is a relay in between."""
    media = media_port or box.settings["listen.media.port"]
    sim.reach = {PUBLIC: f"http://{HOST}:{box.http_port}", MEDIA: f"ws://{HOST}:{media}"}
