"""Small models with the names that users' models have: a text detector and a text encoder."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["detector", "encoder"]

_LAYER = "/model/model.0/auto_model/encoder/layer.1/attention/self/query"
_DRAWS = np.random.default_rng


def _saved(path: Path, graph: onnx.GraphProto) -> Path:
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _weight(name: str, *shape: int, seed: int) -> onnx.TensorProto:
    fan = int(np.prod(shape[1:]))
    values = _DRAWS(seed).standard_normal(shape) / np.sqrt(fan)
    return numpy_helper.from_array(values.astype(np.float32), name)


def _floats(name: str, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def detector(folder: Path) -> tuple[Path, Path]:
    """Pictures of any size to a mask, named as Paddle's exporter names them; and its samples."""
    weights = [
        _weight("conv2d_417.w_0_folded_folded", 32, 3, 3, 3, seed=1),
        _weight("conv2d_419.w_0_folded_folded_folded", 64, 32, 1, 1, seed=2),
        _weight("conv2d_420.w_0_folded_folded_folded", 64, 64, 3, 3, seed=3),
        _weight("conv2d_transpose_1.w_0", 64, 1, 2, 2, seed=4),
    ]
    names = [weight.name for weight in weights]
    nodes = [
        helper.make_node(
            "Conv", ["x", names[0]], ["a"], "p2o.Conv.0", strides=[2, 2], pads=[1] * 4
        ),
        helper.make_node("Relu", ["a"], ["b"], "p2o.Relu.0"),
        helper.make_node("Conv", ["b", names[1]], ["c"], "p2o.Conv.1"),
        helper.make_node("Relu", ["c"], ["d"], "p2o.Relu.1"),
        helper.make_node("Conv", ["d", names[2]], ["e"], "p2o.Conv.2", pads=[1] * 4),
        helper.make_node("Relu", ["e"], ["f"], "p2o.Relu.2"),
        helper.make_node(
            "ConvTranspose", ["f", names[3]], ["g"], "p2o.ConvTranspose.0", strides=[2, 2]
        ),
        helper.make_node("Sigmoid", ["g"], ["sigmoid_0.tmp_0"], "p2o.Sigmoid.0"),
    ]
    inputs = [_floats("x", "n", 3, "h", "w")]
    outputs = [_floats("sigmoid_0.tmp_0", "n", 1, "h2", "w2")]
    data = folder / "pages.npz"
    np.savez(folder / "other.npz", x=np.zeros((4, 1, 3, 32, 48), np.float32))
    np.savez(data, x=_DRAWS(5).standard_normal((8, 1, 3, 32, 48)).astype(np.float32))
    graph = helper.make_graph(nodes, "detector", inputs, outputs, weights)
    return _saved(folder / "detector.onnx", graph), data


def encoder(folder: Path) -> tuple[Path, Path]:
    """Token ids to a vector each, named as PyTorch's exporter names them; and its samples."""
    weights = [
        _weight("model.0.auto_model.embeddings.word_embeddings.weight", 3000, 64, seed=1),
        _weight("onnx::MatMul_481", 64, 256, seed=2),
        _weight("onnx::MatMul_482", 256, 64, seed=3),
    ]
    names = [weight.name for weight in weights]
    row = "/model/model.0/auto_model/embeddings/word_embeddings/Gather_output_0"
    nodes = [
        helper.make_node("Gather", [names[0], "input_ids"], [row], row.removesuffix("_output_0")),
        helper.make_node(
            "MatMul", [row, names[1]], [f"{_LAYER}/MatMul_output_0"], f"{_LAYER}/MatMul"
        ),
        helper.make_node("Tanh", [f"{_LAYER}/MatMul_output_0"], ["t"], f"{_LAYER}/Tanh"),
        helper.make_node("MatMul", ["t", names[2]], ["onnx::Shape_422"], f"{_LAYER}/dense/MatMul"),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])]
    outputs = [_floats("onnx::Shape_422", "batch", "length", 64)]
    data = folder / "sentences.npz"
    np.savez(folder / "other.npz", input_ids=np.full((4, 1, 16), 7))
    np.savez(data, input_ids=_DRAWS(6).integers(0, 3000, (8, 1, 16)))
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, weights)
    return _saved(folder / "encoder.onnx", graph), data
