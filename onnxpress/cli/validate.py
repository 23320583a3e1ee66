"""Compare MODEL with its original: interface, fidelity, task, speed, and on providers."""

import sys
from pathlib import Path
from typing import Any

import click

from onnxpress.cli.exit_status import NOT_MET
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.options import (
    PATH,
    json_option,
    judging_options,
    provider_options,
    threads_option,
)
from onnxpress.cli.progress import progress_line
from onnxpress.cli.saying import saying_options
from onnxpress.judge import Budget
from onnxpress.model_file import size_bytes
from onnxpress.providers import ProviderOptions
from onnxpress.report.console import print_validation, unmet_budget
from onnxpress.report.document import validation_document
from onnxpress.report.printing import conclude, console_for
from onnxpress.validation import validate

__all__ = ["command"]


@click.command("validate", help=__doc__)
@click.argument("model", type=PATH)
@click.option("--reference", type=PATH, required=True, help="The original model.")
@judging_options
@provider_options
@click.option("--seed", type=int, default=0, help="Of random inputs.")
@json_option
@threads_option
@saying_options
def command(
    model: Path,
    *,
    reference: Path,
    calibration: str | None,
    evaluation: str | None,
    seed: int,
    json_path: str | None,
    threads: int,
    ep: tuple[str, ...],
    require_ep: tuple[str, ...],
    ep_config: Path | None,
    ep_time_limit: float,
    **budget: Any,
) -> None:
    """Print what was found; exit status 1 where the budget or a provider is not met."""
    check_json(json_path, [model, reference, calibration, evaluation, ep_config])
    with progress_line() as progress:
        found = validate(
            model,
            reference,
            evaluation=evaluation or calibration,
            budget=Budget(**budget),
            threads=threads,
            seed=seed,
            providers=ProviderOptions(ep, require_ep, ep_config, ep_time_limit),
            progress=progress,
        )
    document = validation_document(found)
    if write_json(document, json_path):
        within = document["within_budget"]
        unmet = "; ".join(document["problems"]) or unmet_budget(document)
        conclude(f"within the budget: {document['budget']}" if within else f"not met: {unmet}")
        print_validation(document, console_for(), (size_bytes(reference), size_bytes(model)))
    if not found.within_budget:
        sys.exit(NOT_MET)
