"""Wishes not to be called again, and what is none, through the embedded recogniser with its closed list.

    python -m tests.bench.wishes

Four synthetic voices say seven wishes and twenty-two other things that those who are called say; a person's recorded
prompts (Debian's, ``make peers``) say what nobody expects. The list is that of a question for yes or no, with the
wishes that every call of ours adds to it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from appliance.cli.say import speak
from appliance.conversation.opt_out import opts_out, phrases
from appliance.engines.pocketsphinx_asr import PocketSphinxRecogniser
from tests.bench.asr_accuracy import as_heard
from tests.bench.prompts import PromptsMissing, qualifying
from tests.bench.report import Bar

EXPECTED: Final = ("yes", "yes please", "no", "no thank you", "<digits 4 4>")
WISHES: Final = (
    "stop calling me", "please stop calling me", "take me off your list", "don't call me again", "remove my number",
    "do not call me again", "never call me again",
)  # fmt: skip
OTHERS: Final = (
    "yes", "yes please", "no", "no thank you", "no thanks", "hello", "who is this", "what do you want",
    "I am not interested", "not now", "call me tomorrow", "I can't talk right now", "maybe later",
    "what company is this", "sorry I did not hear you", "is this a robot", "how much does it cost", "stop", "no more",
    "one moment please", "speaking", "my husband is not here",
)  # fmt: skip
VOICES: Final = ("en-us+m3", "en-gb+m7", "en-us+f2", "en-gb-scotland+f4")
LEAST: Final = 0.75


async def main() -> int:
    bar = Bar("wishes", "not to be called again")
    recogniser = PocketSphinxRecogniser(cache_grammars=4)
    listed = (*EXPECTED, *phrases("en-us"))
    understood = wrong = lost = 0
    for voice in VOICES:
        for text, pcm in zip((*WISHES, *OTHERS), await speak((*WISHES, *OTHERS), voice), strict=True):
            heard = recogniser.recognise(as_heard(pcm), listed, reject=True)
            wish = heard.accepted and opts_out(heard.text, "en")
            understood += wish and text in WISHES
            if wish and text in OTHERS:
                wrong += 1
                bar.note(f"{text!r} by {voice} is taken for {heard.text!r}")
            if text in EXPECTED:
                without = recogniser.recognise(as_heard(pcm), EXPECTED, reject=True)
                lost += (without.accepted and without.text == text) - (heard.accepted and heard.text == text)
    bar.figure(f"{understood} of {len(WISHES) * len(VOICES)} wishes understood")
    bar.figure(f"{wrong} of {len(OTHERS) * len(VOICES)} other utterances taken for one")
    bar.figure(f"{lost} expected answers lost to the longer list")
    bar.require(understood >= LEAST * len(WISHES) * len(VOICES), f"{LEAST:.0%} of wishes are understood")
    bar.require(wrong == 0 and lost <= 1, "nothing else is taken for one")
    try:
        prompts = qualifying()
    except PromptsMissing as missing:
        bar.note(str(missing))
        return bar.finish()
    taken = [
        prompt.text
        for prompt in prompts
        if (heard := recogniser.recognise(as_heard(prompt.pcm()), listed, reject=True)).accepted
        and opts_out(heard.text, "en")
    ]
    bar.figure(f"{len(taken)} of {len(prompts)} recorded prompts taken for one")
    bar.require(not taken, f"prompts are no wishes: {taken[:3]}")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
