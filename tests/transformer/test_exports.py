"""Every export of a network gives the same structure: what is expected stands here, by network.

The files come from `models/export_transformers.py`; those of JAX from `models/export_jax.py` (three
ways of writing a network) and `models/export_transformers_jax.py` (Flax's modules, and caches).
"""

import copy
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from onnxpress import model_file, registry
from onnxpress.errors import ModelError
from onnxpress.lossless import simplified
from onnxpress.targets import load_target
from onnxpress.transformer import Structure, find_structure

EXPORTS = sorted((Path(__file__).parent / "exports").glob("*.onnx"))
LAYERS = 2


def attention(**others: Any) -> dict[str, Any]:
    plain = {"kind": "self", "heads": 4, "key_heads": 4, "head_width": 4, "value_width": 4}
    return plain | {"rotary": False, "bias": True, "past": [], "present": []} | others


def cached(at: int) -> dict[str, list[str]]:
    names = [f"key.{at}", f"value.{at}"]
    return {kind: [f"{kind}.{name}" for name in names] for kind in ("past", "present")}


def stream(blocks: list[str], **others: Any) -> dict[str, Any]:
    plain = {"width": 16, "norm": "layer", "post_norm": False, "outputs": []}
    return plain | {"norms": len(blocks) + 1, "blocks": blocks} | others


def mlp(activation: str, *, gated: bool = False) -> dict[str, Any]:
    return {"width": 40, "gated": gated, "activation": activation}


WORDS = {"rows": 48, "width": 16, "input": "input_ids", "tied": 0}
PLACES = {"rows": 24, "width": 16, "input": None, "tied": 0}
PAIR = ["attention", "mlp"] * LAYERS
EXPECTED: dict[str, dict[str, Any]] = {
    "bert": {
        "streams": [stream(PAIR, post_norm=True, outputs=["hidden"])],
        "attentions": [attention()] * LAYERS,
        "mlps": [mlp("gelu")] * LAYERS,
        "tables": [PLACES, WORDS],
    },
    "gpt": {
        "streams": [stream(PAIR)],
        "attentions": [attention(**cached(at)) for at in range(LAYERS)],
        "mlps": [mlp("gelu")] * LAYERS,
        "tables": [PLACES, WORDS | {"tied": 1}],
    },
    "llama": {
        "streams": [stream(PAIR, norm="rms")],
        "attentions": [
            attention(key_heads=2, rotary=True, bias=False, **cached(at)) for at in range(LAYERS)
        ],
        "mlps": [mlp("silu", gated=True)] * LAYERS,
        "tables": [WORDS],
    },
    "cross": {
        "streams": [stream(["attention", "attention", "mlp"] * LAYERS)],
        "attentions": [attention(), attention(kind="cross")] * LAYERS,
        "mlps": [mlp("relu")] * LAYERS,
        "tables": [PLACES, WORDS],
    },
    "vit": {
        "streams": [stream(PAIR)],
        "attentions": [attention()] * LAYERS,
        "mlps": [mlp("gelu")] * LAYERS,
        "tables": [PLACES | {"rows": 17}],
    },
}


def without_names(structure: Structure | None) -> dict[str, Any]:
    """What all exports of a network have in common; names of weights and operators are not."""
    assert structure is not None
    found = copy.deepcopy(structure.document())
    for one in found["streams"]:
        for block in one["blocks"]:
            assert len(block["written_by"]) == 1
        one["blocks"] = [
            "attention" if block["attentions"] else "mlp" if block["mlps"] else "other"
            for block in one["blocks"]
        ]
    for one in found["attentions"]:
        for name in ("name", "operator", "query", "key", "value"):
            del one[name]
    for one in found["mlps"]:
        del one["up"], one["down"]
    for one in found["tables"]:
        del one["name"]
        one["tied"] = len(one["tied"])
    found["tables"].sort(key=lambda table: table["rows"])
    return found


FIXED = ("bert_jax_17", "bert_jax_23", "cross_jax_23", "gpt_jax_23")
"""JAX's converter wants the number of positions, so that only those are looked up."""


def expected(name: str) -> dict[str, Any]:
    """Of a file."""
    found = copy.deepcopy(EXPECTED[name.split("_", maxsplit=1)[0]])
    if name in FIXED:
        found["tables"] = [PLACES | {"rows": 5}, *found["tables"][1:]]
    return found


def test_five_forms_of_five_networks_are_there_and_those_of_jax() -> None:
    networks = {path.stem.split("_")[0] for path in EXPORTS}
    assert networks == set(EXPECTED)
    assert {path.stem.split("_")[0] for path in EXPORTS if "_jax_" in path.stem} == networks
    assert sum("_jax_" not in path.stem for path in EXPORTS) == 5 * len(networks)


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("simplify", [False, True], ids=["as exported", "simplified"])
def test_structure_is_the_same_in_every_export(path: Path, *, simplify: bool) -> None:
    # onnxruntime's own operators in ONNX's domain are no model that the checker accepts.
    model = ir.load(path)
    if simplify:
        model = simplified(model, registry.default_passes()[0], load_target("cpu"))
    found = without_names(find_structure(model))
    assert found == expected(path.stem)


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_finding_changes_nothing(path: Path) -> None:
    model = ir.load(path)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    find_structure(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_fused_exports_hold_the_operators_that_they_are_there_for() -> None:
    held = {
        path.stem: {node.op_type for node in ir.load(path).graph.all_nodes()} for path in EXPORTS
    }
    assert {"Attention", "SkipLayerNormalization", "BiasGelu"} <= held["bert_fused"]
    assert "SkipSimplifiedLayerNormalization" in held["llama_fused"]
    assert {"Attention", "Gelu"} <= held["gpt_dynamo_23"]
    assert "RMSNormalization" in held["llama_dynamo_23"]
    assert "LayerNormalization" not in held["gpt_script_14"]


def test_onnxruntimes_own_operators_in_onnxs_set_are_read(tmp_path: Path) -> None:
    # Its optimizer writes both, and loads both.
    found = find_structure(model_file.load(EXPORTS[0].parent / "llama_fused.onnx"))
    assert found is not None
    proto = onnx.load(EXPORTS[0].parent / "bert_script_17.onnx")
    proto.opset_import[0].version = 14
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    model_file.load(path)
    proto.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="NoSuchOperator"):
        model_file.load(path)
