"""The lines and engines that benchmarks call into, and the voices that do the calling."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import yaml

from appliance.cli.say import speak
from appliance.cli.softphone import write_wav

LISTENER = "1001"
"""Greets, then waits for a key; never hangs up by itself."""
GOODBYE = "1002"
"""Says goodbye and hangs up."""
TALKER = "1003"
"""Answers whatever is said with a long sentence, and listens again."""
KEYS = "1004"
"""Branches on a key: 1 speaks on, 2 says goodbye and hangs up."""
ASSISTANT = "1005"
"""A language model leads: greeting, then a reply to every turn."""
PROMPTS = "1006"
"""One question that expects every text it was made with, again and again."""

ANSWER = "yes please"
REPLY = "Sure, I can help you with that. Your appointment is confirmed for Tuesday at three. Is there anything else?"
"""What the standard fake model says."""

STANDARD_FAKES: dict[str, object] = {
    "engines.asr": {"provider": "fake", "delay_ms": 100, "text": ANSWER},
    "engines.llm": {"provider": "fake", "first_token_ms": 150, "token_ms": 15, "text": REPLY},
    "engines.tts": {"provider": "fake", "first_audio_ms": 100, "chunk_ms": 20},
}

_AUDIO = Path(__file__).parents[2] / ".." / "shared" / "audio"
NOISE = _AUDIO / "noise"
"""Folder of recorded background noise; empty where it is not beside the clone."""
_SENTENCES = (
    "I would like to make an appointment for Tuesday at three",
    "the second one sounds better to me than the first",
    "could you tell me when you are open on Saturday",
)


def settings(folder: Path, asr: str = "fake", tts: str = "fake") -> dict[str, object]:
    """Settings for a box with these lines; the dialplan is written below ``folder``.

    Engines are the standard fakes; ``asr="pocketsphinx"`` and ``tts="espeak"`` take the real ones.
    """
    chosen: dict[str, object] = {**STANDARD_FAKES, "limits.drain_s": 5}
    if asr != "fake":
        chosen["engines.asr"] = {"provider": asr}
    if tts != "fake":
        chosen["engines.tts"] = {"provider": tts}
    return {**chosen, **dialplan(folder, _standard_lines())}


def dialplan(folder: Path, lines: Sequence[dict[str, object]]) -> dict[str, object]:
    """The setting that makes a box answer with ``lines``, which are written below ``folder``."""
    plans = folder / "dialplans"
    plans.mkdir(parents=True, exist_ok=True)
    for line in lines:
        (plans / f"{line['name']}.yaml").write_text(yaml.safe_dump(line, sort_keys=False))
    return {"dialplans.paths": [str(plans)]}


def prompts_line(expected: Sequence[str], reject: bool) -> dict[str, object]:
    """The line of the recognition bar."""
    return {
        "name": "prompts",
        "match": {"called": PROMPTS},
        "barge_in": False,
        "record": False,
        "reject_unexpected": reject,
        "no_input": {"after_s": 60, "retries": 10, "then": "next"},
        "no_match": {"prompts": ["No."], "retries": 1, "then": "next"},
        "flow": {
            "next": {
                "ask": "Next?",
                "expect": {f"p{number}": [text] for number, text in enumerate(expected)},
                "slot": "heard",
                "next": "next",
            }
        },
    }


def human_speech(folder: Path) -> list[Path]:
    """Recorded sentences where they are beside the clone, else synthetic ones made below ``folder``."""
    found = sorted((_AUDIO / "utterances").glob("spk*_snt*.wav"))
    if found:
        return found
    made: list[Path] = []
    for number, pcm in enumerate(asyncio.run(speak(_SENTENCES))):
        made.append(folder / f"sentence{number}.wav")
        write_wav(made[-1], pcm)
    return made


def question(folder: Path) -> Path:
    """One recorded question, or a synthetic one where there is none."""
    recorded = _AUDIO / "utterances" / "weather_question.wav"
    return recorded if recorded.exists() else human_speech(folder)[0]


def _standard_lines() -> list[dict[str, object]]:
    patient = {"no_input": {"after_s": 600}}
    return [
        {
            "name": "listener",
            "match": {"called": LISTENER},
            "greeting": "Good morning, please press a key.",
            "record": True,
            **patient,
            "flow": {"wait": {"ask": "Which key?", "keys": {str(n): "key" for n in range(10)}, "next": "wait"}},
        },
        {
            "name": "goodbye",
            "match": {"called": GOODBYE},
            "record": True,
            "flow": {"bye": {"hang_up": "Goodbye."}},
        },
        {
            "name": "talker",
            "match": {"called": TALKER},
            "greeting": "Good morning.",
            "record": True,
            **patient,
            "reject_unexpected": False,
            # A recogniser that is starved on purpose must not end the calls whose pacing is measured.
            "no_match": {"prompts": [REPLY], "retries": 1, "then": "listen"},
            "flow": {"listen": {"ask": REPLY, "expect": {"any": [ANSWER]}, "next": "listen"}},
        },
        {
            "name": "keys",
            "match": {"called": KEYS},
            "greeting": "Welcome to the test line.",
            "record": True,
            **patient,
            "flow": {
                "menu": {
                    "ask": "Press one to stay, or two to leave.",
                    "keys": {"1": "stay", "2": "leave"},
                    "next": {"stay": "stay", "default": "leave"},
                },
                "stay": {"say": "You have pressed one, so here is a rather longer sentence.", "next": "menu"},
                "leave": {"hang_up": "You have pressed two. Goodbye."},
            },
        },
        {
            "name": "assistant",
            "match": {"called": ASSISTANT},
            "greeting": "Good morning, how can I help?",
            "record": True,
            **patient,
            "agent": "llm",
            "prompt": "You are a helpful receptionist.",
        },
    ]
