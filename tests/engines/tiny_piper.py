"""Voices with the interface of Piper's, small enough to be made on the spot: every phoneme is a tone of its own.

A phoneme sounds for 40 ms at ``length_scale`` 1, and the pad after it is silent as long.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RATE_HZ = 22_050
HOP = 220
HOPS = 4
SYMBOLS = "_^$ !',-.:;?" + "abcdefhijklmnopqrstuvwxyz" + "æçðøħŋœɐɑɒɔɕɖəɚɛɜɡɣɪɬɯɲɹɾʁʃʊʌʒʔθᵻˈˌː̩̃"
IDS = {symbol: [number] for number, symbol in enumerate(SYMBOLS)}
SILENT = "_^$ !',-.:;?ˈˌː̩̃"


def tone_hz(symbol: str) -> float:
    """What a phoneme sounds like: between 300 and 2700 Hz."""
    return 300.0 + 2400.0 * IDS[symbol][0] / len(SYMBOLS)


def make_voice(
    folder: Path,
    name: str,
    *,
    language: str = "en_US",
    espeak: str = "en-us",
    speakers: tuple[str, ...] = (),
    level: float = 0.3,
    burn: int = 0,
    phoneme_type: str = "espeak",
    **changes: Any,
) -> Path:
    """Write ``NAME.onnx`` and ``NAME.onnx.json``. ``burn``: multiplications of large matrices before it speaks."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.zeros((len(SYMBOLS), HOP), np.float32)
    for symbol, (number,) in IDS.items():
        if symbol not in SILENT:
            cycles = round(tone_hz(symbol) * HOP / RATE_HZ)
            table[number] = level * np.sin(2 * np.pi * cycles * np.arange(HOP) / HOP)
    nodes, weights = [], [numpy_helper.from_array(table, "table")]

    def constant(label: str, value: Any, kind: Any) -> str:
        weights.append(numpy_helper.from_array(np.array(value, kind), label))
        return label

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    spoken = node("Gather", ["table", "input"], "spoken", axis=0)
    scale = node("Gather", ["scales", constant("one_index", [1], np.int64)], "scale")
    hops = node("Mul", [scale, constant("hops_at_1", [HOPS], np.float32)], "hops")
    count = node("Cast", [node("Round", [hops], "rounded")], "count", to=TensorProto.INT64)
    ones = constant("ones", [1, 1], np.int64)
    tiled = node("Tile", [spoken, node("Concat", [ones, count], "repeats", axis=0)], "tiled")
    noise_scale = node("Gather", ["scales", constant("zero_index", [0], np.int64)], "noise_scale")
    noise = node("Mul", [node("RandomNormalLike", [tiled], "random", scale=0.0005), noise_scale], "noise")
    sound = node("Add", [tiled, noise], "sound")
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, ["batch", "phonemes"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
    ]
    if speakers:
        inputs.append(helper.make_tensor_value_info("sid", TensorProto.INT64, ["batch"]))
        gains = constant("gains", 0.5 ** np.arange(len(speakers)), np.float32)
        sound = node("Mul", [sound, node("Gather", [gains, "sid"], "gain")], "by_speaker")
    if burn:
        hot = constant("hot0", np.eye(1024) * 0.5, np.float32)
        matrix = constant("matrix", np.eye(1024) * 0.5, np.float32)
        level_of = node("ReduceMax", [sound], "level_of", keepdims=0)
        hot = node("Mul", [hot, level_of], "hot_start")
        for count_ in range(burn):
            hot = node("MatMul", [hot, matrix], f"hot{count_ + 1}")
        nothing = node(
            "Mul", [node("ReduceMax", [hot], "hottest", keepdims=0), constant("nil", 0, np.float32)], "nought"
        )
        sound = node("Add", [sound, nothing], "after_work")
    node("Reshape", [sound, constant("flat", [1, 1, 1, -1], np.int64)], "output")
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1, "time"])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    path = folder / f"{name}.onnx"
    onnx.save(model, str(path))
    file = {
        "audio": {"sample_rate": RATE_HZ, "quality": "medium"},
        "espeak": {"voice": espeak},
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "phoneme_type": phoneme_type,
        "phoneme_map": {},
        "phoneme_id_map": IDS,
        "num_symbols": len(SYMBOLS),
        "num_speakers": max(len(speakers), 1),
        "speaker_id_map": {speaker: number for number, speaker in enumerate(speakers)},
        "language": {"code": language, "family": language[:2]},
        "piper_version": "1.0.0",
        **changes,
    }
    path.with_name(f"{name}.onnx.json").write_text(json.dumps(file))
    return path
