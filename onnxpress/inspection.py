"""What is in a model and what its outputs mean, what could be optimized and what not, and why.

Nothing is run without samples; with them a few, for their answers say more of the outputs.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress import model_file, registry
from onnxpress.conversion import opened_file, settle_weights, with_float_weights, with_own_names
from onnxpress.data import Data, load_samples
from onnxpress.errors import ModelError
from onnxpress.gains import predicted_times
from onnxpress.graph import standard_opset
from onnxpress.judge import Budget, Reading, promised, read_outputs
from onnxpress.layers import find_layers
from onnxpress.lossless import simplified
from onnxpress.memory import collected_rarely, memory_budget
from onnxpress.needed_memory import needed_bytes
from onnxpress.potential import Potential, potentials, predicted_bytes, timed_document
from onnxpress.report.reading import reading_document
from onnxpress.runtime import structural_refusal
from onnxpress.selectable import selectable_sites
from onnxpress.stored import beside, find_stored
from onnxpress.targets import Target, load_target
from onnxpress.targets.static_rules import static_report
from onnxpress.transformer import find_structure
from onnxpress.untreated import nothing_to_compress, odd_numbers, untreated_weights

__all__ = ["inspect_model"]

_EXAMPLES = 16
_UNASKED = "onnxruntime cannot load the model, so nothing could be measured [L024]"
_READ_BYTES = 500_000_000
"""Of weights: they are not read where there are more, and onnxruntime is shown the graph alone."""
_GRAPH_ALONE_BYTES = 32_000_000
"""Of weights, from which on onnxruntime is shown the graph alone first."""
_UNREAD = (
    f"its weights are over {_READ_BYTES / 1e6:.0f} MB and were not read: what is said of them "
    "follows from their shapes, and NaN, zeros and copies among them were not looked for [W012]"
)


@collected_rarely()
def inspect_model(
    path: str | Path,
    *,
    target: str = "cpu",
    data: Data | None = None,
    overridable: bool | None = None,
) -> dict[str, Any]:
    """Sizes, operators and layers of a file, and what each pass says of it without data.

    Args:
        path: of the model.
        target: that it is for.
        data: samples, of which a few are run to read the outputs.
        overridable: whether weights that are graph inputs may be overridden by callers; `None`: as
            the file's IR version says.

    Raises:
        ModelError: the file is no model, or onnxruntime cannot run it on the samples.
        DataError: the samples do not fit.
    """
    file = Path(path)
    loaded = model_file.load(file)
    original, note = settle_weights(loaded, overridable)
    original, renamed = with_own_names(original)
    chosen = load_target(target)
    passes, problems = registry.default_passes()
    weights_bytes = model_file.weight_bytes(original)
    large = weights_bytes > _READ_BYTES
    given = original if large else with_float_weights(original)
    nothing = nothing_to_compress(original)
    refusal = _refusal(file, original, weights_bytes)
    model = given if nothing or refusal else simplified(given, passes, chosen)
    lossy = [] if nothing else [p for p in passes if p.stage.loses]
    found = (
        [Potential(p.name, p.by_name_only, reasons=((_UNASKED, 1),)) for p in lossy]
        if refusal
        else potentials(lossy, model, chosen, shapes_only=large)
    )
    times = None if refusal or not chosen.timed_here else predicted_times(model)
    layers = find_layers(model)
    weights = beside(layers, find_stored(model, layers))
    operators = Counter(node.op_type for node in original.graph.all_nodes())
    sites = selectable_sites(model, given)
    numbers = _UNREAD if large else odd_numbers(original)
    unrun = "" if data is None else _too_large_to_run(original)
    largest = sorted(weights, key=lambda layer: -layer.nbytes)[:10]
    readings = _readings(file, original, None if unrun else data)
    nbytes = model_file.file_bytes(loaded)
    structure = None if refusal else find_structure(model, read_weights=not large)
    return {
        "source": str(file),
        "target": chosen.name,
        "opset": standard_opset(original),
        "bytes": nbytes,
        "predicted_bytes": predicted_bytes(nbytes, found),
        "latency": timed_document(found, times),
        "nodes": sum(operators.values()),
        "operators": dict(operators.most_common()),
        "layers": len(weights),
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
        "transformer": None if structure is None else structure.document(),
        "readings": [reading_document(reading) for reading in readings.values()],
        "judged": promised(readings, Budget()),
        "untreated": untreated_weights(model),
        "refused": [] if refusal or large else _refused(original, chosen),
        "passes": [potential.document(times) for potential in found],
        "problems": [
            *(said for said in (note, renamed, nothing, refusal, numbers, unrun) if said),
            *([times.note] if times is not None and times.note else []),
            *problems,
        ],
    }


def _refusal(file: Path, model: ir.Model, nbytes: int) -> str:
    """Why onnxruntime does not load the model; empty where it does.

    Passes are asked about nothing else: nobody has checked the rest of what stands in such a file.

    Args:
        file: of the model.
        model: that was read.
        nbytes: of its weights. A session of the graph alone takes a while for each node, one of the
            file for each byte; that one judges where the graph alone is refused.
    """
    if nbytes > min(_GRAPH_ALONE_BYTES, _READ_BYTES):
        refusal = structural_refusal(model, name=str(file)) or ""
        if not refusal or nbytes > _READ_BYTES:
            return refusal
    try:
        opened_file(file, threads=1, optimize=False)
    except ModelError as error:
        return str(error)
    return ""


def _too_large_to_run(model: ir.Model) -> str:
    """Why samples are not run, or nothing."""
    # Of the copies that an optimization holds at once, one session and its weights.
    needed, most = needed_bytes(model) // 2, memory_budget(None)
    if needed <= most:
        return ""
    return (
        f"the samples were not run: a session would take about {needed / 1e9:.1f} GB, and half of "
        f"what is free are {most / 1e9:.1f} GB [W012]"
    )


def _refused(model: ir.Model, target: Target) -> list[dict[str, Any]]:
    """How many nodes of which operator each member of the target leaves to the processor."""
    found = []
    for member in target.members:
        one = load_target(member)
        if one.partitioning != "all":
            report = static_report(model, one)
            found.append(
                {
                    "target": report.target,
                    "nodes": report.nodes,
                    "taken": report.taken,
                    "reasons": [
                        {"operator": operator, "reason": reason, "count": count}
                        for (operator, reason), count in Counter(
                            (node.split(" ")[0], reason) for node, reason in report.refused
                        ).most_common()
                    ],
                }
            )
    return found


def _readings(file: Path, model: ir.Model, data: Data | None) -> dict[str, Reading]:
    """How the outputs are read: from the graph, and from a few answers where there are samples."""
    if data is None:
        return read_outputs(model, None)
    session = opened_file(file)
    samples = load_samples(data, session.inputs)
    answers = [session.run(feed) for feed in samples.feeds[:_EXAMPLES]]
    return read_outputs(model, session, answers)
