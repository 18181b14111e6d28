"""For the tests of plugins and dialplans: whole calls in virtual time, with pytest or without.

With pytest, a test that is ``async`` and takes the fixture ``scripted_call`` runs in virtual time::

    async def test_the_caller_hears_the_weather(scripted_call):
        call = await scripted_call(
            plugins={"weather": {"city": "Paris"}},
            paths=["plugins"],
            model={"weather": [uses("forecast", day="today"), "It will be sunny."]},
        )
        await call.says("What is the weather like?")
        assert call.tool("forecast").arguments == {"day": "today"}
        assert call.heard("sunny")

See ``docs/plugins/testing.md``.
"""

from appliance.testing.scripted import Script, ScriptedCall, ScriptError, ToolUse, Uses, scripted_call, uses
from appliance.testing.virtual_time import VirtualLoop, run_virtual

__all__ = [
    "Script",
    "ScriptError",
    "ScriptedCall",
    "ToolUse",
    "Uses",
    "VirtualLoop",
    "run_virtual",
    "scripted_call",
    "uses",
]
