"""Speech from Piper voices, on the processor, a sentence at a time.

The phonemes come from espeak-ng, which is in the worker's process alone (``espeak_tts.py``). The model computes in a
thread, and can be stopped there; while it does, the worker goes on answering from its cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import numpy as np
import onnxruntime

from appliance.api import EngineContext, Pcm, SynthesiseRequest
from appliance.engines.espeak_tts import EspeakPhonemiser
from appliance.engines.piper_options import PiperOptions
from appliance.engines.piper_voice import PiperVoice, VoiceFile, read_voice_file
from appliance.engines.speech_level import CLAUSE_PAUSE_S, RATE_HZ, SENTENCE_PAUSE_S, whole_piece
from appliance.engines.speech_order import Turnstile, priority_of
from appliance.errors import EngineError

_CONCURRENCY: Final = 64
_FIRST_PHONEMES: Final = 20
_MOST_PHONEMES: Final = 400
_SENTENCE_ENDS: Final = ".!?…。！？"
_NO_SAMPLES: Final = np.zeros(0, np.int16)
_TRIAL: Final = "Ready."


class PiperEngine:
    """Speaks with the voices of a folder. One sentence is computed at a time, the most urgent first."""

    kind = "tts"
    max_batch = 1
    max_wait_s = 0.0
    concurrency = _CONCURRENCY
    cpu_bound = True

    def __init__(self, options: PiperOptions) -> None:
        self._options = options
        self._folder = options.folder.expanduser()
        self._files: dict[str, VoiceFile] = {}
        self._voices: dict[str, PiperVoice] = {}
        self._phonemiser = EspeakPhonemiser()
        self._thread = ThreadPoolExecutor(1, "piper")
        self._turnstile = Turnstile()

    async def load(self) -> None:
        """Find the voices, and load and try the one that is used where a line names none.

        Raises:
            EngineError: there are none, or a file is broken.
        """
        paths = sorted(self._folder.glob("*.onnx")) if self._folder.is_dir() else []
        self._files = {path.name.removesuffix(".onnx"): read_voice_file(path) for path in paths}
        if not self._files:
            reason = f"engines.tts.folder: {self._folder} holds no voice; put NAME.onnx and NAME.onnx.json there"
            raise EngineError(reason, retryable=False)
        for name in filter(None, (self._options.voice, *self._options.voices.values())):
            self._known(name.partition("+")[0])
        voice, speaker = await self._voice(self._options.voice, "")
        phonemes = self._pieces(voice, _TRIAL)[0][0]
        await self._compute(partial(_make, voice, phonemes, 1.0, speaker, onnxruntime.RunOptions()))

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self, batch: Sequence[SynthesiseRequest], context: EngineContext) -> None:
        for request in batch:
            await self._speak(request, context)

    async def _speak(self, request: SynthesiseRequest, context: EngineContext) -> None:
        voice, speaker = await self._voice(request.voice, request.language)
        pause = _NO_SAMPLES
        for phonemes, pause_s in self._pieces(voice, request.text):
            pcm = await self._piece(voice, phonemes, speaker, request)
            if len(pcm) and not context.speak(request, np.concatenate([pause, pcm])):
                return
            pause = np.zeros(round(pause_s / request.rate * RATE_HZ), np.int16)
        context.speak(request, _NO_SAMPLES, last=True)

    # --- pieces ---------------------------------------------------------------------------------------------------

    def _pieces(self, voice: PiperVoice, text: str) -> list[tuple[str, float]]:
        """What the model is given at a time, each with the pause after it: sentences, but a clause to begin with."""
        if voice.file.phoneme_type == "text":
            return [(text, 0.0)] if text.strip() else []
        pieces: list[tuple[str, float]] = []
        piece = ""
        for phonemes, mark in self._phonemiser.clauses(text, voice.file.espeak.voice):
            piece += f"{phonemes}{mark}"
            ended = mark != "" and mark in _SENTENCE_ENDS
            if ended or len(piece) > _MOST_PHONEMES or (mark and not pieces and len(piece) >= _FIRST_PHONEMES):
                pieces.append((piece, SENTENCE_PAUSE_S if ended else CLAUSE_PAUSE_S))
                piece = ""
            else:
                piece += " "
        return [*pieces, (piece.strip(), 0.0)] if piece.strip() else pieces

    async def _piece(self, voice: PiperVoice, phonemes: str, speaker: int, request: SynthesiseRequest) -> Pcm:
        """One piece of speech at the common level, when it is its turn; begun again where it had to give way."""
        while True:
            stop = onnxruntime.RunOptions()
            gave_way = False

            def give_way(stop: onnxruntime.RunOptions = stop) -> None:
                nonlocal gave_way
                gave_way = stop.terminate = True

            async with self._turnstile.turn(priority_of(request), give_way):
                work = partial(_make, voice, phonemes, request.rate, speaker, stop)
                computing = asyncio.ensure_future(self._compute(work))
                try:
                    return await asyncio.shield(computing)
                except asyncio.CancelledError:
                    stop.terminate = True
                    with contextlib.suppress(Exception):
                        await computing
                    raise
                except Exception as error:
                    if not gave_way:
                        reason = f"voice {voice.name!r} failed: {str(error).splitlines()[0]}"
                        raise EngineError(reason, retryable=False) from error

    async def _compute(self, work: partial[Pcm]) -> Pcm:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- voices ---------------------------------------------------------------------------------------------------

    async def _voice(self, named: str, language: str) -> tuple[PiperVoice, int]:
        """The voice, and the number of its speaker, that a line wants; loaded.

        Raises:
            EngineError: there is no such voice or speaker.
        """
        name, _, speaker = (named or self._for_language(language)).partition("+")
        self._known(name)
        voice = self._voices.get(name)
        if voice is None:
            path = self._folder / f"{name}.onnx"
            load = partial(PiperVoice, path, self._options.threads)
            voice = await asyncio.get_running_loop().run_in_executor(self._thread, load)
            self._voices[name] = voice
        return voice, voice.speaker(speaker)

    def _for_language(self, language: str) -> str:
        """What is set for the language, else the usual voice if it speaks it, else the first that does."""
        options, tag = self._options, language.lower()
        usual = options.voice or next(iter(self._files))
        if not tag:
            return usual
        family = tag.partition("-")[0]
        chosen = {key.lower(): name for key, name in options.voices.items()}
        if found := chosen.get(tag) or chosen.get(family):
            return found
        speaks = {name: file.tag for name, file in self._files.items()}
        first = sorted(speaks, key=lambda name: name != usual.partition("+")[0])
        for fits in (tag.__eq__, lambda other: other.partition("-")[0] == family):
            if name := next((name for name in first if fits(speaks[name])), ""):
                return usual if usual.partition("+")[0] == name else name
        return usual

    def _known(self, name: str) -> None:
        if name not in self._files:
            near = difflib.get_close_matches(name, self._files, 3, 0.3) or list(self._files)[:5]
            reason = f"there is no voice {name!r} in {self._folder}; there are: {', '.join(near)}"
            raise EngineError(reason, retryable=False)


def _make(voice: PiperVoice, phonemes: str, rate: float, speaker: int, stop: onnxruntime.RunOptions) -> Pcm:
    return whole_piece(voice.speech(phonemes, rate, speaker, stop))
