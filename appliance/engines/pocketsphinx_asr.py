"""The embedded recogniser: PocketSphinx with a closed grammar of what the dialplan expects just then.

Two searches run over the same cepstra (``telephone_features``). The **grammar** says which of the expected phrases fits
best; it nearly always finds one. The **phone loop** says how well the sounds can be explained at all; ``rejection``
weighs the two. Figures, and how they were taken: ``docs/engines-asr.md``.

PocketSphinx holds the interpreter lock for a whole decode: this runs in a worker process of its own, one utterance at a
time.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pocketsphinx

from appliance.engines.grammar import Grammar, compile_grammar
from appliance.engines.greetings import SPOTTED
from appliance.engines.lexicon import Lexicon, model_folder
from appliance.engines.nonspeech import says_nothing
from appliance.engines.rejection import Evidence, Stretch, weigh
from appliance.engines.telephone_features import RATE_HZ, TelephoneFeatures
from appliance.errors import EngineError

MAX_UTTERANCE_S: Final = 60
MAX_CACHED_ARCS: Final = 10_000
"""Of all grammars kept, about 5 kB each: some 50 MB, or eleven questions that expect 150 sentences."""
MAX_ADDED_ENTRIES: Final = 20_000
"""Pronunciations that may be added to the decoder's dictionary, which never shrinks."""

_THRESHOLD: Final = 0.5
_LONGEST_PHONE_FRAMES: Final = 30
"""On average over a phrase; a word stretched further is a hum, a hiss or a cry."""
_MOST: Final = 0.6
"""Of a phrase's words: with rejection off, an end that was not heard does no harm."""
_PHONE_LOOP: Final = "phone loop"
_GREETING: Final = "greeting"
AFTER_GREETING: Final = np.zeros(3 * RATE_HZ // 10, np.int16)
"""A phrase is spotted some 0.1 s after its end, so there must be so much."""
_PHONE_LOOP_SCALE: Final = 1024.0
"""The phone loop reports log likelihoods divided by this (the shift of senone scores); the grammar does not."""
_NOT_SPEECH: Final = frozenset({"SIL", "+NSN+", "+SPN+"})
_UNDERFLOW: Final = 1e-300

GrammarKey: TypeAlias = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Hypothesis:
    """What was understood.

    Attributes:
        text: one of the expected phrases, as ``normalise`` writes it; the best guess where not accepted; "" where
            nothing like speech was heard. Digit strings are digit words: ``"four oh two"`` is ``"four zero two"``.
            Where a phrase was clearly begun and not finished, its words so far (and not accepted).
        confidence: 0 to 1, that this and nothing else was said. 1.0 with rejection off, where it is not measured.
        accepted: false where something unexpected, or nothing, was said.
        evidence: the figures behind the confidence; None where they were not measured.
    """

    text: str
    confidence: float
    accepted: bool
    evidence: Evidence | None = None


NOTHING: Final = Hypothesis("", 0.0, False)


class PocketSphinxRecogniser:
    """One decoder with its cache of compiled grammars. Not thread-safe.

    Args:
        rejection: the confidence from which a phrase is accepted, 0 to 1; None for the measured default.
        cache_grammars: most grammars kept compiled (fewer where large); the one used longest ago goes first.

    Raises:
        ModelFileError: the model is missing or damaged.
        EngineError: PocketSphinx refuses to start.
    """

    def __init__(self, *, rejection: float | None = None, cache_grammars: int = 64) -> None:
        if cache_grammars < 1:
            raise ValueError(f"cache_grammars is {cache_grammars}: at least one grammar has to be kept")
        self._threshold = _THRESHOLD if rejection is None else rejection
        self._cache_grammars = cache_grammars
        self._grammars: OrderedDict[GrammarKey, tuple[str, Grammar]] = OrderedDict()
        self._compiled = 0
        self._added: set[str] = set()
        self._spots = False
        folder = model_folder()
        self._lexicon = Lexicon()
        self._features = TelephoneFeatures(folder / "en-us")
        try:
            self._decoder: Any = pocketsphinx.Decoder(
                hmm=str(folder / "en-us"),
                dict=str(folder / "cmudict-en-us.dict"),
                lm=None,
                # The model's own feat.params would override what follows, and remove the mean a second time.
                featparams=os.devnull,
                feat="1s_c_d_dd",
                svspec="0-12/13-25/26-38",
                cmn="none",
                # Scores of the grammar and of the phone loop compare only if both are relative to all states.
                compallsen=True,
                ds=2,  # Gaussians are selected anew every other frame: a fifth faster, the same results.
                loglevel="FATAL",
            )
            self._decoder.add_allphone_file(_PHONE_LOOP, None)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"PocketSphinx does not start with the model in {folder}: {error}") from error

    @property
    def grammars_held(self) -> int:
        """How many compiled grammars are in memory."""
        return len(self._grammars)

    def prepare(self, phrases: tuple[str, ...], pronunciations: tuple[tuple[str, str], ...] = ()) -> None:
        """Compile the grammar of a question that is about to be asked (some 10 ms for 150 phrases).

        Raises:
            EngineError: as :meth:`recognise`.
        """
        self._grammar(phrases, pronunciations)

    def recognise(
        self,
        pcm: npt.NDArray[np.int16],
        phrases: tuple[str, ...],
        pronunciations: tuple[tuple[str, str], ...] = (),
        *,
        reject: bool,
    ) -> Hypothesis:
        """Which of the phrases was said.

        Args:
            pcm: int16 mono at 8 kHz, from a little before the speech to the first silence after it.
            phrases: what may be said; ``<digits>`` and ``<digits MIN MAX>`` stand for digit strings.
            pronunciations: (word, ARPAbet phones) beside the dictionary's.
            reject: whether to say so when nothing expected was said. Without it the best guess is taken, and what is
                no speech at all is still not accepted.

        Raises:
            EngineError: a word has no known sound, or nothing is expected (not retryable).
        """
        search, grammar = self._grammar(phrases, pronunciations)
        pcm = pcm[: MAX_UTTERANCE_S * RATE_HZ]
        bands = self._features.bands(pcm)
        if says_nothing(pcm, bands):
            return NOTHING
        cepstra = self._features.cepstra(bands)
        words = self._decode(search, cepstra, grammar)
        heard = tuple(word.name for word in words if word.speech)
        if not heard:
            return NOTHING
        text = grammar.complete(heard)
        if text is not None and not reject:
            return Hypothesis(text, 1.0, True)
        evidence = weigh(words, self._decode_phones(cepstra), len(cepstra))
        if text is None:
            return self._broken_off(heard, grammar, evidence, reject)
        confidence = evidence.confidence
        if evidence.word_frames > _LONGEST_PHONE_FRAMES * self._phones_in(heard, grammar):
            return Hypothesis(text, min(confidence, self._threshold / 2), False, evidence)
        return Hypothesis(text, confidence, confidence >= self._threshold, evidence)

    def spot(self, pcm: npt.NDArray[np.int16]) -> str:
        """Which phrases of a greeting (``greetings.SPOTTED``) are heard somewhere in what was said.

        Args:
            pcm: int16 mono at 8 kHz.

        Returns:
            The phrases in the order in which they were said, separated by commas; "" where there is none.

        Raises:
            EngineError: PocketSphinx fails.
        """
        pcm = np.concatenate((pcm[: MAX_UTTERANCE_S * RATE_HZ], AFTER_GREETING))
        bands = self._features.bands(pcm)
        if says_nothing(pcm, bands):
            return ""
        if not self._spots:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "greeting"
                path.write_text("".join(f"{phrase} /1e-{exponent}/\n" for phrase, exponent in SPOTTED), "utf-8")
                self.add_phrases(_GREETING, path)
            self._spots = True
        return ", ".join(self.phrases_in(_GREETING, self._features.cepstra(bands)))

    def add_phrases(self, search: str, path: Path) -> None:
        """Make ready to spot the phrases of a file, one a line with its threshold, under the name ``search``.

        Raises:
            EngineError: PocketSphinx does not take them (not retryable).
        """
        try:
            self._decoder.add_kws(search, str(path))
        except (RuntimeError, ValueError) as error:
            raise EngineError(
                f"PocketSphinx cannot listen for the phrases in {path}: {error}", retryable=False
            ) from error

    def cepstra(self, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        """The features of a stretch of int16 audio at 8 kHz."""
        return self._features.cepstra(self._features.bands(pcm))

    def phrases_in(self, search: str, cepstra: npt.NDArray[np.float32]) -> list[str]:
        """The phrases of ``search`` that are heard, in their order."""
        segments = sorted(self._segments(search, cepstra), key=lambda segment: int(segment.start_frame))
        return [segment.word.strip() for segment in segments]

    def _broken_off(self, heard: tuple[str, ...], grammar: Grammar, evidence: Evidence, reject: bool) -> Hypothesis:
        """A phrase that was begun and not finished: the caller pauses, or said something else that begins alike."""
        doubted = min(evidence.confidence, self._threshold / 2)
        if evidence.confidence >= self._threshold:
            return Hypothesis(" ".join(heard), doubted, False, evidence)
        nearest = grammar.nearest(heard)
        most_of_it = len(heard) >= _MOST * len(nearest.split())
        return Hypothesis(nearest, doubted, not reject and most_of_it, evidence)

    def _phones_in(self, heard: tuple[str, ...], grammar: Grammar) -> int:
        spoken = {word: phones for entry, phones in grammar.entries.items() for word in [grammar.words[entry]]}
        return sum(len((self._decoder.lookup_word(word) or spoken.get(word, "")).split()) for word in heard)

    def _decode(self, search: str, cepstra: npt.NDArray[np.float32], grammar: Grammar) -> list[Stretch]:
        out = []
        for segment in self._segments(search, cepstra):
            speech = segment.word[0] not in "<[(" and not segment.word.startswith("++")
            entry = segment.word.partition("(")[0] if speech else segment.word
            score = math.log(max(segment.ascore, _UNDERFLOW))
            name = grammar.words.get(entry, entry)
            out.append(Stretch(name, segment.start_frame, segment.end_frame, score, speech))
        return out

    def _decode_phones(self, cepstra: npt.NDArray[np.float32]) -> list[Stretch]:
        return [
            Stretch(
                segment.word,
                segment.start_frame,
                segment.end_frame,
                math.log(max(segment.ascore, _UNDERFLOW)) * _PHONE_LOOP_SCALE,
                segment.word not in _NOT_SPEECH,
            )
            for segment in self._segments(_PHONE_LOOP, cepstra)
        ]

    def _segments(self, search: str, cepstra: npt.NDArray[np.float32]) -> list[Any]:
        try:
            self._decoder.activate_search(search)
            self._decoder.start_utt()
            self._decoder.process_cep(cepstra.astype("<f4").tobytes(), full_utt=True)
            self._decoder.end_utt()
        except RuntimeError as error:
            raise EngineError(f"PocketSphinx failed on {len(cepstra) / 100:.1f} s of audio: {error}") from error
        return list(self._decoder.seg() or ()) if self._decoder.hyp() is not None else []

    def _grammar(self, phrases: tuple[str, ...], pronunciations: tuple[tuple[str, str], ...]) -> tuple[str, Grammar]:
        key = (phrases, pronunciations)
        found = self._grammars.get(key)
        if found is not None:
            self._grammars.move_to_end(key)
            return found
        grammar = compile_grammar(phrases, pronunciations, self._lexicon)
        for entry, phones in grammar.entries.items():
            self._add_entry(entry, phones)
        self._make_room(len(grammar.arcs))
        self._compiled += 1
        name = f"grammar {self._compiled}"
        try:
            network = self._decoder.create_fsg(name, 0, grammar.final, list(grammar.arcs))
            self._decoder.add_fsg(name, network)
        except (RuntimeError, ValueError) as error:
            raise EngineError(
                f"PocketSphinx cannot compile {len(phrases)} phrases: {error}", retryable=False
            ) from error
        self._grammars[key] = name, grammar
        return name, grammar

    def _make_room(self, arcs: int) -> None:
        """Forget the grammars used longest ago until one of this size fits."""
        self._decoder.activate_search(_PHONE_LOOP)
        held = sum(len(grammar.arcs) for _, grammar in self._grammars.values())
        while self._grammars and (len(self._grammars) >= self._cache_grammars or held + arcs > MAX_CACHED_ARCS):
            _, (oldest, grammar) = self._grammars.popitem(last=False)
            self._decoder.remove_search(oldest)
            held -= len(grammar.arcs)

    def _add_entry(self, entry: str, phones: str) -> None:
        if entry in self._added:
            return
        if len(self._added) >= MAX_ADDED_ENTRIES:
            raise EngineError(
                f"{MAX_ADDED_ENTRIES} pronunciations have been added since this worker started, and no more fit: "
                "restart it"
            )
        self._decoder.add_word(entry, phones, False)
        self._added.add(entry)
