"""Every peer on every public model, in environments of their own, with us among them.

    python benchmarks/peers.py [--models NAME ...] [--peers NAME ...] [--quick] [--again]
                               [--limit S] [--until HH:MM] [--out FILE.md]

Environments are made on first use (`peer_environments.py`). A cell that was measured is kept in
`benchmarks/peers.json` and not measured again, so that the command may be interrupted and goes on
where it was; `--again` measures anew. `--peers` takes tools or configurations ("nncf", "onnxruntime
us"). Every result is judged on fresh samples by our judge, also where we lose; a peer's failure is
a cell with its last message. `--until` starts no cell after that time of the day. `--quick`:
64 fresh samples, two committed models, and nothing is kept. Writes the tables and, beside them,
a chart. Models: `models/fetch.py`; data: `models/make_data.py`, then `models/make_data.py --fresh`.
"""

import argparse
import datetime as dt
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from claims import fresh_of
from peer_cells import CONFIGURATIONS, Configuration, Judge, launched, measured
from peer_environments import HERE, installed, interpreter, renew_own
from peer_tables import draw, page
from press import paths

CELLS = HERE / "peers.json"
RESULTS = HERE.parent / "docs" / "results"
QUICK = ("fashion_mobile", "fashion_mlp")
MODELS = (
    "fashion_mlp", "fashion_mobile", "fashion_cnn", "ocr_cls", "magika", "minilm", "orientation",
    "ocr_det", "ocr_rec", "silero_vad", "speech_embedding", "nsnet2", "secrets", "trees", "notes",
    "vit_focus", "smart_turn", "layout", "open_nsfw", "captcha_det", "nudenet", "t5_encoder",
    "t5_decoder",
)  # fmt: skip


def tool(one: Configuration) -> dict[str, Any]:
    """What a tool's environment takes and how long it takes to begin."""
    found = installed(one.environment)._asdict()
    python = interpreter(one.environment)
    command = [str(python), "-c", one.starts]
    if one.environment == "onnxpress":
        command = [str(python.parent / "onnxpress"), "--version"]
    starts = [launched(command, 120) for _ in range(3)]
    if starts[0]["status"]:
        return found | {"start_s": None, "error": starts[0]["message"]}
    return found | {"start_s": min(one["processor_s"] for one in starts)}


def usable(name: str) -> bool:
    """Whether a model and its three sets of samples are there."""
    return all(path.exists() for path in (*paths(name), fresh_of(name)))


def asked(given: Sequence[str] | None) -> list[Configuration]:
    """The configurations that `--peers` names."""
    return [
        one
        for one in CONFIGURATIONS
        if given is None or one.name in given or one.name.split()[0] in given
    ]


def run(options: argparse.Namespace, kept: dict[str, Any], cells: Path | None) -> None:
    """Measure what is not measured yet, and keep each cell as soon as it is there."""

    def keep() -> None:
        if cells is not None:
            new = cells.with_suffix(".new")
            new.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(new, cells)  # noqa: PTH105 - the name says what it is about

    if any(one.environment == "onnxpress" for one in asked(options.peers)):
        renew_own()
    for name in options.models:
        judge = Judge(name, 64 if options.quick else None)
        for one in asked(options.peers):
            key = f"{name}/{one.name}"
            now = dt.datetime.now().astimezone()
            if options.until and f"{now:%H:%M}" >= options.until:
                return
            if key in kept["cells"] and not options.again:
                continue
            try:
                kept["tools"].setdefault(one.environment, tool(one))
                with tempfile.TemporaryDirectory() as folder:
                    cell = measured(one, judge, Path(folder), options.limit)
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                cell = {"error": f"{type(error).__name__}: {error}"}
            cell |= {"date": f"{now:%Y-%m-%d}", "load": os.getloadavg()[0]}
            kept["cells"][key] = cell
            keep()
            said = cell.get("error") or f"{cell['bytes'] / 1e6:.2f} MB, {cell['speed']:.2f}x"
            print(f"{key}: {said}", flush=True)


def main() -> None:
    """Run what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, metavar="NAME")
    parser.add_argument("--peers", nargs="+", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--limit", type=float, default=900, help="seconds of one run of a tool")
    parser.add_argument("--until", metavar="HH:MM")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    today = f"{dt.datetime.now().astimezone():%Y-%m-%d}"
    options.models = options.models or list(QUICK if options.quick else filter(usable, MODELS))
    kept: dict[str, Any] = {"tools": {}, "cells": {}}
    if CELLS.exists() and not options.quick:
        kept = json.loads(CELLS.read_text(encoding="utf-8"))
    run(options, kept, None if options.quick else CELLS)
    out = options.out or (Path("peers.md") if options.quick else RESULTS / f"{today}-peers.md")
    models = [name for name in MODELS if any(key.startswith(f"{name}/") for key in kept["cells"])]
    chart = draw(kept, models, out.with_suffix(".svg"))
    missing = [name for name in MODELS if name not in models]
    out.write_text(page(kept, models, missing, chart), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
