"""Train a small STUDENT towards its big TEACHER on unlabelled samples, without a framework.

The student's weights, biases and norms learn to give the teacher's answers; zeros stay zero, and
integers are rounded in every step. A fifth of the calibration samples chooses the best state,
evaluation samples judge it. A student that does not get better is written as it was.

Exit status: 0 better; 1 not better, or short of a budget that was asked for; 2 bad input; 130
interrupted, the best so far written.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from onnxpress.cli.exit_status import INTERRUPTED, NOT_MET
from onnxpress.cli.interruption import interruptible
from onnxpress.cli.json_output import STANDARD_OUTPUT, check_json, stage_json, write_json
from onnxpress.cli.options import PATH, force_option, json_option, judging_options, threads_option
from onnxpress.cli.progress import progress_line
from onnxpress.cli.saying import saying_options
from onnxpress.distillation.distilling import distill
from onnxpress.distillation.state import require_state
from onnxpress.errors import OutputError, UsageError
from onnxpress.judge import Budget
from onnxpress.model_file import save
from onnxpress.output_file import FileSet, check_output
from onnxpress.own_files import STAMP, require_own_model, require_report
from onnxpress.report.distillation import distillation_document, print_distillation
from onnxpress.report.distillation_page import write_distillation
from onnxpress.report.html import require_html
from onnxpress.report.printing import conclude, console_for
from onnxpress.version import __version__

__all__ = ["command"]


@click.command("distill", help=__doc__)
@click.option("--teacher", type=PATH, required=True, help="The model whose answers are right.")
@click.option("--student", type=PATH, required=True, help="The model to be trained.")
@judging_options
@click.option(
    "-o",
    "--out",
    "output",
    type=PATH,
    metavar="FILE",
    help="Where to write the student. Default: STUDENT with .distilled.onnx.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=1000, show_default=True, help="At most."
)
@click.option(
    "--block-steps",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of each block alone first, towards the teacher's tensor at its end; 0: none.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds of training at most.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=0.005,
    show_default=True,
    help="Of the first steps, as a share of each weight's size.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="By which class scores are divided, so that small ones count.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of which samples train, and in which order.",
)
@click.option(
    "--initialize",
    is_flag=True,
    help="Draw the student's weights anew first: its file has none worth keeping.",
)
@click.option(
    "--state",
    "state",
    type=PATH,
    metavar="FILE",
    help="Written now and then and at Ctrl-C; the same command again goes on from it.",
)
@click.option("--report", type=PATH, metavar="FILE.html", help="Write an HTML report.")
@force_option
@json_option
@threads_option
@saying_options
def command(
    *,
    teacher: Path,
    student: Path,
    calibration: str | None,
    evaluation: str | None,
    output: Path | None,
    steps: int,
    block_steps: int,
    time_limit: float | None,
    learning_rate: float,
    temperature: float,
    seed: int,
    initialize: bool,
    state: Path | None,
    report: Path | None,
    force: bool,
    json_path: str | None,
    threads: int,
    **budget: Any,
) -> None:
    """Train, write, print; exit status 1 where the student is no better."""
    if calibration is None:
        raise UsageError("distill needs samples to train with: give --calibration DATA [U008]")
    target = output or student.with_suffix(".distilled.onnx")
    inputs = (teacher, student, calibration, evaluation)
    _check_all(inputs, target, json_path, report, state, force=force)
    asked = Budget(**budget)
    with interruptible() as interruption, progress_line() as progress:
        found = distill(
            teacher,
            student,
            calibration=calibration,
            evaluation=evaluation,
            budget=asked,
            steps=steps,
            block_steps=block_steps,
            time_limit=time_limit,
            learning_rate=learning_rate,
            temperature=temperature,
            seed=seed,
            threads=threads,
            initialize=initialize,
            state=state,
            progress=progress,
            stop=interruption,
        )
    document = distillation_document(
        found,
        teacher=str(teacher),
        student=str(student),
        command=["onnxpress", *sys.argv[1:]],
    )
    found.model.metadata_props[STAMP] = __version__
    written = [str(target) + (" (in place of the one that was there)" if target.exists() else "")]
    with FileSet() as files:
        save(found.model, target, files=files)
        if json_path not in (None, STANDARD_OUTPUT):
            stage_json(document, Path(str(json_path)), files)
            written.append(str(json_path))
        if report is not None:
            write_distillation(document, report, files)
            written.append(str(report))
    if json_path == STANDARD_OUTPUT:
        write_json(document, json_path)
    else:
        conclude(f"{target}: " + ("better" if found.better else document["why_not"]))
        print_distillation(document, written=written, console=console_for())
    if interruption.wanted:
        sys.exit(INTERRUPTED)
    named = asked.max_drop is not None or asked.min_sqnr is not None
    if not found.better or (named and not found.after.within_budget):
        sys.exit(NOT_MET)


def _check_all(
    inputs: Sequence[Path | str | None],
    target: Path,
    json_path: str | None,
    report: Path | None,
    state: Path | None,
    *,
    force: bool,
) -> None:
    """Refuse before any work whatever stands in the way of one of the outputs.

    Raises:
        OutputError: with which file it is.
        UsageError: the report needs a package.
    """
    _check(target, json_path, inputs)
    if report is not None:
        require_html()
        _check(report, json_path, [*inputs, target])
        if report.resolve() == target.resolve():
            raise OutputError(
                f"{report}: --report would overwrite the model; give it another name [O001]"
            )
    if not force:
        require_own_model(target)
        for path in (report, None if json_path in (None, STANDARD_OUTPUT) else json_path):
            if path is not None:
                require_report(Path(path))
    if state is not None:
        _check(state, None, [*inputs, target, report])
        require_state(state)


def _check(target: Path, json_path: str | None, read: Sequence[Path | str | None]) -> None:
    """Refuse before any work what cannot be written, or would overwrite what is read.

    Raises:
        OutputError: with which file it is.
    """
    for file in read:
        path = None if file is None else Path(file)
        check_output(target, source=path if path is not None and path.exists() else None)
    check_json(json_path, [*read, target], can_force=True)
    if json_path is not None and Path(json_path).resolve() == target.resolve():
        raise OutputError(
            f"{json_path}: --json would overwrite another result; give it another name [O001]"
        )
