"""A Python iterable as data: dictionaries, tuples, arrays, batches; read once, errors by index."""

import itertools
from collections import UserDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clocks import BY_WORK

import onnxpress
from onnxpress.data import Samples, load_samples
from onnxpress.errors import DataError
from onnxpress.runtime import InputSpec

ONE = (InputSpec("x", "float32", ("batch", 3)),)
FOUR = (InputSpec("x", "float32", (4, 3)),)
TWO = (
    InputSpec("ids", "int64", ("batch", "seq")),
    InputSpec("mask", "int64", ("batch", "seq")),
)
ROW = np.arange(3, dtype=np.float32)


class Tensor:
    """As torch's: no subclass of an array, tracked, with `__array__` only once it is detached."""

    def __init__(self, array: np.ndarray, *, tracked: bool = True) -> None:
        self._array, self._tracked = array, tracked

    def detach(self) -> "Tensor":
        """Without what tracks it."""
        return Tensor(self._array, tracked=False)

    def cpu(self) -> "Tensor":
        """In the memory of the processor."""
        return self

    def __len__(self) -> int:
        return len(self._array)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        if self._tracked:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self._array


def values(samples: Samples) -> list[list[list[float]]]:
    return [feed["x"].tolist() for feed in samples.feeds]


@pytest.mark.parametrize(
    "item",
    [
        ROW,
        ROW[np.newaxis],
        {"x": ROW},
        (ROW,),
        [0, 1, 2],
        (0.0, 1.0, 2.0),
        Tensor(ROW),
        {"x": Tensor(ROW[np.newaxis])},
        UserDict(x=ROW),
    ],
)
def test_one_sample_may_be_given_in_many_ways(item: object) -> None:
    samples = load_samples([item, item], ONE)
    assert values(samples) == [[[0, 1, 2]]] * 2
    assert samples.feeds[0]["x"].dtype == np.float32


def test_a_batch_is_divided_with_its_labels() -> None:
    batches = [(np.full((5, 3), 1, np.float32), np.arange(5)), (ROW[np.newaxis], np.array([7]))]
    samples = load_samples(batches, ONE)
    assert len(samples) == 6
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2, 3, 4, 7]


@pytest.mark.parametrize("key", ["labels", "label", "__labels__"])
def test_labels_of_a_dictionary_are_found(key: str) -> None:
    samples = load_samples([{"x": ROW, key: 2}, {"x": ROW, key: np.int64(0)}], ONE)
    assert samples.labels is not None
    assert samples.labels.tolist() == [2, 0]


def test_what_is_no_class_number_is_not_used_and_said() -> None:
    samples = load_samples([(ROW, 0.5), (ROW, 0.25)], ONE)
    assert samples.labels is None
    assert any("no class number" in note for note in samples.notes)


def test_rows_are_put_together_where_the_batch_is_fixed() -> None:
    rows = [np.full((size, 3), size, np.float32) for size in (3, 2, 4)]
    samples = load_samples(iter(rows), FOUR)
    assert [feed["x"][:, 0].tolist() for feed in samples.feeds] == [[3, 3, 3, 2], [2, 4, 4, 4]]
    assert any("last 1 rows are left out" in note for note in samples.notes)


def test_texts_of_different_lengths_are_samples_of_their_own() -> None:
    def tokenized() -> Iterator[dict[str, Any]]:
        for length in (2, 5):
            ids = list(range(length))
            yield {"ids": ids, "mask": [1] * length, "label": length}

    samples = load_samples(tokenized(), TWO)
    assert [feed["ids"].shape for feed in samples.feeds] == [(1, 2), (1, 5)]
    assert samples.feeds[0]["mask"].dtype == np.int64
    assert samples.labels is not None
    assert samples.labels.tolist() == [2, 5]


def test_strings_are_samples_of_a_model_that_takes_them() -> None:
    samples = load_samples(["one", "two"], [InputSpec("text", "object", ("batch",))])
    assert [feed["text"].tolist() for feed in samples.feeds] == [["one"], ["two"]]


def test_what_has_no_batch_in_front_is_fed_whole() -> None:
    state = (
        InputSpec("x", "float32", ("batch", 3)),
        InputSpec("state", "float32", (2, 1, 8)),
    )
    item = (ROW[np.newaxis], np.zeros((2, 1, 8), np.float32))
    samples = load_samples([item, item], state)
    assert [feed["state"].shape for feed in samples.feeds] == [(2, 1, 8)] * 2
    frames = [InputSpec("x", "float32", ("num_frames", 3))]
    assert len(load_samples([np.zeros((7, 3), np.float32)], frames)) == 1


def test_a_dataset_without_an_iterator_is_read() -> None:
    class Dataset:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            return ROW + index, index

    samples = load_samples(Dataset(), ONE)  # type: ignore[arg-type]
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2]


def test_one_array_is_rows_of_the_one_input() -> None:
    assert len(load_samples(np.zeros((7, 3), np.float32), ONE)) == 7
    assert len(load_samples(Tensor(np.zeros((7, 3), np.float32)), ONE)) == 7  # type: ignore[arg-type]
    with pytest.raises(DataError, match="one array is given, and the model has 2 inputs"):
        load_samples(np.zeros((7, 3), np.float32), TWO)


def test_an_endless_generator_is_read_until_it_takes_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnxpress.data.items._MOST_BYTES", 100)
    samples = load_samples(itertools.repeat(ROW), ONE)
    assert len(samples) == 9
    assert any("read up to item 8" in note for note in samples.notes)


def failing() -> Iterator[np.ndarray]:
    yield ROW
    raise ValueError("no more files")


@pytest.mark.parametrize(
    ("items", "inputs", "said"),
    [
        ([ROW, np.zeros(4, np.float32)], ONE, r"item 1: 'x' has shape .*4.*the model wants x"),
        ([ROW, ROW.astype(np.float64)], ONE, r"item 1: 'x' is float64; .*astype\('float32'\)"),
        ([ROW, {"y": ROW}], ONE, r"item 1: holds y; the model wants x.*missing: x"),
        ([ROW, None], ONE, r"item 1, 'x': a NoneType cannot be made an array"),
        ([ROW, "abc"], ONE, r"item 1, 'x': a str cannot be made an array"),
        ([[[1.0, 2.0, 3.0], [1.0], [2.0]]], ONE, r"item 0, 'x': a list cannot be made an array"),
        ([np.zeros((2, 3), np.int64)], TWO, r"item 0: is a ndarray; the model has 2 inputs"),
        ([(ROW, 1, 2, 3)], TWO, r"item 0: is a tuple; the model has 2 inputs"),
        (iter([]), ONE, r"holds no samples; a generator gives its items once"),
        (failing(), ONE, r"raised ValueError after 1 items: no more files"),
        ([ROW], FOUR, r"1 row\(s\), and the model takes 4 at a time"),
        ([{"x": ROW, "label": 1}, {"x": ROW}], ONE, r"1 of 2 samples have __labels__"),
    ],
)
def test_what_does_not_fit_is_named_by_its_index(items: Any, inputs: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_samples(items, inputs)


def test_a_generator_calibrates_and_another_judges(
    models: Path, small_data: tuple[Path, Path]
) -> None:
    def images(file: Path) -> Iterator[dict[str, np.ndarray]]:
        with np.load(file) as arrays:
            name = next(n for n in arrays.files if not n.startswith("__"))
            labels = arrays["__labels__"] if "__labels__" in arrays.files else None
            for row, image in enumerate(arrays[name]):
                item = {name: image}
                yield item if labels is None else {**item, "label": labels[row]}

    by_file = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=small_data[0],
        evaluation=small_data[1],
        passes=["quantize"],
        clock=BY_WORK,
    )
    by_items = onnxpress.optimize(
        models / "fashion_mlp.onnx",
        calibration=images(small_data[0]),
        evaluation=images(small_data[1]),
        passes=["quantize"],
        clock=BY_WORK,
    )
    assert by_items.layers == by_file.layers
    assert by_items.frontier[-1]["drop"] == by_file.frontier[-1]["drop"]
