"""Log-mel features of a signal, as speech models take them; numpy alone.

    spectrum |rfft(window · frame)|², [frames, bins] → mel bands, [frames, bands] → logarithm

Two families that nearly all published models use:

- `log-mel`: Slaney's scale with triangles of equal area, frames centred on reflected ends, a
  periodic Hann window, log10 cut off 8 below the loudest, (x + 4) / 4 (Whisper, 2212.04356).
- `fbank`: Kaldi's scale with triangles in mel, frames inside the signal without their mean and
  with a pre-emphasis of 0.97, Povey's or a Hann window, natural logarithm (Kaldi's
  `feature-fbank`, as in Speech2Text and the Audio Spectrogram Transformer).

Numbers are those of the transformers library's extractors (`tests/data/test_features.py`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Kind", "Mel", "Window", "log_mel", "standardized"]

Kind = Literal["signal", "log-mel", "fbank"]
Window = Literal["povey", "hann"]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Doubles = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_WINDOW_S, _HOP_S = 0.025, 0.010
_LOUDNESS = 8.0
"""Of log10, below the loudest, is silence to Whisper."""
_LEAST_LOG_MEL, _LEAST_FBANK = 1e-10, 1.192092955078125e-07
_PRE_EMPHASIS, _POVEY = 0.97, 0.85
_LOWEST_HZ = 20.0
"""Of Kaldi's bands."""


@dataclass(frozen=True, slots=True)
class Mel:
    """Which features.

    Attributes:
        kind: `log-mel` or `fbank`.
        rate: of the signal, in Hz.
        bands: of the mel scale.
        window: of `fbank`.
    """

    kind: Kind
    rate: int
    bands: int
    window: Window = "povey"

    @property
    def hop(self) -> int:
        """Values from one frame to the next: 10 ms."""
        return round(self.rate * _HOP_S)

    @property
    def length(self) -> int:
        """Values of a frame: 25 ms."""
        return round(self.rate * _WINDOW_S)


def log_mel(signal: Floats, how: Mel) -> Floats:
    """Features, `[frames, bands]`.

    Args:
        signal: `[values]`; at least one frame of `fbank`, more than half a frame of `log-mel`.
        how: which.
    """
    values = signal.astype(np.float64)
    if how.kind == "log-mel":
        half = how.length // 2
        frames = _frames(np.pad(values, half, mode="reflect"), how)
        window = np.hanning(how.length + 1)[:-1]
        powers = _powers(frames * window, how.length) @ _slaney(how)
        levels = np.log10(np.maximum(powers, _LEAST_LOG_MEL))[:-1]
        levels = (np.maximum(levels, levels.max() - _LOUDNESS) + 4) / 4
        return np.asarray(levels, np.float32)
    frames = _frames(values, how)
    frames = frames - frames.mean(axis=1, keepdims=True)
    emphasized = frames.copy()
    emphasized[:, 1:] -= _PRE_EMPHASIS * frames[:, :-1]
    emphasized[:, 0] *= 1 - _PRE_EMPHASIS
    window = np.hanning(how.length) ** (_POVEY if how.window == "povey" else 1.0)
    size = 1 << (how.length - 1).bit_length()
    powers = _powers(emphasized * window, size) @ _kaldi(how, size)
    return np.asarray(np.log(np.maximum(powers, _LEAST_FBANK)), np.float32)


def standardized(values: Floats) -> Floats:
    """Without the mean along the first axis and of deviation 1; what is constant becomes 0."""
    double = values.astype(np.float64)
    varies = np.ptp(values, axis=0) > 0
    deviation = np.where(varies, double.std(axis=0), 1)
    found = np.where(varies, (double - double.mean(axis=0)) / deviation, 0)
    return np.asarray(found, np.float32)


def _frames(values: Doubles, how: Mel) -> Doubles:
    windows = np.lib.stride_tricks.sliding_window_view(values, how.length)
    return np.asarray(windows[:: how.hop])


def _powers(frames: Doubles, size: int) -> Doubles:
    return np.asarray(np.abs(np.fft.rfft(frames, size)) ** 2)


def _slaney(how: Mel) -> Doubles:
    """Triangles in Hz of area 1 each, `[bins, bands]`: linear below 1 kHz, then logarithmic."""
    step, bend, highest = 3 / 200, 1000.0, how.rate / 2
    top = step * min(highest, bend) + np.log(max(highest / bend, 1)) * 27 / np.log(6.4)
    mels = np.linspace(0, top, how.bands + 2)
    above = bend * np.exp((mels - step * bend) * np.log(6.4) / 27)
    hertz = np.where(mels < step * bend, mels / step, above)
    bins = np.linspace(0, how.rate / 2, how.length // 2 + 1)
    return _triangles(bins, hertz) * (2 / (hertz[2:] - hertz[:-2]))


def _kaldi(how: Mel, size: int) -> Doubles:
    """Triangles in mel, `[bins, bands]`."""
    lowest, highest = (1127 * np.log(1 + f / 700) for f in (_LOWEST_HZ, how.rate / 2))
    bins = 1127 * np.log(1 + np.arange(size // 2 + 1) * how.rate / size / 700)
    return _triangles(bins, np.linspace(lowest, highest, how.bands + 2))


def _triangles(bins: Doubles, ends: Doubles) -> Doubles:
    """Of height 1 at each inner end, 0 at those beside it."""
    rising = (bins[:, None] - ends[:-2]) / (ends[1:-1] - ends[:-2])
    falling = (ends[2:] - bins[:, None]) / (ends[2:] - ends[1:-1])
    return np.maximum(0, np.minimum(rising, falling))
