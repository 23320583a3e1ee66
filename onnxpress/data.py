"""Samples: what a model is fed, one run after the other, checked against its inputs first.

One *sample* is what a single run of the model takes. For an input whose first dimension is
the batch, an array `[samples, ...]` holds one row per sample; an array with one axis more than
the input holds one complete input per sample (the way for scalars, states and inputs whose
batch is not in front).
"""

import importlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from onnxpress.errors import DataError, ModelError
from onnxpress.runtime import Array, Feed, InputSpec, Session

__all__ = ["LABELS", "Samples", "import_function", "load_samples", "random_samples"]

LABELS = "__labels__"
_DYNAMIC_TRIALS = (64, 16, 224, 320, 576, 512, 288, 256, 1, 2, 32, 128, 1024)


@dataclass(frozen=True)
class Samples:
    """Checked samples of one model.

    Attributes:
        feeds: one mapping of input name to array per run.
        labels: class numbers, one per sample, or `None`.
        source: where they came from, for messages, recipes and reports.
    """

    feeds: tuple[Feed, ...]
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None
    source: str

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[Feed]:
        return iter(self.feeds)

    def take(self, indices: Sequence[int], source: str | None = None) -> "Samples":
        """The samples at `indices`, in that order."""
        labels = None if self.labels is None else self.labels[list(indices)]
        return Samples(tuple(self.feeds[i] for i in indices), labels, source or self.source)

    def hold_out(self, share: float, seed: int) -> tuple["Samples", "Samples"]:
        """Split at random into (kept, held out).

        Raises:
            DataError: fewer than three samples.
        """
        if len(self) < 3:
            raise DataError(
                f"{self.source}: found {len(self)} sample(s), but a third is to be held out for "
                "the evaluation; give at least 3, or --evaluation data of their own"
            )
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        held = max(1, round(len(self) * share))
        return (
            self.take(sorted(order[held:])),
            self.take(sorted(order[:held]), f"{self.source} (a third held out)"),
        )


def load_samples(
    data: "str | Path | Mapping[str, Array] | Samples", inputs: Sequence[InputSpec]
) -> Samples:
    """Read samples and check them against the model's inputs.

    Args:
        data: a `.npz` file (an array per input, optionally `__labels__`), a folder of ONNX
            `test_data_set_*` folders (or one of them), `module:function` yielding
            dictionaries, or a dictionary of arrays.
        inputs: the model's inputs.

    Raises:
        DataError: missing, unreadable, empty, or not what the model takes.
    """
    if isinstance(data, Samples):
        return data
    if isinstance(data, Mapping):
        return _from_arrays(dict(data), inputs, "the given arrays")
    text = str(data)
    path = Path(text)
    if path.suffix == ".npz" or path.is_file():
        return _from_npz(path, inputs)
    if path.is_dir():
        return _from_test_data(path, inputs)
    if ":" in text:
        return _from_function(text, inputs)
    raise DataError(
        f"{text}: there is no such file or folder; expected a .npz file, a folder of ONNX "
        "test_data_set_* folders, or module:function"
    )


def _from_npz(path: Path, inputs: Sequence[InputSpec]) -> Samples:
    if not path.exists():
        raise DataError(f"{path}: there is no such file; expected a .npz with one array per input")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read as a .npz file of arrays ({error}); write it with "
            "numpy.savez_compressed"
        ) from error
    except Exception as error:
        if type(error).__module__ != "zipfile":
            raise
        raise DataError(f"{path}: is not a complete .npz file ({error}); write it again") from error
    return _from_arrays(arrays, inputs, str(path))


def _from_arrays(arrays: dict[str, Array], inputs: Sequence[InputSpec], source: str) -> Samples:
    labels = arrays.pop(LABELS, None)
    wanted = {spec.name: spec for spec in inputs}
    if not arrays:
        raise DataError(f"{source}: holds no array; the model wants {_listed(inputs)}")
    missing = [name for name in wanted if name not in arrays]
    unknown = sorted(set(arrays) - set(wanted))
    if missing or unknown:
        raise DataError(
            f"{source}: holds {', '.join(sorted(arrays))}; the model wants {_listed(inputs)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; not an input: {', '.join(unknown)}" if unknown else "")
        )
    columns = {name: _split(arrays[name], spec, source) for name, spec in wanted.items()}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{source}: the inputs have different numbers of samples: {counts}")
    number = next(iter(counts.values()))
    if number == 0:
        raise DataError(f"{source}: holds no samples; the model wants {_listed(inputs)}")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (number,) or labels.dtype.kind not in "iu":
            raise DataError(
                f"{source}: {LABELS} is {labels.dtype}{list(labels.shape)}; expected one integer "
                f"class per sample, [{number}]"
            )
    classes = None if labels is None else labels.astype(np.int64)
    feeds = tuple(
        {name: column[index] for name, column in columns.items()} for index in range(number)
    )
    return Samples(feeds, classes, source)


def _listed(inputs: Sequence[InputSpec]) -> str:
    return "; ".join(str(spec) for spec in inputs)


def _split(array: Array, spec: InputSpec, source: str) -> list[Array]:
    """One complete input per sample; views of `array`."""
    _check_values(array, spec, source)
    rank = len(spec.shape)
    if array.ndim == rank + 1:
        _check_shape(array.shape[1:], spec, source, array.shape)
        return [np.asarray(sample) for sample in array]
    if array.ndim != rank or rank == 0:
        raise DataError(
            f"{source}: {spec.name!r} has shape {list(array.shape)}; the model wants {spec}, so "
            f"expected [samples, ...] with {max(rank, 1)} or {rank + 1} axes"
        )
    batch = spec.shape[0] if isinstance(spec.shape[0], int) and spec.shape[0] > 0 else 1
    if len(array) % batch:
        raise DataError(
            f"{source}: {spec.name!r} holds {len(array)} rows; the model's batch is fixed to "
            f"{batch}, so expected a multiple of it"
        )
    _check_shape((batch, *array.shape[1:]), spec, source, array.shape)
    return [array[start : start + batch] for start in range(0, len(array), batch)]


def _check_values(array: Array, spec: InputSpec, source: str) -> None:
    if array.dtype != np.dtype(spec.dtype):
        raise DataError(
            f"{source}: {spec.name!r} is {array.dtype}; the model wants {spec}; convert it with "
            f"array.astype({spec.dtype!r})"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
        raise DataError(
            f"{source}: {spec.name!r} holds NaN or infinity in {len(bad)} sample(s), the first "
            f"is number {bad[0]}; remove them or mend the preprocessing"
        )


def _check_shape(shape: Sequence[int], spec: InputSpec, source: str, found: Sequence[int]) -> None:
    fits = len(shape) == len(spec.shape) and all(
        not isinstance(want, int) or want < 0 or want == have
        for have, want in zip(shape, spec.shape, strict=True)
    )
    if not fits or 0 in shape:
        raise DataError(
            f"{source}: {spec.name!r} has shape {list(found)}, so one sample is {list(shape)}; "
            f"the model wants {spec}"
        )


def _from_feeds(feeds: Iterable[Feed], inputs: Sequence[InputSpec], source: str) -> Samples:
    """Samples from complete feeds, one per run, optionally with a label each."""
    checked: list[Feed] = []
    labels: list[int] = []
    for number, feed in enumerate(feeds):
        if not isinstance(feed, Mapping):
            raise DataError(
                f"{source}: sample {number} is a {type(feed).__name__}; expected a dictionary "
                "of input name to array"
            )
        arrays = {name: np.asarray(value)[np.newaxis] for name, value in feed.items()}
        label = arrays.pop(LABELS, None)
        if label is not None:
            labels.append(int(label.reshape(-1)[0]))
        checked.extend(_from_arrays(arrays, inputs, f"{source}, sample {number}").feeds)
    if not checked:
        raise DataError(f"{source}: holds no samples; the model wants {_listed(inputs)}")
    if labels and len(labels) != len(checked):
        raise DataError(f"{source}: {len(labels)} of {len(checked)} samples have a label")
    return Samples(tuple(checked), np.asarray(labels, np.int64) if labels else None, source)


def _from_test_data(path: Path, inputs: Sequence[InputSpec]) -> Samples:
    folders = sorted(path.glob("test_data_set_*")) or [path]

    def feeds() -> Iterator[Feed]:
        for folder in folders:
            files = sorted(
                folder.glob("input_*.pb"), key=lambda file: int(file.stem.split("_")[-1])
            )
            if not files:
                raise DataError(
                    f"{folder}: holds no input_*.pb; expected an ONNX test data set, or a .npz file"
                )
            feed: dict[str, Array] = {}
            for position, file in enumerate(files):
                tensor = onnx.TensorProto()
                try:
                    tensor.ParseFromString(file.read_bytes())
                    array = onnx.numpy_helper.to_array(tensor)
                except (DecodeError, ValueError, TypeError) as error:
                    raise DataError(f"{file}: is not an ONNX tensor: {error}") from error
                named = {spec.name for spec in inputs}
                fallback = inputs[position].name if position < len(inputs) else tensor.name
                feed[tensor.name if tensor.name in named else fallback] = array
            yield feed

    return _from_feeds(feeds(), inputs, str(path))


def import_function(text: str) -> Any:  # noqa: ANN401 - whatever the user wrote
    """What `module:function` names, importable from the current folder too.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has nothing of that name.
    """
    module_name, _, function_name = text.partition(":")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    return getattr(importlib.import_module(module_name), function_name)


def _from_function(text: str, inputs: Sequence[InputSpec]) -> Samples:
    try:
        function = import_function(text)
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"{text}: cannot be imported: {error}; expected module:function, importable from "
            "here, yielding dictionaries of input name to array"
        ) from error
    if not callable(function):
        raise DataError(f"{text}: is a {type(function).__name__}, not a function")
    return _from_feeds(function(), inputs, text)


def random_samples(session: Session, number: int, seed: int) -> Samples:
    """Random inputs that the model accepts; dynamic dimensions are found by trying.

    Floats are normal, integers 0 or 1 (valid indices almost everywhere). Dimensions of the
    same name get the same size; a dynamic first dimension is a batch of one.

    Raises:
        DataError: the model runs on none of the sizes tried, or takes strings.
    """
    for spec in session.inputs:
        if spec.dtype == "object" or "(" in spec.dtype:
            raise DataError(f"input {spec} cannot be made up at random; give --evaluation data")
    failure = "it has no inputs"
    for sizes in _size_trials(session.inputs):
        rng = np.random.default_rng(seed)
        feeds = tuple(
            {spec.name: _random_input(spec, sizes, rng) for spec in session.inputs}
            for _ in range(number)
        )
        try:
            session.run(feeds[0])
        except ModelError as error:
            failure = str(error)[:300]
            continue
        return Samples(feeds, None, "random inputs")
    raise DataError(
        f"the model runs on no random input that was tried ({failure}); give --evaluation data"
    )


def _size_trials(inputs: Sequence[InputSpec]) -> Iterator[dict[str, int]]:
    """Sizes of the dynamic dimensions: all alike first, then some of them 1."""
    batch = {_dimension(spec, 0) for spec in inputs if spec.shape}
    others = sorted(
        {
            _dimension(spec, axis)
            for spec in inputs
            for axis, dim in enumerate(spec.shape)
            if not _is_fixed(dim)
        }
        - batch
    )
    for ones in itertools.product((False, True), repeat=min(len(others), 3)):
        for size in _DYNAMIC_TRIALS:
            small = dict(zip(others, ones, strict=False))
            yield {name: 1 if small.get(name) else size for name in others}


def _is_fixed(dim: int | str | None) -> bool:
    return isinstance(dim, int) and dim > 0


def _dimension(spec: InputSpec, axis: int) -> str:
    """The name of a dynamic dimension; those without a name are all different."""
    dim = spec.shape[axis]
    return dim if isinstance(dim, str) else f"{spec.name}/{axis}"


def _random_input(spec: InputSpec, sizes: Mapping[str, int], rng: np.random.Generator) -> Array:
    shape = tuple(
        int(dim) if _is_fixed(dim) else sizes.get(_dimension(spec, axis), 1)  # type: ignore[arg-type]
        for axis, dim in enumerate(spec.shape)
    )
    kind = np.dtype(spec.dtype)
    if kind.kind == "f":
        return np.asarray(rng.standard_normal(shape).astype(kind))
    return np.asarray(rng.integers(0, 2, shape).astype(kind))


def require_runnable(session: Session, samples: Samples) -> None:
    """Run the first sample, so that data the model cannot take is refused before any work.

    Raises:
        DataError: onnxruntime fails on it; the message is onnxruntime's own.
    """
    try:
        session.run(samples.feeds[0])
    except ModelError as error:
        raise DataError(f"{samples.source}: the first sample does not run: {error}") from error
