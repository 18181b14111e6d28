"""Puts callers through, and tells the human who answers what the call is about.

Pages: docs/plugins/transfer.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from appliance.api import Arguments, Call, Denied, OngoingCall, PluginValues, Tool, hookimpl

API = 1
SUMMARY = "Puts callers through with a summary for the human who answers."

_MAX_SUMMARY = 300
_WAITING = "target"


class Values(PluginValues):
    """What an operator may write below `transfer`.

    Attributes:
        targets: who callers may be put through to: names of the line's `transfers`, each with words that tell the
            model who that is. Whether it is blind or attended is said there, and so is the number.
        summary: whether the model has to sum up the call for the human (`required`), may do so, or does not (`off`).
            It is kept as the slot `summary`: `announce: "A call from ${caller.number}. ${slots.summary}"`.
        confirm: what the caller is asked first, to be answered yes or no; `{to}` stands for the target. "" asks
            nothing.
        most: times that a caller may be put through in one call, those that nobody answered included.
    """

    targets: dict[str, str] = Field(min_length=1)
    summary: str = Field(default="required", pattern="^(required|optional|off)$")
    confirm: str = ""
    most: int = Field(default=3, ge=1, le=20)


@hookimpl
def appliance_tools(call: Call) -> Sequence[Tool]:
    values: Values = call.values

    async def put_through(arguments: Arguments, ongoing: OngoingCall) -> dict[str, str]:
        summary = " ".join(str(arguments.get("summary", "")).split())[:_MAX_SUMMARY]
        if summary:
            ongoing.note("summary", summary)
        call.state[_WAITING] = arguments["to"]
        ongoing.hand_on(arguments["to"])
        return {"status": "the caller is put through when you have finished speaking"}

    properties: dict[str, object] = {"to": {"type": "string", "enum": list(values.targets)}}
    if values.summary != "off":
        properties["summary"] = {
            "type": "string",
            "minLength": 1,
            "maxLength": _MAX_SUMMARY,
            "description": "For the human who answers: who calls, what they want, what is known so far. It is spoken.",
        }
    who = "; ".join(f"{name}: {words}" for name, words in values.targets.items())
    return [
        Tool(
            name="put_through",
            description=f"Puts the caller through to a human. {who}",
            parameters={
                "type": "object",
                "properties": properties,
                "required": ["to", *(["summary"] if values.summary == "required" else [])],
                "additionalProperties": False,
            },
            run=put_through,
            confirm=values.confirm,
        )
    ]


@hookimpl
def appliance_transfer_requested(call: Call, target: str) -> str | Denied | None:
    times = call.state["times"] = call.state.get("times", 0) + 1
    if times > call.values.most:
        return Denied(f"the caller was put through {call.values.most} times already; take a message instead")
    # By its name, the line's target is filled in anew: with the summary.
    name: str | None = call.state.pop(_WAITING, None)
    return name
