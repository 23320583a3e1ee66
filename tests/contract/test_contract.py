"""Every installed pass keeps the contract on every sample model, and the checks can fail."""

from typing import Any

from onnxpress import registry
from onnxpress.testing import SAMPLE_MODELS, Check, parametrize_with_checks

_CNNS = ("cnn_opset11", "cnn_opset13", "cnn_opset17", "cnn_opset21")
_NOT_LIFTED = {"constant_nodes": "weights are in Constant nodes, which simplify lifts before"}
_NO_ZEROS = "its weights hold no zeros to store in a bit each"
EMPTY: dict[str, dict[str, str]] = {
    "distill": dict.fromkeys(SAMPLE_MODELS, "there is no original to learn from but in `optimize`"),
    "factorize": {
        **dict.fromkeys(_CNNS, "its sides are at most 16"),
        "batched_and_left_matmul": "a batch of matrices, and a side of 10",
        **_NOT_LIFTED,
    },
    "pack": {name: _NO_ZEROS for name in SAMPLE_MODELS if name not in ("sparse", "zeros")},
    "prune": {
        "shared_weights": "its one free axis is read by a weight of two layouts: not observed",
        "batched_and_left_matmul": "its axes are the output's",
        "tied_embedding": "its one free axis is read through a Transpose: not observed",
        "if_body": "the axis of its one layer is the output of the If",
        "loop_body": "the state that is carried is the model's output",
        **_NOT_LIFTED,
    },
    "quantize": _NOT_LIFTED,
    "sparsify": _NOT_LIFTED,
}
"""By pass and sample model: why it has nothing to offer there."""


@parametrize_with_checks([registry.create(name) for name in registry.names()], empty=EMPTY)
def test_pass_keeps_the_contract(check: Check) -> None:
    check()


@parametrize_with_checks(
    [registry.create("quantize", {"form": "static"})],
    models=("mlp_opset17", "cnn_opset13", "shared_weights"),
    empty={"quantize": {"shared_weights": "two nodes that share a weight read different ranges"}},
)
def test_static_quantization_keeps_the_contract(check: Check) -> None:
    check()


LIMITS: list[tuple[str, dict[str, Any]]] = [
    ("sparsify", {"sparsity": 0.999}),
    ("sparsify", {"sparsity": 0.001, "scope": "layer"}),
    ("sparsify", {"importance": "wanda"}),
    ("factorize", {"energy": 0.9}),
    ("factorize", {"rank": 1}),
    ("quantize", {"form": "weight_only"}),
    ("quantize", {"form": "weight_only", "weight_bits": [4]}),
    ("quantize", {"form": "weight_only", "weight_bits": [3, 8], "symmetric": False}),
    ("prune", {"ratio": 0.01, "importance": "magnitude"}),
    ("simplify", {"fold_limit": 0}),
]


@parametrize_with_checks(
    [registry.create(name, options) for name, options in LIMITS],
    models=("mlp_opset17", "cnn_opset13", "shared_weights"),
    # By magnitude alone nothing has to be observed.
    empty={**EMPTY, "prune": {}},
)
def test_pass_keeps_the_contract_at_the_limits_of_its_options(check: Check) -> None:
    check()
