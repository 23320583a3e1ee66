"""What can be cut of each model, and what cannot, by its share of the multiply-adds.

    python benchmarks/prune_coverage.py MODEL.onnx [MODEL.onnx ...]

"untouched": in layers of which neither the inputs nor the outputs can be cut. "blocked": made by
groups that have to stay, with their reasons. The architectures that ONNX ships are made ready by
`tests/passes/test_prune.py` (`light`): `--light` names them.
"""

import argparse
import sys
from pathlib import Path

import onnx_ir as ir

from onnxpress import model_file
from onnxpress.adapter import PressPass
from onnxpress.data import Samples, load_samples, random_samples
from onnxpress.layers import find_layers
from onnxpress.passes.prune.layout import Layout
from onnxpress.registry import create
from onnxpress.runtime import Session
from onnxpress.statistics import Observations, collect

LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def report(name: str, model: ir.Model, samples: Samples) -> None:
    """Print a model's row."""
    layers = [layer for layer in find_layers(model) if layer.op_type != "Gather"]
    names = frozenset(layer.name for layer in layers)
    one = Samples(samples.feeds[:1], None, samples.source)
    seen = collect(model, layers, one, Observations(layers=names)).layers
    work = {
        at.name: seen[at.name].rows_per_sample * at.read().size for at in layers if at.name in seen
    }
    layout = Layout(model, find_layers(model))
    groups = layout.groups.values()
    free = {unit for group in groups if group.blocked is None for unit in group.units}
    total = sum(work.values())
    untouched = sum(
        work[layer]
        for layer in work
        if not free & {*layout.sides[layer].inputs.tolist(), *layout.sides[layer].outputs.tolist()}
    )
    stays = [group for group in groups if group.blocked is not None]
    blocked = {layer for group in stays for layer in layout.makers(group) if layer in work}
    reasons = sorted({str(group.blocked).split("'")[0].strip() for group in stays})
    cells = (
        name,
        str(len(groups) - len(stays)),
        str(len(stays)),
        f"{untouched / total:.1%}",
        f"{sum(work[layer] for layer in blocked) / total:.1%}",
        "; ".join(reasons),
    )
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print a Markdown table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--light", nargs="*", default=[], choices=LIGHT, metavar="NAME")
    options = parser.parse_args()
    headings = ("model", "groups", "that stay", "untouched", "blocked", "what blocks them")
    print("| " + " | ".join(headings) + " |\n" + "| --- " * len(headings) + "|")
    if options.light:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        from test_prune import light  # noqa: PLC0415 - only where it is wanted

        for name in options.light:
            model = light(name)
            report(name, model, random_samples(Session(model), 1, 0))
    for path in options.models:
        model = PressPass(create("simplify"))(model_file.load(path)).model
        session, data = Session(model), path.parent / "calibration.npz"
        samples = (
            load_samples(data, session.inputs) if data.exists() else random_samples(session, 1, 0)
        )
        report(path.parent.name if path.stem == "model" else path.stem, model, samples)


if __name__ == "__main__":
    main()
