"""What our readers take, and what they say of data that is not in order."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxpress.data import GROUPS, LABELS, Samples, load_samples
from onnxpress.errors import DataError
from onnxpress.runtime import Array, InputSpec

INPUTS = (InputSpec("x", "float32", ("batch", 2)), InputSpec("scale", "float32", ()))


def arrays(number: int = 4) -> dict[str, np.ndarray]:
    rows = np.arange(2 * number, dtype=np.float32).reshape(number, 2)
    return {"x": rows, "scale": np.ones(number, np.float32)}


def write_set(folder: Path, **tensors: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for position, (name, array) in enumerate(tensors.items()):
        tensor = onnx.numpy_helper.from_array(array, name)
        (folder / f"input_{position}.pb").write_bytes(tensor.SerializeToString())


def test_arrays_become_one_feed_a_sample() -> None:
    samples = load_samples({**arrays(), LABELS: np.arange(4)}, INPUTS)
    assert len(samples) == 4
    assert [feed["x"].shape for feed in samples] == [(1, 2)] * 4
    assert [feed["scale"].shape for feed in samples] == [()] * 4
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2, 3]


def test_samples_are_given_back_as_they_are() -> None:
    samples = load_samples(arrays(), INPUTS)
    assert load_samples(samples, INPUTS) is samples


@pytest.mark.parametrize("name", ["data.npz", "data.bin"])
def test_npz_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as stream:
        np.savez(stream, **arrays())  # type: ignore[arg-type]
    samples = load_samples(tmp_path / name, INPUTS)
    assert len(samples) == 4
    assert samples.source == str(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({**arrays(), LABELS: np.ones(4)}, "expected one integer class per sample"),
        ({**arrays(), LABELS: np.arange(3)}, "expected one integer class per sample"),
        ({**arrays(), LABELS: np.full(4, 0.5)}, "values rather than classes, remove __labels__"),
        ({**arrays(), LABELS: np.ones(4)}, r"convert them with labels.astype\('int64'\)"),
        ({**arrays(), GROUPS: np.arange(3)}, "one integer or string per sample"),
        ({**arrays(), GROUPS: np.full(4, 0.5)}, "one integer or string per sample"),
        ({"x": arrays()["x"]}, "missing: scale"),
        ({**arrays(), "y": arrays()["x"]}, "not an input: y"),
        ({**arrays(), "scale": np.ones(3, np.float32)}, "different numbers of samples"),
        ({**arrays(), "x": np.float32("nan")}, r"has shape \[\]"),
        ({**arrays(), "x": [[1.0, 2.0]]}, "astype"),
        (7, "of type int"),
    ],
)
def test_data_that_does_not_fit_is_refused(data: object, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        load_samples(data, INPUTS)  # type: ignore[arg-type]


def test_broken_npz_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    np.savez(whole, **arrays())  # type: ignore[arg-type]
    broken = tmp_path / "broken.npz"
    broken.write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"broken\.npz"):
        load_samples(broken, INPUTS)


def test_folder_of_test_data_sets_is_read_in_order_of_the_inputs(tmp_path: Path) -> None:
    for number in range(2):
        x = np.full((1, 2), number, np.float32)
        write_set(tmp_path / f"test_data_set_{number}", first=x, scale=np.array(3, np.float32))
    samples = load_samples(tmp_path, INPUTS)
    assert [feed["x"].tolist() for feed in samples] == [[[0, 0]], [[1, 1]]]
    one = load_samples(tmp_path / "test_data_set_1", INPUTS)
    assert [feed["x"].tolist() for feed in one] == [[[1, 1]]]


def test_test_data_with_more_than_ten_inputs_keeps_their_places(tmp_path: Path) -> None:
    inputs = [InputSpec(f"x{number}", "float32", (1,)) for number in range(12)]
    values = {f"t{number}": np.array([number], np.float32) for number in range(12)}
    write_set(tmp_path / "test_data_set_0", **values)
    (feed,) = load_samples(tmp_path, inputs)
    assert [feed[f"x{number}"].item() for number in range(12)] == list(range(12))


def test_test_data_set_without_inputs_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_data_set_0").mkdir()
    with pytest.raises(DataError, match=r"test_data_set_0: holds no input_\*\.pb"):
        load_samples(tmp_path, INPUTS)


def test_test_data_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    (tmp_path / "input_0.pb").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match=r"input_0\.pb: is not an ONNX tensor"):
        load_samples(tmp_path, INPUTS)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("def data(): yield 3", "sample 0 is a int"),
        ("def data(): return []", "holds no samples"),
        ("def data(): raise KeyError('path')", "raised KeyError: 'path'"),
        ("data = 3", "is a int, not a function"),
        ("raise ValueError('no disk')", "cannot be imported: no disk"),
        ("x = 1", "cannot be imported: .*no attribute 'data'"),
    ],
)
def test_function_at_fault_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, expected: str
) -> None:
    name = f"user_data_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=expected):
        load_samples(f"{name}:data", INPUTS)


@pytest.mark.parametrize(
    ("label", "expected"), [("'cat'", "expected one integer class"), ("1.5", "integer class")]
)
def test_label_of_a_feed_has_to_be_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str, expected: str
) -> None:
    name = f"user_labels_{len(label)}"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        f"    yield {{'x': np.ones((1, 2), 'f'), 'scale': np.float32(1), '__labels__': {label}}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=expected):
        load_samples(f"{name}:data", INPUTS)


EIGHT = (InputSpec("x", "float32", (8, 2)),)


def test_labels_of_rows_belong_to_the_batches_of_the_rows() -> None:
    rows = np.arange(48, dtype=np.float32).reshape(24, 2)
    samples = load_samples({"x": rows, LABELS: np.arange(24)}, EIGHT)
    assert samples.labels is not None
    assert samples.labels.tolist() == np.arange(24).reshape(3, 8).tolist()
    assert all(
        np.array_equal(feed["x"][:, 0] // 2, labels)
        for feed, labels in zip(samples, samples.labels, strict=True)
    )
    assert samples.take([2]).labels is not None


def test_number_of_labels_that_fits_neither_samples_nor_rows_is_refused() -> None:
    rows = np.zeros((24, 2), np.float32)
    with pytest.raises(DataError, match=r"\[3\], or one per row, \[24\]"):
        load_samples({"x": rows, LABELS: np.arange(12)}, EIGHT)


def test_groups_of_rows_are_those_of_their_batch() -> None:
    rows = np.zeros((24, 2), np.float32)
    samples = load_samples({"x": rows, GROUPS: np.repeat(["b", "a", "b"], 8)}, EIGHT)
    assert samples.groups is not None
    assert samples.groups[0] == samples.groups[2] != samples.groups[1]
    with pytest.raises(DataError, match="rows of sample 1, a batch of 8, are of several"):
        load_samples({"x": rows, GROUPS: np.repeat([0, 1], 12)}, EIGHT)


def from_function(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: tuple[InputSpec, ...]
) -> Samples:
    """What a module's `data` yields, given the line after `yield`."""
    name = f"user_feeds_{abs(hash(body))}"
    text = f"import numpy as np\ndef data():\n    for i in range(3):\n        yield {body}\n"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return load_samples(f"{name}:data", inputs)


def test_feeds_may_have_a_label_for_every_row_and_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "{'x': np.ones((8, 2), 'f'), '__labels__': np.arange(8) + i, '__groups__': 'ab'[i % 2]}"
    samples = from_function(body, tmp_path, monkeypatch, EIGHT)
    assert samples.labels is not None
    assert samples.labels.shape == (3, 8)
    assert samples.groups is not None
    assert samples.groups.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ("**({'__labels__': 1} if i else {})", "2 of 3 samples have __labels__"),
        ("'__labels__': np.arange(i + 1)", "__labels__ has different shapes"),
    ],
)
def test_labels_that_only_some_feeds_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str, expected: str
) -> None:
    body = f"{{'x': np.ones((8, 2), 'f'), {beside}}}"
    with pytest.raises(DataError, match=expected):
        from_function(body, tmp_path, monkeypatch, EIGHT)


def test_strings_of_a_npz_become_objects(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", city=np.array([["Ulm"], ["Bonn"]]))
    samples = load_samples(tmp_path / "data.npz", [InputSpec("city", "object", ("n", 1))])
    assert [feed["city"].tolist() for feed in samples] == [[["Ulm"]], [["Bonn"]]]
    assert all(feed["city"].dtype == object for feed in samples)


def test_infinities_are_taken_as_masks_hold_them() -> None:
    masks = np.array([[0, -np.inf], [np.inf, 0]], np.float32)
    samples = load_samples({"x": masks}, [InputSpec("x", "float32", ("n", 2))])
    assert np.isneginf(samples.feeds[0]["x"][0, 1])


def test_dynamic_axes_may_have_length_0_and_fixed_ones_not() -> None:
    past = InputSpec("past", "float32", ("n", 4, "past", 8))
    ids = InputSpec("ids", "int64", ("n", 1))
    data: dict[str, Array] = {
        "ids": np.ones((2, 1), np.int64),
        "past": np.zeros((2, 4, 0, 8), np.float32),
    }
    assert load_samples(data, [ids, past]).feeds[0]["past"].shape == (1, 4, 0, 8)
    with pytest.raises(DataError, match="the model wants past"):
        load_samples({**data, "past": np.zeros((2, 4, 3, 0), np.float32)}, [ids, past])
    with pytest.raises(DataError, match="all inputs of a sample are empty"):
        load_samples({"past": data["past"]}, [past])


def test_a_model_that_takes_nothing_is_given_nothing() -> None:
    empty = InputSpec("x", "float32", (2, 0))
    found = load_samples({"x": np.zeros((2, 0), np.float32)}, [empty])
    assert [feed["x"].shape for feed in found.feeds] == [(2, 0)]


def test_ragged_npz_is_refused_with_the_way_that_works(tmp_path: Path) -> None:
    ragged = np.empty(2, object)
    ragged[:] = [np.arange(3), np.arange(5)]
    np.savez(tmp_path / "data.npz", ids=ragged)
    ids = InputSpec("ids", "int64", ("n", "length"))
    with pytest.raises(DataError, match="give module:function that yields"):
        load_samples(tmp_path / "data.npz", [ids])
    with pytest.raises(DataError, match="give module:function that yields"):
        load_samples({"ids": ragged}, [ids])
