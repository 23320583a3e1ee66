"""Static rules: against onnxruntime's own checker, and each refusal with its reason."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from command_line import message, run
from onnxruntime.tools.mobile_helpers import usability_checker as checker

import onnxpress
from onnxpress.conversion import Conversion, convert_shapes
from onnxpress.conversion.opset import change_opset
from onnxpress.errors import UsageError
from onnxpress.layers import multiply_adds
from onnxpress.runtime import seen_by_providers
from onnxpress.targets import load_target, target_names
from onnxpress.targets.static_rules import StaticReport, static_report

FLOAT = onnx.TensorProto.FLOAT


def check(nodes: list[onnx.NodeProto], shape: list[object], target: str) -> StaticReport:
    rng = np.random.default_rng(0)
    arrays: dict[str, npt.ArrayLike] = {
        "w": rng.standard_normal((4, 4, 3, 3)).astype(np.float32),
        "iw": rng.integers(0, 9, (4, 4, 3, 3)).astype(np.int8),
        "uw": rng.integers(0, 9, (4, 4, 3, 3)).astype(np.uint8),
        "s": np.float32(0.1),
        "t": np.float32(0.2),
        "cs": np.full(4, 0.1, np.float32),
        "u": np.uint8(0),
        "i": np.int8(0),
        "ci": np.zeros(4, np.int8),
    }
    used = {name for node in nodes for name in node.input}
    graph = onnx.helper.make_graph(
        nodes,
        "case",
        [onnx.helper.make_tensor_value_info("x", FLOAT, shape)],  # type: ignore[arg-type]
        [onnx.helper.make_tensor_value_info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items() if k in used],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    return static_report(ir.from_proto(model), load_target(target))


def node(operator: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    names = inputs.split(), outputs.split()
    return onnx.helper.make_node(operator, *names, name=f"n_{outputs}", **attributes)  # type: ignore[arg-type]


def integer_convolution(
    weight: str = "uw s u", between: str | None = None, zero: str = "u"
) -> list[onnx.NodeProto]:
    attributes = {"axis": 0} if weight.split()[1] == "cs" else {}
    nodes = [
        node("QuantizeLinear", f"x s {zero}", "q"),
        node("DequantizeLinear", f"q s {zero}", "d"),
        node("DequantizeLinear", weight, "v", **attributes),
        node("Conv", "d v", "c"),
    ]
    if between is not None:
        nodes.append(node(between, "c", "r"))
    nodes += [
        node("QuantizeLinear", f"{'c' if between is None else 'r'} t {zero}", "e"),
        node("DequantizeLinear", f"e t {zero}", "y"),
    ]
    return nodes


@pytest.mark.parametrize("name", ["fashion_cnn", "fashion_mobile", "fashion_mlp"])
@pytest.mark.parametrize("target", ["nnapi", "coreml"])
def test_onnxruntimes_own_checker_counts_the_same(models: Path, name: str, target: str) -> None:
    model = convert_shapes(onnxpress.load(models / f"{name}.onnx"), Conversion(("batch=1",)))
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(seen_by_providers(model)), data_prop=True)
    if target == "nnapi":
        other = checker.check_nnapi_partitions(proto, require_fixed_input_sizes=True)
    else:
        other = checker.check_coreml_partitions(
            proto,
            require_fixed_input_sizes=True,
            config_filename="coreml_supported_mlprogram_ops.md",
        )
    ours = static_report(model, load_target(target))
    assert (ours.nodes, ours.taken, ours.partitions) == (
        other.num_nodes,
        other.num_supported_nodes,
        other.num_partitions,
    )


@pytest.mark.parametrize(
    ("target", "nodes", "shape", "expected"),
    [
        ("nnapi", [node("Erf", "x", "y")], [1, 4], "nnapi does not take Erf"),
        ("nnapi", [node("Relu", "x", "y")], ["n", 4], "sizes are not all known: [n, 4]"),
        ("nnapi", [node("Conv", "x w", "y")], [1, 4, 8, 8], None),
        ("nnapi", [node("Relu", "x", "y")], [1, 2, 3, 4, 5], "5 dimensions, at most 4"),
        ("xnnpack", [node("Conv", "x w", "y")], ["n", 4, 8, 8], None),
        ("xnnpack", [node("Conv", "x w", "y")], [1, 4, "h", 8], "axis 2 of its input is not known"),
        (
            "xnnpack",
            [node("MaxPool", "x", "y", kernel_shape=[2, 2], ceil_mode=1)],
            [1, 4, 7, 7],
            "ceil_mode is 1, xnnpack takes 0",
        ),
        ("xnnpack", [node("Relu", "x", "y")], [1, 4], "only behind Conv, MaxPool or AveragePool"),
        ("xnnpack", integer_convolution(), [1, 4, 8, 8], None),
        ("xnnpack", integer_convolution("iw s i"), [1, 4, 8, 8], "uint8 with weights of int8"),
        ("xnnpack", integer_convolution("iw cs ci", zero="i"), [1, 4, 8, 8], None),
        ("nnapi", integer_convolution("iw cs ci"), [1, 4, 8, 8], None),
        ("nnapi", integer_convolution("iw s i", zero="i"), [1, 4, 8, 8], "int8 with weights"),
        ("nnapi", integer_convolution(between="Relu"), [1, 4, 8, 8], "stands between it and its"),
        ("coreml", integer_convolution(), [1, 4, 8, 8], "in float only, not between Q and DQ"),
        ("tensorrt", integer_convolution(), [1, 4, 8, 8], "uint8 with weights of uint8"),
        # It has no integer kernels: on an H200 u8s8 and s8s8 ran there, in float.
        ("cuda", integer_convolution("iw cs ci"), [1, 4, 8, 8], None),
        ("cuda", integer_convolution(), [1, 4, 8, 8], None),
    ],
)
def test_a_refusal_names_the_rule(
    target: str, nodes: list[onnx.NodeProto], shape: list[object], expected: str | None
) -> None:
    report = check(nodes, shape, target)
    reasons = [reason for label, reason in report.refused if "Linear" not in label]
    if expected is None:
        assert not reasons
    else:
        assert expected in reasons[0]
        assert report.taken < report.nodes


def test_an_operator_newer_than_the_provider_is_refused_with_the_cure(models: Path) -> None:
    newer, _ = change_opset(onnxpress.load(models / "fashion_cnn.onnx"), 22)
    fixed = convert_shapes(newer, Conversion(("batch=1",)))
    report = static_report(fixed, load_target("nnapi"))
    assert any("opset 22 is newer than the 19" in reason for _, reason in report.refused)
    assert any("--opset 19" in sentence for sentence in report.advice)


def test_partitions_are_counted_between_refused_nodes() -> None:
    chain = [
        node("Relu", "x", "a"),
        node("Erf", "a", "b"),
        node("Relu", "b", "c"),
        node("Erf", "x", "d"),
        node("Add", "c d", "y"),
    ]
    report = check(chain, [1, 4], "nnapi")
    assert (report.taken, report.partitions) == (3, 2)
    assert any("Erf (2)" in sentence for sentence in report.advice)


def test_work_is_counted_as_the_definition_of_the_operators_says() -> None:
    report = check([node("Conv", "x w", "a"), node("Erf", "a", "y")], [1, 4, 8, 8], "nnapi")
    assert report.multiply_add_share == 1.0
    shapes = {"a": (3, 5), "b": (5, 7)}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["a", "b"], ["y"])],
        "product",
        [onnx.helper.make_tensor_value_info(name, FLOAT, dims) for name, dims in shapes.items()],
        [onnx.helper.make_tensor_value_info("y", FLOAT, (3, 7))],
    )
    (product,) = ir.from_proto(onnx.helper.make_model(graph)).graph
    assert multiply_adds(product) == 3 * 5 * 7


def test_a_common_ground_is_asked_member_by_member(models: Path) -> None:
    with pytest.raises(UsageError, match="ask about each"):
        static_report(onnxpress.load(models / "fashion_mlp.onnx"), load_target("mobile"))


def test_a_phone_model_is_one_partition_on_every_phone(
    tmp_path: Path, models: Path, small_data: tuple[Path, Path]
) -> None:
    output, report = tmp_path / "phone.onnx", tmp_path / "check.json"
    result = run(
        *("quantize", models / "fashion_cnn.onnx", "--target", "mobile", "--form", "static"),
        *("--calibration", small_data[0], "--evaluation", small_data[1], "--max-drop", "3"),
        *("--fix-shape", "image=1x1x28x28", "-o", output),
    )
    assert result.exit_code == 0, result.output
    run("targets", "check", output, "--target", "mobile", "--json", report)
    found = json.loads(report.read_text())
    for name in ("xnnpack", "nnapi", "qnn"):
        assert found[name]["partitions"] == 1, name
        assert found[name]["multiply_add_share"] > 0.99, name
    assert not found["nnapi"]["refused"]
    # What XNNPACK has no kernel for runs between its own nodes in the same memory and layout.
    assert {item["node"].split(" ")[0] for item in found["xnnpack"]["refused"]} <= {
        *("Add", "Sub", "Mul", "Reshape", "QuantizeLinear", "DequantizeLinear")
    }
    assert output.with_suffix(".ort").exists()


@pytest.mark.parametrize("name", target_names())
def test_a_target_is_explained_in_80_columns_with_its_sources(name: str) -> None:
    result = run("targets", "show", name)
    assert result.exit_code == 0
    assert max(len(line) for line in result.output.splitlines()) <= 80
    target = load_target(name)
    text = " ".join(result.output.split())
    assert " ".join(target.sources["file_forms"].split()) in text


def test_targets_are_listed_in_80_columns_and_as_json() -> None:
    listed = run("targets").output
    assert max(len(line) for line in listed.splitlines()) <= 80
    assert list(json.loads(run("targets", "--json", "-").output)) == target_names()
    assert json.loads(run("targets", "show", "qnn", "--json", "-").output)["static_shapes"] is True


def test_check_refuses_what_is_no_model_and_no_target(tmp_path: Path, models: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    refused = run("targets", "check", tmp_path / "text.onnx", "--target", "qnn")
    assert refused.exit_code == 2
    unknown = run("targets", "check", models / "fashion_mlp.onnx", "--target", "phone")
    assert unknown.exit_code == 2
    assert "there is no target 'phone'" in message(unknown)
