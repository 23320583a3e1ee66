"""Optimize, write, print: what `optimize` and the commands of single passes have in common."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from onnxpress import model_file
from onnxpress.cli.begun import begin, left_of
from onnxpress.cli.exit_status import INTERRUPTED, NOT_MET
from onnxpress.cli.interruption import interruptible
from onnxpress.cli.json_output import STANDARD_OUTPUT, stage_json, write_json
from onnxpress.cli.outputs import Outputs
from onnxpress.cli.progress import progress_line
from onnxpress.constraints import Constraints
from onnxpress.conversion import Conversion
from onnxpress.costs import RecordedClock
from onnxpress.errors import UsageError
from onnxpress.judge import Budget
from onnxpress.output_file import FileSet, check_output
from onnxpress.pipeline import optimize
from onnxpress.preview import preview
from onnxpress.report.console import print_result, result_line
from onnxpress.report.document import document
from onnxpress.report.html import write_html
from onnxpress.report.preview import print_preview
from onnxpress.report.printing import conclude, console_for
from onnxpress.report.text import megabytes
from onnxpress.request import Request
from onnxpress.targets import load_target

__all__ = ["asked", "optimize_and_write"]


def optimize_and_write(
    model: Path,
    *,
    output: Path | None,
    report: Path | None,
    json_path: str | None,
    external_data: bool,
    force: bool,
    dry_run: bool,
    targets: tuple[str, ...],
    per_target: bool,
    opset: int | None,
    timing: Path | None = None,
    **options: Any,
) -> None:
    """One model good for all targets, or one for each; exit status 1 where one falls short.

    Interrupted during a search, the best so far is written, and the exit status is 130.

    Args:
        model: the file to optimize.
        output: the model's; `None`: beside the original.
        report: an HTML file.
        json_path: a JSON file, or `-`.
        external_data: weights in a file of their own.
        force: replace files that are no earlier results.
        dry_run: say what would be tried, and write nothing.
        targets: names.
        per_target: a model for each of them.
        opset: to convert to.
        timing: a table of times, which decides and is added to.
        options: the others of `onnxpress.optimize`.
    """
    if external_data and options.get("max_size") is not None:
        raise UsageError(
            "--max-size counts one file, and --external-data writes two, which are larger by "
            "what lies between the weights: leave one of them out [U008]"
        )
    place = output or model.with_suffix(".opt.onnx")
    outputs = Outputs(place, report, json_path, external_data, force)
    options["opset"] = opset or 0
    clock = None if timing is None else _clock(timing)
    wanted: list[tuple[Outputs, tuple[str, ...]]] = [(outputs, targets)]
    if per_target:
        wanted = [(outputs.of_target(name), (name,)) for name in dict.fromkeys(targets)]
    if model.exists():
        _check(wanted, model, options, timing)
    else:
        model_file.load(model)
    if dry_run:
        for files, names in wanted:
            _preview_for(model, names, files, options)
        return
    with interruptible() as interruption:
        done: list[bool] = []
        for files, names in wanted:
            if done:
                # A limit is of each model.
                begin()
            given = {**options, "stop": interruption}
            given |= {} if clock is None else {"clock": clock}
            done.append(_optimize_for(model, names, files, given))
            if timing is not None and clock is not None:
                clock.save(timing)
            if interruption.wanted:
                sys.exit(INTERRUPTED)
    if not all(done):
        sys.exit(NOT_MET)


def _clock(timing: Path) -> RecordedClock:
    """What a file of times says, and a clock for the rest.

    Raises:
        OutputError: it cannot be written, or is something else.
    """
    check_output(timing)
    return RecordedClock.of_file(timing)


def _preview_for(
    model: Path, targets: tuple[str, ...], outputs: Outputs, options: dict[str, Any]
) -> None:
    """Print what would be tried; a document goes to standard output or into a file."""
    found = preview(asked(model, targets, options))
    if write_json(found, outputs.json):
        files = [str(path) for path in outputs.written(load_target("+".join(targets)))]
        sizes = found["size"]["original_bytes"], found["size"]["predicted_bytes"]
        conclude(f"{model}: {' to about '.join(map(megabytes, sizes))}, predicted")
        print_preview(found, would_write=files, console=console_for())


def asked(model: Path, targets: tuple[str, ...], options: Mapping[str, Any]) -> Request:
    """The options of `onnxpress.optimize` as it puts them together."""
    rest = dict(options)
    budget = Budget(**{field.name: rest.pop(field.name) for field in fields(Budget)})
    conversion = Conversion(rest.pop("fix_shapes"), rest.pop("float16"), rest.pop("opset"))
    constraints = Constraints.of(*(rest.pop(field.name) for field in fields(Constraints)))
    return Request(
        model,
        target=targets,
        budget=budget,
        conversion=conversion,
        constraints=constraints,
        **rest,
    )


def _check(
    wanted: Sequence[tuple[Outputs, tuple[str, ...]]],
    model: Path,
    options: dict[str, Any],
    timing: Path | None,
) -> None:
    """Refuse before any work what cannot be written, or would overwrite what is read or written."""
    read = {f"--{name}": options.get(name) for name in ("calibration", "evaluation")}
    read["--timing"] = timing
    taken: dict[Path, str] = {}
    for outputs, names in wanted:
        outputs.check(model, load_target("+".join(names)), read, taken)


def _optimize_for(
    model: Path, targets: tuple[str, ...], outputs: Outputs, options: dict[str, Any]
) -> bool:
    """Optimize, write and print; whether the model is within the budget."""
    options = {**options, "time_limit": left_of(options["time_limit"])}
    with progress_line() as progress:
        result = optimize(model, target=targets, progress=progress, **options)
    figures = outputs.report is not None or outputs.json is not None
    found = document(result, ["onnxpress", *sys.argv[1:]], figures=figures)
    earlier = outputs.model.exists()
    with FileSet() as files:
        written = result.stage(files, outputs.model, external_data=outputs.external_data)
        if outputs.report is not None:
            write_html(found, outputs.report, files)
            written.append(outputs.report)
        if outputs.json is not None and outputs.json != STANDARD_OUTPUT:
            stage_json(found, Path(outputs.json), files)
            written.append(Path(outputs.json))
    if outputs.json == STANDARD_OUTPUT:
        write_json(found, outputs.json)
    else:
        conclude(f"{outputs.model}: {result_line(found)}")
        paths = [str(path) for path in written]
        paths[0] += " (in place of the one that was there)" if earlier else ""
        print_result(found, written=paths, console=console_for())
    return result.within_budget
