"""Readers of samples: found by entry points, chosen by what they accept, never by the alphabet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from installed import install

from onnxpress.data import Reader, Samples, from_arrays, load_samples
from onnxpress.data.reader import GROUP
from onnxpress.entry_points import LeftOutWarning, installed
from onnxpress.errors import DataError, UsageError
from onnxpress.runtime import InputSpec

INPUTS = (InputSpec("x", "float32", ("batch", 3)),)


def takes(suffix: str, value: float, before: tuple[str, ...] = ()) -> Reader:
    """A reader of files with a suffix, which all hold one row of a number."""

    def read(data: str | Path, inputs: object) -> Samples:
        return from_arrays({"x": np.full((1, 3), value, np.float32)}, INPUTS, str(data))

    return Reader(f"a {suffix} file", lambda data: str(data).endswith(suffix), read, before)


Install = Callable[..., None]


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes readers, given by name, entry points of a module that can be imported."""

    def add(**readers: object) -> None:
        (tmp_path / "acme_readers.py").write_text("")
        monkeypatch.syspath_prepend(str(tmp_path))
        for name, reader in readers.items():
            monkeypatch.setattr(f"acme_readers.{name}", reader, raising=False)
        install(monkeypatch, GROUP, *((name, f"acme_readers:{name}") for name in readers))

    return add


def first_value(data: str) -> float:
    return float(load_samples(data, INPUTS).feeds[0]["x"][0, 0])


def test_reader_of_a_stranger_is_found(strangers: Install) -> None:
    strangers(csv=takes(".parquet", 5))
    assert first_value("absent.parquet") == 5


def test_error_lists_what_installed_readers_take(strangers: Install) -> None:
    strangers(csv=takes(".parquet", 5))
    with pytest.raises(DataError, match=r"no such file or folder; expected .*a \.parquet.*npz"):
        load_samples("absent.txt", INPUTS)


@pytest.mark.parametrize(("first", "second"), [("a", "z"), ("z", "a")])
def test_declared_order_wins_over_the_alphabet(strangers: Install, first: str, second: str) -> None:
    strangers(**{first: takes(".parquet", 1, before=(second,)), second: takes(".parquet", 2)})
    assert first_value("absent.parquet") == 1


def test_reader_can_go_before_one_of_ours(strangers: Install) -> None:
    strangers(hub=takes("hub:mnist", 7, before=("function",)))
    assert first_value("hub:mnist") == 7


@pytest.mark.parametrize("before", [((), ()), (("b",), ("a",))])
def test_two_readers_of_the_same_data_without_an_order_are_named(
    strangers: Install, before: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    strangers(a=takes(".parquet", 1, before[0]), b=takes(".parquet", 2, before[1]))
    with pytest.raises(UsageError, match="the readers a, b all accept it"):
        load_samples("absent.parquet", INPUTS)


def test_two_readers_of_one_name_are_refused(strangers: Install) -> None:
    strangers(npz=takes(".npz", 1))
    with pytest.raises(UsageError, match=r"two packages add 'npz' .*acme_readers:npz"):
        load_samples("absent.npz", INPUTS)


def test_reader_that_cannot_be_imported_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, GROUP, ("parquet", "acme_absent:READER"))
    data = tmp_path / "data.npz"
    np.savez(data, x=np.zeros((2, 3), np.float32))
    with pytest.warns(LeftOutWarning, match="'parquet' .* cannot be imported: ModuleNotFoundError"):
        assert len(load_samples(data, INPUTS)) == 2


def test_entry_point_that_is_no_reader_is_named_and_left_out(
    strangers: Install, tmp_path: Path
) -> None:
    strangers(csv="not a reader")
    with (
        pytest.warns(LeftOutWarning, match="'csv' .* is a str, not a Reader"),
        pytest.raises(DataError, match="takes what this folder holds"),
    ):
        load_samples(tmp_path, INPUTS)


def test_every_reader_of_ours_is_reached_by_its_entry_point() -> None:
    ours = [entry for entry in installed(GROUP).values() if entry.module.startswith("onnxpress.")]
    assert [entry.module.rpartition(".")[2] for entry in ours] == [entry.name for entry in ours]
    assert all(isinstance(entry.load(), Reader) for entry in ours)
