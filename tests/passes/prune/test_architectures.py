"""Real architectures are cut exactly, and nearly all of their work can be."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from cutting import SAME_DB, compared
from generated import rewritten_fully
from onnx.helper import make_graph, make_model

import onnxpress
from onnxpress.data import load_samples
from onnxpress.layers import Layer, find_layers
from onnxpress.passes.prune.layout import Layout
from onnxpress.registry import create
from onnxpress.runtime import Session

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
SMALL_LIGHT = ["inception_v1", "shufflenet", "squeezenet"]
LARGE_LIGHT = ["bvlc_alexnet", "densenet121", "inception_v2", "resnet50", "vgg19", "zfnet512"]
PUBLIC = ["ocr_rec", "ocr_det", "ocr_cls", "layout", "minilm", "magika", "silero_vad"]


def simplified(model: ir.Model) -> ir.Model:
    return rewritten_fully(create("simplify"), model)


def light(name: str) -> ir.Model:
    """An architecture that ONNX ships, with random weights and without the final Softmax."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    rng = np.random.default_rng(0)
    shapes = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    nodes, weights = [], []
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = shapes[node.input[0]].tolist()
            fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1
            drawn = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
            if len(shape) == 1:
                drawn = rng.uniform(0.5, 1.5, shape)
            weights.append(onnx.numpy_helper.from_array(drawn.astype(np.float32), node.output[0]))
        elif node.op_type == "Softmax":
            # Of random weights it makes one class certain, which hides all differences.
            model.graph.output[0].name = node.input[0]
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    made = {weight.name for weight in weights}
    kept = [i for i in model.graph.initializer if i.name in used - made]
    inputs = [i for i in model.graph.input if i.name in used - set(shapes) - made]
    graph = make_graph(nodes, name, inputs, model.graph.output, [*kept, *weights])
    return simplified(
        ir.serde.deserialize_model(
            make_model(graph, opset_imports=model.opset_import, ir_version=8)
        )
    )


def untouched(layout: Layout, layers: list[Layer], positions: dict[str, float]) -> float:
    """Share of the multiply-adds in layers of which neither side can be cut."""
    free = {u for g in layout.groups.values() if g.blocked is None for u in g.units}
    total = left = 0.0
    for layer in layers:
        work = positions[layer.name] * layer.read().size
        side = layout.sides[layer.name]
        total += work
        if not free & {*side.inputs.tolist(), *side.outputs.tolist()}:
            left += work
    return left / total


def positions_of(model: ir.Model) -> dict[str, float]:
    """How often each weight is applied, by the shapes of the graph."""
    return {
        layer.name: float(
            np.prod([d for d in layer.node.outputs[0].shape or () if isinstance(d, int)])
        )
        / layer.read().shape[0]
        for layer in find_layers(model)
    }


def check_light(name: str) -> None:
    model = light(name)
    worst, layout = compared(model, 0.25)
    assert worst > SAME_DB
    assert untouched(layout, find_layers(model), positions_of(model)) < 0.1


@pytest.mark.parametrize("name", SMALL_LIGHT)
def test_light_architecture_is_cut_exactly(name: str) -> None:
    check_light(name)


@pytest.mark.public
@pytest.mark.parametrize("name", LARGE_LIGHT)
def test_large_light_architecture_is_cut_exactly(name: str) -> None:
    check_light(name)


@pytest.mark.public
@pytest.mark.parametrize("name", PUBLIC)
def test_public_model_is_cut_exactly(models: Path, name: str) -> None:
    folder = models / ".cache" / name
    if not (folder / "model.onnx").exists():
        pytest.skip("run models/fetch.py first")
    model = simplified(onnxpress.load(folder / "model.onnx"))
    data = folder / "calibration.npz"
    samples = load_samples(data, Session(model).inputs) if data.exists() else None
    worst, layout = compared(model, 0.25, samples)
    assert worst > SAME_DB
    heads = [g for g in layout.groups.values() if g.kind == "head" and g.blocked is None]
    assert len(heads) == {"minilm": 3, "ocr_rec": 2}.get(name, 0)
