"""The weights inside an ONNX file, without an ONNX library.

An ONNX file is one protocol-buffer message. Only what leads to constant tensors is followed: the graph, its nodes,
and the subgraphs of nodes such as ``If``. Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.errors import ModelFileError

_MODEL_GRAPH: Final = 7
_GRAPH_NODE: Final = 1
_NODE_OUTPUT: Final = 2
_NODE_ATTRIBUTE: Final = 5
_ATTRIBUTE_TENSOR: Final = 5
_ATTRIBUTE_GRAPH: Final = 6
_TENSOR_DIMENSIONS: Final = 1
_TENSOR_TYPE: Final = 2
_TENSOR_RAW: Final = 9
_FLOAT: Final = 1

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5


def float_constants(model: bytes) -> dict[str, NDArray[np.float32]]:
    """Every float32 constant of the model, in subgraphs too, by the name of the value it defines.

    Raises:
        ModelFileError: this is not an ONNX file.
    """
    constants: dict[str, NDArray[np.float32]] = {}
    try:
        for number, graph in _fields(memoryview(model)):
            if number == _MODEL_GRAPH and isinstance(graph, memoryview):
                _collect(graph, constants)
    except (IndexError, ValueError) as error:
        raise ModelFileError(f"this is not an ONNX model ({error}); run 'appliance models verify'") from error
    return constants


def _collect(graph: memoryview, constants: dict[str, NDArray[np.float32]]) -> None:
    for number, node in _fields(graph):
        if number != _GRAPH_NODE or not isinstance(node, memoryview):
            continue
        name = ""
        for node_number, value in _fields(node):
            if not isinstance(value, memoryview):
                continue
            if node_number == _NODE_OUTPUT:
                name = name or bytes(value).decode()
            elif node_number == _NODE_ATTRIBUTE:
                for attribute_number, content in _fields(value):
                    if not isinstance(content, memoryview):
                        continue
                    if attribute_number == _ATTRIBUTE_GRAPH:
                        _collect(content, constants)
                    elif attribute_number == _ATTRIBUTE_TENSOR:
                        tensor = _tensor(content)
                        if tensor is not None:
                            constants[name] = tensor


def _tensor(message: memoryview) -> NDArray[np.float32] | None:
    """The tensor if it is float32 and stored raw, as exporters do with weights."""
    dimensions: list[int] = []
    raw: memoryview | None = None
    is_float = False
    for number, value in _fields(message):
        if number == _TENSOR_DIMENSIONS:
            dimensions += [value] if isinstance(value, int) else _varints(value)
        elif number == _TENSOR_TYPE:
            is_float = value == _FLOAT
        elif number == _TENSOR_RAW and isinstance(value, memoryview):
            raw = value
    if not is_float or raw is None:
        return None
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(dimensions)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers with their values: an int for a varint, otherwise the bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            yield tag >> 3, number
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at + length > len(message):
            raise ValueError("it ends in the middle of a field")
        yield tag >> 3, message[at : at + length]
        at += length


def _varints(packed: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        values.append(value)
    return values


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
