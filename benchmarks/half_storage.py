"""Models that store half weights behind Cast, beside the same numbers in float32.

    python benchmarks/half_storage.py NAME:COMMAND [NAME:COMMAND ...] [--time-limit SECONDS]

COMMAND is one of `simplify`, `quantize`, `prune`, `factorize` (these two with a ratio of 0.5),
`optimize`, `optimize-size`. Of both twins (`tests/half_twins.py`):
bytes of the file before and after, the families that were chosen, points lost and decibels of the
worst output on untouched samples.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from press import paths

import onnxpress
from onnxpress import model_file, registry
from onnxpress.contract import Pass

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from half_twins import twins

HALF = {"ratio": 0.5}
COMMANDS: dict[str, dict[str, Any]] = {
    "simplify": {"passes": ["simplify"]},
    "quantize": {"passes": ["quantize"]},
    "prune": {"passes": [("prune", HALF)]},
    "factorize": {"passes": [("factorize", HALF)]},
    "optimize": {},
    "optimize-size": {"goal": "size"},
}


def asked(command: str) -> dict[str, Any]:
    """Arguments of `optimize`."""
    found = dict(COMMANDS[command])
    passes: list[str | Pass] = [
        one if isinstance(one, str) else registry.create(*one) for one in found.get("passes", [])
    ]
    return {**found, "passes": passes} if passes else found


def row(name: str, command: str, seconds: float | None) -> None:
    """Press both twins and print what became of them."""
    model, calibration, evaluation = paths(name)
    with tempfile.TemporaryDirectory() as folder:
        for kind, twin in zip(("float", "half"), twins(onnxpress.load(model)), strict=True):
            path = Path(folder) / f"{kind}.onnx"
            model_file.save(twin, path)
            result = onnxpress.optimize(
                path,
                calibration=str(calibration),
                evaluation=str(evaluation),
                time_limit=seconds,
                **asked(command),
            )
            chosen = Counter(
                f"{stage.pass_.name} {decision.candidate.family}"
                for stage in result.stages
                if stage.pass_.stage.loses
                for decision in stage.decisions
            )
            families = ", ".join(f"{count} {what}" for what, count in sorted(chosen.items()))
            validation = result.validation
            assert validation is not None
            found = validation.measurement
            print(
                f"| {name} | {command} | {kind} | {path.stat().st_size:,} | "
                f"{model_file.whole_size(result.model):,} | {families or 'nothing'} | "
                f"{found.drop:.2f} | {found.worst_sqnr_db:.1f} |",
                flush=True,
            )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="+")
    parser.add_argument("--time-limit", type=float)
    given = parser.parse_args()
    print("| model | command | twin | bytes before | bytes after | chosen | drop | dB |")
    print("| --- | --- | --- | --: | --: | --- | --: | --: |")
    for cell in given.cells:
        name, command = cell.split(":")
        row(name, command, given.time_limit)


if __name__ == "__main__":
    main()
