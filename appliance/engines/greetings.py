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
    ("leave a message", 40),
    ("please leave a message", 50),
    ("a message", 20),
    ("message", 10),
    ("leave me a message", 50),
    ("leave us a message", 50),
    ("leave your message", 50),
    ("leave your name", 25),
    ("leave your", 10),
    ("please leave", 15),
    ("your message", 40),
    ("name and number", 40),
    ("after the tone", 30),
    ("after the beep", 25),
    ("at the tone", 10),
    ("for the tone", 25),
    ("not available", 30),
    ("unavailable", 20),
    ("nobody is available", 50),
    ("no one is available", 50),
    ("you have reached", 25),
    ("you've reached", 20),
    ("come to the phone", 30),
    ("can't take your call", 50),
    ("take your call", 20),
    ("not able to take", 50),
    ("unable to take", 40),
    ("the person you", 30),
    ("the number you", 20),
    ("voicemail", 30),
    ("mailbox", 15),
    ("please record", 50),
    ("record your message", 50),
    ("you may hang up", 25),
    ("return your call", 25),
    ("missed your call", 50),
    ("soon as possible", 50),
    ("call back later", 40),
    ("try again later", 50),
    ("not at home", 10),
    ("office is closed", 50),
    ("office hours", 30),
    ("forwarded to", 40),
    ("switched off", 30),
    ("state your name", 50),
    ("say your name", 30),
    ("record your name", 40),
    ("tell me your name", 50),
    ("your name", 10),
    ("reason for your call", 50),
    ("reason for calling", 50),
    ("why you are calling", 50),
    ("why you're calling", 25),
    ("screening", 5),
    ("wants to know", 30),
    ("how can i help", 50),
    ("how may i", 20),
    ("help you", 5),
    ("what can i do", 30),
    ("who is calling", 50),
    ("speaking", 10),
)
