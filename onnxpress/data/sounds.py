"""Samples from recordings: the signal itself, at one rate, one channel."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from onnxpress.data.files import MOST, Row, assembled, has_files, listed, readable
from onnxpress.data.reader import Reader, path_of
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError, UsageError
from onnxpress.runtime import Array, InputSpec
from onnxpress.settings import setting, validate

__all__ = ["READER", "Sounds", "read_sounds"]

_SUFFIXES = frozenset((".wav", ".flac", ".ogg", ".mp3"))
_WHAT = "recordings"
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

_RATE = 16_000
"""Of speech models, nearly all of them."""


@dataclass(frozen=True)
class Sounds:
    """How recordings are prepared: the table `[sounds]` of a description.

    Raises:
        UsageError: a setting has the wrong type.
    """

    rate: Annotated[int, Gt(0)] | None = setting(None, "Samples a second; without: 16,000.")
    seconds: Annotated[float, Gt(0)] | None = setting(
        None, "Cut or filled to this; without: as the model fixes it, else as each is."
    )
    place: Literal["start", "end"] = setting("start", "Where a short one lies amid silence.")
    scale: Annotated[float, Gt(0)] = setting(1.0, "What values of -1 to 1 are multiplied by.")
    classes: tuple[str, ...] = setting(
        (), "Names of subfolders in the order of the model's classes; without: sorted."
    )
    labels: bool = setting(True, "Whether subfolders are classes.")  # noqa: FBT003 - a setting
    most: Annotated[int, Gt(0)] = setting(MOST, "Recordings that are read, evenly spread.")

    def __post_init__(self) -> None:
        validate(self, "[sounds]")


def _accepts(data: object) -> bool:
    return has_files(path_of(data), _SUFFIXES)


def _read(data: str | Path, inputs: Sequence[InputSpec]) -> Samples:
    return read_sounds(Path(data), None, inputs, {})


def read_sounds(
    path: Path,
    how: Sounds | None,
    inputs: Sequence[InputSpec],
    constants: Mapping[str, Array],
) -> Samples:
    """Samples of a folder of recordings, or of one.

    Args:
        path: of the folder.
        how: they are prepared; `None`: by the defaults.
        inputs: of the model, one of which takes the signal, `[samples]`, `[batch, samples]` or
            `[batch, 1, samples]` or `[batch, samples, 1]`.
        constants: what its other inputs are fed.

    Raises:
        DataError: no recordings that can be read, or a model that takes no signal.
        UsageError: the libraries that read them are not installed.
    """
    how = how or Sounds()
    spec = _input(inputs, constants, path)
    found = listed(path, _SUFFIXES, _WHAT, how.most, how.classes, labelled=how.labels)
    rate = how.rate or _RATE
    assumed = "" if how.rate else ", which is assumed: state it in a description"
    note = f"{path}: recordings are fed as one channel of {rate:,} values a second{assumed}"
    notes = [note, *found.notes]
    signals = readable(found, lambda file: _signal(file, rate), notes)
    return assembled(_rows(signals, how, spec, rate), inputs, constants, str(path), notes)


def _input(inputs: Sequence[InputSpec], constants: Mapping[str, Array], path: Path) -> InputSpec:
    specs = [spec for spec in inputs if spec.name not in constants]
    takes = [spec for spec in specs if _is_signal(spec)]
    if len(specs) != 1 or not takes:
        wanted = "; ".join(str(spec) for spec in inputs)
        raise DataError(
            f"{path}: recordings feed one input that takes the signal itself; the model wants "
            f"{wanted}; feed others in the table [constants] of a description; for features of "
            "a signal (mel bands) give module:function that yields a dictionary of arrays [D013]"
        )
    return takes[0]


def _is_signal(spec: InputSpec) -> bool:
    rank = len(spec.shape)
    single = rank < 3 or 1 in spec.shape[1:]
    return spec.dtype in ("float32", "float16", "float64", "int16") and 0 < rank < 4 and single


def _shape(spec: InputSpec) -> tuple[int, ...]:
    """Of a row of values, -1 for these: the last axis, unless that is the channel."""
    rank = len(spec.shape)
    time = 1 if rank == 3 and spec.shape[2] == 1 else rank - 1
    return tuple(-1 if axis == time else 1 for axis in range(rank))


def _rows(
    signals: Iterable[tuple[Floats, int | None]], how: Sounds, spec: InputSpec, rate: int
) -> Iterator[Row]:
    shape = _shape(spec)
    fixed = spec.shape[shape.index(-1)]
    count = fixed if isinstance(fixed, int) and fixed > 0 else None
    if count is None and how.seconds is not None:
        count = round(how.seconds * rate)
    for whole, label in signals:
        signal = whole
        if count is not None:
            signal = signal[:count]
            silence = (count - len(signal), 0)
            signal = np.pad(signal, silence if how.place == "end" else silence[::-1])
        values = signal * np.float32(how.scale)
        if spec.dtype == "int16":
            values = np.clip(np.rint(values * 32767), -32768, 32767)
        yield {spec.name: values.astype(spec.dtype).reshape(shape)}, label


def _signal(file: Path, rate: int) -> Floats:
    """One channel at a rate, values of -1 to 1."""
    try:
        import soundfile  # noqa: PLC0415 - an extra
        import soxr  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            f"{file}: recordings are read by soundfile and soxr, which are not installed; install "
            "them with pip install 'onnxpress[sounds]' [U007]"
        ) from error
    try:
        channels, own = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as a recording ({error}) [D008]") from error
    if not len(channels):
        raise DataError(f"{file}: is empty; remove it [D008]")
    signal: Floats = channels.mean(axis=1)
    return signal if own == rate else np.asarray(soxr.resample(signal, own, rate), np.float32)


READER = Reader(
    "a folder of recordings (.wav, .flac)",
    _accepts,
    _read,
    before=("texts",),
)
