"""Say where model B parts from model A: first node, worst nodes, outputs, weights, operators.

Tensors are matched by name, value and structure through fusions and folding. Each stretch of B is
run on A's own values too, so that a node is blamed for what it adds and not for what came before.

Exit status: 0 the outputs agree within rounding, 1 they differ, 2 trouble.
"""

import sys
from pathlib import Path

import click

from onnxpress.cli.exit_status import NOT_MET
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import PATH, json_option, recipe_option, samples_option, threads_option
from onnxpress.cli.pages import check_page
from onnxpress.cli.progress import progress_line
from onnxpress.cli.saying import saying_options
from onnxpress.difference import DEFAULT_TOLERANCE_DB, compare_models
from onnxpress.recipe import Recipe
from onnxpress.report.console import print_difference
from onnxpress.report.difference import difference_document, verdict
from onnxpress.report.html import write_difference
from onnxpress.report.printing import conclude, console_for

__all__ = ["command"]


@click.command("diff", help=__doc__)
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option(
    "--data",
    metavar="DATA",
    help="Samples for A, as --calibration of `optimize` takes them. Without: random inputs.",
)
@samples_option
@click.option(
    "--tolerance",
    type=float,
    default=DEFAULT_TOLERANCE_DB,
    show_default=True,
    metavar="DB",
    help="Signal to noise from which two tensors are equal within rounding.",
)
@click.option(
    "--worst",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many of the worst nodes are listed.",
)
@recipe_option
@click.option("--seed", type=int, default=0, show_default=True, help="Of random inputs.")
@click.option("--report", type=PATH, metavar="FILE.html", help="Write an HTML report.")
@json_option
@threads_option
@saying_options
def command(
    a: Path,
    b: Path,
    *,
    data: str | None,
    samples: int,
    tolerance: float,
    worst: int,
    recipe: Path | None,
    seed: int,
    report: Path | None,
    json_path: str | None,
    threads: int,
) -> None:
    """Print what was found; exit status 1 where the models differ."""
    check_page(report, (a, b, data, recipe))
    check_json(json_path, [a, b, data, recipe])
    with progress_line() as progress:
        found = compare_models(
            a,
            b,
            data=data,
            preparation=None if recipe is None else Recipe.load(recipe).preparation,
            samples=samples,
            tolerance_db=tolerance,
            listed=worst,
            threads=threads,
            seed=seed,
            progress=progress,
        )
    document = difference_document(found)
    if report is not None:
        write_difference(document, report)
    if write_json(document, json_path):
        conclude(f"{'the same' if found.same else 'different'}: {verdict(document)}")
        print_difference(document, console_for())
    if not found.same:
        sys.exit(NOT_MET)
