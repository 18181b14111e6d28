"""What a tool is, for those who write one: see :mod:`appliance.tool_types`, where it is defined."""

from appliance.tool_types import Answer, Arguments, OngoingCall, Question, RunTool, Tool, ToolError

__all__ = ["Answer", "Arguments", "OngoingCall", "Question", "RunTool", "Tool", "ToolError"]
