"""Tables on disk: hits, misses, files that are damaged or of another machine."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from costs_of import MACHINE, keys_of, mlp, row_of

from onnxpress.costs import CostTable, Machine, ModelTime, load_table, save_table
from onnxpress.costs.store import table_path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNXPRESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def filled(machine: Machine = MACHINE) -> CostTable:
    table = CostTable(machine)
    table.add(row_of(key, 10.0 * (place + 1)) for place, key in enumerate(keys_of(mlp())))
    table.models["a model"] = ModelTime(70.0, 60.0, {"x": (1, 64)})
    return table


def test_what_is_kept_is_found_again() -> None:
    saved = filled()
    save_table(saved)
    found = load_table(MACHINE)
    assert found.rows == saved.rows
    assert found.models == saved.models
    assert found.note == ""


def test_a_machine_without_a_table_has_an_empty_one() -> None:
    save_table(filled())
    assert load_table(Machine("made up", 2, "0")).rows == {}
    assert load_table(Machine("made up", 1, "1")).rows == {}
    assert load_table(Machine("another", 1, "0")).note == ""


def test_what_others_wrote_in_the_meantime_is_kept() -> None:
    save_table(filled())
    other = CostTable(MACHINE)
    other.add(row_of(key, 5.0) for key in keys_of(mlp(32)))
    save_table(other)
    found = load_table(MACHINE)
    assert len(found.rows) == 6
    assert set(found.models) == {"a model"}


def test_tables_that_are_written_at_once_keep_each_others_rows() -> None:
    tables = [CostTable(MACHINE) for _ in range(8)]
    for number, table in enumerate(tables):
        table.models[f"model {number}"] = ModelTime(70.0, 60.0, {"x": (1, 64)})
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(save_table, tables))
    assert set(load_table(MACHINE).models) == {f"model {number}" for number in range(8)}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 99, "machine": {}, "rows": [], "models": {}}',
        "[" * 100_000,
        "\x00\x01",
    ],
)
def test_a_damaged_file_is_told_and_not_used(content: str) -> None:
    path = table_path(MACHINE)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    found = load_table(MACHINE)
    assert found.rows == {}
    assert str(path) in found.note
    assert found.note.endswith("[W021]")
    save_table(filled())
    assert load_table(MACHINE).note == ""


@pytest.mark.parametrize("microseconds", [-1.0, float("nan"), float("inf"), "fast", None])
def test_rows_that_are_no_measurements_are_refused(microseconds: object) -> None:
    save_table(filled())
    path = table_path(MACHINE)
    told = json.loads(path.read_text())
    told["rows"][0][5] = microseconds
    path.write_text(json.dumps(told))
    assert load_table(MACHINE).note.endswith("[W021]")


@pytest.mark.parametrize("column", [3, 4])
def test_whole_numbers_without_an_end_are_refused(column: int) -> None:
    save_table(filled())
    path = table_path(MACHINE)
    told = json.loads(path.read_text())
    told["rows"][0][column] = float("inf")
    path.write_text(json.dumps(told))
    assert load_table(MACHINE).note.endswith("[W021]")


def test_a_file_of_another_machine_under_this_ones_name_is_not_used() -> None:
    other = Machine("another", 1, "0")
    save_table(filled(other))
    table_path(other).rename(table_path(MACHINE))
    found = load_table(MACHINE)
    assert found.rows == {}
    assert "another machine" in found.note


def test_a_place_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ONNXPRESS_CACHE", str(tmp_path / "file"))
    save_table(filled())
    assert load_table(MACHINE).rows == {}


def test_a_file_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxpress.costs.store._MOST_ROWS", 4)
    table = filled()
    (first, *_) = table.rows.values()
    newer = [dataclasses.replace(first, sizes=str(number)) for number in range(3)]
    save_table(table)
    later = CostTable(MACHINE)
    later.add(newer)
    save_table(later)
    assert [row.sizes for row in load_table(MACHINE).rows.values()][1:] == ["0", "1", "2"]
