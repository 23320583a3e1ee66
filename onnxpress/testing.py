"""Sample models, and checks that every pass must satisfy: ours, and any third party's.

from onnxpress.testing import SAMPLE_MODELS, check_pass

@pytest.mark.parametrize("name", SAMPLE_MODELS)
def test_my_pass_keeps_the_contract(name):
    check_pass(MyPass(), SAMPLE_MODELS[name]())
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.adapter import observe
from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, Skip, Stage
from onnxpress.data import random_samples
from onnxpress.judge import Budget, Evaluator, interface_problems
from onnxpress.recipe import Recipe, RecipeStage
from onnxpress.runtime import Array, Session
from onnxpress.search import apply
from onnxpress.targets import load_target

__all__ = ["SAMPLE_MODELS", "check_pass"]

_OPSETS = (11, 13, 17, 21)


def _from_text(text: str, **weights: tuple[int, ...]) -> ir.Model:
    """A model from ONNX text, with random float initializers of the given shapes."""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(7)
    for name, shape in weights.items():
        array = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)
        _attach(model.graph, name, array)
    return model


def _attach(graph: ir.Graph, name: str, array: Array) -> None:
    """Turn the graph input `name` into an initializer."""
    value = next(value for value in graph.inputs if value.name == name)
    graph.inputs.remove(value)
    value.const_value = ir.Tensor(array, name=name)
    graph.register_initializer(value)


def _mlp(opset: int = 17, *, trans_b: int = 1) -> ir.Model:
    shape = "64, 96" if trans_b else "96, 64"
    return _from_text(
        f"""<ir_version: 7, opset_import: ["" : {opset}]>
        mlp (float[batch, 96] x, float[{shape}] w1, float[64] b1, float[64, 64] w2)
            => (float[batch, 64] y) {{
            a = Gemm <transB = {trans_b}> (x, w1, b1)
            h = Relu (a)
            y = MatMul (h, w2)
        }}""",
        w1=(64, 96) if trans_b else (96, 64),
        b1=(64,),
        w2=(64, 64),
    )


def _cnn(opset: int = 17) -> ir.Model:
    return _from_text(
        f"""<ir_version: 7, opset_import: ["" : {opset}]>
        cnn (float[batch, 3, 12, 12] x, float[16, 3, 3, 3] w1, float[16] b1,
             float[16, 1, 3, 3] w2, float[16, 8, 1, 1] w3, float[16, 8, 2, 2] w4)
            => (float[batch, 8, 24, 24] y) {{
            a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            b = Relu (a)
            c = Conv <group = 16, pads = [1, 1, 1, 1]> (b, w2)
            d = Conv <group = 2> (c, w3)
            e = Add (b, d)
            y = ConvTranspose <strides = [2, 2]> (e, w4)
        }}""",
        w1=(16, 3, 3, 3),
        b1=(16,),
        w2=(16, 1, 3, 3),
        w3=(16, 8, 1, 1),
        w4=(16, 8, 2, 2),
    )


def _shared() -> ir.Model:
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        shared (float[batch, 64] x, float[64, 64] w, float[64, 64] v)
            => (float[batch, 64] y) {
            a = MatMul (x, w)
            b = Tanh (a)
            c = MatMul (b, w)
            d = Gemm <transB = 1> (c, v)
            y = MatMul (d, v)
        }""",
        w=(64, 64),
        v=(64, 64),
    )


def _batched() -> ir.Model:
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        batched (float[batch, 4, 10, 32] x, float[4, 32, 32] w, float[32, 10] l, float[3] bias)
            => (float[batch, 4, 32, 32] y) {
            a = MatMul (x, w)
            y = MatMul (l, a)
        }""".replace(", float[3] bias", ""),
        w=(4, 32, 32),
        l=(32, 10),
    )


def _subgraph() -> ir.Model:
    return _from_text(
        """<ir_version: 8, opset_import: ["" : 17]>
        subgraph (float[1, 64] x, float[64, 64] w) => (float[1, 64] y) {
            zero = Constant <value = float {0}> ()
            sum = ReduceSum <keepdims = 0> (x)
            positive = Greater (sum, zero)
            y = If (positive) <
                then_branch = yes () => (float[1, 64] t) { t = MatMul (x, w) },
                else_branch = no () => (float[1, 64] e) { e = Neg (x) }
            >
        }""",
        w=(64, 64),
    )


def _half() -> ir.Model:
    model = _mlp()
    half = ir.DataType.FLOAT16
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.type = ir.TensorType(half)
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        value.const_value = ir.Tensor(value.const_value.numpy().astype(np.float16), name=name)
        value.type = ir.TensorType(half)
    return model


def _constants() -> ir.Model:
    """Weights held in Constant nodes."""
    model = _mlp()
    for name, value in list(model.graph.initializers.items()):
        assert value.const_value is not None
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", value.const_value)])
        ir.convenience.replace_all_uses_with(value, node.outputs[0])
        del model.graph.initializers[name]
        node.outputs[0].name = name
        model.graph.insert_before(model.graph[0], node)
    return model


def _zeros() -> ir.Model:
    """A layer of zeros, and outputs that never vary."""
    model = _mlp()
    value = model.graph.initializers["w1"]
    value.const_value = ir.Tensor(np.zeros((64, 96), np.float32), name="w1")
    return model


SAMPLE_MODELS: Mapping[str, Callable[[], ir.Model]] = {
    **{f"mlp_opset{opset}": lambda opset=opset: _mlp(opset) for opset in _OPSETS},  # type: ignore[misc]
    **{f"cnn_opset{opset}": lambda opset=opset: _cnn(opset) for opset in _OPSETS},  # type: ignore[misc]
    "gemm_trans_b_0": lambda: _mlp(trans_b=0),
    "shared_weights": _shared,
    "batched_and_left_matmul": _batched,
    "if_body": _subgraph,
    "float16": _half,
    "constant_nodes": _constants,
    "zeros": _zeros,
}
"""Small models by name: opsets, layouts, shared weights, subgraphs, types, odd places."""


def check_pass(pass_: Pass, model: ir.Model) -> None:
    """Raise AssertionError where `pass_` breaks the contract on `model`.

    Checked with and without statistics: a frozen data class with defaults; proposing changes
    nothing and is deterministic; reasons are sentences; decisions survive a recipe's text; an
    empty plan changes nothing; what is written is valid, has the same interface, the same
    bytes each time, and errs no more than the predictions allow.
    """
    _check_class(pass_)
    original = Session(model)
    # More rows than any sample layer has inputs: predictions hold for other samples too.
    samples = random_samples(original, 400, seed=1)
    target = load_target("cpu")
    bare = Context(model, target)
    for context in (
        bare,
        dataclasses.replace(bare, statistics=observe(pass_, bare, samples)),
    ):
        before = model_file.to_bytes(model)
        proposals = pass_.propose(context)
        assert model_file.to_bytes(model) == before, "propose changed the model"
        assert proposals == pass_.propose(context), "propose is not deterministic"
        for item in proposals:
            if isinstance(item, Skip):
                assert len(item.reason.split()) >= 3, f"no sentence: {item.reason!r}"
        assert model_file.to_bytes(apply(pass_, context, ())) == before, (
            "an empty plan changed the model"
        )
        offered = [item for item in proposals if isinstance(item, Proposal)]
        depth = max((len(item.candidates) for item in offered), default=0)
        for place in range(depth):
            decisions = [
                Decision(item.site, item.candidates[min(place, len(item.candidates) - 1)])
                for item in offered
            ]
            _check_rewrite(pass_, context, decisions, original)
        assert model_file.to_bytes(model) == before, "a rewrite changed its input"


def _check_class(pass_: Pass) -> None:
    assert dataclasses.is_dataclass(pass_), "a pass is a data class"
    assert type(pass_).__dataclass_params__.frozen, "a pass is frozen"  # type: ignore[attr-defined]
    type(pass_)()
    assert isinstance(pass_.name, str)
    assert isinstance(pass_.stage, Stage)


def _check_rewrite(
    pass_: Pass, context: Context, decisions: list[Decision], original: Session
) -> None:
    rewritten = apply(pass_, context, decisions)
    content = model_file.to_bytes(rewritten)
    assert content == model_file.to_bytes(apply(pass_, context, decisions)), "not deterministic"
    text = Recipe((RecipeStage(pass_, tuple(decisions)),), "cpu", 0, None, None).to_toml()
    read = Recipe.from_toml(text).stages[0]
    assert read.pass_ == pass_, "the settings do not survive a recipe"
    again = apply(pass_, context, read.decisions or ())
    assert model_file.to_bytes(again) == content, "decisions do not survive a recipe"
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    session = Session(rewritten)
    assert not interface_problems(original, session)
    fresh = random_samples(original, 16, seed=2)
    evaluator = Evaluator(original, fresh, Budget(metric="none"))
    measured = evaluator.measure(session)
    assert all(np.isfinite(o.max_error) for o in measured.outputs.values() if o.is_float)
    predicted = sum(_error(decision.candidate) for decision in decisions)
    noise = 10 ** (-measured.worst_sqnr_db / 10)
    # Predictions are per layer and on other samples; through a few layers they may be off,
    # but not by an order of magnitude.
    assert noise <= 10 * predicted + 1e-5, f"noise {noise:.2g}, predicted {predicted:.2g}"


def _error(candidate: Candidate) -> float:
    return candidate.predicted_error
