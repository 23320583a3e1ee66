"""Model files: any order of nodes, weights beside them, and writing whole or not at all."""

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress import model_file
from onnxpress.errors import ModelError, OutputError
from onnxpress.external_data import referred
from onnxpress.layers import find_layers
from onnxpress.runtime import Session

CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x, bool c) => (float[n] y) {
    y = Add (b, b)
    b = Relu (a)
    a = Neg (x)
}"""
READS_LATER_VALUE = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x, bool c) => (float[n] y) {
    y = If (c) <then_branch = t () => (float[n] p) { p = Neg (a) },
                else_branch = e () => (float[n] q) { q = Relu (a) }>
    a = Neg (x)
}"""
IN_A_BODY = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x, bool c) => (float[n] y) {
    y = If (c) <then_branch = t () => (float[n] p) { p = Neg (s) s = Relu (x) },
                else_branch = e () => (float[n] q) { q = Relu (x) }>
}"""


@pytest.mark.parametrize("text", [CHAIN, READS_LATER_VALUE, IN_A_BODY])
def test_nodes_in_any_order_are_sorted(tmp_path: Path, text: str) -> None:
    proto, path = onnx.parser.parse_model(text), tmp_path / "unsorted.onnx"
    with pytest.raises(onnx.checker.ValidationError, match="sorted"):
        onnx.checker.check_model(proto)
    onnx.save(proto, path)
    model_file.save(model_file.load(path), tmp_path / "sorted.onnx")
    onnx.checker.check_model(tmp_path / "sorted.onnx", full_check=True)


def test_cycle_is_refused(tmp_path: Path) -> None:
    proto, path = onnx.parser.parse_model(CHAIN.replace("Neg (x)", "Neg (y)")), tmp_path / "c.onnx"
    onnx.save(proto, path)
    with pytest.raises(ModelError, match=r"c\.onnx: the ONNX checker refuses it: .*cycle"):
        model_file.load(path)


def test_external_data_survives_and_is_replaced_whole(tmp_path: Path, linear_model: Path) -> None:
    target = tmp_path / "big.onnx"
    model = model_file.load(linear_model)
    model_file.save(model, target, external_data=True)
    assert target.stat().st_size < 2000
    read = model_file.load(target)
    assert model_file.weight_bytes(read) == model_file.weight_bytes(model)
    for layer in find_layers(read):
        layer.write(layer.read() * 2)
    model_file.save(read, target, external_data=True)
    assert len(list(tmp_path.glob("big.onnx.*.data"))) == 1
    assert model_file.size_bytes(target) > 64 * 64 * 4
    np.testing.assert_array_equal(
        find_layers(model_file.load(target))[0].read(), find_layers(model)[0].read() * 2
    )


def other_weights(path: Path) -> None:
    """Write the same model with other weights to the same place."""
    model = model_file.load(path)
    for layer in find_layers(model):
        layer.write(layer.read() + 1)
    model_file.save(model, path, external_data=True)


@pytest.mark.parametrize("name", ["v0.onnx", "v1.onnx.bak"])
def test_data_that_another_file_names_is_kept(
    tmp_path: Path, linear_model: Path, name: str
) -> None:
    """`v1.onnx` is copied, then `v1.onnx` written again."""
    path = tmp_path / "v1.onnx"
    model_file.save(model_file.load(linear_model), path, external_data=True)
    (tmp_path / name).write_bytes(path.read_bytes())
    other_weights(path)
    np.testing.assert_array_equal(
        find_layers(model_file.load(tmp_path / name))[0].read(),
        find_layers(model_file.load(linear_model))[0].read(),
    )


def test_data_of_others_is_kept(tmp_path: Path, linear_model: Path) -> None:
    path = tmp_path / "out.onnx"
    users = [tmp_path / f"out.onnx.{name}.data" for name in ("training", "12345678")]
    for file in users:
        file.write_bytes(b"mine")
    model_file.save(model_file.load(linear_model), path, external_data=True)
    other_weights(path)
    assert [file.read_bytes() for file in users] == [b"mine", b"mine"]
    assert len(list(tmp_path.glob("out.onnx.*.data"))) == 3


def test_data_that_a_replaced_model_alone_named_goes(tmp_path: Path, linear_model: Path) -> None:
    path = tmp_path / "out.onnx"
    model_file.save(model_file.load(linear_model), path, external_data=True)
    model_file.save(model_file.load(linear_model), path)
    assert not list(tmp_path.glob("*.data"))


def test_model_in_memory_keeps_the_data_it_reads(tmp_path: Path, linear_model: Path) -> None:
    path = tmp_path / "out.onnx"
    model_file.save(model_file.load(linear_model), path, external_data=True)
    model = model_file.load(path)
    model_file.save(model, path)
    assert find_layers(model)[0].read().shape == (64, 64)


LARGE_IN_BODIES = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x, bool c) => (float[512] y)
{
    k = Constant <value = float[512] {VALUES}> ()
    p = If (c) <
        then_branch = t () => (float[512] r) <float[512] w = {VALUES}> { r = Mul (w, k) },
        else_branch = e () => (float[512] q) { q = Constant <value = float[512] {VALUES}> () }
    >
    y = Add (p, x)
}"""


def test_large_tensors_of_bodies_and_constants_are_found_again(tmp_path: Path) -> None:
    text = LARGE_IN_BODIES.replace("VALUES", ", ".join(str(index) for index in range(512)))
    onnx.save(onnx.parser.parse_model(text), tmp_path / "in.onnx")
    path = tmp_path / "out.onnx"
    model_file.save(model_file.load(tmp_path / "in.onnx"), path, external_data=True)
    named = referred(onnx.load(path, load_external_data=False))
    assert named == {file.name for file in tmp_path.glob("*.data")}
    assert len(named) == 1
    onnx.checker.check_model(path, full_check=True)
    feed = {"x": np.ones(1, np.float32), "c": np.array(True)}  # noqa: FBT003
    for file in (path, tmp_path / "in.onnx"):
        found = Session(file).run(feed)["y"]
        np.testing.assert_array_equal(found, np.arange(512.0) ** 2 + 1)


def test_external_constant_is_written_inside(tmp_path: Path) -> None:
    text = LARGE_IN_BODIES.replace("VALUES", ", ".join(str(index) for index in range(512)))
    proto = onnx.parser.parse_model(text)
    tensor = proto.graph.node[0].attribute[0].t
    values = onnx.numpy_helper.to_array(tensor)
    tensor.ClearField("float_data")
    tensor.raw_data = values.tobytes()
    onnx.external_data_helper.set_external_data(tensor, "k.bin", 0, values.nbytes)
    tensor.ClearField("raw_data")
    (tmp_path / "k.bin").write_bytes(values.tobytes())
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    model_file.save(model_file.load(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    assert not referred(onnx.load(tmp_path / "out.onnx", load_external_data=False))


def test_full_disk_leaves_the_old_file_whole(
    tmp_path: Path, linear_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"good old file")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        model_file.save(model_file.load(linear_model), target)
    assert target.read_bytes() == b"good old file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linear.onnx", "out.onnx"]


LARGE = (200, 100)
"""More elements than a weight has that is copied to be checked."""


@pytest.mark.parametrize(
    "kind", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT64", "UINT8", "INT4"]
)
@pytest.mark.parametrize("raw", [True, False])
def test_large_weights_are_read_as_onnx_reads_them(tmp_path: Path, *, kind: str, raw: bool) -> None:
    values = np.random.default_rng(0).integers(0, 7, LARGE).astype(np.float32)
    number = getattr(onnx.TensorProto, kind)
    weight = onnx.helper.make_tensor("w", number, LARGE, values.reshape(-1))
    if raw:
        exact = onnx.numpy_helper.to_array(weight)
        weight = onnx.numpy_helper.from_array(exact, "w")
    ends = [onnx.helper.make_tensor_value_info("y", number, LARGE)]
    node = onnx.helper.make_node("Identity", ["w"], ["y"])
    path, graph = tmp_path / "w.onnx", onnx.helper.make_graph([node], "g", [], ends, [weight])
    onnx.save(onnx.helper.make_model(graph), path)
    model = model_file.load(path)
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy().astype(np.float32), values)
    written = onnx.load_from_string(model_file.to_bytes(model)).graph.initializer[0]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(written).astype(np.float32), values)


def test_checker_sees_what_is_wrong_beside_large_weights(tmp_path: Path) -> None:
    values = np.zeros(LARGE, np.float32)
    weights = [onnx.numpy_helper.from_array(values, name) for name in ("w", "w")]
    ends = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, LARGE)]
    node = onnx.helper.make_node("Identity", ["w"], ["y"])
    path, graph = tmp_path / "w.onnx", onnx.helper.make_graph([node], "g", [], ends, weights)
    onnx.save(onnx.helper.make_model(graph), path)
    with pytest.raises(ModelError, match=r"w\.onnx: the ONNX checker refuses it"):
        model_file.load(path)


def test_large_weight_without_a_type_is_refused(tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.zeros(LARGE, np.float32), "w")
    weight.data_type = onnx.TensorProto.UNDEFINED
    ends = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, LARGE)]
    node = onnx.helper.make_node("Identity", ["w"], ["y"])
    path, graph = tmp_path / "w.onnx", onnx.helper.make_graph([node], "g", [], ends, [weight])
    onnx.save(onnx.helper.make_model(graph), path)
    with pytest.raises(ModelError, match=r"w\.onnx: .*\[M00"):
        model_file.load(path)


def test_bytes_of_a_file_count_the_data_beside_it(tmp_path: Path, linear_model: Path) -> None:
    target = tmp_path / "big.onnx"
    model_file.save(model_file.load(linear_model), target, external_data=True)
    whole = sum(path.stat().st_size for path in tmp_path.glob("big.onnx*"))
    assert model_file.file_bytes(model_file.load(target)) == whole == model_file.size_bytes(target)
    assert model_file.file_bytes(model_file.load(linear_model)) == linear_model.stat().st_size


def test_types_of_weights_are_not_said_a_second_time() -> None:
    """Neither in the graph nor in the body of an If."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 18]>
        g (float[2] x, bool c) => (float[2] y)
        <float[2] w = {1, 2}> {
        s = Add (x, w)
        y = If (c) <
            then_branch = t () => (float[2] a) <float[2] v = {3, 4}> { a = Add (s, v) },
            else_branch = e () => (float[2] b) { b = Abs (s) }
        > }"""
    )
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            assert value.shape is not None
    node = next(node for node in model.graph if node.op_type == "Add")
    node.outputs[0].shape = ir.Shape([2])
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    written = onnx.load_from_string(model_file.to_bytes(model))
    bodies = [a.g for node in written.graph.node for a in node.attribute if a.HasField("g")]
    said = [info.name for graph in (written.graph, *bodies) for info in graph.value_info]
    assert said == ["s"]
    assert [len(body.initializer) for body in bodies] == [1, 0]


def sparse_model(places: list[list[int]] | list[int]) -> onnx.ModelProto:
    """Y = x W, W [4, 3] with two weights that are not zero."""
    values = onnx.numpy_helper.from_array(np.array([2.0, -3.0], np.float32), "w")
    indices = onnx.numpy_helper.from_array(np.array(places, np.int64), "places")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sparse",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])],
        sparse_initializer=[onnx.helper.make_sparse_tensor(values, indices, [4, 3])],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )


@pytest.mark.parametrize("places", [[1, 11], [[0, 1], [3, 2]]])
def test_sparse_weights_are_read(tmp_path: Path, places: list[list[int]] | list[int]) -> None:
    file = tmp_path / "sparse.onnx"
    onnx.save(sparse_model(places), file)
    weight = model_file.load(file).graph.initializers["w"].const_value
    assert weight is not None
    assert weight.numpy().tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0], [0, 0, -3]]


@pytest.mark.parametrize("inside", [False, True], ids=["in the graph", "in a function"])
def test_sparse_constants_are_read(tmp_path: Path, *, inside: bool) -> None:
    proto = sparse_model([1, 11])
    sparse = proto.graph.sparse_initializer.pop()
    held = onnx.helper.make_node("Constant", [], ["w"], sparse_value=sparse)
    if inside:
        opsets = [onnx.helper.make_opsetid("", proto.opset_import[0].version)]
        nodes = [held, onnx.helper.make_node("Identity", ["w"], ["o"])]
        function = onnx.helper.make_function("local", "Held", [], ["o"], nodes, opsets)
        proto.functions.append(function)
        proto.opset_import.append(onnx.helper.make_opsetid("local", 1))
        held = onnx.helper.make_node("Held", [], ["w"], domain="local")
    proto.graph.node.insert(0, held)
    file = tmp_path / "sparse.onnx"
    onnx.save(proto, file)
    x = np.eye(4, dtype=np.float32)
    (found,) = Session(model_file.load(file)).run({"x": x}).values()
    assert found.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0], [0, 0, -3]]


def test_sparse_weight_with_a_place_outside_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sparse.onnx"
    onnx.save(sparse_model([1, 12]), file)
    with pytest.raises(ModelError, match="sparse"):
        model_file.load(file)
