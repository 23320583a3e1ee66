"""CSV files: a row a sample, by the names of the inputs or all columns into one."""

from pathlib import Path

import numpy as np
import pytest

from onnxpress.data import load_samples
from onnxpress.errors import DataError
from onnxpress.runtime import InputSpec

MATRIX = InputSpec("X", "float32", ("n", "features"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_one_input_takes_all_columns_but_the_label(tmp_path: Path, separator: str) -> None:
    rows = [["a", "label", "b"], ["1", "2", "3.5"], ["4", "0", "nan"]]
    (tmp_path / "t.csv").write_text("\n".join(separator.join(row) for row in rows))
    samples = load_samples(tmp_path / "t.csv", [MATRIX])
    assert samples.labels is not None
    assert samples.labels.tolist() == [2, 0]
    assert samples.feeds[0]["X"].tolist() == [[1, 3.5]]
    assert np.isnan(samples.feeds[1]["X"][0, 1])


def test_table_without_headings_is_fed_whole(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1,2\n3,4\n")
    samples = load_samples(tmp_path / "t.csv", [MATRIX])
    assert [feed["X"].tolist() for feed in samples] == [[[1, 2]], [[3, 4]]]


def test_inputs_of_the_columns_names_take_one_each(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,city,note\n30,Rome,x\n41,Oslo,y\n")
    inputs = [InputSpec("city", "object", ("n", 1)), InputSpec("age", "int64", ("n", 1))]
    first, _ = load_samples(tmp_path / "t.csv", inputs).feeds
    assert first["city"].tolist() == [["Rome"]]
    assert first["age"].tolist() == [[30]]


def test_description_names_columns_and_label(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,b,a,y\n7,1,2,1\n8,3,4,0\n")
    (tmp_path / "d.toml").write_text('[table]\npath = "t.csv"\ncolumns = ["a", "b"]\nlabel = "y"\n')
    samples = load_samples(tmp_path / "d.toml", [MATRIX])
    assert samples.feeds[0]["X"].tolist() == [[2, 1]]
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "inputs", "expected"),
    [
        ("", [MATRIX], "holds no rows"),
        ("a,b\n", [MATRIX], "holds headings and no rows"),
        ("a,b\n1,2\n3\n", [MATRIX], "row 3: has 1 cells; expected 2"),
        ("a,b\n1,x\n", [MATRIX], "holds what is no float32"),
        ("a,label\n1,x\n", [MATRIX], "'label' is 'x'"),
        ("a,b\n1,nan\n", [InputSpec("X", "int64", ("n", 2))], "holds what is no int64"),
        ("a,b\n1,2\n", [InputSpec("X", "float32", ("n", 3))], "the model wants"),
        ("a,b\n1,2\n", [MATRIX, InputSpec("c", "float32", ("n", 1))], "a column of the name"),
        ("a,b\n1,2\n", [InputSpec("x", "float32", (1, 3, 8, 8))], "a row is a line of numbers"),
    ],
)
def test_table_that_does_not_fit_is_refused(
    tmp_path: Path, text: str, inputs: list[InputSpec], expected: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=expected):
        load_samples(tmp_path / "t.csv", inputs)


def test_column_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("age,b\n1,2\n")
    (tmp_path / "d.toml").write_text('[table]\npath = "t.csv"\ncolumns = ["agee"]\n')
    with pytest.raises(DataError, match="did you mean 'age'"):
        load_samples(tmp_path / "d.toml", [MATRIX])
