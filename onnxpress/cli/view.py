"""Look at the graph of A, or of A and B side by side with what changed, in a browser.

Changed, added and removed nodes are coloured; a node shows its attributes and weights. With --data,
tensors are coloured by how far B's are from A's, as `onnxpress diff` measures them. The page is
served to this machine alone until Ctrl-C, or written as one file with --output.
"""

from pathlib import Path

import click

from onnxpress import model_file
from onnxpress.cli.options import PATH, samples_option, threads_option
from onnxpress.cli.pages import check_page
from onnxpress.cli.progress import progress_line
from onnxpress.cli.saying import saying_options
from onnxpress.cli.serving import serve
from onnxpress.difference import DEFAULT_TOLERANCE_DB, compare_models
from onnxpress.drawing.viewing import view_document
from onnxpress.errors import UsageError
from onnxpress.output_file import replace_file
from onnxpress.progress import Progress
from onnxpress.report.html import require_html
from onnxpress.report.printing import conclude, console_for, print_text
from onnxpress.report.view import view_page, view_summary

__all__ = ["command"]


@click.command("view", help=__doc__)
@click.argument("a", type=PATH)
@click.argument("b", type=PATH, required=False)
@click.option(
    "--data",
    "--calibration",
    "data",
    metavar="DATA",
    help="Samples for A, as --calibration of `optimize` takes them: errors are measured.",
)
@samples_option
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE.html",
    help="Write the page as one file, and serve nothing.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Where the page is served. Default: any that is free.",
)
@click.option("--no-browser", is_flag=True, help="Open no browser; the address is printed.")
@threads_option
@saying_options
def command(
    a: Path,
    b: Path | None,
    *,
    data: str | None,
    samples: int,
    output: Path | None,
    port: int,
    no_browser: bool,
    threads: int,
) -> None:
    """Make the page; write it, or serve it until the user ends it."""
    require_html("view")
    if data is not None and b is None:
        raise UsageError("--data measures how far B is from A: give a second model [U008]")
    files = [a] if b is None else [a, b]
    check_page(output, [*files, data])
    with progress_line() as progress:
        progress(Progress("reading"))
        models = [model_file.load(file) for file in files]
        found = None
        if data is not None and b is not None:
            found = compare_models(
                a,
                b,
                data=data,
                samples=samples,
                tolerance_db=DEFAULT_TOLERANCE_DB,
                threads=threads,
                progress=progress,
            )
        progress(Progress("drawing"))
        document = view_document(models, [str(file) for file in files], found)
        page = view_page(document)
    said = " ".join([view_summary(document), *document["notes"]])
    if output is None:
        serve(page, port, said=said, browser=not no_browser)
        return
    with replace_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    conclude(f"{output}: {said}")
    print_text(said, console_for())
    print_text(str(output), console_for(), label="written", style="bold")
