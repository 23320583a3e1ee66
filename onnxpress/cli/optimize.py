"""Write the smallest and fastest model that still agrees with MODEL."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from onnxpress.cli import completion
from onnxpress.cli.frontier import explore_and_write
from onnxpress.cli.optimization import optimize_and_write
from onnxpress.cli.options import (
    PATH,
    data_options,
    ends_with_slash,
    file_options,
    goal_options,
    provider_options,
    selection_options,
    threads_option,
)
from onnxpress.cli.pipelines import optimize_pipeline_and_write
from onnxpress.cli.saying import saying_options
from onnxpress.cli.several import optimize_several
from onnxpress.errors import UsageError
from onnxpress.providers import ProviderOptions

__all__ = ["command"]


_OF_ONE_MODEL = {
    "--out": "output",
    "--report": "report",
    "--per-target": "per_target",
    "--dry-run": "dry_run",
    "--timing": "timing",
}


@click.command("optimize", help=__doc__)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=PATH)
@data_options
@file_options
@goal_options
@selection_options
@click.option(
    "--passes",
    metavar="A,B,C",
    shell_complete=completion.passes,
    help="Only these passes; see `onnxpress passes`.",
)
@click.option(
    "--recipe", type=PATH, metavar="FILE.toml", help="Repeat these decisions, without a search."
)
@click.option(
    "--frontier",
    type=PATH,
    metavar="DIR",
    help="Several models instead of one, from nothing lost to all of the budget, none beaten by "
    "another: files, a table, a plot and JSON into this folder.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Share several models out to workers of Dask: local:N starts N here, tcp://HOST:PORT is a "
    "scheduler whose workers see the same files. Needs onnxpress[distributed].",
)
@click.option(
    "--timing",
    type=PATH,
    metavar="FILE.json",
    help="Decide by the times in this file; what is missing is measured and added to it.",
)
@provider_options
@threads_option
@saying_options
def command(
    models: tuple[Path, ...],
    *,
    passes: str | None,
    recipe: Path | None,
    frontier: Path | None,
    scheduler: str | None,
    timing: Path | None,
    ep: tuple[str, ...],
    require_ep: tuple[str, ...],
    ep_config: Path | None,
    ep_time_limit: float,
    **options: Any,
) -> None:
    """Choose passes and providers; the rest is that of every command that writes a model."""
    names = None if passes is None else [name.strip() for name in passes.split(",") if name.strip()]
    if names is not None and not names:
        raise UsageError("--passes names none; see `onnxpress passes` [U008]")
    providers = ProviderOptions(ep, require_ep, ep_config, ep_time_limit)
    options |= {"passes": names, "recipe": recipe, "timing": timing, "providers": providers}
    output: Path | None = options["output"]
    if len(models) == 1 and (models[0].suffix.lower() == ".toml" or models[0].is_dir()):
        if frontier is not None:
            raise UsageError("--frontier is about one model, not a pipeline of several [U008]")
        if scheduler is not None:
            raise UsageError("--scheduler shares out models that are no pipeline [U008]")
        _require_none(options, "with a pipeline of several models", ("--timing",))
        optimize_pipeline_and_write(models[0], **options)
    elif len(models) > 1 or (output is not None and (output.is_dir() or ends_with_slash(output))):
        if output is None:
            raise UsageError(
                f"{len(models)} models need a folder for their results: -o OUT/ [U008]"
            )
        if frontier is not None:
            raise UsageError("--frontier is about one model: give one at a time [U008]")
        _require_none(options, "with several models", tuple(_OF_ONE_MODEL)[1:])
        optimize_several(models, options.pop("output"), scheduler=scheduler, **options)
    elif scheduler is not None:
        raise UsageError(
            "--scheduler shares several models out to workers: give several, with -o OUT/ [U008]"
        )
    elif frontier is not None:
        _require_none(options, "with --frontier, which writes several models", tuple(_OF_ONE_MODEL))
        options.pop("output")
        explore_and_write(models[0], frontier, **options)
    else:
        optimize_and_write(models[0], **options)


def _require_none(options: dict[str, Any], where: str, refused: Sequence[str]) -> None:
    """Take options out that are about one model, and refuse them where they are given.

    Raises:
        UsageError: one of them is given.
    """
    for option in refused:
        name = _OF_ONE_MODEL[option]
        if options[name]:
            raise UsageError(f"{where} leave {option} out: it is about one model [U008]")
        if name != "output":
            del options[name]
