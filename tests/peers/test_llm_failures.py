"""A whole box is called while its language model fails: the caller is told something, and the record says what it was.

How soon, ``python -m tests.bench.llm_failures`` measures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import lines
from tests.bench.llm_failures import MODES, outcome_of
from tests.openai_sim.chat import REPLY, Answer

pytestmark = [pytest.mark.peer, pytest.mark.slow]

SORRY = "I am sorry, something went wrong on my side. Please try again."
FIRST_SENTENCE = REPLY.partition(".")[0] + "."


@pytest.mark.parametrize(
    ("mode", "said", "problem"),
    [
        ("refuses connections", SORRY, "server0 refuses connections; start it, or check engines.llm.base_url"),
        ("stalls before the first token", SORRY, "server0 gave no first token within 2.5 s"),
        ("stalls after the first sentence", f"{FIRST_SENTENCE} {SORRY}", "server0 fell silent for 2 s in the middle"),
        ("sends broken JSON", SORRY, "server0 broke off with what is no chat completion"),
        ("dies after the first sentence", f"{FIRST_SENTENCE} {SORRY}", "server0 broke off in the middle of the reply"),
    ],
)
async def test_the_caller_hears_an_apology(mode: str, said: str, problem: str, tmp_path: Path) -> None:
    found = await outcome_of(tmp_path, lines.question(tmp_path), MODES[mode])
    assert found.turn["agent_text"] == said
    assert problem in found.turn["problem"]
    assert "server0" in found.turn["problem"]


async def test_a_second_server_answers_in_the_place_of_one_that_is_silent(tmp_path: Path) -> None:
    found = await outcome_of(tmp_path, lines.question(tmp_path), Answer(stall_after=0), Answer())
    assert found.turn["agent_text"] == REPLY
    assert (found.turn["server"], found.turn["problem"]) == ("server1", "")


async def test_the_line_goes_on_with_its_flow(tmp_path: Path) -> None:
    line: dict[str, object] = {
        "name": "desk",
        "agent": "llm",
        "prompt": "Take bookings.",
        "greeting": "Good morning.",
        "fallback": {"after": 1, "say": "Let us do it by hand.", "step": "people"},
        "flow": {"people": {"ask": "For how many?", "digits": {"max": 2}}, "bye": {"hang_up": "Goodbye."}},
    }
    found = await outcome_of(tmp_path, lines.question(tmp_path), None, line=line)
    assert found.turn["agent_text"] == "Let us do it by hand. For how many?"
    assert "server0 refuses connections" in found.turn["problem"]
