"""Whisper's vocabulary: text to tokens and back, and which tokens make a word. PURE.

The vocabulary is GPT-2's kind of byte-level pair encoding: every token is a run of bytes, each byte written as one
printable character, and a token's number is its rank: of all neighbours in a text, those that make the token of the
lowest number are joined first. So the list of tokens, in order, is all that is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from appliance.errors import EngineError

ENGLISH_ONLY_SIZE: Final = 51864
"""The vocabulary of the models for English alone; every other size is of one that has languages."""

_REQUIRED: Final = ("<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>")
_NO_SPEECH: Final = ("<|nospeech|>", "<|nocaptions|>")
_LANGUAGE: Final = re.compile(r"<\|([a-z]{2,3})\|>")
_PIECE: Final = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
_WITHOUT_SPACES: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


def written(words: Iterable[str], language: str) -> str:
    """The text that ``words`` make up."""
    return (" " if spaced(language) else "").join(words)


def spaced(language: str) -> bool:
    """Whether the words of ``language`` are written apart."""
    return language.partition("-")[0].lower() not in _WITHOUT_SPACES


def _without_lone_marks(pieces: Iterable[Piece]) -> list[Piece]:
    """A dash between two words belongs to the first of them."""
    words: list[Piece] = []
    for piece in pieces:
        if words and not any(character.isalnum() for character in piece.text):
            words[-1] = Piece(words[-1].text + piece.text, words[-1].tokens + piece.tokens)
        else:
            words.append(piece)
    return words


def _characters() -> dict[int, str]:
    """The printable character that stands for each byte."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(itself)]
    return {byte: chr(byte) for byte in itself} | {byte: chr(256 + n) for n, byte in enumerate(others)}


CHARACTER_OF_BYTE: Final[Mapping[int, str]] = _characters()
_BYTE_OF_CHARACTER: Final = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


@dataclass(frozen=True)
class Piece:
    """A word as it was written, and its tokens."""

    text: str
    tokens: tuple[int, ...]


class Vocabulary:
    """The tokens of one model.

    Args:
        tokens: in the order of their numbers.
        source: where they were read, for messages.

    Attributes:
        languages: the token of each language code.

    Raises:
        EngineError: tokens that Whisper needs are missing.
    """

    def __init__(self, tokens: Sequence[str], source: str) -> None:
        self._tokens = list(tokens)
        self._number = {token: number for number, token in enumerate(self._tokens)}
        missing = [token for token in _REQUIRED if token not in self._number]
        if not any(token in self._number for token in _NO_SPEECH):
            missing.append(_NO_SPEECH[0])
        missing += [character for character in CHARACTER_OF_BYTE.values() if character not in self._number][:3]
        if missing:
            raise EngineError(
                f"{source} lacks {', '.join(missing)}: this is not the vocabulary of a Whisper model; convert the "
                "model again with ct2-transformers-converter, and set engines.asr.model to the folder it writes",
                retryable=False,
            )
        self.end = self._number["<|endoftext|>"]
        self.start = self._number["<|startoftranscript|>"]
        self.previous = self._number["<|startofprev|>"]
        self.no_timestamps = self._number["<|notimestamps|>"]
        self.transcribe = self._number.get("<|transcribe|>")
        known = ((_LANGUAGE.fullmatch(token), number) for token, number in self._number.items() if number > self.end)
        self.languages = {match[1]: number for match, number in known if match}
        self.english_only = len(self._tokens) == ENGLISH_ONLY_SIZE or not self.languages or self.transcribe is None
        self._encode_piece = lru_cache(maxsize=4096)(self._join)

    def __len__(self) -> int:
        return len(self._tokens)

    def beginning(self, language: str) -> tuple[int, ...]:
        """The tokens that a transcript in ``language`` ("en", "en-GB"; "" for English) begins with.

        Raises:
            EngineError: the model does not know the language.
        """
        code = language.partition("-")[0].lower() or "en"
        if self.english_only:
            if code != "en":
                raise EngineError(
                    f"this Whisper model knows English only, not {language!r}; set engines.asr.model to one without "
                    "'.en' in its name",
                    retryable=False,
                )
            return self.start, self.no_timestamps
        if code not in self.languages:
            raise EngineError(
                f"Whisper does not know the language {language!r}; it knows {', '.join(sorted(self.languages))}",
                retryable=False,
            )
        assert self.transcribe is not None
        return self.start, self.languages[code], self.transcribe, self.no_timestamps

    def encode(self, text: str) -> list[int]:
        """The tokens of ``text``; a special token's name is read as the text it is."""
        return [token for piece in _PIECE.findall(text) for token in self._encode_piece(piece)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens``, special ones left out; bytes that are no whole character become U+FFFD."""
        return self._bytes(tokens).decode(errors="replace")

    def words(self, tokens: Iterable[int], language: str) -> list[Piece]:
        """The words of ``tokens``, in order, each with the punctuation that belongs to it.

        In languages written without spaces every character, or token of several, is a word.
        """
        apart = spaced(language)
        pieces: list[Piece] = []
        pending: list[int] = []
        for token in tokens:
            if token >= self.end:
                continue
            pending.append(token)
            text = self.decode(pending)
            if "\ufffd" in text or not text.strip():
                continue
            begins = text.startswith(" ") if apart else any(character.isalnum() for character in text)
            if pieces and not begins:
                pieces[-1] = Piece(pieces[-1].text + text.strip(), pieces[-1].tokens + tuple(pending))
            else:
                pieces.append(Piece(text.strip(), tuple(pending)))
            pending = []
        if pending and pieces:
            pieces[-1] = Piece(pieces[-1].text, pieces[-1].tokens + tuple(pending))
        return _without_lone_marks(pieces)

    def _bytes(self, tokens: Iterable[int]) -> bytes:
        return b"".join(
            bytes(_BYTE_OF_CHARACTER.get(character, 0x3F) for character in self._tokens[token])
            for token in tokens
            if token < self.end
        )

    def _join(self, piece: str) -> tuple[int, ...]:
        parts = [CHARACTER_OF_BYTE[byte] for byte in piece.encode()]
        while len(parts) > 1:
            ranks = [self._rank(parts[at] + parts[at + 1]) for at in range(len(parts) - 1)]
            lowest = min(ranks)
            if lowest >= self.end:
                break
            at = ranks.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self._number[part] for part in parts)

    def _rank(self, token: str) -> int:
        return self._number.get(token, self.end)
