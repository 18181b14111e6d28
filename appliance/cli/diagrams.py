"""``python -m appliance.cli.diagrams``: draws ``docs/state-diagrams.md`` from the tables that the code runs on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from appliance.conversation.turn_states import barge_in_diagram, turn_diagram
from appliance.dialplan.flow import TRANSITIONS, State
from appliance.sip.diagrams import sip_diagrams

PAGE: Final = Path(__file__).parents[2] / "docs" / "state-diagrams.md"
_HEAD: Final = """# State diagrams

Drawn from the transition tables in the code by `python -m appliance.cli.diagrams`; a test fails when they differ.
"""


def page() -> str:
    """The whole page in Markdown, the diagrams in Mermaid."""
    diagrams = dict(sip_diagrams())
    diagrams["The caller's turns (`appliance/conversation/turn_states.py`)"] = turn_diagram()
    diagrams["The agent under the caller's voice (`appliance/conversation/barge_in.py`)"] = barge_in_diagram()
    diagrams["A dialplan's flow (`appliance/dialplan/flow.py`)"] = _flow_diagram()
    parts = [_HEAD]
    parts += [f"## {title}\n\n```mermaid\n{text.rstrip()}\n```\n" for title, text in diagrams.items()]
    return "\n".join(parts)


def _flow_diagram() -> str:
    """What a flow takes in which state; a handler may stay, ask the next question, or end."""
    lines = [
        "stateDiagram-v2",
        f"    [*] --> {State.NEW.value}",
        f"    {State.NEW.value} --> {State.ASKING.value}: start",
    ]
    for state, event in TRANSITIONS:
        to = State.ENDED if state is State.CLOSING else State.ASKING
        lines.append(f"    {state.value} --> {to.value}: {event.__name__}")
    lines.append(f"    {State.ASKING.value} --> {State.CLOSING.value}: a step hangs up")
    return "\n".join(lines) + "\n"


def main() -> int:
    PAGE.write_text(page())
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
