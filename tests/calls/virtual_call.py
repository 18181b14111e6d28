"""A whole call in virtual time (:mod:`appliance.testing.virtual_call`), and a line to hold it on."""

from __future__ import annotations

from typing import Any

from appliance.dialplan.schema import Line
from appliance.testing.virtual_call import (
    LOUD,
    QUIET,
    SAMPLES_PER_CHARACTER,
    SILENT_DBFS,
    SPEECH_DBFS,
    Engines,
    Leg,
    Log,
    Media,
    Step,
    VirtualCall,
    VirtualClock,
)

__all__ = [
    "FLOW",
    "LOUD",
    "QUIET",
    "SAMPLES_PER_CHARACTER",
    "SILENT_DBFS",
    "SPEECH_DBFS",
    "Engines",
    "Leg",
    "Log",
    "Media",
    "Step",
    "VirtualCall",
    "VirtualClock",
    "flow_line",
]

FLOW: dict[str, Any] = {
    "name": "desk",
    "greeting": "Hello, this is the desk.",
    "no_input": {"after_s": 5, "prompts": ["Are you there?"]},
    "no_match": {"prompts": ["Sorry, what was that?"]},
    "flow": {
        "what": {
            "ask": "Do you want tea or coffee?",
            "expect": {"tea": ["tea please"], "coffee": ["coffee please"]},
            "keys": {"1": "tea"},
            "slot": "drink",
            "next": {"default": "pin"},
        },
        "pin": {
            "ask": "Please enter your four digit code.",
            "digits": {"min": 4, "max": 4, "by": "both"},
            "slot": "pin",
            "next": "bye",
        },
        "bye": {"hang_up": "Thank you, goodbye.", "disposition": "done"},
    },
}


def flow_line(**changes: Any) -> Line:
    return Line.model_validate({**FLOW, **changes})
