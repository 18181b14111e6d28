"""Reading weights out of ONNX files, and out of what only looks like one."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ModelFileError
from appliance.models.onnx_constants import float_constants


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(values: list[float], dimensions: list[int], data_type: int = 1) -> bytes:
    shape = b"".join(field(1, dimension) for dimension in dimensions)
    return shape + field(2, data_type) + field(9, struct.pack(f"<{len(values)}f", *values))


def constant(name: str, content: bytes) -> bytes:
    """A node of type Constant with its value."""
    return field(1, field(2, name.encode()) + field(4, b"Constant") + field(5, field(1, b"value") + field(5, content)))


def branch(content: bytes) -> bytes:
    """A node of type If with one subgraph."""
    return field(1, field(4, b"If") + field(5, field(1, b"else_branch") + field(6, content)))


def test_constants_of_the_graph_and_its_subgraphs() -> None:
    graph = constant("a", tensor([1, 2, 3, 4, 5, 6], [2, 3])) + branch(constant("b", tensor([0.5], [])))
    found = float_constants(field(1, 8) + field(7, graph))
    np.testing.assert_array_equal(found["a"], [[1, 2, 3], [4, 5, 6]])
    assert found["b"].shape == ()
    assert found["b"] == 0.5


def test_packed_dimensions() -> None:
    packed = field(1, varint(2) + varint(150)) + field(2, 1) + field(9, bytes(4 * 300))
    assert float_constants(field(7, constant("a", packed)))["a"].shape == (2, 150)


def test_other_types_are_left_out() -> None:
    assert float_constants(field(7, constant("a", tensor([1.0], [1], data_type=7)))) == {}


@pytest.mark.parametrize(
    "broken",
    [
        field(7, constant("a", tensor([1.0], [2]))),
        field(7, constant("a", tensor([1.0, 2.0], [2])))[:-1],
        b"\x3f",
        b"\xff" * 20,
        b"\x3a",
    ],
)
def test_a_broken_file_is_named_as_such(broken: bytes) -> None:
    with pytest.raises(ModelFileError, match="not an ONNX model"):
        float_constants(broken)


@given(st.binary(max_size=200))
def test_random_bytes_give_constants_or_that_error(data: bytes) -> None:
    for content in (data, field(7, data), field(7, field(1, data)), field(7, constant("a", data))):
        with contextlib.suppress(ModelFileError):
            float_constants(content)
