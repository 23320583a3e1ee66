"""Every installed pass, also a third party's, keeps the contract on every sample model."""

import pytest

from onnxpress import registry
from onnxpress.testing import SAMPLE_MODELS, check_pass


@pytest.mark.parametrize("model", SAMPLE_MODELS)
@pytest.mark.parametrize("name", registry.names())
def test_pass_keeps_the_contract(name: str, model: str) -> None:
    check_pass(registry.create(name), SAMPLE_MODELS[model]())


@pytest.mark.parametrize("model", ["mlp_opset17", "cnn_opset13", "shared_weights"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sparsify", {"sparsity": 0.999}),
        ("sparsify", {"sparsity": 0.001, "scope": "layer"}),
        ("sparsify", {"importance": "wanda"}),
        ("factorize", {"energy": 0.9}),
        ("factorize", {"rank": 1}),
        ("quantize", {"form": "static"}),
        ("quantize", {"form": "weight_only"}),
        ("simplify", {"fold_limit": 0}),
    ],
)
def test_pass_keeps_the_contract_at_the_limits_of_its_options(
    name: str, options: dict[str, float | str], model: str
) -> None:
    check_pass(registry.create(name, options), SAMPLE_MODELS[model]())
