"""What our readers take, and what they say of data that is not in order."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxpress.data import LABELS, load_samples
from onnxpress.errors import DataError
from onnxpress.runtime import InputSpec

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
        ({"x": arrays()["x"]}, "missing: scale"),
        ({**arrays(), "y": arrays()["x"]}, "not an input: y"),
        ({**arrays(), "scale": np.ones(3, np.float32)}, "different numbers of samples"),
        ({**arrays(), "x": np.float32("nan")}, "NaN"),
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
