"""Silero's voice activity model at 8 kHz, over many calls at once, as matrix products.

The network is small (0.37 million multiplications per 32 ms) and the same for every call, so what it costs is decided
by how it is batched. Run as products over [calls x frames, taps] matrices it takes a third of the time that ONNX
Runtime takes for the same file, to the same result within float32 rounding (docs/models.md has the figures, and a
test compares the two).

What the model does with 288 samples (32 of context and 256 new): four spectra of 128 samples, 64 apart, the last one
completed by mirroring the end; magnitudes of 65 bins; four convolutions of width 3 that bring 4 frames down to 1; an
LSTM cell of 128; one output through a sigmoid.

NumPy's BLAS must be held to one thread in this process (``OPENBLAS_NUM_THREADS=1``): a second thread would spin on
the audio's core.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from appliance.errors import ModelFileError
from appliance.models.onnx_constants import float_constants

FRAME_SAMPLES: Final = 256
CONTEXT_SAMPLES: Final = 32
STATE_SIZE: Final = 128

_BRANCH_8_KHZ: Final = "else_branch__Inline_0__"
_WINDOW: Final = 128
_HOP: Final = 64
_SPECTRA: Final = 4
_BINS: Final = 65
_PADDED_SAMPLES: Final = CONTEXT_SAMPLES + FRAME_SAMPLES + _HOP
_FLOAT_BYTES: Final = 4

_CHUNK: Final = 128
"""Calls per pass: few enough that a pass's matrices stay in the second-level cache."""

Floats = NDArray[np.float32]


class SileroBatch:
    """The model with the recurrent state of ``capacity`` slots.

    Args:
        model: content of ``silero_vad.onnx``.
        capacity: number of slots.

    Raises:
        ModelFileError: ``model`` is not that file.
    """

    def __init__(self, model: bytes, capacity: int) -> None:
        self._hidden = np.zeros((capacity, STATE_SIZE), np.float32)
        self._cell = np.zeros((capacity, STATE_SIZE), np.float32)
        self._context = np.zeros((capacity, CONTEXT_SAMPLES), np.float32)
        self._network = _Network(model, min(capacity, _CHUNK))

    def step(self, slots: NDArray[np.integer], frames: Floats) -> Floats:
        """Speech probability of the next 32 ms of each of ``slots``.

        Args:
            slots: [n] slot numbers, no two the same.
            frames: [n, 256] samples at 8 kHz in -1..1; each slot's frames follow one another without a gap.

        Returns:
            [n] probabilities.
        """
        probabilities = np.empty(len(slots), np.float32)
        for start in range(0, len(slots), _CHUNK):
            part = slots[start : start + _CHUNK]
            new = frames[start : start + _CHUNK]
            hidden, cell = self._network.run(self._context[part], new, self._hidden[part], self._cell[part])
            self._context[part] = new[:, -CONTEXT_SAMPLES:]
            self._hidden[part] = hidden
            self._cell[part] = cell
            self._network.decide(hidden, out=probabilities[start : start + _CHUNK])
        return probabilities

    def reset(self, slot: int) -> None:
        """Forget what ``slot`` has heard: a new call takes it over."""
        self._hidden[slot] = 0.0
        self._cell[slot] = 0.0
        self._context[slot] = 0.0


class _Network:
    """Weights, and buffers for up to ``most`` calls in one pass. Edges that a convolution pads with zero stay zero."""

    def __init__(self, model: bytes, most: int) -> None:
        weights = _Weights(model)
        self._basis = weights("stft.forward_basis_buffer", (130, 1, 128))[:, 0].T.copy()
        self._conv0 = _taps(weights("encoder.0.reparam_conv.weight", (128, 65, 3)))
        self._bias0 = weights("encoder.0.reparam_conv.bias", (128,))
        self._conv1 = _taps(weights("encoder.1.reparam_conv.weight", (64, 128, 3)))
        self._bias1 = weights("encoder.1.reparam_conv.bias", (64,))
        # Two frames go in with one of zeros before them, one comes out: the first tap never meets anything but zero.
        self._conv2 = _taps(weights("encoder.2.reparam_conv.weight", (64, 64, 3))[:, :, 1:])
        self._bias2 = weights("encoder.2.reparam_conv.bias", (64,))
        # One frame between two of zeros: only the middle tap counts.
        self._conv3 = _taps(weights("encoder.3.reparam_conv.weight", (128, 64, 3))[:, :, 1:2])
        self._bias3 = weights("encoder.3.reparam_conv.bias", (128,))
        into = weights("decoder.rnn.weight_ih", (512, 128))
        again = weights("decoder.rnn.weight_hh", (512, 128))
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, so that one tanh serves all four gates (input, forget, cell, output).
        halved = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), STATE_SIZE)
        self._gates = np.ascontiguousarray(np.concatenate([into, again], axis=1).T * halved)
        self._gates_bias = (weights("decoder.rnn.bias_ih", (512,)) + weights("decoder.rnn.bias_hh", (512,))) * halved
        self._output = weights("decoder.decoder.2.weight", (1, 128, 1)).reshape(128)
        self._output_bias = weights("decoder.decoder.2.bias", (1,))[0]

        self._samples = np.zeros((most, _PADDED_SAMPLES), np.float32)
        self._windows = np.zeros((most, _SPECTRA, _WINDOW), np.float32)
        self._spectra = np.zeros((most, _SPECTRA, 2 * _BINS), np.float32)
        self._magnitudes = np.zeros((most, _SPECTRA + 2, _BINS), np.float32)
        self._columns0 = np.zeros((most, _SPECTRA, 3 * _BINS), np.float32)
        self._products0 = np.zeros((most, _SPECTRA, 128), np.float32)
        self._layer0 = np.zeros((most, _SPECTRA + 1, 128), np.float32)
        self._columns1 = np.zeros((most, 2, 3 * 128), np.float32)
        self._layer1 = np.zeros((most, 2, 64), np.float32)
        self._layer2 = np.zeros((most, 64), np.float32)
        self._layer3 = np.zeros((most, 128), np.float32)
        self._cell_input = np.zeros((most, 128 + STATE_SIZE), np.float32)
        self._gate_values = np.zeros((most, 4 * STATE_SIZE), np.float32)

    def run(self, context: Floats, frames: Floats, hidden: Floats, cell: Floats) -> tuple[Floats, Floats]:
        """The next hidden and cell states [n, 128] from [n, 32] and [n, 256] samples and the states before."""
        count = len(frames)
        samples = self._samples[:count]
        samples[:, :CONTEXT_SAMPLES] = context
        samples[:, CONTEXT_SAMPLES:-_HOP] = frames
        samples[:, -_HOP:] = samples[:, -_HOP - 2 : -2 * _HOP - 2 : -1]

        windows = _overlapping(samples, self._windows[:count], _HOP)
        spectra = np.matmul(windows.reshape(-1, _WINDOW), self._basis, out=_rows(self._spectra, count))
        np.square(spectra, out=spectra)
        power = self._spectra[:count]
        magnitudes = self._magnitudes[:count]
        inner = magnitudes[:, 1:-1]
        np.add(power[:, :, :_BINS], power[:, :, _BINS:], out=inner)
        np.sqrt(inner, out=inner)

        columns0 = _overlapping(magnitudes, self._columns0[:count], _BINS)
        products = np.matmul(columns0.reshape(-1, 3 * _BINS), self._conv0, out=_rows(self._products0, count))
        products += self._bias0
        np.maximum(self._products0[:count], 0.0, out=self._layer0[:count, 1:])

        columns1 = _overlapping(self._layer0[:count], self._columns1[:count], 2 * 128)
        layer1 = np.matmul(columns1.reshape(-1, 3 * 128), self._conv1, out=_rows(self._layer1, count))
        _bias_and_clip(layer1, self._bias1, layer1)
        layer2 = np.matmul(layer1.reshape(-1, 2 * 64), self._conv2, out=self._layer2[:count])
        _bias_and_clip(layer2, self._bias2, layer2)
        layer3 = np.matmul(layer2, self._conv3, out=self._layer3[:count])
        cell_input = self._cell_input[:count]
        _bias_and_clip(layer3, self._bias3, cell_input[:, :128])
        cell_input[:, 128:] = hidden

        gates = np.matmul(cell_input, self._gates, out=self._gate_values[:count])
        gates += self._gates_bias
        np.tanh(gates, out=gates)
        take_and_keep = gates[:, : 2 * STATE_SIZE]
        take_and_keep *= 0.5
        take_and_keep += 0.5
        show = gates[:, 3 * STATE_SIZE :]
        show *= 0.5
        show += 0.5
        candidate = gates[:, 2 * STATE_SIZE : 3 * STATE_SIZE]
        candidate *= take_and_keep[:, :STATE_SIZE]
        new_cell = cell * take_and_keep[:, STATE_SIZE:]
        new_cell += candidate
        new_hidden = np.tanh(new_cell)
        new_hidden *= show
        return new_hidden, new_cell

    def decide(self, hidden: Floats, *, out: Floats) -> None:
        """Probabilities [n] of the hidden states [n, 128]."""
        np.matmul(np.maximum(hidden, 0.0), self._output, out=out)
        out += self._output_bias
        out *= 0.5
        np.tanh(out, out=out)
        out *= 0.5
        out += 0.5


class _Weights:
    """The constants of the model's 8 kHz half by their names."""

    def __init__(self, model: bytes) -> None:
        self._constants = {
            name.partition(_BRANCH_8_KHZ)[2]: constant
            for name, constant in float_constants(model).items()
            if _BRANCH_8_KHZ in name
        }

    def __call__(self, name: str, shape: tuple[int, ...]) -> Floats:
        constant = self._constants.get(name)
        if constant is None or constant.shape != shape:
            raise ModelFileError(
                f"the model has no constant {name!r} of shape {shape}, so it is not the Silero VAD this version knows; "
                "run 'appliance models verify'"
            )
        return constant


def _taps(weight: Floats) -> Floats:
    """[out, in, taps] as the matrix [taps x in, out] that rows of neighbouring frames are multiplied with."""
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, weight.shape[0]))


def _rows(buffer: Floats, count: int) -> Floats:
    """The first ``count`` calls of a [most, frames, values] buffer as [count x frames, values]."""
    return buffer[:count].reshape(-1, buffer.shape[2])


def _overlapping(source: Floats, target: Floats, step: int) -> Floats:
    """Fill ``target`` [n, k, width] with the k stretches of each call's values that begin ``step`` values apart."""
    per_call = source[0].size
    strides = (per_call * _FLOAT_BYTES, step * _FLOAT_BYTES, _FLOAT_BYTES)
    np.copyto(target, as_strided(source, target.shape, strides, writeable=False))
    return target


def _bias_and_clip(values: Floats, bias: Floats, out: Floats) -> None:
    values += bias
    np.maximum(values, 0.0, out=out)
