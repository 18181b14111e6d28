"""The phrases that tell who has answered an outgoing call, for a recogniser that spots them in anything that is said.

A request whose only phrase is ``GREETING`` asks for them: an engine with an open vocabulary answers with all that was
said, the embedded one with the phrases that it spotted. The exponents are those of PocketSphinx's thresholds: the
higher, the more readily a phrase is heard, and the longer it is, the higher it may be before it is heard where it was
not said. ``python -m tests.bench.answering_phrases`` chooses them.
"""

from __future__ import annotations

from typing import Final

GREETING: Final = "<greeting>"

SPOTTED: Final[tuple[tuple[str, int], ...]] = (
    ("leave a message", 55),
    ("please leave a message", 60),
    ("a message", 30),
    ("message", 22),
    ("leave me a message", 25),
    ("leave us a message", 25),
    ("leave your message", 25),
    ("leave your name", 40),
    ("leave your", 10),
    ("please leave", 10),
    ("your message", 30),
    ("name and number", 40),
    ("after the tone", 40),
    ("after the beep", 40),
    ("at the tone", 10),
    ("for the tone", 15),
    ("not available", 60),
    ("unavailable", 20),
    ("available", 15),
    ("nobody is available", 40),
    ("no one is available", 40),
    ("you have reached", 35),
    ("you've reached", 20),
    ("come to the phone", 60),
    ("can't take your call", 40),
    ("take your call", 20),
    ("not able to take", 40),
    ("unable to take", 25),
    ("the person you", 30),
    ("the number you", 25),
    ("voicemail", 40),
    ("mailbox", 25),
    ("please record", 40),
    ("record your message", 40),
    ("you may hang up", 40),
    ("call you back", 35),
    ("get back to you", 40),
    ("return your call", 25),
    ("missed your call", 30),
    ("soon as possible", 40),
    ("call back later", 40),
    ("try again later", 40),
    ("not at home", 30),
    ("office is closed", 40),
    ("office hours", 35),
    ("forwarded to", 25),
    ("switched off", 30),
    ("state your name", 40),
    ("say your name", 45),
    ("record your name", 35),
    ("tell me your name", 35),
    ("your name", 20),
    ("reason for your call", 35),
    ("reason for calling", 40),
    ("why you are calling", 40),
    ("why you're calling", 25),
    ("screening", 10),
    ("wants to know", 35),
    ("how can i help", 35),
    ("how may i", 20),
    ("help you", 5),
    ("what can i do", 30),
    ("who is calling", 35),
    ("speaking", 10),
)
