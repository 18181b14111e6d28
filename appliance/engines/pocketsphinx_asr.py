"""The embedded recogniser: PocketSphinx with a closed grammar of what the dialplan expects just then.

Two searches run over the same audio. The **grammar** says which of the expected phrases fits best; it nearly always
finds one. The **phone loop** (any phone after any phone) says how well the sounds can be explained at all. Where the
grammar explains them nearly as well as the phone loop, the phrase was said; where it is far behind, something else was.
Figures and how they were taken: ``docs/engines-asr.md``.

PocketSphinx holds the interpreter lock for a whole decode: this runs in a worker process of its own, one utterance at a
time. Source of the method: likelihood-ratio utterance verification against a phone-loop filler model.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import soxr
from numpy.typing import NDArray

from appliance.engines.lexicon import DIGITS, PHONES, Lexicon, model_folder, normalise
from appliance.errors import EngineError

IN_HZ: Final = 8000
MODEL_HZ: Final = 16000
DIGITS_PATTERN: Final = re.compile(r"<digits(?: (\d+) (\d+))?>")
MAX_DIGITS: Final = 32

_PHONE_LOOP: Final = "phone loop"
_LOOP_SCALE: Final = 1024.0
"""The phone loop reports likelihoods 2**10 times as coarse as the grammar does (SENSCR_SHIFT)."""
_NOT_SPEECH: Final = frozenset({"SIL", "+NSN+", "+SPN+"})
_DIGIT_WORDS: Final = (*DIGITS, "oh")

_LONG_THRESHOLD: Final = -2.2
_SHORT_SLACK: Final = 0.8
_SHORT_FRAMES: Final = 40
_MIN_COVER: Final = 0.75
_MIN_VOICED: Final = 0.8
_WORST_WHOLE: Final = -3.0
_PENALTY: Final = 6.0
_WHOLE_PENALTY: Final = 0.5
_MIN_WORD_FRAMES: Final = 12
_STEEPNESS: Final = 1.5


@dataclass(frozen=True)
class Score:
    """Why a hypothesis was believed or not. Log-likelihood ratios are per 10 ms frame, 0 being as good as any phones.

    Attributes:
        words: of the frames that the grammar explains with words, against the phone loop.
        whole: of all frames, silence included, per frame of speech.
        cover: share of the speech (as the phone loop hears it) that the grammar explains with words.
        voiced: share of the words' frames that the phone loop hears as speech.
        frames: frames the words last.
    """

    words: float
    whole: float
    cover: float
    voiced: float
    frames: int

    @property
    def margin(self) -> float:
        """How far above the threshold; what is 0 or more is accepted.

        Short phrases are judged more leniently, since a frame or two at a word's edge weighs more in them.
        """
        score = self.words
        score -= _PENALTY * max(0.0, _MIN_COVER - self.cover)
        score -= _PENALTY * max(0.0, _MIN_VOICED - self.voiced)
        score -= _WHOLE_PENALTY * max(0.0, _WORST_WHOLE - self.whole)
        return score - (_LONG_THRESHOLD - _SHORT_SLACK * min(1.0, _SHORT_FRAMES / max(self.frames, 1)))


@dataclass(frozen=True)
class Hypothesis:
    """What was understood.

    ``text`` is one of the expected phrases (normalised), the best guess where not ``accepted``, "" where nothing like
    speech was heard. ``confidence`` is 0 to 1; 0.5 is the threshold of acceptance.
    """

    text: str
    confidence: float
    accepted: bool
    score: Score | None = None


_NOTHING: Final = Hypothesis("", 0.0, False)


class PocketSphinxRecogniser:
    """One recogniser for one process. Not thread-safe.

    Args:
        rejection: moves the threshold of acceptance: above 0 rejects more, below 0 less (in log-likelihood per frame).
        cache_grammars: compiled grammars kept; the one used longest ago goes first.
    """

    def __init__(self, *, rejection: float | None = None, cache_grammars: int = 32) -> None:
        import pocketsphinx

        self._rejection = rejection or 0.0
        self._cache_grammars = cache_grammars
        folder = model_folder()
        self._lexicon = Lexicon()
        self._grammars: OrderedDict[str, None] = OrderedDict()
        self._added: set[str] = set()
        self._decoder: Any = pocketsphinx.Decoder(
            hmm=str(folder / "en-us"),
            dict=str(folder / "cmudict-en-us.dict"),
            lm=None,
            samprate=MODEL_HZ,
            cmn="batch",
            dither=True,
            remove_noise=True,
            loglevel="FATAL",
        )
        self._decoder.add_allphone_file(_PHONE_LOOP, None)

    def warm(self) -> None:
        """Touch everything once, so that the first caller does not wait for it."""
        noise = np.random.default_rng(1).normal(0, 300, IN_HZ).astype(np.int16)
        self.recognise(noise, ("yes", "no"), reject=True)

    def prepare(self, phrases: tuple[str, ...], pronunciations: tuple[tuple[str, str], ...] = ()) -> None:
        """Compile the grammar now (about 20 ms for 150 phrases), so that recognising need not.

        Raises:
            EngineError: a word is not in the dictionary and has no pronunciation; not retryable.
        """
        self._grammar(phrases, pronunciations)

    def recognise(
        self,
        pcm: NDArray[np.int16],
        phrases: tuple[str, ...],
        pronunciations: tuple[tuple[str, str], ...] = (),
        *,
        reject: bool,
    ) -> Hypothesis:
        """The expected phrase that ``pcm`` is.

        Args:
            pcm: int16 at 8 kHz, from a little before the caller began to speak until the pause.
            phrases: what may be said; ``<digits 4 8>`` stands for four to eight digits, one by one.
            pronunciations: (word, ARPAbet phones) of words that are not in the dictionary.
            reject: whether something else is to be told from what was expected; without it the best phrase is taken.

        Raises:
            EngineError: as :meth:`prepare`.
        """
        grammar = self._grammar(phrases, pronunciations)
        if len(pcm) < IN_HZ // 10:
            return _NOTHING
        audio = _to_model_rate(pcm)
        words = self._decode(grammar, audio)
        text = " ".join(word for word, *_ in words if not _is_filler(word))
        if not _is_whole(text, phrases):
            return _NOTHING
        score = _score(words, self._decode(_PHONE_LOOP, audio))
        margin = score.margin - self._rejection
        confidence = 1.0 / (1.0 + math.exp(-_STEEPNESS * max(min(margin, 20.0), -20.0)))
        accepted = not reject or (margin >= 0.0 and score.frames >= _MIN_WORD_FRAMES)
        return Hypothesis(text, round(confidence, 3), accepted, score)

    def _decode(self, search: str, audio: bytes) -> list[tuple[str, int, int, float]]:
        """(word or phone, first frame, last frame, log-likelihood) of the best path; empty where there is none."""
        decoder = self._decoder
        decoder.activate_search(search)
        decoder.start_utt()
        decoder.process_raw(audio, full_utt=True)
        decoder.end_utt()
        if decoder.hyp() is None:
            return []
        scale = _LOOP_SCALE if search == _PHONE_LOOP else 1.0
        return [
            (
                _plain(part.word),
                part.start_frame,
                part.end_frame,
                scale * math.log(max(part.ascore, 1e-300)),
            )
            for part in decoder.seg()
            if part.word != "</s>"
        ]

    # --- grammars -------------------------------------------------------------------------------------------------

    def _grammar(self, phrases: tuple[str, ...], pronunciations: tuple[tuple[str, str], ...]) -> str:
        """The name of the search over these phrases, compiled if it is not at hand."""
        name = "g" + hashlib.sha256(repr((phrases, pronunciations)).encode()).hexdigest()[:24]
        if name in self._grammars:
            self._grammars.move_to_end(name)
            return name
        spellings = self._spellings(pronunciations)
        alternatives = [self._alternative(phrase, spellings) for phrase in dict.fromkeys(phrases)]
        grammar = f"#JSGF V1.0; grammar {name}; public <said> = {' | '.join(alternatives)} ;"
        if any(DIGITS_PATTERN.fullmatch(phrase) for phrase in phrases):
            grammar += f" <digit> = {' | '.join(_DIGIT_WORDS)} ;"
        while len(self._grammars) >= self._cache_grammars:
            oldest, _ = self._grammars.popitem(last=False)
            self._decoder.remove_search(oldest)
        self._decoder.add_jsgf_string(name, grammar)
        self._grammars[name] = None
        return name

    def _alternative(self, phrase: str, spellings: dict[str, str]) -> str:
        digits = DIGITS_PATTERN.fullmatch(phrase)
        if digits:
            low, high = (int(group) if group else None for group in digits.groups())
            return _digit_string(low or 1, high or MAX_DIGITS)
        words = normalise(phrase).split()
        unknown = [word for word in words if word not in spellings and word not in self._lexicon]
        if unknown or not words:
            what = f"the recogniser does not know {', '.join(map(repr, unknown))}" if unknown else "it has no words"
            raise EngineError(
                f"phrase {phrase!r}: {what}; reword it, or give the line `pronunciations:` for it", retryable=False
            )
        return " ".join(spellings.get(word, word) for word in words)

    def _spellings(self, pronunciations: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Word to the dictionary entry that says it as the line wants; made here, since lines may differ."""
        spellings: dict[str, str] = {}
        for word, phones in pronunciations:
            plain = normalise(word)
            sounds = phones.upper().split()
            odd = [sound for sound in sounds if sound not in PHONES]
            if odd or not sounds or " " in plain:
                raise EngineError(
                    f"pronunciation of {word!r}: {' '.join(odd) or phones!r} is not made of ARPAbet phones "
                    "(such as `B EH L AH`)",
                    retryable=False,
                )
            entry = f"{plain}__{hashlib.sha256(' '.join(sounds).encode()).hexdigest()[:8]}"
            if entry not in self._added:
                self._decoder.add_word(entry, " ".join(sounds), True)
                self._added.add(entry)
            spellings[plain] = entry
        return spellings


def _is_whole(text: str, phrases: tuple[str, ...]) -> bool:
    """Whether ``text`` is an expected phrase to its end: where nothing fits, the search ends in the middle of one."""
    for phrase in phrases:
        digits = DIGITS_PATTERN.fullmatch(phrase)
        if digits is None:
            if text == normalise(phrase):
                return True
            continue
        spoken = text.split()
        low, high = (int(group) if group else None for group in digits.groups())
        if (low or 1) <= len(spoken) <= (high or MAX_DIGITS) and all(word in _DIGIT_WORDS for word in spoken):
            return True
    return False


def _digit_string(low: int, high: int) -> str:
    """JSGF for ``low`` to ``high`` digits."""
    low, high = max(1, min(low, MAX_DIGITS)), max(1, min(high, MAX_DIGITS))
    required = " ".join(["<digit>"] * low)
    optional = ""
    for _ in range(high - low):
        optional = f"[<digit> {optional}]" if optional else "[<digit>]"
    return f"{required} {optional}".strip()


def _to_model_rate(pcm: NDArray[np.int16]) -> bytes:
    wide: NDArray[np.float32] = soxr.resample(pcm.astype(np.float32), IN_HZ, MODEL_HZ)
    return bytes(np.clip(np.rint(wide), -32768, 32767).astype(np.int16).tobytes())


def _plain(word: str) -> str:
    """A dictionary entry as the word it is: ``your(2)`` and ``bella__1a2b3c4d`` lose their marks."""
    return word.partition("(")[0].partition("__")[0] if not word.startswith(("<", "[")) else word


def _is_filler(word: str) -> bool:
    return word.startswith(("<", "[", "++"))


def _score(words: list[tuple[str, int, int, float]], phones: list[tuple[str, int, int, float]]) -> Score:
    """The grammar's best path against the phone loop's."""
    count = 1 + max(last for _, _, last, _ in words + phones)
    loop = np.zeros(count)
    speech = np.zeros(count, np.bool_)
    for phone, first, last, likelihood in phones:
        loop[first : last + 1] = likelihood / (last - first + 1)
        speech[first : last + 1] = phone not in _NOT_SPEECH
    said = np.zeros(count, np.bool_)
    likelihood_of_words = 0.0
    for word, first, last, likelihood in words:
        if not _is_filler(word):
            said[first : last + 1] = True
            likelihood_of_words += likelihood
    frames = int(said.sum())
    spoken = max(int(speech.sum()), 1)
    everything = sum(likelihood for *_, likelihood in words)
    return Score(
        words=(likelihood_of_words - float(loop[said].sum())) / max(frames, 1),
        whole=(everything - float(loop.sum())) / spoken,
        cover=int((said & speech).sum()) / spoken,
        voiced=float(speech[said].mean()) if frames else 0.0,
        frames=frames,
    )
