"""Models whose weights no layer reads alone, and what quantize makes of them."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from onnxpress import model_file
from onnxpress.context import Context
from onnxpress.contract import Decision, Proposal
from onnxpress.enforcement import offered, rewritten
from onnxpress.passes.quantize import Quantize
from onnxpress.targets import load_target

__all__ = ["checked", "model_of", "stored_by_quantize"]


def model_of(inputs: str, outputs: str, body: str, **weights: tuple[int, ...]) -> ir.Model:
    """ONNX text with random float weights; `com.microsoft` and a stranger's domain are imported."""
    given = "".join(f", float{list(shape)} {name}" for name, shape in weights.items())
    text = f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "stranger" : 1]>
    g ({inputs}{given}) => ({outputs}) {{ {body} }}"""
    model = ir.from_onnx_text(text)
    rng = np.random.default_rng(5)
    for value in [value for value in model.graph.inputs if value.name in weights]:
        array = rng.standard_normal(weights[value.name or ""]).astype(np.float32)
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(array, name=value.name)
        model.graph.register_initializer(value)
    for value in model.graph.outputs:
        value.shape = None
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    ShapeInferencePass(data_prop=True)(model)
    return model


def stored_by_quantize(model: ir.Model) -> tuple[ir.Model, list[str]]:
    """The model with all weights in their weight-only form, and the sites."""
    pass_ = Quantize(form="weight_only")
    context = Context(model, load_target("cpu"))
    proposals = [p for p in offered(pass_, context).proposals if isinstance(p, Proposal)]
    decisions = [Decision(p.site, p.candidates[0]) for p in proposals]
    return rewritten(pass_, context, decisions), [p.site for p in proposals]


def checked(model: ir.Model) -> bytes:
    content = model_file.to_bytes(model)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    return content
