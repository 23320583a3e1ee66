"""Time OTHERS against MODEL in interleaved rounds: a run, loading, memory, growing inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from onnxpress.benching import bench, parsed_sweep
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import PATH, json_option, threads_option
from onnxpress.cli.progress import progress_line
from onnxpress.cli.saying import saying_options
from onnxpress.report.printing import (
    add_column,
    conclude,
    console_for,
    new_table,
    print_filled,
    print_table,
    print_text,
)
from onnxpress.report.saying import some
from onnxpress.report.text import file_name, megabytes, printable

__all__ = ["command"]

_MOST_ROWS = 10
_HELD = 0.7
"""Of the most: below this a part was given back."""
_SECOND_MS = 1000


@click.command("bench", help=__doc__)
@click.argument("model", type=PATH)
@click.argument("others", type=PATH, nargs=-1)
@click.option("--data", metavar="DATA", help="Samples; the first is timed. Default: random.")
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="DIM=1,8,32",
    help="Give a symbolic dimension these sizes, as batch or length; may be repeated.",
)
@click.option(
    "--profile",
    is_flag=True,
    help="Say which operators take the time of a run, the models side by side.",
)
@click.option(
    "--by-node", is_flag=True, help="As --profile, and which nodes; -v lists all of both."
)
@json_option
@threads_option
@saying_options
def command(
    model: Path,
    *,
    others: tuple[Path, ...],
    data: str | None,
    sweeps: tuple[str, ...],
    profile: bool,
    by_node: bool,
    json_path: str | None,
    threads: int,
) -> None:
    """Print a row for each model."""
    check_json(json_path, [model, *others, data])
    wanted = [parsed_sweep(text) for text in sweeps]
    with progress_line() as progress:
        found = bench(
            (model, *others),
            data=data,
            sweeps=wanted,
            profile=profile or by_node,
            threads=threads,
            progress=progress,
        )
    if not write_json(found, json_path):
        return
    rows = found["models"]
    if len(rows) == 1:
        conclude(f"{model}: {_milliseconds(rows[0]['run_ms'])}")
    else:
        faster = (f"{row['model']}: {row['speedup']:.2f} times as fast" for row in rows[1:])
        conclude("; ".join(faster))
    _print(found, console_for())
    if profile or by_node:
        _print_profile(found, "operator", console_for())
    if by_node:
        _print_profile(found, "node", console_for())


def _print(found: Mapping[str, Any], console: Console) -> None:
    first, *others = found["models"]
    names = _names([row["model"] for row in found["models"]])
    print_text(f"one run of {file_name(found['data'])}", console, label="time", style="bold")
    speeds = [_speed(row) for row in others]
    lines = [
        (name, *_figures(row), speed)
        for name, row, speed in zip(names, found["models"], ["", *speeds], strict=True)
    ]
    headings = ("model", "file", "run", "load", "memory", *(("times as fast",) if others else ()))
    print_table("", headings, [line[: len(headings)] for line in lines], console)
    for name, row in zip(names[1:], others, strict=True):
        if _expands(row, first):
            text = (
                f"{name} takes most while onnxruntime loads it and expands stored weights; after "
                f"that it holds {megabytes(row['held_bytes'])} ({names[0]}: "
                f"{megabytes(first['held_bytes'])})"
            )
            print_text(text, console, label="memory", style="bold")
    if found["sweeps"]:
        headings = ("dimension", *(f"{name}, ms" for name in names))
        grown = [
            (f"{row['dimension']} = {row['size']:,}", *(f"{ms:.3g}" for ms in row["run_ms"]))
            for row in found["sweeps"]
        ]
        print_table("", headings, grown, console)


def _print_profile(found: Mapping[str, Any], kind: str, console: Console) -> None:
    """Which operators, or nodes, take the time of a run."""
    profile, names = found["profile"], _names([row["model"] for row in found["models"]])
    rows = profile[f"{kind}s"]
    shown = some(rows, _MOST_ROWS)
    table = new_table()
    add_column(table, kind)
    for name in names:
        for heading in (f"{name} ms", "share", *(["nodes"] if kind == "operator" else [])):
            add_column(table, heading, number=True)
    for row in shown:
        cells = [
            text
            for nodes, ms, share in zip(row["nodes"], row["ms"], row["share"], strict=True)
            for text in (
                f"{ms:.3f}" if nodes else "-",
                f"{share:.1%}" if nodes else "-",
                *([f"{nodes:,}"] if kind == "operator" else []),
            )
        ]
        table.add_row(*(Text(printable(cell)) for cell in (row[kind], *cells)))
    print_filled(table, console, title=f"where the time goes, by {kind}")
    if len(shown) < len(rows):
        left = [sum(row["ms"][place] for row in rows[len(shown) :]) for place in range(len(names))]
        rest = ", ".join(f"{ms:.3f}" for ms in left)
        print_text(f"{len(rows) - len(shown)} more take {rest} ms; -v lists them", console)


def _expands(row: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Whether a model takes more than the first one for a moment, and gives it back."""
    figures = [row["peak_bytes"], row["held_bytes"], first["peak_bytes"], first["held_bytes"]]
    if None in figures:
        return False
    higher: bool = row["peak_bytes"] > first["peak_bytes"]
    return higher and row["held_bytes"] < _HELD * row["peak_bytes"]


def _milliseconds(figure: float) -> str:
    return f"{figure:.3g} ms" if figure < _SECOND_MS else f"{figure / _SECOND_MS:.3g} s"


def _names(paths: Sequence[str]) -> list[str]:
    """Of the files, without folders where that tells them apart."""
    short = [file_name(path) for path in paths]
    return short if len(set(short)) == len(short) else list(paths)


def _figures(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    load, memory = row["load_ms"], row["peak_bytes"]
    return (
        megabytes(row["bytes"]),
        _milliseconds(row["run_ms"]),
        "?" if load is None else _milliseconds(load),
        "?" if memory is None else megabytes(memory),
    )


def _speed(row: Mapping[str, Any]) -> str:
    low, high = row["quartiles"]
    return f"{row['speedup']:.2f} ({low:.2f} to {high:.2f})"
