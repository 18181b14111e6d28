"""How soon after the answer a person hears the agent, on calls that look for machines and on calls that do not."""

from __future__ import annotations

import json
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Final

from appliance.cli.box import Box
from tests.bench.callees import FarmProcess
from tests.bench.lines import dialplan

TOKEN: Final = "a-token-for-the-benchmark"
LINE: Final[dict[str, Any]] = {
    "name": "recall",
    "match": {"called": ["900"]},
    "greeting": "Hello, this is the practice of Doctor Miller.",
    "flow": {
        "ask": {"ask": "Is Tuesday at nine all right?", "expect": {"yes": ["yes", "yes please"], "no": ["no"]}},
        "bye": {"hang_up": "Thank you, goodbye."},
    },
}


def first_sounds(calls: int) -> tuple[list[float], list[float], list[str]]:
    """Place calls to people over SIP, in turns with detection and without.

    Returns:
        Seconds from the callee's 200 to the first sound that reached it, with detection and without; and the verdicts.
    """
    sounds: tuple[list[float], list[float]] = ([], [])
    verdicts: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with FarmProcess(folder / "farm.jsonl") as farm:
            carrier = {
                "kind": "sip",
                "proxy": f"sip:127.0.0.1:{farm.port}",
                "allow_prefixes": ["+1202"],
                "caller_id": "+12025550100",
            }
            settings = {"trunks": {"carrier": carrier}, "api.tokens": [TOKEN], **dialplan(folder, [LINE])}
            with Box(folder / "box", settings) as box:
                for index in range(2 * calls):
                    number = f"+1202555{index:03}0"
                    detect = index % 2 == 0
                    verdict = _call(box, number, detect)
                    heard = [one for one in farm.entries() if one["number"] == number and one["event"] == "heard"]
                    sounds[not detect].extend(float(one["first_sound_after_s"]) for one in heard[:1])
                    if detect:
                        verdicts.append(verdict)
    return *sounds, verdicts


def _call(box: Box, number: str, detect: bool) -> str:
    body: dict[str, Any] = {"number": number, "line": "recall", "trunk": "carrier", "owner": "Acme Plumbing"}
    if detect:
        body["answering"] = {"on_machine": "hang_up"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{box.http_port}/api/v1/calls?wait=true",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=90) as reply:
        verdict = json.loads(reply.read())["result"].get("verdict")
    return str(verdict["kind"]) if verdict else "none"
