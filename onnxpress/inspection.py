"""What is in a model, what could be pressed and what not, and why; nothing is run."""

from collections import Counter
from pathlib import Path
from typing import Any

from onnxpress import model_file, registry
from onnxpress.contract import Context, Decision, Proposal, Skip, Stage
from onnxpress.graph import standard_opset
from onnxpress.layers import find_layers
from onnxpress.targets import load_target

__all__ = ["inspect_model"]


def inspect_model(path: str | Path, *, target: str = "cpu") -> dict[str, Any]:
    """Sizes, operators and layers of a file, and what each pass says of it without data.

    Raises:
        ModelError: the file is no model.
    """
    file = Path(path)
    original = model_file.load(file)
    model = original.clone()
    chosen = load_target(target)
    passes = [registry.create(name) for name in registry.names()]
    for pass_ in passes:
        if pass_.stage == Stage.LOSSLESS:
            context = Context(model, chosen)
            for item in pass_.propose(context):
                if isinstance(item, Proposal):
                    pass_.rewrite(context, [Decision(item.site, item.candidates[0])])
    layers = find_layers(model)
    context = Context(model, chosen)
    described = []
    for pass_ in passes:
        if pass_.stage == Stage.LOSSLESS:
            continue
        offered = pass_.propose(context)
        reasons = Counter(item.reason for item in offered if isinstance(item, Skip))
        reasons.update(
            item.limit for item in offered if isinstance(item, Proposal) and item.limit is not None
        )
        described.append(
            {
                "pass": pass_.name,
                "sites": sum(isinstance(item, Proposal) for item in offered),
                "reasons": dict(reasons.most_common()),
            }
        )
    operators = Counter(node.op_type for node in original.graph.all_nodes())
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
        "passes": described,
    }
