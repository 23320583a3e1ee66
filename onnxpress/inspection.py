"""What is in a model, what could be optimized and what not, and why; nothing is run."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.graph import standard_opset
from onnxpress.layers import find_layers
from onnxpress.lossless import simplified
from onnxpress.pool import Pool
from onnxpress.request import default_passes
from onnxpress.selectable import selectable_sites
from onnxpress.targets import Target, load_target
from onnxpress.untreated import untreated_weights

__all__ = ["inspect_model"]


def inspect_model(path: str | Path, *, target: str = "cpu") -> dict[str, Any]:
    """Sizes, operators and layers of a file, and what each pass says of it without data.

    Raises:
        ModelError: the file is no model.
    """
    file = Path(path)
    original = model_file.load(file)
    chosen = load_target(target)
    passes, problems = default_passes()
    model = simplified(original, passes, chosen)
    described = [_described(Pool((p,)), model, chosen) for p in passes if p.stage.loses]
    layers = find_layers(model)
    operators = Counter(node.op_type for node in original.graph.all_nodes())
    sites = selectable_sites(model, original)
    largest = sorted(layers, key=lambda layer: -layer.nbytes)[:10]
    return {
        "source": str(file),
        "opset": standard_opset(original),
        "bytes": model_file.size_bytes(file),
        "nodes": sum(operators.values()),
        "operators": dict(operators.most_common()),
        "layers": len(layers),
        "largest": [
            {
                "name": layer.name,
                "operator": layer.op_type,
                "shape": list(layer.shape),
                "bytes": layer.nbytes,
                "uses": len(layer.uses),
                "in_subgraph": layer.in_subgraph,
            }
            for layer in largest
        ],
        "names": [
            {
                "name": site.name,
                "aliases": sorted(site.aliases - {site.name}),
                "operators": sorted(site.operators),
            }
            for site in sites
            if site.is_layer
        ],
        "untreated": untreated_weights(model),
        "passes": described,
        "problems": problems,
    }


def _described(pool: Pool, model: ir.Model, target: Target) -> dict[str, Any]:
    """What a pass says of a model without data."""
    offer = pool.offer(replace(pool.context(model, target), survey=True))
    reasons = Counter(skip.reason for _, skip in offer.left)
    reasons.update(item.limit for item in offer.proposals if item.limit is not None)
    reasons.update(str(failure) for failure in offer.failures)
    return {
        "pass": pool.names,
        "sites": len(offer.proposals),
        "reasons": dict(reasons.most_common()),
    }
