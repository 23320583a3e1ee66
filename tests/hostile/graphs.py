"""Models that say impossible or enormous things."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto
from onnx.helper import make_function, make_graph, make_opsetid, make_tensor

from hostile.building import (
    Kind,
    collecting,
    field,
    info,
    model_of,
    node,
    saved,
    unsized,
    valid,
    weight,
)

__all__ = ["GRAPHS", "SLOW_GRAPHS"]

GRAPHS: dict[str, Kind] = {}
SLOW_GRAPHS: dict[str, Kind] = {}
_kind = collecting(GRAPHS)
_slow = collecting(SLOW_GRAPHS)
_HUGE = (1 << 63) - 1


def _chain(number: int) -> onnx.ModelProto:
    names = ["x", *(f"t{place}" for place in range(number - 1)), "y"]
    nodes = [
        node("Relu" if place % 2 else "Neg", [given], [made])
        for place, (given, made) in enumerate(itertools.pairwise(names))
    ]
    return model_of(nodes)


def _nested(depth: int) -> bytes:
    """An If in an If, put together from bytes: protobuf itself nests no deeper than 100."""
    leaf = make_graph([node("Neg", ["x"], ["z"])], "b", [], [info("z")])
    body = leaf.SerializeToString()
    for level in range(depth):
        branch = node("If", ["c"], [f"y{level}"], else_branch=leaf).SerializeToString()
        then = AttributeProto(name="then_branch", type=AttributeProto.GRAPH).SerializeToString()
        nested = branch + field(5, then + field(6, body))
        shell = make_graph([], "b", [], [info(f"y{level}")]).SerializeToString()
        body = shell + field(1, nested)
    inputs = [info("x"), info("c", [], TensorProto.BOOL)]
    model: bytes = model_of([], inputs, [info(f"y{depth - 1}")]).SerializeToString()
    return model + field(7, field(1, nested))


def _shaped(operator: str, dims: list[int], *before: str) -> onnx.ModelProto:
    """An operator that makes a tensor as large as a constant says; only its shape is used."""
    shape = onnx.numpy_helper.from_array(np.array(dims, np.int64), "s")
    nodes = [
        node(operator, [*before, "s"], ["large"]),
        node("ReduceMax", ["large"], ["m"], keepdims=0),
        node("Add", ["x", "m"], ["y"]),
    ]
    return model_of(nodes, weights=[shape, weight("one", 1)])


@_slow
def chain_of_20000_nodes(folder: Path) -> Path:
    return saved(folder, _chain(20_000))


@_kind
def chain_of_1000_nodes(folder: Path) -> Path:
    return saved(folder, _chain(1000))


@_kind
def branches_nested_20_deep(folder: Path) -> Path:
    return saved(folder, _nested(20))


@_kind
def branches_nested_500_deep(folder: Path) -> Path:
    return saved(folder, _nested(500))


@_kind
def function_that_calls_itself(folder: Path) -> Path:
    model = model_of([node("f", ["x"], ["y"], domain="own")])
    return saved(folder, _with_functions(model, {"f": "f"}))


@_kind
def functions_that_call_each_other(folder: Path) -> Path:
    model = model_of([node("f", ["x"], ["y"], domain="own")])
    return saved(folder, _with_functions(model, {"f": "g", "g": "f"}))


@_kind
def functions_that_double_40_times(folder: Path) -> Path:
    model = model_of([node("f0", ["x"], ["y"], domain="own")])
    calls = {f"f{level}": f"f{level + 1}" for level in range(40)}
    return saved(folder, _with_functions(model, calls, times=2, last="f40"))


def _with_functions(
    model: onnx.ModelProto, calls: dict[str, str], *, times: int = 1, last: str = ""
) -> onnx.ModelProto:
    opsets = [make_opsetid("", 17), make_opsetid("own", 1)]
    for name, called in calls.items():
        names = ["p", *(f"t{place}" for place in range(times - 1)), "q"]
        nodes = [
            node(called, [given], [made], domain="own") for given, made in itertools.pairwise(names)
        ]
        model.functions.append(make_function("own", name, ["p"], ["q"], nodes, opsets))
    if last:
        leaf = [node("Neg", ["p"], ["q"])]
        model.functions.append(make_function("own", last, ["p"], ["q"], leaf, opsets))
    model.opset_import.append(make_opsetid("own", 1))
    return model


@_kind
def graph_with_a_cycle(folder: Path) -> Path:
    return saved(folder, model_of([node("Add", ["x", "b"], ["y"]), node("Neg", ["y"], ["b"])]))


@_kind
def node_that_reads_itself(folder: Path) -> Path:
    return saved(folder, model_of([node("Add", ["x", "y"], ["y"])]))


@_kind
def tensor_written_twice(folder: Path) -> Path:
    return saved(folder, model_of([node("Neg", ["x"], ["y"]), node("Relu", ["x"], ["y"])]))


@_kind
def expand_to_a_billion(folder: Path) -> Path:
    return saved(folder, _shaped("Expand", [1_000_000_000], "one"))


@_kind
def constant_of_a_billion(folder: Path) -> Path:
    return saved(folder, _shaped("ConstantOfShape", [1_000_000_000]))


@_kind
def constant_of_a_trillion(folder: Path) -> Path:
    return saved(folder, _shaped("ConstantOfShape", [1_000_000, 1_000_000]))


@_kind
def constant_of_overflowing_shape(folder: Path) -> Path:
    return saved(folder, _shaped("ConstantOfShape", [1 << 32, 1 << 32]))


@_kind
def tile_to_a_trillion(folder: Path) -> Path:
    return saved(folder, _shaped("Tile", [1_000_000_000_000], "one"))


@_kind
def pad_by_a_trillion(folder: Path) -> Path:
    return saved(folder, _shaped("Pad", [0, 1_000_000_000_000], "one"))


@_kind
def range_to_a_trillion(folder: Path) -> Path:
    numbers = [
        onnx.numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in (("a", 0), ("b", 10**12), ("c", 1))
    ]
    nodes = [
        node("Range", ["a", "b", "c"], ["r"]),
        node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
        node("ReduceMax", ["f"], ["m"], keepdims=0),
        node("Add", ["x", "m"], ["y"]),
    ]
    return saved(folder, model_of(nodes, weights=numbers))


@_kind
def resize_by_a_million(folder: Path) -> Path:
    factors = np.array([1, 1, 1_000_000, 1_000_000])
    scales = onnx.numpy_helper.from_array(factors.astype(np.float32), "s")
    nodes = [node("Resize", ["x", "", "s"], ["y"])]
    shape = [1, 1, 8, 8]
    return saved(folder, model_of(nodes, [info("x", shape)], [unsized()], [scales]))


@_kind
def input_of_largest_dimension(folder: Path) -> Path:
    model = model_of([node("Neg", ["x"], ["y"])], [info("x", [_HUGE, 2])], [info("y", [_HUGE, 2])])
    return saved(folder, model)


@_kind
def layer_on_an_input_of_two_billion(folder: Path) -> Path:
    shape = [2**31 - 1, 8]
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    model = model_of(nodes, [info("x", shape)], [info("y", shape)], [weight("w", 8, 8)])
    return saved(folder, model)


@_kind
def input_of_negative_dimension(folder: Path) -> Path:
    return saved(folder, model_of([node("Neg", ["x"], ["y"])], [info("x", [-5, 8])]))


@_kind
def empty_weight_of_huge_dimensions(folder: Path) -> Path:
    tensor = TensorProto(name="w", data_type=1, dims=[0, 1 << 62])
    nodes = [node("Concat", ["x", "w"], ["y"], axis=0)]
    return saved(folder, model_of(nodes, weights=[tensor]))


@_kind
def weight_of_overflowing_dimensions(folder: Path) -> Path:
    model = valid()
    model.graph.initializer[0].dims[:] = [1 << 32, 1 << 32]
    return saved(folder, model)


@_kind
def weight_of_too_few_bytes(folder: Path) -> Path:
    model = valid()
    model.graph.initializer[0].raw_data = b"\0" * 7
    return saved(folder, model)


@_kind
def weight_of_negative_dimensions(folder: Path) -> Path:
    model = valid()
    model.graph.initializer[0].dims[:] = [-8, -8]
    return saved(folder, model)


@_kind
def weight_of_unknown_type(folder: Path) -> Path:
    model = valid()
    model.graph.initializer[0].data_type = 9999
    return saved(folder, model)


@_kind
def weight_of_text(folder: Path) -> Path:
    model = valid()
    texts: Any = ["a"] * 64
    model.graph.initializer[0].CopyFrom(make_tensor("w", TensorProto.STRING, [8, 8], texts))
    return saved(folder, model)


@_kind
def weight_of_not_a_number(folder: Path) -> Path:
    model = valid()
    values = np.full((8, 8), np.nan, np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, "w"))
    return saved(folder, model)


@_kind
def weight_twice_under_one_name(folder: Path) -> Path:
    model = valid()
    model.graph.initializer.append(weight("w", 4, 4))
    return saved(folder, model)


@_kind
def attribute_of_a_million_numbers(folder: Path) -> Path:
    nodes = [node("Transpose", ["x"], ["y"], perm=list(range(1_000_000)))]
    return saved(folder, model_of(nodes))


@_kind
def attribute_of_another_type(folder: Path) -> Path:
    return saved(folder, model_of([node("Transpose", ["x"], ["y"], perm="10")]))


@_kind
def attribute_from_a_function_outside_of_one(folder: Path) -> Path:
    model = model_of([node("Concat", ["x", "x"], ["y"], axis=1)], outputs=[info("y", ["n", 16])])
    model.graph.node[0].attribute[0].ref_attr_name = "x"
    return saved(folder, model)


@_kind
def split_into_no_parts(folder: Path) -> Path:
    return saved(folder, model_of([node("Split", ["x"], ["y"], num_outputs=0)], opset=18))


@_kind
def split_along_an_axis_that_is_not_there(folder: Path) -> Path:
    return saved(folder, model_of([node("Split", ["x"], ["y"], axis=-9, num_outputs=1)], opset=18))


@_kind
def convolution_of_impossible_sizes(folder: Path) -> Path:
    nodes = [node("Conv", ["x", "w"], ["y"], strides=[0, 0], dilations=[_HUGE, -1], group=0)]
    shapes = [info("x", [1, 4, 8, 8])], [unsized()], [weight("w", 4, 4, 3, 3)]
    return saved(folder, model_of(nodes, *shapes))


@_kind
def pool_of_huge_pads(folder: Path) -> Path:
    nodes = [node("MaxPool", ["x"], ["y"], kernel_shape=[2**31, 2**31], pads=[2**31] * 4)]
    return saved(folder, model_of(nodes, [info("x", [1, 4, 8, 8])], [unsized()]))


@_kind
def depth_to_space_of_block_zero(folder: Path) -> Path:
    nodes = [node("DepthToSpace", ["x"], ["y"], blocksize=0)]
    return saved(folder, model_of(nodes, [info("x", [1, 4, 8, 8])], [unsized()]))


@_slow
def loop_that_never_ends(folder: Path) -> Path:
    body = make_graph(
        [node("Identity", ["on"], ["go"]), node("Neg", ["s"], ["t"])],
        "body",
        [info("i", [], TensorProto.INT64), info("on", [], TensorProto.BOOL), info("s")],
        [info("go", [], TensorProto.BOOL), info("t")],
    )
    times = onnx.numpy_helper.from_array(np.array(_HUGE, np.int64), "times")
    loop = node("Loop", ["times", "", "x"], ["y"], body=body)
    return saved(folder, model_of([loop], weights=[times]))


@_kind
def names_that_terminals_obey(folder: Path) -> Path:
    model = model_of([node("Neg", ["x"], ["y"], name="\x1b[2J\x07\r\u202e[/bold]")])
    return saved(folder, model)


@_kind
def name_of_a_million_letters(folder: Path) -> Path:
    model = model_of([node("Neg", ["x"], ["y"], name="n" * 1_000_000)])
    model.graph.name = "g" * 1_000_000
    return saved(folder, model)


@_kind
def names_with_nul(folder: Path) -> Path:
    return saved(folder, model_of([node("Neg", ["x\0"], ["y\0"])], [info("x\0")], [info("y\0")]))


@_kind
def names_that_are_empty(folder: Path) -> Path:
    return saved(folder, model_of([node("Neg", [""], [""])], [info("")], [info("")]))


@_kind
def inputs_2000(folder: Path) -> Path:
    return saved(folder, _wide(2000))


@_slow
def inputs_100000(folder: Path) -> Path:
    return saved(folder, _wide(100_000))


def _wide(number: int) -> onnx.ModelProto:
    inputs = [info(f"x{place}", [1]) for place in range(number)]
    return model_of([node("Neg", ["x0"], ["y"])], inputs, [info("y", [1])])


@_kind
def skips_that_take_hours(folder: Path) -> Path:
    """Within one node, where onnxruntime cannot be told to give up."""
    grams: Any = {"ngram_counts": [0, 0], "ngram_indexes": [0, 1, 2]}
    vectorizer = node(
        "TfIdfVectorizer", ["x"], ["y"], mode="TF", min_gram_length=2, max_gram_length=2,
        max_skip_count=10**12, pool_int64s=[5, 6, 7, 8, 6, 7], **grams,
    )  # fmt: skip
    inputs = [info("x", [12], onnx.TensorProto.INT32)]
    return saved(folder, model_of([vectorizer], inputs, [info("y", [3])]))


@_kind
def outputs_2000(folder: Path) -> Path:
    outputs = [info(f"y{place}") for place in range(2000)]
    return saved(folder, model_of([node("Neg", ["x"], [o.name]) for o in outputs], (), outputs))


@_kind
def opset_imports_100000(folder: Path) -> Path:
    model = valid()
    model.opset_import.extend(make_opsetid(f"d{place}", 1) for place in range(100_000))
    return saved(folder, model)


@_kind
def opset_that_does_not_exist(folder: Path) -> Path:
    return saved(folder, model_of([node("Neg", ["x"], ["y"])], opset=999))


@_kind
def opset_below_zero(folder: Path) -> Path:
    return saved(folder, model_of([node("Neg", ["x"], ["y"])], opset=-7))


@_kind
def ir_version_that_does_not_exist(folder: Path) -> Path:
    model = valid()
    model.ir_version = 999
    return saved(folder, model)


@_kind
def graph_without_anything(folder: Path) -> Path:
    model = valid()
    model.graph.Clear()
    return saved(folder, model)


@_kind
def output_that_nobody_makes(folder: Path) -> Path:
    return saved(folder, model_of([node("Neg", ["x"], ["z"])]))
