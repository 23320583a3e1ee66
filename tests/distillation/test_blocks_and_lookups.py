"""Students of few bits: what a table expands is trained, and blocks are, one after the other."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from students import saved

import onnxpress
from onnxpress import model_file
from onnxpress.distillation.by_blocks import borders
from onnxpress.distillation.lookups import Plane, encoded, looked_up
from onnxpress.distillation.parameters import trainable, write_back
from onnxpress.registry import create
from onnxpress.runtime import Session


def table(width: int, shift: int, offset: int) -> np.ndarray:
    """As decision 034 says it: part k of a byte in its bits k·width and up."""
    parts = np.arange(8 // width) * width
    codes = (np.arange(256)[:, None] >> parts) & (2**width - 1)
    return np.asarray((codes << shift) + offset, np.int8)


def test_levels_of_two_planes_come_back_from_their_bytes() -> None:
    planes = (Plane("two", (9,), table(2, 0, -4)), Plane("one", (5,), table(1, 2, 0)))
    levels = np.random.default_rng(0).integers(-4, 4, (5, 7)).astype(np.float32)
    found = encoded(planes, levels)
    total = sum(
        plane.table[found[plane.name]].reshape(-1)[: levels.size].astype(int) for plane in planes
    )
    np.testing.assert_array_equal(total, levels.reshape(-1))
    beyond = encoded(planes, np.full((5, 7), 99, np.float32))
    assert sum(p.table[beyond[p.name]].reshape(-1)[0].astype(int) for p in planes) == 3


@pytest.fixture(scope="module")
def data(models: Path) -> dict[str, Any]:
    found = {}
    for name, number in (("calibration", 96), ("evaluation", 200)):
        with np.load(models / f"fashion_{name}.npz") as archive:
            found[name] = {key: archive[key][:number] for key in archive.files}
    return found


@pytest.fixture(scope="module")
def students(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By bits, without samples."""
    folder = tmp_path_factory.mktemp("students")
    found = {}
    for bits in (2, 3, 4):
        passes = [create("quantize", {"form": "weight_only", "weight_bits": [bits]})]
        result = onnxpress.optimize(
            models / "fashion_mlp.onnx", passes=passes, min_sqnr=-50, goal="size"
        )
        found[bits] = folder / f"{bits}.onnx"
        result.save(found[bits])
    return found


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_levels_are_trained_and_stored_as_what_the_training_graph_rounds_to(
    students: dict[int, Path], data: dict[str, Any], bits: int
) -> None:
    student = model_file.load(students[bits])
    lookups = looked_up(student)
    assert lookups
    assert all(lookup.ends[1] - lookup.ends[0] == 2**bits - 1 for lookup in lookups)
    found = trainable(student)
    rng = np.random.default_rng(1)
    moved = {}
    for name, parameter in found.parameters.items():
        if parameter.planes:
            noise = rng.standard_normal(parameter.start.shape)
            moved[name] = (parameter.start + noise).astype(np.float32)
            tensor = ir.Tensor(moved[name], name=name)
            found.model.graph.initializers[name].const_value = tensor
    back = write_back(student, found.parameters, moved)
    feed = {"image": data["evaluation"]["image"][:8]}
    have, want = (
        np.asarray(Session(model, threads=1).run(feed)["logits"], np.float64)
        for model in (back, found.model)
    )
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)
    sizes = model_file.size_bytes(students[bits]), len(model_file.to_bytes(back))
    assert sizes[1] == pytest.approx(sizes[0], abs=200)


def test_borders_stand_where_one_tensor_is_all_that_follows_needs(models: Path) -> None:
    cnn = model_file.load(models / "fashion_cnn.onnx")
    found = borders(cnn)
    assert len(found) == len(set(found)) >= 4
    names = {value.name for node in cnn.graph for value in node.outputs}
    assert set(found) <= names
    # Inside of a residual block the way around it is needed too.
    sums = [node for node in cnn.graph if node.op_type == "Add"]
    inside = {sums[-1].inputs[0].name, sums[-1].inputs[1].name}  # type: ignore[union-attr]
    assert len(inside & set(found)) <= 1


def test_blocks_alone_bring_a_student_nearer(
    models: Path, data: dict[str, Any], students: dict[int, Path]
) -> None:
    found = onnxpress.distill(
        models / "fashion_mlp.onnx",
        students[2],
        calibration=data["calibration"],
        evaluation=data["evaluation"],
        block_steps=40,
        steps=1,
        threads=1,
    )
    assert len(found.blocks) == 3
    assert all(block.after < block.before for block in found.blocks)
    assert found.better, found.why_not
    assert found.after.measurement.worst_sqnr_db > found.before.worst_sqnr_db + 1


def test_tensors_of_another_shape_are_no_border(
    models: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    passes = [create("prune", {"ratio": 0.5})]
    result = onnxpress.optimize(
        models / "fashion_mlp.onnx", passes=passes, min_sqnr=-50, goal="size"
    )
    path = saved(result.model, tmp_path / "student.onnx")
    found = onnxpress.distill(
        models / "fashion_mlp.onnx", path, block_steps=2, steps=2, threads=1, **data
    )
    assert found.blocks == ()
