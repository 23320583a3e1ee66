"""Samples from recordings: the signal itself or its log-mel features, at one rate, one channel."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Gt

from onnxpress.data.features import Kind, Mel, Window, log_mel, standardized
from onnxpress.data.files import MOST, Row, assembled, has_files, listed, readable
from onnxpress.data.preparation import preparation_of
from onnxpress.data.preprocessor import beside, said_in
from onnxpress.data.reader import Reader, path_of
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError, UsageError
from onnxpress.runtime import Array, InputSpec
from onnxpress.settings import setting, validate

__all__ = ["READER", "Sounds", "heard_by_extractor", "read_sounds"]

_SUFFIXES = frozenset((".wav", ".flac", ".ogg", ".mp3"))
_WHAT = "recordings"
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

_RATE = 16_000
"""Of speech models, nearly all of them."""
_USUAL_BANDS = 80
_MOST_PIECES = 8
"""Of one recording: more of one voice say little that is new."""
_FLOATS = ("float32", "float16", "float64")


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
    pieces: Annotated[int, Gt(0)] | None = setting(
        None,
        "Of each recording at most, evenly spread, where the length of the signal is fixed; "
        "without: 1 where recordings have classes, else 8.",
    )
    place: Literal["start", "end"] = setting("start", "Where a short one lies amid silence.")
    scale: Annotated[float, Gt(0)] = setting(1.0, "What values of -1 to 1 are multiplied by.")
    features: Kind = setting(
        "signal", "What is fed: the signal, or log-mel features as Whisper's or Kaldi's (fbank)."
    )
    bands: Annotated[int, Gt(0)] | None = setting(
        None, "Of features; without: as the model fixes them, else 80."
    )
    window: Window = setting("povey", "Of the frames of fbank.")
    frames: Annotated[int, Gt(0)] | None = setting(
        None, "Cut or filled to these; without: as the model fixes them, else as many as there are."
    )
    standardize: bool = setting(
        False,  # noqa: FBT003 - a setting
        "Whether each recording loses its mean, each of its bands, and gets a deviation of 1.",
    )
    mean: float = setting(0.0, "Subtracted at last, of features that were filled up too.")
    deviation: Annotated[float, Gt(0)] = setting(1.0, "Divided by at last.")
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
        how: they are prepared; `None`: as `preprocessor_config.json` in the folder or above it
            says, else by the defaults.
        inputs: of the model, one of which takes the signal, `[samples]`, `[batch, samples]` or
            `[batch, 1, samples]` or `[batch, samples, 1]`; or features, `[batch, bands, frames]`
            or `[batch, frames, bands]`, maybe with an axis of 1.
        constants: what its other inputs are fed.

    Raises:
        DataError: no recordings that can be read, or a model that takes no signal.
        UsageError: the libraries that read them are not installed.
    """
    stated = None if how is not None else beside(path)
    said = None if stated is None else heard_by_extractor(stated)
    how = how or said or Sounds()
    spec, shape = _input(inputs, constants, how, path)
    found = listed(path, _SUFFIXES, _WHAT, how.most, how.classes, labelled=how.labels)
    rate = how.rate or _RATE
    by = f", as {stated} says" if said is not None else ""
    by = by or ("" if how.rate else ", which is assumed: state it in a description")
    what = "one channel" if how.features == "signal" else f"{how.features} features of one channel"
    note = f"{path}: recordings are fed as {what} of {rate:,} values a second{by}"
    notes = [note, *found.notes]
    most = how.pieces or (_MOST_PIECES if found.labels is None else 1)
    if how.features == "signal":
        arrays = readable(found, lambda file: _as_signals(file, how, spec, shape, most), notes)
    else:
        arrays = readable(found, lambda file: [_as_features(file, how, spec, shape)], notes)
    sources: list[int] = []
    samples = assembled(_rows(arrays, spec.name, sources), inputs, constants, str(path), notes)
    if len(samples) == len(sources) > len(set(sources)):
        # Pieces of one recording stay on one side when samples are divided.
        samples = replace(samples, groups=np.asarray(sources, np.int64))
    kept = preparation_of("sounds", how, inputs, constants, rate=rate, classes=found.classes)
    rates = {spec.name: rate} if how.features == "signal" else {}
    return replace(samples, preparation=kept, rates=rates)


def _input(
    inputs: Sequence[InputSpec], constants: Mapping[str, Array], how: Sounds, path: Path
) -> tuple[InputSpec, tuple[int, ...]]:
    """What takes the recordings, and where its values, or frames (-1) and bands (-2), stand."""
    specs = [spec for spec in inputs if spec.name not in constants]
    find = _signal_axes if how.features == "signal" else _feature_axes
    shape = find(specs[0], how) if len(specs) == 1 else None
    if shape is None:
        wanted = "; ".join(str(spec) for spec in inputs)
        raise DataError(
            f"{path}: recordings feed one input that takes the signal itself, or its log-mel "
            f"features where a description says features = 'log-mel' or 'fbank'; the model wants "
            f"{wanted}, and they are prepared as {how.features!r}; feed others in the table "
            "[constants] of a description; for other features give module:function that yields a "
            "dictionary of arrays [D013]"
        )
    return specs[0], shape


_TIME, _BANDS = -1, -2


def _signal_axes(spec: InputSpec, _: Sounds) -> tuple[int, ...] | None:
    """The last axis, unless that is the channel; `None` where it takes no signal."""
    rank = len(spec.shape)
    single = rank < 3 or 1 in spec.shape[1:]
    if spec.dtype not in (*_FLOATS, "int16") or not 0 < rank < 4 or not single:
        return None
    time = 1 if rank == 3 and spec.shape[2] == 1 else rank - 1
    return tuple(_TIME if axis == time else 1 for axis in range(rank))


def _feature_axes(spec: InputSpec, how: Sounds) -> tuple[int, ...] | None:
    """By the size of the bands where the model fixes it, else as the family is used to."""
    rank = len(spec.shape)
    wide = [axis for axis in range(1, rank) if spec.shape[axis] != 1]
    if spec.dtype not in _FLOATS or rank not in (3, 4) or len(wide) != 2:
        return None
    fixed = [axis for axis in wide if spec.shape[axis] == (how.bands or _USUAL_BANDS)]
    usual = wide[0] if how.features == "log-mel" else wide[1]
    bands = fixed[0] if len(fixed) == 1 else usual
    return tuple(_BANDS if axis == bands else _TIME if axis in wide else 1 for axis in range(rank))


def _rows(
    recordings: Iterable[tuple[list[Array], int | None]], name: str, sources: list[int]
) -> Iterator[Row]:
    """Each piece of each recording; `sources` gets the number of the recording of each."""
    for number, (pieces, label) in enumerate(recordings):
        for piece in pieces:
            sources.append(number)
            yield {name: piece}, label


def _as_signals(
    file: Path, how: Sounds, spec: InputSpec, axes: tuple[int, ...], most: int
) -> list[Array]:
    """A recording in as many pieces as fit, from its start to its end."""
    whole = _signal(file, how.rate or _RATE)
    count = _count(how, _fixed(spec, axes, _TIME))
    fitting = 1 if count is None else max(1, min(most, len(whole) // count))
    if count is None or fitting == 1:
        return [_as_signal(_cut(whole, how, count), how, spec, axes)]
    starts = np.linspace(0, len(whole) - count, fitting).astype(int).tolist()
    return [_as_signal(whole[start : start + count], how, spec, axes) for start in starts]


def _as_signal(given: Floats, how: Sounds, spec: InputSpec, axes: tuple[int, ...]) -> Array:
    signal = standardized(given) if how.standardize else given
    values = (signal * np.float32(how.scale) - np.float32(how.mean)) / np.float32(how.deviation)
    if spec.dtype == "int16":
        values = np.clip(np.rint(values * 32767), -32768, 32767)
    return values.astype(spec.dtype).reshape(axes)


def _as_features(file: Path, how: Sounds, spec: InputSpec, axes: tuple[int, ...]) -> Array:
    frames = _fixed(spec, axes, _TIME) or how.frames
    bands = how.bands or _fixed(spec, axes, _BANDS) or _USUAL_BANDS
    mel = Mel(how.features, how.rate or _RATE, bands, how.window)
    # Whisper fills up the signal, which is silence in its features; Kaldi's users the features.
    count = frames * mel.hop if how.features == "log-mel" and frames else None
    signal = _cut(_signal(file, mel.rate), how, _count(how, count))
    if len(signal) < mel.length:
        raise DataError(
            f"{file}: is shorter than one frame of {mel.length} values; remove it, or state "
            "seconds in a description, up to which it is filled with silence [D017]"
        )
    values = log_mel(signal * np.float32(how.scale), mel)
    if how.standardize:
        values = standardized(values)
    if frames:
        values = np.pad(values[:frames], ((0, max(frames - len(values), 0)), (0, 0)))
    values = ((values - np.float32(how.mean)) / np.float32(how.deviation)).astype(spec.dtype)
    ordered = values.T if axes.index(_BANDS) < axes.index(_TIME) else values
    sizes = {_TIME: values.shape[0], _BANDS: values.shape[1], 1: 1}
    return np.ascontiguousarray(ordered).reshape([sizes[axis] for axis in axes])


def _fixed(spec: InputSpec, axes: tuple[int, ...], what: int) -> int | None:
    size = spec.shape[axes.index(what)]
    return size if isinstance(size, int) and size > 0 else None


def _count(how: Sounds, fixed: int | None) -> int | None:
    """As many values as the model fixes, else as long as is asked for."""
    if fixed is None and how.seconds is not None:
        return round(how.seconds * (how.rate or _RATE))
    return fixed


def _cut(signal: Floats, how: Sounds, count: int | None) -> Floats:
    """To as many values, filled up with silence; `None`: as it is."""
    if count is None:
        return signal
    signal = signal[:count]
    silence = (count - len(signal), 0)
    return np.pad(signal, silence if how.place == "end" else silence[::-1])


def heard_by_extractor(file: Path) -> Sounds | None:
    """What a `preprocessor_config.json` of the transformers library says of recordings.

    `None` where it is about something else, as pictures.

    Raises:
        DataError: it cannot be read, or names features that are not computed.
    """
    said = said_in(file)
    name = said.get("feature_extractor_type")
    if not isinstance(name, str):
        return None
    try:
        rate = int(said.get("sampling_rate", _RATE))
        if name == "WhisperFeatureExtractor":
            _require_usual(said, {"n_fft": 400, "hop_length": 160})
            bands, seconds = int(said.get("feature_size", 80)), float(said.get("chunk_length", 30))
            return Sounds(rate=rate, seconds=seconds, features="log-mel", bands=bands)
        if name == "Speech2TextFeatureExtractor":
            both = said.get("normalize_means", True) and said.get("normalize_vars", True)
            whole = bool(said.get("do_ceptral_normalize", True) and both)
            bands = int(said.get("num_mel_bins", 80))
            return Sounds(
                rate=rate, scale=32768.0, features="fbank", bands=bands, standardize=whole
            )
        if name == "ASTFeatureExtractor":
            apply = said.get("do_normalize", True)
            return Sounds(
                rate=rate,
                features="fbank",
                bands=int(said.get("num_mel_bins", 128)),
                window="hann",
                frames=int(said.get("max_length", 1024)),
                mean=float(said.get("mean", -4.2677393)) if apply else 0.0,
                deviation=2 * float(said.get("std", 4.5689974)) if apply else 1.0,
            )
        if name == "Wav2Vec2FeatureExtractor":
            return Sounds(rate=rate, standardize=bool(said.get("do_normalize", True)))
    except (TypeError, ValueError, UsageError) as error:
        raise DataError(
            f"{file}: says what is not understood ({error}); state it in a description in place "
            "of this file [D010]"
        ) from error
    raise DataError(
        f"{file}: names {name}, whose features are not computed; known are Whisper's, "
        "Speech2Text's, AST's and Wav2Vec2's; describe them in a .toml, or give module:function "
        "that yields a dictionary of arrays [D010]"
    )


def _require_usual(said: Mapping[str, object], usual: Mapping[str, int]) -> None:
    for key, value in usual.items():
        if said.get(key, value) != value:
            raise ValueError(f"{key} is {said[key]}; expected {value}")


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
