"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from onnxpress.cli import completion
from onnxpress.cli.choice import Choice

__all__ = [
    "PATH",
    "data_options",
    "ends_with_slash",
    "file_options",
    "force_option",
    "goal_options",
    "json_option",
    "judging_options",
    "overridable_option",
    "provider_options",
    "recipe_option",
    "samples_option",
    "selection_options",
    "threads_option",
]

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

PATH = click.Path(path_type=Path)


def _together(*options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """One decorator of several, listed in the order of the help."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


threads_option = click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    help="Threads of onnxruntime and numpy; 0: all cores.",
)

json_option = click.option(
    "--json",
    "json_path",
    metavar="FILE",
    help="Write the findings as JSON; - for standard output, and nothing else there.",
)


def _kinds(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Kinds by output, of `NAME=KIND` each; a name may hold `=` itself."""
    found = {}
    for value in values:
        name, equals, kind = value.rpartition("=")
        if not (name and equals and kind):
            raise click.BadParameter(
                f"{value!r} is not NAME=KIND, as scores=classification; -o names the file to write"
            )
        found[name] = kind
    return found


_calibration = click.option(
    "--calibration",
    metavar="DATA",
    help="Samples the passes may look at, no labels needed: a .npz with an array per "
    "input, a folder of pictures or recordings, lines of text, a .csv, a .toml that says how "
    "they are prepared, a folder of ONNX test data sets, module:function, or what another "
    "installed reader takes.",
)

samples_option = click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="How many of them are run.",
)
"""Of commands that look at the tensors of two models."""

recipe_option = click.option(
    "--recipe",
    type=PATH,
    metavar="FILE.toml",
    help="Prepare pictures, texts and recordings as this recipe says.",
)

_budget = (
    click.option(
        "--max-drop",
        type=float,
        metavar="PERCENT",
        help="Points of the task metric that may be lost. Default 1 where there is a metric.",
    ),
    click.option(
        "--min-sqnr",
        type=float,
        metavar="DB",
        help="How close the worst output must stay. Default 20 where there is no metric.",
    ),
    click.option(
        "--metric",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="auto, accuracy, agreement, none, module:function of a sample, or "
        "set=module:function of all samples.",
    ),
    click.option(
        "--task",
        metavar="KIND",
        help="What the outputs are for, where the model does not say it: classification, "
        "multi-label, sequence, detection, segmentation, embedding, regression, signal, integers, "
        "state or values.",
    ),
    click.option(
        "--output",
        "outputs",
        multiple=True,
        metavar="NAME=KIND",
        callback=_kinds,
        help="The kind of one output; may be repeated.",
    ),
    click.option(
        "--confidence",
        type=float,
        metavar="SHARE",
        help="Keep so far from the budget that it holds with this confidence, as 0.95: few "
        "samples then allow less.",
    ),
)
"""Named as the fields of `judge.Budget`."""

data_options = _together(
    _calibration,
    click.option(
        "--evaluation",
        metavar="DATA",
        help="Held-out samples, with __labels__ where there are any: a half (at most 256) to "
        "choose by, the rest to judge on untouched. Without it, half of the calibration samples.",
    ),
    *_budget,
)
"""Where something is searched."""

judging_options = _together(
    _calibration,
    click.option(
        "--evaluation",
        metavar="DATA",
        help="Samples to judge on, with __labels__ where there are any.",
    ),
    *_budget,
)
"""Where all evaluation samples judge."""

force_option = click.option(
    "--force",
    is_flag=True,
    help="Replace an output that is there and is no earlier result of onnxpress.",
)

_FOLDER = "onnxpress.folder"
"""In click's context: `-o` ended with a slash, which paths forget."""
_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))


def _noting_slash(ctx: click.Context, _option: click.Parameter, value: str | None) -> Path | None:
    ctx.meta[_FOLDER] = value is not None and value.endswith(_SEPARATORS)
    return None if value is None else Path(value)


def ends_with_slash(output: Path) -> bool:
    """Whether `-o` named a folder, be it there or not."""
    return bool(click.get_current_context().meta.get(_FOLDER)) and output.name != ""


file_options = _together(
    click.option(
        "-o",
        "--out",
        "output",
        type=click.Path(),
        callback=_noting_slash,
        metavar="FILE",
        help="Where to write the model. Default: MODEL with .opt.onnx. Of several models a folder.",
    ),
    click.option("--report", type=PATH, metavar="FILE.html", help="Write an HTML report."),
    click.option(
        "--json",
        "json_path",
        metavar="FILE",
        help="Write the report as JSON; - for standard output, and nothing else there.",
    ),
    click.option(
        "--external-data",
        is_flag=True,
        help="Put the weights into a file of their own, as is done above 2 GB.",
    ),
    force_option,
    click.option(
        "--dry-run",
        is_flag=True,
        help="Say what would be tried and about how small it would get, in seconds; write nothing.",
    ),
)

overridable_option = click.option(
    "--overridable/--no-overridable",
    default=None,
    help="Whether callers may override weights that are inputs too. Without: from IR version 4 on.",
)

constraint_options = _together(
    click.option(
        "--max-size",
        metavar="SIZE",
        help="Lose as little as possible while the file gets as small, as 4MB; together with "
        "--max-drop or --min-sqnr only within these.",
    ),
    click.option(
        "--min-speedup",
        type=float,
        metavar="TIMES",
        help="The same, while it runs so many times as fast as MODEL on this machine, as 2.",
    ),
    click.option(
        "--max-latency",
        metavar="TIME",
        help="The same, while a run takes so long at most on this machine, as 8ms.",
    ),
)

goal_options = _together(
    overridable_option,
    constraint_options,
    click.option(
        "--goal",
        type=Choice(["balanced", "latency", "size"]),
        default="balanced",
        show_default=True,
        help="size accepts a slower model; the others never do.",
    ),
    click.option(
        "--target",
        "targets",
        shell_complete=completion.targets,
        multiple=True,
        default=["cpu"],
        show_default=True,
        help="A name of `onnxpress targets`, or the path of a .toml file. Several: one model "
        "good for all.",
    ),
    click.option(
        "--per-target",
        is_flag=True,
        help="One model for each target instead: FILE.TARGET.onnx.",
    ),
    click.option(
        "--fix-shape",
        "fix_shapes",
        multiple=True,
        metavar="NAME=1x3x224x224",
        help="Fix an input's shape, or with DIM=4 a symbolic dimension, before anything else.",
    ),
    click.option(
        "--float16",
        type=Choice(["no", "storage", "keep-io", "all"]),
        default="no",
        show_default=True,
        metavar="[no|storage|keep-io|all]",
        help="Half precision instead of integers. storage: only of weights, float32 once loaded; "
        "keep-io: of what computes; all: of inputs and outputs too.",
    ),
    click.option(
        "--opset",
        type=click.IntRange(min=1),
        default=None,
        help="Convert to this opset. Without: down to the newest the target knows.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Of every random choice.",
    ),
    click.option(
        "--time-limit",
        type=float,
        metavar="S",
        help="Seconds for all, about, of each model: the search takes the best it has in time for "
        "the last judgement.",
    ),
    click.option(
        "--max-memory",
        metavar="SIZE",
        help="Memory that may be taken, as 4GB; a model that takes more is run block by block on "
        "the samples, and not without them. Without: half of what is free.",
    ),
)

selection_options = _together(
    click.option(
        "--keep",
        multiple=True,
        metavar="NAME",
        help="No lossy pass touches this: a layer or node by name, a pattern (/head/*), or an "
        "operator type (Gather); in a pipeline also PART:NAME. May be repeated.",
    ),
    click.option(
        "--only",
        multiple=True,
        metavar="[PASS:]NAME",
        help="Lossy passes, or this one, touch nothing but these.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="[PASS:]NAME",
        help="As --keep, from this pass alone: quantize:/head/*.",
    ),
)

provider_options = _together(
    click.option(
        "--ep",
        multiple=True,
        metavar="NAME",
        help="Run the result on this execution provider too, in a process of its own; may "
        "be repeated; `all` for every one. See `onnxpress doctor`.",
    ),
    click.option(
        "--require-ep",
        multiple=True,
        metavar="NAME",
        help="Fail unless this provider really ran it (or its emulator).",
    ),
    click.option(
        "--ep-config",
        type=PATH,
        metavar="FILE",
        help="Where the providers are. Default: onnxpress.toml here, else "
        "~/.config/onnxpress/config.toml.",
    ),
    click.option(
        "--ep-time-limit",
        type=float,
        default=300.0,
        show_default=True,
        metavar="S",
        help="Seconds for each provider.",
    ),
)
