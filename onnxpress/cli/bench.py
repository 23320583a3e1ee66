"""Time OTHERS against MODEL in interleaved rounds."""

from pathlib import Path

import click

from onnxpress.cli.options import PATH, saying_options, threads_option
from onnxpress.data import load_samples, random_samples
from onnxpress.model_file import load
from onnxpress.report.printing import conclude, console_for, print_table
from onnxpress.runtime import Session, compare_latency

__all__ = ["command"]


@click.command("bench", help=__doc__)
@click.argument("model", type=PATH)
@click.argument("others", type=PATH, nargs=-1)
@click.option("--data", metavar="DATA", help="Samples; the first is timed. Default: random.")
@threads_option
@saying_options
def command(model: Path, *, others: tuple[Path, ...], data: str | None, threads: int) -> None:
    """Print a row for each of the others; without others, the model against itself."""
    for path in (model, *others):
        load(path)
    first = Session(model, threads=threads, name=str(model))
    samples = random_samples(first, 1, 0) if data is None else load_samples(data, first.inputs)
    rows = []
    for other in others or (model,):
        session = Session(other, threads=threads, name=str(other))
        found = compare_latency(first, session, samples.feeds[0])
        rows.append(
            (
                str(other),
                f"{found.median_ms:.3g}",
                f"{found.reference_ms:.3g}",
                f"{found.speedup:.2f}",
                f"{found.low:.2f} to {found.high:.2f}",
            )
        )
    conclude("; ".join(f"{name}: {speed} times as fast" for name, _, _, speed, _ in rows))
    headings = ("model", "ms", f"{model.name} ms", "speedup", "quartiles")
    print_table("latency", headings, rows, console_for())
