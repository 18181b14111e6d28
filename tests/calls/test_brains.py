"""What a dialplan's variables stand for."""

from __future__ import annotations

from dataclasses import replace

from appliance.calls.brains import FlowBrain, variables
from appliance.config.trunks import NETWORK_VARIABLES
from appliance.conversation import brain
from appliance.dialplan.schema import Line
from appliance.signalling.headers import read_headers
from appliance.sip.message import Headers
from tests.calls.virtual_call import Leg

HEADERS = [
    ("P-Asserted-Identity", '"Ann Lee" <sip:+4930123@carrier.example>'),
    ("From", "<sip:anonymous@anonymous.invalid;verstat=TN-Validation-Passed>;tag=1"),
    ("Privacy", "id;critical"),
    ("Diversion", "<sip:+4930200@carrier.example>;reason=user-busy"),
    ("Reason", 'SIP;cause=486, Q.850;cause=17;text="User busy"'),
    ("User-to-User", "56a390f3;encoding=hex"),
]


def test_what_the_network_says_about_a_call_can_be_said_and_passed_on() -> None:
    info = replace(Leg().info, about=read_headers(Headers(HEADERS)), offered={"X-Customer": "7"})
    assert variables(info) == {
        "caller.asserted": "+4930123",
        "caller.asserted_name": "Ann Lee",
        "caller.verstat": "TN-Validation-Passed",
        "caller.privacy": "id;critical",
        "diverted.number": "+4930200",
        "call.reason": 'SIP;cause=486, Q.850;cause=17;text="User busy"',
        "call.user_to_user": "56a390f3;encoding=hex",
        "header.X-Customer": "7",
    }


def test_a_call_that_says_nothing_leaves_every_variable_empty() -> None:
    assert variables(Leg().info) == dict.fromkeys(NETWORK_VARIABLES, "")


async def test_a_flow_says_them() -> None:
    text = "Hello " + " ".join(
        f"${{{name}}}" for name in ("caller.asserted_name", "caller.privacy", "call.user_to_user")
    )
    line = Line.model_validate({"name": "x", "greeting": {"text": text}, "flow": {"bye": {"hang_up": "Goodbye."}}})
    info = replace(Leg().info, about=read_headers(Headers(HEADERS)))
    said = [step.text async for step in FlowBrain(line, info).reply(brain.Opening()) if isinstance(step, brain.Say)]
    assert said[0] == "Hello Ann Lee id;critical 56a390f3;encoding=hex"
