"""Write the smallest and fastest model that still agrees with MODEL."""

from pathlib import Path
from typing import Any

import click

from onnxpress.cli import completion
from onnxpress.cli.optimization import optimize_and_write
from onnxpress.cli.options import (
    PATH,
    data_options,
    file_options,
    goal_options,
    provider_options,
    selection_options,
    threads_option,
)
from onnxpress.cli.saying import saying_options
from onnxpress.errors import UsageError
from onnxpress.providers import ProviderOptions

__all__ = ["command"]


@click.command("optimize", help=__doc__)
@click.argument("model", type=PATH)
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
    "--timing",
    type=PATH,
    metavar="FILE.json",
    help="Decide by the times in this file; what is missing is measured and added to it.",
)
@provider_options
@threads_option
@saying_options
def command(
    model: Path,
    *,
    passes: str | None,
    recipe: Path | None,
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
    optimize_and_write(
        model, passes=names, recipe=recipe, timing=timing, providers=providers, **options
    )
