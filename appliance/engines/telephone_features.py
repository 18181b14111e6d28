"""Cepstra of telephone speech as PocketSphinx's wideband model expects them.

The English model was trained on 16 kHz audio with 25 mel bands from 130 to 6800 Hz and with the mean of every
utterance removed. A telephone line carries the lower 18 of those bands, at a level and with a colouring of its own,
and an answer such as "yes" is too short for its mean to say what the line sounds like. So the features are made here:

1. the 18 bands that exist are measured on 8 kHz audio (20 ms of work per second of speech, no resampling);
2. the mean that a long utterance on this line would have is estimated from the utterance's own mean, its loudest and
   its quietest frames, and removed;
3. the 7 bands that do not exist are replaced by what the acoustic model itself expects beside the 18 that do: its
   Gaussians, gathered into clusters, are a joint density of whole spectra, and the conditional mean under it is the
   missing part. The result is handed on as 13 cepstra a frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from appliance.engines.lexicon import PHONES
from appliance.errors import ModelFileError

RATE_HZ = 8000
FRAME_RATE_HZ = 100
CEPSTRA = 13

Floats = npt.NDArray[np.float64]

_SHIFT = RATE_HZ // FRAME_RATE_HZ
_WINDOW = 205  # 25.625 ms, the model's
_FFT = 512
_PREEMPHASIS = 0.97
_BANDS, _LOW_HZ, _HIGH_HZ = 25, 130.0, 6800.0  # the model's feat.params
_HEARD = 18  # bands that end below 3.5 kHz
_FLOOR_DB = 60.0  # below the loudest frames: digital silence is no colder than a quiet room
_OBSERVATION_VARIANCE = 0.15  # of a log band energy, given the 13 cepstra
_CLUSTERS = 256

# Long-run log band energies of telephone speech relative to its loudest frames: the mean over speech, the level of a
# silent line, and the share of speech that makes their mix the mean of a long utterance. Measured on prompts and read
# sentences of several speakers and microphones.
_SPEECH_SHAPE = np.array([
    -0.84, -0.66, -0.11, -0.37, -1.02, -1.33, -1.55, -2.15, -2.43,
    -2.67, -2.57, -2.47, -2.50, -2.69, -2.80, -2.89, -2.83, -2.81,
])  # fmt: skip
_SILENCE_LEVEL = -11.2
_SPEECH_SHARE = 0.70
_PRIOR_FRAMES = 100  # how many frames of evidence that estimate is worth beside the utterance's own mean

# How often each phone occurs, in thousandths; the rest is silence.
_PHONE_SHARE = {
    "AA": 18, "AE": 15, "AH": 69, "AO": 20, "AW": 5, "AY": 12, "B": 10, "CH": 2, "D": 29, "DH": 20, "EH": 33,
    "ER": 27, "EY": 11, "F": 18, "G": 5, "HH": 4, "IH": 35, "IY": 26, "JH": 6, "K": 33, "L": 34, "M": 21, "N": 64,
    "NG": 5, "OW": 10, "OY": 1, "P": 24, "R": 42, "S": 50, "SH": 4, "T": 58, "TH": 5, "UH": 1, "UW": 27, "V": 13,
    "W": 10, "Y": 15, "Z": 18, "ZH": 1,
}  # fmt: skip
_SILENCE_SHARE = 200


def _band_edges_hz() -> Floats:
    def mel(hz: float) -> float:
        return float(2595.0 * np.log10(1.0 + hz / 700.0))

    points = np.linspace(mel(_LOW_HZ), mel(_HIGH_HZ), _BANDS + 2)
    edges: Floats = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    return edges


def _filters() -> Floats:
    """Triangular filters of unit area over the FFT's bins, (bins, heard bands)."""
    bin_hz = RATE_HZ / _FFT
    edges = np.round(_band_edges_hz() / bin_hz) * bin_hz
    bins = np.arange(_FFT // 2 + 1) * bin_hz
    out = np.zeros((len(bins), _HEARD))
    for band in range(_HEARD):
        low, centre, high = edges[band : band + 3]
        rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
        out[:, band] = np.maximum(0.0, np.minimum(rise, fall)) * 2.0 / (high - low)
    return out


def _bands_of_cepstra() -> Floats:
    """The matrix from 13 cepstra (DCT-II, liftered) to the log energies of the heard bands, (heard, 13)."""
    order = np.arange(CEPSTRA)
    dct = np.sqrt(2.0 / _BANDS) * np.cos(np.pi * np.outer(order, np.arange(_BANDS) + 0.5) / _BANDS)
    dct[0] /= np.sqrt(2.0)
    lifter = 1.0 + 11.0 * np.sin(order * np.pi / 22.0)
    bands: Floats = (dct / lifter[:, None]).T[:_HEARD]
    return bands


def _read_gaussians(path: Path) -> Floats:
    """The static stream of a ``means`` or ``variances`` file of the model, (phones, Gaussians, 13)."""
    try:
        data = path.read_bytes()
        at = data.index(b"endhdr\n") + len(b"endhdr\n") + 4
        phones, streams, gaussians = np.frombuffer(data, "<i4", 3, at).tolist()
        lengths = np.frombuffer(data, "<i4", streams, at + 12).tolist()
        values = np.frombuffer(data, "<f4", phones * gaussians * sum(lengths), at + 16 + 4 * streams)
        static = values.reshape(phones, -1)[:, : gaussians * lengths[0]]
        return static.reshape(phones, gaussians, CEPSTRA).astype(np.float64)
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{path} cannot be read as an acoustic model ({error}): reinstall it with "
            "`pip install --force-reinstall --no-deps pocketsphinx`"
        ) from error


def _cluster(weights: Floats, means: Floats, variances: Floats, count: int) -> tuple[Floats, Floats, Floats]:
    """Gather many diagonal Gaussians into about ``count`` full ones: weights, means, covariances."""
    scale = 1.0 / np.sqrt((weights[:, None] * (variances + means**2)).sum(0))
    points = means * scale
    source = np.random.default_rng(0)
    centres = points[source.choice(len(points), count, replace=False, p=weights / weights.sum())]
    nearest = np.zeros(len(points), dtype=np.intp)
    for _ in range(15):
        nearest = ((centres**2).sum(1) - 2.0 * points @ centres.T).argmin(1)
        total = np.bincount(nearest, weights, count)
        for axis in range(CEPSTRA):
            summed = np.bincount(nearest, weights * points[:, axis], count)
            centres[:, axis] = np.where(total > 0.0, summed / np.maximum(total, 1e-12), centres[:, axis])
    kept, cluster_means, covariances = [], [], []
    for index in range(count):
        members = nearest == index
        if not members.any():
            continue
        share = weights[members] / weights[members].sum()
        mean = share @ means[members]
        apart = means[members] - mean
        kept.append(weights[members].sum())
        cluster_means.append(mean)
        covariances.append(np.diag(share @ variances[members]) + (share[:, None] * apart).T @ apart)
    return np.array(kept), np.array(cluster_means), np.array(covariances)


class TelephoneFeatures:
    """Turns 8 kHz audio into the model's cepstra.

    Args:
        model: folder of the acoustic model (``means`` and ``variances``).

    Raises:
        ModelFileError: if the model cannot be read.
    """

    def __init__(self, model: Path) -> None:
        means, variances = _read_gaussians(model / "means"), _read_gaussians(model / "variances")
        names = sorted(PHONES | {"SIL", "+NSN+", "+SPN+"})  # the order of the model's codebooks
        if len(means) != len(names):
            raise ModelFileError(
                f"{model} has {len(means)} phones where {len(names)} are expected: not the en-us model"
            )
        share = np.array([_PHONE_SHARE.get(name, _SILENCE_SHARE if name == "SIL" else 0.1) for name in names])
        per_gaussian = np.repeat(share / share.sum() / means.shape[1], means.shape[1])
        weights, centres, covariances = _cluster(
            per_gaussian, means.reshape(-1, CEPSTRA), variances.reshape(-1, CEPSTRA), _CLUSTERS
        )
        to_bands = _bands_of_cepstra()
        cross = covariances @ to_bands.T
        precision = np.linalg.inv(to_bands @ cross + _OBSERVATION_VARIANCE * np.eye(_HEARD))
        self._filters = _filters()
        self._window = np.hamming(_WINDOW)
        self._centres = centres.astype(np.float32)
        self._centre_bands = (centres @ to_bands.T).astype(np.float32)
        self._whiten = np.linalg.cholesky(precision).astype(np.float32)
        self._constant = (np.log(weights) + 0.5 * np.linalg.slogdet(precision)[1]).astype(np.float32)
        self._regression = (cross @ precision).transpose(0, 2, 1).astype(np.float32)

    def bands(self, pcm: npt.NDArray[np.int16]) -> Floats:
        """Log energies of the heard bands, (frames, 18), 100 frames a second; none for less than one window."""
        if len(pcm) < _WINDOW:
            return np.zeros((0, _HEARD))
        audio = pcm.astype(np.float64)
        audio[1:] -= _PREEMPHASIS * audio[:-1]
        frames = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW)[::_SHIFT]
        power = np.abs(np.fft.rfft(frames * self._window, _FFT)) ** 2
        energy = power @ self._filters
        floor = np.percentile(energy.mean(1), 95) * 10.0 ** (-_FLOOR_DB / 10.0) + 1.0
        logs: Floats = np.log(energy + floor)
        return logs

    def cepstra(self, bands: Floats) -> npt.NDArray[np.float32]:
        """The model's cepstra for :meth:`bands`' result, channel removed, (frames, 13)."""
        if not len(bands):
            return np.zeros((0, CEPSTRA), dtype=np.float32)
        return self._complete((bands - self._channel(bands)).astype(np.float32))

    def _channel(self, bands: Floats) -> Floats:
        """The mean to remove, (18,): the utterance's own, drawn towards that of a long utterance on the same line."""
        loudest = np.percentile(bands.mean(1), 95)
        silence = np.maximum(np.percentile(bands, 10, axis=0), loudest + _SILENCE_LEVEL)
        expected = _SPEECH_SHARE * (loudest + _SPEECH_SHAPE) + (1.0 - _SPEECH_SHARE) * silence
        mean: Floats = (len(bands) * bands.mean(0) + _PRIOR_FRAMES * expected) / (len(bands) + _PRIOR_FRAMES)
        return mean

    def _complete(self, bands: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Whole-spectrum cepstra from the heard bands: the conditional mean under the clusters."""
        apart = bands[None] - self._centre_bands[:, None]  # (clusters, frames, 18)
        distance = np.square(apart @ self._whiten).sum(2)
        log_likelihood = self._constant[:, None] - 0.5 * distance
        posterior = np.exp(log_likelihood - log_likelihood.max(0))
        posterior /= posterior.sum(0)
        out = posterior.T @ self._centres
        for cluster in np.flatnonzero(posterior.max(1) > 1e-3):
            frames = np.flatnonzero(posterior[cluster] > 1e-3)
            out[frames] += posterior[cluster, frames, None] * (apart[cluster, frames] @ self._regression[cluster])
        cepstra: npt.NDArray[np.float32] = out.astype(np.float32)
        return cepstra
