"""What a provider took of a model, from onnxruntime's record of the assignment.

Nodes are counted in the graph that onnxruntime split among the providers: after its basic
optimizations, so names may have been extended (`conv1/MatMulAddFusion`) and the longest name of
the model that begins one is the one it came from.
"""

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxpress.providers.catalogue import Provider
from onnxpress.providers.verdicts import Placement

__all__ = ["Placed", "place_nodes"]


@dataclass(frozen=True, slots=True)
class Placed:
    """A placement, or why there is none that counts.

    Attributes:
        placement: `None` where onnxruntime kept no record.
        problem: why the run proves nothing; empty: it does.
    """

    placement: Placement | None
    problem: str = ""


def place_nodes(
    entry: Provider, report: Mapping[str, Any], multiply_adds: Mapping[str, int]
) -> Placed:
    """Read a worker's report.

    Args:
        entry: the provider.
        report: of the worker.
        multiply_adds: of one run by node name.
    """
    if entry.runner != "python" or entry.ort_format:
        # One provider in the wasm binary, and in a session of an .ort file, which was split
        # when it was made: there is no other to fall back to, and no record.
        ran = sum(report.get("kernels", {}).values())
        if not ran:
            return Placed(None, "the profile shows no kernel that ran")
        return Placed(Placement(ran, ran, 1.0))
    record = report.get("placement")
    if record is None:
        if not report.get("kernels"):
            return Placed(None, "neither the record of the assignment nor the profile names it")
        return Placed(None)
    parts = record.get(entry.execution_provider, [])
    mine = [node for part in parts for node in part]
    others = [
        node
        for name, listed in record.items()
        if name != entry.execution_provider
        for part in listed
        for node in part
    ]
    left = collections.Counter(operator for _, operator in others)
    taken = sum(_count(name, multiply_adds) for name, _ in mine)
    total = sum(multiply_adds.values())
    nodes = len(mine) + len(others)
    share = min(1.0, taken / total) if total else len(mine) / max(1, nodes)
    placement = Placement(
        nodes,
        len(mine),
        share,
        len(parts) if any(len(part) > 1 for part in parts) else None,
        dict(left.most_common()),
    )
    if not mine:
        return Placed(placement, f"it took none of the {nodes} nodes; all ran on the CPU")
    if total and not taken:
        return Placed(placement, f"it took {len(mine)} of {nodes} nodes, but no multiply-add")
    return Placed(placement)


def _count(name: str, multiply_adds: Mapping[str, int]) -> int:
    if name in multiply_adds:
        return multiply_adds[name]
    known = [other for other in multiply_adds if name.startswith(other)]
    return multiply_adds[max(known, key=len)] if known else 0
