"""Every number form on every model in one table, beside what others write in as many bits.

    python benchmarks/forms.py [--models NAME ...] [--rows PATTERN] [--until HH:MM] [--limit S]
                               [--samples N] [--again] [--out FILE.md]

Ours: `simplify` and `quantize` alone, as `low_bits.py` makes them, of 64 calibration samples,
without a search or a budget; "nearest": without data; "refined": rounded again for what the
quantized network gives each layer. The others: `peers/low_bits.py`, in environments of their own
(`peer_environments.py`). All are judged on fresh samples that nothing has looked at: decibels
pooled over them, of the worst float output; the metric that lost most; bytes of the file, bytes
that a process holds once it is loaded and run; processor time to open it, and of a run in one
thread, beside the float model's in turn. A cell is kept in `benchmarks/forms.json` and not measured
again, so that the command may be interrupted; `--until` starts none after that time of the day.
"""

import argparse
import datetime as dt
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

from low_bits import ours, pooled_db
from peer_cells import Judge, launched
from peer_environments import HERE, interpreter
from peers import RESULTS, usable

from onnxpress.errors import OnnxpressError
from onnxpress.runtime import Session

CELLS = HERE / "forms.json"
OPENED = 5
MODELS = (
    "fashion_mlp", "fashion_cnn", "fashion_mobile", "magika", "ocr_rec", "nsnet2", "silero_vad",
    "speech_embedding", "minilm", "nudenet", "orientation", "vit_focus",
)  # fmt: skip
SHIFTS = {"block": 0, "power_of_two_scales": True}
OURS: dict[str, Callable[[str, Path], None]] = {
    "8 bit": ours(8, refined=False),
    "4 bit nearest": ours(4, data=False),
    "4 bit": ours(4, refined=False),
    "4 bit refined": ours(4),
    "4 bit zero points": ours(4, refined=False, symmetric=False),
    "4 bit codebook": ours(4, refined=False, levels=("codebook",)),
    "4 bit log": ours(4, refined=False, levels=("log",)),
    "4 bit power sums": ours(4, refined=False, levels=("power_sums",)),
    "4 bit log, shifts": ours(4, refined=False, levels=("log",), **SHIFTS),
    "4 bit power sums, shifts": ours(4, refined=False, levels=("power_sums",), **SHIFTS),
    "3 bit": ours(3, refined=False),
    "3 bit codebook": ours(3, refined=False, levels=("codebook",)),
    "2 bit": ours(2, refined=False),
    "2 bit codebook": ours(2, refined=False, levels=("codebook",)),
    "8 bit nbits": ours(8, refined=False, stored_as="nbits"),
    "4 bit nbits": ours(4, refined=False, stored_as="nbits"),
    "2 bit nbits": ours(2, refined=False, stored_as="nbits"),
}
PEERS = {
    "onnxruntime plain": "onnxruntime-nbits",
    "onnxruntime k_quant": "onnxruntime-nbits",
    "onnxruntime HQQ": "onnxruntime-nbits",
    "onnxruntime GPTQ": "onnxruntime-nbits",
    "nncf int8": "nncf",
    "nncf int4": "nncf",
    "nncf int4 data": "nncf",
}
HEADINGS = (
    "what", "pooled dB", "worst metric lost, points (at most)", "MB", "MB in memory", "opened, ms",
    "times as fast (quartiles)", "s to make",
)  # fmt: skip


def made_by(row: str, name: str, folder: Path, judge: Judge, limit_s: float) -> dict[str, Any]:
    """What making the model of a row took; where it came off, it is `made.onnx` in the folder."""
    out = folder / "made.onnx"
    if row in OURS:
        # Of this very tree, whatever is installed.
        own = ["env", f"PYTHONPATH={HERE.parent}", sys.executable, str(HERE / "forms.py")]
        return launched([*own, "--make", name, row, str(out)], limit_s, folder)
    model, feeds = judge.prepare(folder)
    worker = HERE / "peers" / "low_bits.py"
    command = [interpreter(PEERS[row]), worker, row, model, feeds, out]
    return launched([str(part) for part in command], limit_s, folder)


def opened_ms(model: Path, beside: Path) -> tuple[float, float]:
    """Processor time to open two models, one thread, in turn: the least of some."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(OPENED):
        for own, path in zip(times, (model, beside), strict=True):
            started = time.process_time()
            Session(path, threads=1)
            own.append(1e3 * (time.process_time() - started))
    return min(times[0]), min(times[1])


def cell_of(row: str, judge: Judge, limit_s: float) -> dict[str, Any]:
    """A cell, or its message where no model came of it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        took = made_by(row, judge.name, folder, judge, limit_s)
        cell: dict[str, Any] = {key: took[key] for key in ("processor_s", "peak_mb")}
        out = folder / "made.onnx"
        if not out.exists():
            return cell | {"error": took["message"] or f"exit status {took['status']}"}
        try:
            session = Session(out, threads=1)
            feeds = judge.samples.feeds
            wanted = [dict(judge.alone.run(feed)) for feed in feeds]
            found = [dict(session.run(feed)) for feed in feeds]
            cell |= judge.figures(out)
        except OnnxpressError as error:
            return cell | {"error": f"its model: {error}".replace(f"{folder}/", "")}
        opened, original = opened_ms(out, judge.model)
        pooled = pooled_db(wanted, found)
        return cell | {
            "pooled_db": pooled if math.isfinite(pooled) else None,
            "opened_ms": opened,
            "original_opened_ms": original,
        }


def text_of(row: str, cell: dict[str, Any]) -> str:
    """A row of the table."""
    if "error" in cell:
        words = " ".join(cell["error"].replace("|", "/").split())
        return f"| {row} | {words[:140]} |" + " |" * (len(HEADINGS) - 2)
    lost = "–"
    if cell["metric"] is not None:
        lost = f"{cell['lost']:.2f} ({cell['lost_at_most']:.2f})"
    held, pooled = cell["held_bytes"], cell["pooled_db"]
    same = cell["identical"] or (pooled is not None and pooled > 300)
    cells = (
        f"**{row}**" if row in OURS else row,
        "the same" if same else "–" if pooled is None else f"{pooled:.1f}",
        lost,
        f"{cell['bytes'] / 1e6:.2f}",
        "–" if held is None else f"{held / 1e6:.0f}",
        f"{cell['opened_ms']:.0f}",
        f"{cell['speed']:.2f} ({cell['speed_low']:.2f} to {cell['speed_high']:.2f})",
        f"{cell['processor_s']:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def _floated(good: Sequence[dict[str, Any]]) -> str:
    """What the float model takes."""
    first = good[0]
    opened = min(cell["original_opened_ms"] for cell in good)
    metric = f" Metric: {first['metric']}." if first["metric"] else ""
    size = f"{first['original_bytes'] / 1e6:.2f} MB"
    return f"Float: {size}, opened in {opened:.0f} ms. {first['samples']} fresh samples.{metric}"


def page(cells: dict[str, Any], date: str) -> str:
    """All cells, a table a model."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx"))
    lines = [
        f"# Number forms in one table, {date}",
        "",
        f"Python {platform.python_version()}, {versions}; `python benchmarks/forms.py`.",
        "",
        *__doc__.split("\n\n")[2:],
    ]
    for name in MODELS:
        own = {row: cells[key] for row in (*OURS, *PEERS) if (key := f"{name}/{row}") in cells}
        if not own:
            continue
        good = [cell for cell in own.values() if "error" not in cell]
        lines += ["", f"## {name}", ""]
        if good:
            lines += [_floated(good), ""]
        lines += ["| " + " | ".join(HEADINGS) + " |", "| --- " * len(HEADINGS) + "|"]
        lines += [text_of(row, cell) for row, cell in own.items()]
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace, cells: dict[str, Any]) -> None:
    """Measure what is not measured yet, and keep each cell as soon as it is there."""
    for name in options.models:
        judge = Judge(name, options.samples)
        for row in (*OURS, *PEERS):
            key, now = f"{name}/{row}", dt.datetime.now().astimezone()
            if options.until and f"{now:%H:%M}" >= options.until:
                return
            if not fnmatch(row, options.rows) or (key in cells and not options.again):
                continue
            try:
                cell = cell_of(row, judge, options.limit)
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                cell = {"error": f"{type(error).__name__}: {error}"}
            cells[key] = cell | {"date": f"{now:%Y-%m-%d}", "load": os.getloadavg()[0]}
            new = CELLS.with_suffix(".new")
            new.write_text(json.dumps(cells, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(new, CELLS)  # noqa: PTH105 - the name says what it is about
            print(name, text_of(row, cell), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, metavar="NAME")
    parser.add_argument("--rows", default="*", metavar="PATTERN", help="which, as fnmatch has it")
    parser.add_argument("--until", metavar="HH:MM")
    parser.add_argument("--limit", type=float, default=900, help="seconds to make one model")
    parser.add_argument("--samples", type=int, default=128, help="fresh ones, at most")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--make", nargs=3, metavar=("NAME", "ROW", "FILE"), help="one of ours")
    options = parser.parse_args(arguments)
    if options.make:
        name, row, out = options.make
        OURS[row](name, Path(out))
        return
    today = f"{dt.datetime.now().astimezone():%Y-%m-%d}"
    options.models = options.models or list(filter(usable, MODELS))
    cells = json.loads(CELLS.read_text(encoding="utf-8")) if CELLS.exists() else {}
    run(options, cells)
    out = options.out or RESULTS / f"{today}-forms.md"
    out.write_text(page(cells, today), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
