"""Speech from espeak-ng, at 8 kHz.

The library is loaded by the synthesis worker and by nothing else: it is under the GPL and stays on the far side of a
process boundary. It keeps its state in globals, so there is one of it per process, behind a lock.

espeak-ng runs about a thousand times faster than speech but cannot pause: a text is therefore cut into pieces of a
sentence or so, and each piece is synthesised in one go when its first samples are asked for. A caller that loses
interest closes the generator, and no further piece is made.

Text is data. Nothing in it is taken for markup: neither SSML nor espeak's ``[[phonemes]]`` are switched on, and the
control characters of espeak's embedded commands are removed.
"""

from __future__ import annotations

import ctypes
import difflib
import re
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import espeakng_loader
import numpy as np
import soxr
from numpy.typing import NDArray

from appliance.engines.speech_level import CLAUSE_PAUSE_S, SENTENCE_PAUSE_S, whole_piece
from appliance.errors import EngineError

RATE_HZ: Final = 8000
CHUNK_SAMPLES: Final = 1600
"""Most samples in one array that :meth:`EspeakSynthesiser.synthesise` yields: 200 ms."""
MAX_TEXT_CHARACTERS: Final = 10_000
MIN_RATE: Final = 0.5
MAX_RATE: Final = 2.5

_WORDS_PER_MINUTE: Final = 170
_FIRST_PIECE_CHARACTERS: Final = 120
_PIECE_CHARACTERS: Final = 240

# espeak-ng/speak_lib.h
_OUTPUT_SYNCHRONOUS: Final = 2
_INITIALIZE_DONT_EXIT: Final = 0x8000
_CALLBACK_MS: Final = 60
_CHARS_UTF8: Final = 1
_PARAMETER_RATE: Final = 1
_PHONEMES_IPA: Final = 2

_MARK: Final = re.compile(r"[.,;:!?…。！？、，；：]")
_MARK_WITHIN: Final = 4


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng.

    ``language`` is its tag (``en-us``) and ``identifier`` its file below the voice data. ``tags`` are all the tags it
    serves, its own first, each after its priority there: the voice with the lowest number is the tag's voice.
    """

    language: str
    name: str
    identifier: str
    tags: tuple[tuple[int, str], ...]


class EspeakSynthesiser:
    """Text to 8 kHz speech. Any number of instances share the process's one library, one piece at a time.

    Raises:
        EngineError: the library or its data cannot be loaded (not retryable).
    """

    def __init__(self) -> None:
        self._library = _Library.shared()

    def voices(self) -> tuple[Voice, ...]:
        """Every voice there is, sorted by language tag."""
        return self._library.voices

    def variants(self) -> tuple[str, ...]:
        """What may follow a voice after a plus sign, as in ``en-us+f3``."""
        return tuple(sorted(self._library.variants))

    def synthesise(self, text: str, *, voice: str = "en-us", rate: float = 1.0) -> Iterator[NDArray[np.int16]]:
        """Speak ``text``.

        Args:
            text: plain text, at most MAX_TEXT_CHARACTERS. With nothing to say in it, nothing is yielded.
            voice: a language tag, an English voice name or an identifier out of :meth:`voices`, with an optional
                ``+variant``. A regional tag without a voice of its own (``de-DE``) gets its language's.
            rate: 1.0 is espeak's normal speed; MIN_RATE to MAX_RATE.

        Returns:
            Chunks of at most CHUNK_SAMPLES at 8 kHz, about -20 dBFS while speaking and below -1 dBFS throughout.
            The first begins with speech within 20 ms; at most 60 ms of silence follow the last sound. Closing the
            generator stops the synthesis.

        Raises:
            EngineError: unknown voice, rate or text out of range (not retryable). Raised here, before anything is
                synthesised.
        """
        if not MIN_RATE <= rate <= MAX_RATE:
            raise EngineError(f"speaking rate {rate} is not within {MIN_RATE} to {MAX_RATE}", retryable=False)
        if len(text) > MAX_TEXT_CHARACTERS:
            raise EngineError(
                f"a text of {len(text)} characters is too long to speak; the most is {MAX_TEXT_CHARACTERS}",
                retryable=False,
            )
        return self._speak(_pieces(text), self._library.resolve(voice), rate)

    def _speak(self, pieces: list[tuple[str, float]], voice: str, rate: float) -> Iterator[NDArray[np.int16]]:
        pause_s = 0.0
        for text, pause_after_s in pieces:
            pcm = whole_piece(self._library.speech(text, voice, round(_WORDS_PER_MINUTE * rate)))
            if not len(pcm):
                continue
            if pause_s:
                pcm = np.concatenate([np.zeros(int(pause_s / rate * RATE_HZ), np.int16), pcm])
            pause_s = pause_after_s
            for start in range(0, len(pcm), CHUNK_SAMPLES):
                yield pcm[start : start + CHUNK_SAMPLES]


class EspeakPhonemiser:
    """Text to phonemes, in the International Phonetic Alphabet. It shares the library with :class:`EspeakSynthesiser`.

    Raises:
        EngineError: the library or its data cannot be loaded (not retryable).
    """

    def __init__(self) -> None:
        self._library = _Library.shared()

    def clauses(self, text: str, voice: str) -> list[tuple[str, str]]:
        """The clauses of ``text``, each as (phonemes, the punctuation mark it ends with or "").

        Raises:
            EngineError: there is no such voice (not retryable).
        """
        spoken = _clean(text[:MAX_TEXT_CHARACTERS])
        return self._library.phonemes(spoken, self._library.resolve(voice)) if spoken else []


# --- text ---------------------------------------------------------------------------------------------------------

_SENTENCE_END: Final = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？।])|\n\s*\n")
_CLAUSE_END: Final = re.compile(r"(?<=[,;:،、，；])\s*")
_TERMINATORS: Final = ".!?…。！？।"
_KEPT_SYMBOLS: Final = "°"
_STYLED: Final = ("<wide>", "<font>", "<compat> 0066", "<circle>", "<square>")


def _pieces(text: str) -> list[tuple[str, float]]:
    """``text`` cleaned and cut, each piece with the pause in seconds that follows it at normal speed.

    Sentences go into one piece while there is room, because espeak-ng knows better than a full stop where one ends;
    the first piece is kept short, so that it comes soon.
    """
    pieces: list[tuple[str, float]] = []
    for sentence in _SENTENCE_END.split(text):
        spoken = _clean(sentence)
        if not any(unicodedata.category(character)[0] in "LNS" for character in spoken):
            continue
        if pieces and pieces[-1][0][-1] in _TERMINATORS:
            joined = f"{pieces[-1][0]} {spoken}"
            if len(joined) <= (_PIECE_CHARACTERS if len(pieces) > 1 else _FIRST_PIECE_CHARACTERS):
                pieces[-1] = (joined, SENTENCE_PAUSE_S)
                continue
        *cut, last = _cut(spoken)
        pieces += [(part, CLAUSE_PAUSE_S if _CLAUSE_END.match(part, len(part)) else 0.0) for part in cut]
        pieces.append((last, SENTENCE_PAUSE_S))
    return pieces


def _clean(text: str) -> str:
    """What of ``text`` can be spoken, composed (NFC), with white space as single spaces.

    Symbols go: nobody wants an emoji read out, and espeak-ng 1.52 overruns a buffer on some of them, © in Portuguese
    for one. So do control, format and private characters. Full-width, styled and ligature letters become plain ones.
    """
    characters = []
    for character in unicodedata.normalize("NFC", text):
        if character in _KEPT_SYMBOLS or character.isascii():
            characters.append(" " if unicodedata.category(character) == "Cc" else character)
            continue
        category = unicodedata.category(character)
        if category in ("So", "Sk", "Me", "Zl", "Zp") or category[0] == "C":
            characters.append("" if category == "Cf" else " ")
        elif unicodedata.decomposition(character).startswith(_STYLED):
            characters.append(unicodedata.normalize("NFKC", character))
        else:
            characters.append(character)
    return " ".join("".join(characters).split())


def _cut(sentence: str) -> list[str]:
    """Parts of at most _PIECE_CHARACTERS, cut after a clause where there is one, else at a space, else anywhere."""
    parts: list[str] = []
    rest = sentence
    while len(rest) > _PIECE_CHARACTERS:
        head = rest[:_PIECE_CHARACTERS]
        clause_ends = [match.end() for match in _CLAUSE_END.finditer(head) if match.end() < _PIECE_CHARACTERS]
        at = clause_ends[-1] if clause_ends else head.rfind(" ") + 1 or _PIECE_CHARACTERS
        parts.append(rest[:at].strip())
        rest = rest[at:].strip()
    return [*parts, rest] if rest else parts


# --- the library --------------------------------------------------------------------------------------------------


class _VoiceRecord(ctypes.Structure):
    """espeak_VOICE of speak_lib.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def voice_problem(voice: str) -> str:
    """What is wrong with the name of a voice, as ``what is wrong; what would be right``; "" if nothing."""
    try:
        _Library.shared().resolve(voice)
    except EngineError as error:
        return str(error)
    return ""


class _Library:
    """libespeak-ng, its voices, and which voice it is set to."""

    _shared: _Library | None = None
    _making = threading.Lock()

    @classmethod
    def shared(cls) -> _Library:
        with cls._making:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    def __init__(self) -> None:
        remedy = "run 'pip install --force-reinstall espeakng-loader'"
        try:
            data_path = Path(espeakng_loader.get_data_path())
            library = ctypes.CDLL(espeakng_loader.get_library_path())
        except (OSError, RuntimeError) as error:
            raise EngineError(f"espeak-ng cannot be loaded ({error}); {remedy}", retryable=False) from error
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceRecord))
        library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
            *(ctypes.c_void_p, ctypes.c_void_p),
        ]
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
        self._rate_hz = library.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, _CALLBACK_MS, str(data_path).encode(), _INITIALIZE_DONT_EXIT
        )
        if self._rate_hz <= 0:
            raise EngineError(f"espeak-ng does not accept its data in {data_path}; {remedy}", retryable=False)
        self._library = library
        self._lock = threading.Lock()
        self._blocks: list[bytes] = []
        self._callback = _Callback(self._take)
        library.espeak_SetSynthCallback(self._callback)
        self._set_to: tuple[str, int] | None = None
        self.voices = _list_voices(library, data_path)
        self.variants = frozenset(path.name for path in (data_path / "voices" / "!v").iterdir())
        self._known: dict[str, str] = {}
        for voice in self.voices:
            for key in (voice.language, voice.name.lower(), voice.identifier.lower()):
                self._known.setdefault(key, voice.identifier)
        for _, tag, identifier in sorted((*tag, voice.identifier) for voice in self.voices for tag in voice.tags):
            self._known.setdefault(tag, identifier)

    def resolve(self, voice: str) -> str:
        """The identifier, with its variant, of what an operator calls ``voice``."""
        base, plus, variant = voice.partition("+")
        key = base.strip().lower().replace("_", "-")
        identifier = self._known.get(key)
        if identifier is None and re.fullmatch(r"[a-z]{2,3}-[a-z]{2}", key):
            identifier = self._known.get(key.partition("-")[0])
        if identifier is None:
            raise EngineError(f"espeak-ng has no voice {voice!r}; {self._near(key)}", retryable=False)
        if plus and variant not in self.variants:
            near = difflib.get_close_matches(variant, self.variants, 3, 0.4) or ["f3", "m3"]
            raise EngineError(
                f"espeak-ng has no variant {variant!r} of a voice; near it: {', '.join(near)}", retryable=False
            )
        return identifier + plus + variant

    def _near(self, key: str) -> str:
        prefix = key.partition("-")[0]
        near = [voice.language for voice in self.voices if voice.language.partition("-")[0] == prefix]
        near = near or difflib.get_close_matches(key, self._known, 6, 0.5) or ["en-us", "en-gb"]
        return f"near it: {', '.join(dict.fromkeys(near))}"

    def speech(self, text: str, voice: str, words_per_minute: int) -> NDArray[np.float32]:
        """``text`` as samples at 8 kHz, in -1..1, as loud as the voice is.

        Raises:
            EngineError: espeak-ng refuses the voice or the text.
        """
        with self._lock:
            return self._synthesised(text, voice, words_per_minute)

    def phonemes(self, text: str, voice: str) -> list[tuple[str, str]]:
        """(phonemes in IPA, final punctuation mark) of each clause of ``text``.

        Raises:
            EngineError: espeak-ng refuses the voice.
        """
        encoded = text.encode()
        buffer = ctypes.create_string_buffer(encoded)
        at = ctypes.c_void_p(ctypes.addressof(buffer))
        clauses: list[tuple[str, str]] = []
        used = 0
        with self._lock:
            self._use(voice, _WORDS_PER_MINUTE)
            while at.value:
                spoken = self._library.espeak_TextToPhonemes(ctypes.byref(at), _CHARS_UTF8, _PHONEMES_IPA)
                # It reads a character beyond the mark that it ends a clause at, and gives no position at the end.
                end = at.value - ctypes.addressof(buffer) if at.value else len(encoded)
                marks = _MARK.findall(encoded[used:end].decode(errors="replace")[-_MARK_WITHIN:])
                if spoken:
                    clauses.append((spoken.decode(), marks[-1] if marks else ""))
                used = end
        return clauses

    def _use(self, voice: str, words_per_minute: int) -> None:
        if self._set_to == (voice, words_per_minute):
            return
        self._set_to = None
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise EngineError(
                f"espeak-ng cannot load its voice {voice!r}; run 'pip install --force-reinstall espeakng-loader'",
                retryable=False,
            )
        self._library.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
        self._set_to = (voice, words_per_minute)

    def _synthesised(self, text: str, voice: str, words_per_minute: int) -> NDArray[np.float32]:
        self._use(voice, words_per_minute)
        self._blocks.clear()
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _CHARS_UTF8, None, None)
        pcm = np.frombuffer(b"".join(self._blocks), np.int16)
        self._blocks.clear()
        if status != 0:
            raise EngineError(f"espeak-ng refused a text of {len(text)} characters (status {status})", retryable=True)
        if not len(pcm):
            return np.zeros(0, np.float32)
        samples: NDArray[np.float32] = soxr.resample(pcm * np.float32(1 / 32768), self._rate_hz, RATE_HZ, quality="HQ")
        return samples

    def _take(self, samples: int | None, count: int, events: int | None) -> int:
        """Called by espeak_Synth, in its thread, with each 60 ms that are ready."""
        if samples and count > 0:
            self._blocks.append(ctypes.string_at(samples, 2 * count))
        return 0


def _list_voices(library: Any, data_path: Path) -> tuple[Voice, ...]:
    """The voices whose data is all here: espeak-ng also lists MBROLA's, and some that came without a dictionary."""
    records = library.espeak_ListVoices(None)
    voices: list[Voice] = []
    index = 0
    while records[index]:
        record = records[index].contents
        index += 1
        identifier = record.identifier.decode()
        tags = _tags(record.languages)
        file = data_path / "lang" / identifier
        if not tags or not file.is_file():
            continue
        named = re.search(r"^dictionary\s+(\S+)", file.read_text(errors="replace"), re.MULTILINE)
        dictionary = named[1] if named else tags[0][1].partition("-")[0]
        if (data_path / f"{dictionary}_dict").is_file():
            voices.append(Voice(tags[0][1], record.name.decode(), identifier, tuple(tags)))
    return tuple(sorted(voices, key=lambda voice: (voice.language, voice.name)))


def _tags(address: int) -> list[tuple[int, str]]:
    """A voice's language tags in lower case: in memory, a priority byte and a string each, up to a priority of 0."""
    tags: list[tuple[int, str]] = []
    while priority := ctypes.string_at(address, 1)[0]:
        tag = ctypes.string_at(address + 1)
        tags.append((priority, tag.decode().lower()))
        address += len(tag) + 2
    return tags
