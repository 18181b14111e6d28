"""A Whisper that understands tones: a real CTranslate2 model folder, whose weights are written down by hand.

It has the parts of every Whisper (mel features, convolutions, encoder, decoder with self- and cross-attention, special
tokens, a vocabulary of bytes) and a language of a dozen words, each a tone of its own. A tone of ``slot_s`` is a word;
the first slot without a tone ends the transcript. So what comes out is right or wrong, at the right time or not,
whatever prompt stood before it and in whatever batch.

How it does that: the decoder's position is a one-hot vector. Its first layer's self-attention fetches the position of
<|startoftranscript|>, and the feed-forward network makes the number of the text's next token (the slot) out of the two.
The second layer's cross-attention compares that with the encoder's positions and fetches the slot's tone, which the
output matrix turns into a word. With nothing there, the end token is ahead. All other weights are zero.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs import WhisperSpec

from appliance.engines.mel import mel_filters
from appliance.engines.whisper_tokens import CHARACTER_OF_BYTE

WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "stop.", "yes", "no")
TONES_HZ = (400, 520, 660, 830, 1040, 1280, 1560, 1880, 2240, 2640, 3080, 3500)
RATE_HZ = 8000
LANGUAGES = ("en", "de", "fr")
SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
ENCODER_POSITIONS, DECODER_POSITIONS, HEAD = 1500, 448, 64
SLOTS = 60
"""Words in one window."""

_CONTENT, _SLOT, _POSITION = 0, 32, 96
_THRESHOLD = 0.75
"""Of a feature: a tone at a third of full scale has 1.2 and more in its band, and less in all others."""


def speech(text: str, *, slot_s: float = 0.5, amplitude: float = 0.3) -> np.ndarray:
    """int16 at 8 kHz that says ``text``, a tone for each word; "-" is silence."""
    count = round(slot_s * RATE_HZ)
    said = []
    for word in text.split():
        hz = 0.0 if word == "-" else float(TONES_HZ[WORDS.index(word)])
        said.append(np.sin(2 * np.pi * hz * np.arange(count) / RATE_HZ) * amplitude * 32767)
    return np.concatenate(said or [np.zeros(0)]).astype(np.int16)


def vocabulary() -> list[str]:
    """Bytes, the words and all that they are joined from, special tokens, timestamps; in the order of real ones."""
    printable = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))]
    tokens = printable + [character for character in CHARACTER_OF_BYTE.values() if character not in set(printable)]
    space = CHARACTER_OF_BYTE[ord(" ")]
    for word in WORDS:
        tokens += [space + word[:length] for length in range(1, len(word) + 1) if space + word[:length] not in tokens]
    return [*tokens, *SPECIAL, *(f"<|{n * 0.02:.2f}|>" for n in range(1501))]


def write_model(
    folder: Path,
    *,
    bands: int = 80,
    heads: int = 8,
    encoder_layers: int = 1,
    decoder_layers: int = 2,
    slot_s: float = 0.5,
    longest_prompt: int = 100,
    certainty: float = 1.0,
    no_speech: bool = False,
    padding: int = 0,
    quantization: str = "int8",
) -> Path:
    """Write the model into ``folder``.

    Args:
        bands: mel bands it hears in.
        heads: of 64 each, all together the width of the model.
        encoder_layers, decoder_layers: those that are not needed cost time and do nothing.
        slot_s: length of a word, a multiple of 20 ms.
        longest_prompt: tokens before <|startoftranscript|> at most.
        certainty: how far the right word is ahead of all others.
        no_speech: it doubts that there is any speech, ever.
        padding: further tokens in the vocabulary, up to that many in all.
        quantization: of the weights.
    """
    tokens = vocabulary()
    end = tokens.index("<|endoftext|>")
    tokens[end:end] = [f"unused{number}" for number in range(padding - len(tokens))]
    width = heads * HEAD
    own, sot = _POSITION, _POSITION + longest_prompt + SLOTS + 8
    start_flag = sot + longest_prompt + 2
    assert start_flag < width, "a longer prompt needs a wider model"
    pairs = [(at, begin) for begin in range(longest_prompt + 2) for at in range(begin + 3, begin + 3 + SLOTS)]
    spec = WhisperSpec(encoder_layers, heads, decoder_layers, heads)
    inner = max(4 * width, len(pairs))

    encoder: Any = spec.encoder
    encoder.conv1.weight, encoder.conv1.bias = _zeros(width, bands, 3), _zeros(width)
    filters = mel_filters(bands)
    for tone, hz in enumerate(TONES_HZ):
        encoder.conv1.weight[tone, int(np.argmax(filters[round(hz / 40)])), 1] = 10.0
        encoder.conv1.bias[tone] = -10.0 * _THRESHOLD
    encoder.conv2.weight, encoder.conv2.bias = _zeros(width, width, 3), _zeros(width)
    for tone in range(len(WORDS)):
        encoder.conv2.weight[tone, tone, 1] = 1.0
    positions = _zeros(ENCODER_POSITIONS, width)
    for at in range(ENCODER_POSITIONS):
        positions[at, _SLOT + min(at // round(slot_s * 50), SLOTS - 1)] = 20.0
    encoder.position_encodings.encodings = positions
    _norm(encoder.layer_norm, width)
    for layer in encoder.layer:
        _empty(layer, width, 4 * width)

    decoder: Any = spec.decoder
    embeddings = _zeros(len(tokens), width)
    embeddings[tokens.index("<|startoftranscript|>"), start_flag] = 1.0
    decoder.embeddings.weight = embeddings
    positions = _zeros(DECODER_POSITIONS, width)
    for at in range(sot - own):
        positions[at, own + at] = 1.0
    decoder.position_encodings.encodings = positions
    _norm(decoder.layer_norm, width)
    for layer in decoder.layer:
        _empty(layer, width, inner, crosses=True)
    unit = float(np.sqrt(width))
    fetch, ask = decoder.layer[0], decoder.layer[1]

    queries, out = fetch.self_attention.linear[0], fetch.self_attention.linear[1]
    for head in range(heads):
        queries.bias[head * HEAD] = 4.0
        queries.weight[width + head * HEAD, start_flag] = 4.0
    for at in range(longest_prompt + 2):
        queries.weight[2 * width + at, own + at] = np.sqrt(2) / unit
        out.weight[sot + at, at] = 1.0
    one = unit / np.sqrt(2)
    for unit_number, (at, begin) in enumerate(pairs):
        fetch.ffn.linear_0.weight[unit_number, own + at] = 1.0
        fetch.ffn.linear_0.weight[unit_number, sot + begin] = 1.0
        fetch.ffn.linear_0.bias[unit_number] = -1.5 * one
        fetch.ffn.linear_1.weight[_SLOT + at - begin - 3, unit_number] = 2.0 / one

    for slot in range(SLOTS):
        ask.attention.linear[0].weight[slot, _SLOT + slot] = 1.0
        ask.attention.linear[1].weight[slot, _SLOT + slot] = 1.0
    for tone in range(len(WORDS)):
        ask.attention.linear[1].weight[width + tone, _CONTENT + tone] = 1.0
        ask.attention.linear[2].weight[_CONTENT + tone, tone] = 1.0

    output = _zeros(len(tokens), width)
    space = CHARACTER_OF_BYTE[ord(" ")]
    for tone, word in enumerate(WORDS):
        output[tokens.index(space + word), _CONTENT + tone] = certainty
    output[tokens.index("<|endoftext|>"), _SLOT : _SLOT + SLOTS] = 2.0 * certainty
    if no_speech:
        output[tokens.index("<|nospeech|>"), start_flag] = 2.0
    decoder.projection.weight = output

    spec.register_vocabulary(tokens)
    config: Any = spec.config
    config.suppress_ids, config.suppress_ids_begin = [], []
    config.lang_ids = [tokens.index(f"<|{language}|>") for language in LANGUAGES]
    config.alignment_heads = [(1, 0)]
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    assert json.loads((folder / "vocabulary.json").read_text()) == tokens
    return folder


def _zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def _norm(norm: Any, width: int) -> None:
    norm.gamma, norm.beta = np.ones(width, np.float32), _zeros(width)


def _linear(linear: Any, outputs: int, inputs: int) -> None:
    linear.weight, linear.bias = _zeros(outputs, inputs), _zeros(outputs)


def _empty(layer: Any, width: int, inner: int, *, crosses: bool = False) -> None:
    """A layer that passes on what it gets."""
    _norm(layer.self_attention.layer_norm, width)
    _linear(layer.self_attention.linear[0], 3 * width, width)
    _linear(layer.self_attention.linear[1], width, width)
    if crosses:
        _norm(layer.attention.layer_norm, width)
        for number, outputs in enumerate((width, 2 * width, width)):
            _linear(layer.attention.linear[number], outputs, width)
    _norm(layer.ffn.layer_norm, width)
    _linear(layer.ffn.linear_0, inner, width)
    _linear(layer.ffn.linear_1, width, inner)
