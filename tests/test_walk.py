"""Walks through networks: each part run once, what waits between, and what stands in the way."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir
import pytest
from generated import initialized

from onnxpress.blocks import Held, Parts, Walk, first_nan
from onnxpress.errors import OutputError
from onnxpress.runtime import Array, Feed, Session

TEXT = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[1, 4] x, float[4, 4] a, float[4, 4] b) => (float[1, 4] y) {
    h = MatMul (x, a)  m = Sigmoid (x)  k = MatMul (h, b)  n = Mul (k, m)  y = Add (n, h) }"""


def drawn(count: int) -> list[Feed]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((1, 4)).astype(np.float32)} for _ in range(count)]


def given_by(walk: Walk, parts: Parts, name: str) -> list[Array]:
    """A tensor behind the boundary in all samples."""
    model, feeds = walk.part(parts, [name])
    session = Session(model, optimize=False)
    return [session.run(feed)[name] for feed in feeds]


def test_what_lies_behind_a_boundary_is_computed_from_it_alone() -> None:
    model, samples = initialized(TEXT), drawn(3)
    parts, walk = Parts(model), Walk(samples)
    assert not walk.advance(parts, ["h", "m"], ["y"])
    behind, _ = walk.part(parts, ["y"])
    assert [node.op_type for node in behind.graph] == ["MatMul", "Mul", "Add"]
    assert sorted(value.name or "" for value in behind.graph.inputs) == ["h", "m"]
    whole = Session(model, optimize=False)
    wanted = [whole.run(feed)["y"] for feed in samples]
    np.testing.assert_array_equal(given_by(walk, parts, "y"), wanted)
    assert not walk.advance(parts, ["k", "n"], ["y"])
    assert walk.held.names() == {"h", "n"}, "what nothing needs any more is forgotten"
    np.testing.assert_array_equal(given_by(walk, parts, "y"), wanted)


def test_a_network_without_the_tensors_of_a_boundary_goes_back_to_what_it_has() -> None:
    model, samples = initialized(TEXT), drawn(2)
    parts, walk = Parts(model), Walk(samples)
    walk.advance(parts, ["gone", "h"], ["y"])
    assert walk.held.names() == {"h"}
    wanted = [Session(model, optimize=False).run(feed)["y"] for feed in samples]
    np.testing.assert_array_equal(given_by(walk, parts, "y"), wanted)


SPLIT = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[1, 4] x, float[4, 4] a, float[2, 2] b) => (float[1, 2] y) {
    h = MatMul (x, a)  l, r = Split <axis = 1, num_outputs = 2> (h)
    m = MatMul (l, b)  n = Sigmoid (r)  y = Mul (m, n) }"""


@pytest.mark.parametrize("one", ["l", "r"])
def test_a_node_with_one_output_at_the_boundary_runs_for_the_other(one: str) -> None:
    """What is held beside is computed again then: a graph cannot define a name twice."""
    model, samples = initialized(SPLIT), drawn(3)
    parts, walk = Parts(model), Walk(samples)
    walk.advance(parts, [one], ["m", "n"])
    whole = Session(model, optimize=False)
    wanted = [whole.run(feed)["y"] for feed in samples]
    np.testing.assert_array_equal(given_by(walk, parts, "y"), wanted)
    walk.advance(parts, [one, "n"], ["y"])
    np.testing.assert_array_equal(given_by(walk, parts, "y"), wanted)
    assert walk.held.names() <= {"l", "r", "n"}


ARRAYS: list[Array] = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.array(3, np.int64),
    np.zeros((0, 4), np.float16),
    np.array([True, False]),
    np.arange(24, dtype=np.float64).reshape(2, 3, 4).transpose(2, 0, 1),
]


@pytest.mark.parametrize("limit", [0, 40, 1_000_000])
def test_arrays_come_back_as_they_were_from_memory_and_disk(limit: int) -> None:
    held = Held(limit)
    for array in ARRAYS:
        held.add("t", array)
    for number, array in enumerate(ARRAYS):
        found = held.get("t", number)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)
    total = sum(array.nbytes for array in ARRAYS)
    assert held.in_memory + held.on_disk == total
    assert held.in_memory <= limit
    held.drop("t")
    assert held.in_memory == held.on_disk == 0


def test_no_more_than_the_limit_stays_in_memory() -> None:
    """While a tensor that was held goes, there is room for others again."""
    held = Held(100)
    for name in ("a", "b"):
        for _ in range(2):
            held.add(name, np.zeros(10, np.float32))
    assert (held.in_memory, held.on_disk) == (80, 80)
    held.drop("a")
    held.add("c", np.zeros(10, np.float32))
    assert (held.in_memory, held.on_disk) == (40, 80)
    held.close()


def test_a_full_disk_is_a_sentence_and_frees_what_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(held: Held, name: str, array: Array) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Held, "_written", full)
    held = Held(100)
    held.add("t", np.zeros(20, np.float32))
    with pytest.raises(OutputError, match=r"(?s)cannot be kept there \(No space left on device\)"):
        held.add("t", np.zeros(20, np.float32))
    assert held.in_memory == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_the_system_says_no_space_and_no_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(prefix: str) -> BinaryIO:
        return Path("/dev/full").open("r+b", buffering=0)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match="No space left on device"):
        Held(0).add("t", np.zeros(1_000_000, np.float32))


def test_a_killed_run_leaves_no_file(tmp_path: Path) -> None:
    code = (
        "import numpy as np, time; from onnxpress.blocks import Held; held = Held(0);"
        "held.add('t', np.zeros(1000, np.float32)); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not list(tmp_path.iterdir())


NAN = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[1, 4] x, float[4, 4] a) => (float[1, 4] y) {
    h = MatMul (x, a)  [root] r = Sqrt (x)  s = Add (r, h)  y = Neg (s) }"""


def test_the_first_node_that_gives_nan_is_named_with_its_sample() -> None:
    model = initialized(NAN)
    feeds = [{"x": np.full((1, 4), number, np.float32)} for number in (1, 2, -1)]
    walk = Walk(feeds)
    assert walk.advance(Parts(model), ["s"], ["y"]) == "Sqrt 'root' with sample 3"
    assert not walk.advance(Parts(model), ["y"], ["y"]), "what follows from it is not named"
    assert first_nan(model, feeds[:2]) == ""


def test_nothing_is_left_in_the_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = initialized(TEXT)
    walk = Walk(drawn(3), limit_bytes=0)
    walk.advance(Parts(model), ["h", "m"], ["y"])
    assert walk.held.on_disk > 0
    assert not list(tmp_path.iterdir())
    walk.held.close()


def test_a_tensor_of_no_declared_type_takes_that_of_what_is_held() -> None:
    model, samples = initialized(TEXT), drawn(2)
    for node in model.graph:
        for value in node.outputs:
            value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
            value.shape = value.shape or ir.Shape([1, 4])
    walk = Walk(samples)
    walk.advance(Parts(model), ["h"], ["y"])
    bare = initialized(TEXT)
    wanted = [Session(model, optimize=False).run(feed)["y"] for feed in samples]
    np.testing.assert_array_equal(given_by(walk, Parts(bare), "y"), wanted)
