"""Whether what was heard breaks off: a hesitation, or a word that cannot end an English sentence."""

from __future__ import annotations

import re
from typing import Final

_HESITATIONS: Final = ("um", "uh", "er", "erm", "hmm", "mm", "like")
_CONNECTIVES: Final = ("and", "or", "but", "so", "because", "if", "that", "then")
_BOUND_WORDS: Final = ("the", "a", "an", "to", "of", "my", "is", "with", "for", "from", "at", "in", "on")
_FILLERS: Final = frozenset(_HESITATIONS + _CONNECTIVES + _BOUND_WORDS)
_LAST_WORD: Final = re.compile(r"([^\W\d_]+)[^\w]*$")


def ends_in_filler(text: str) -> bool:
    """Whether an English text breaks off ("I would like um", "to the"). A question mark settles that it does not."""
    if text.rstrip().endswith("?"):
        return False
    match = _LAST_WORD.search(text.lower())
    return match is not None and match.group(1) in _FILLERS
