"""`optimize A B C -o OUT/`: several models, each in a process of its own; one table at the end."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxpress.apart import done_apart
from onnxpress.batch import Outcome, Status, Task, filled, output_names
from onnxpress.cli.exit_status import BAD_INPUT, FAULT, INTERRUPTED, NOT_MET
from onnxpress.cli.interruption import interruptible
from onnxpress.cli.json_output import check_json, write_json
from onnxpress.cli.optimization import asked
from onnxpress.cli.outputs import Outputs
from onnxpress.cli.progress import progress_line
from onnxpress.distributed import done_by_workers, require_scheduler
from onnxpress.errors import OutputError, UsageError
from onnxpress.output_file import check_output
from onnxpress.progress import Progress, Tell, part
from onnxpress.report.printing import conclude, console_for
from onnxpress.report.several import print_several
from onnxpress.targets import load_target
from onnxpress.version import __version__

__all__ = ["optimize_several"]

_READ = ("calibration", "evaluation", "recipe")
"""Options that name files."""
_STATUSES: dict[Status, int] = {
    "within the budget": 0,
    "not met": NOT_MET,
    "failed": BAD_INPUT,
    "fault": FAULT,
    "stopped": 0,
}


def optimize_several(
    models: Sequence[Path],
    folder: Path,
    *,
    json_path: str | None,
    external_data: bool,
    force: bool,
    targets: tuple[str, ...],
    opset: int | None,
    scheduler: str | None,
    **options: Any,
) -> None:
    """Models into a folder; the exit status is the worst of all, 130 where it was interrupted.

    Args:
        models: files.
        folder: for the results; made where it is not there.
        json_path: one document about all, or `-`.
        external_data: weights in files of their own.
        force: replace files that are no earlier results.
        targets: names; each model is good for all of them.
        opset: to convert to.
        scheduler: who shares them out; `None`: one after the other, here.
        options: the others of `onnxpress.optimize`, with `{name}` and `{folder}` in paths.
    """
    started = time.monotonic()
    if options.get("recipe") is not None and "{" not in str(options["recipe"]):
        raise UsageError(
            "a recipe is of one model: with several give --recipe with {name} or {folder}, as "
            "'{folder}/{name}.recipe.toml' [U008]"
        )
    if scheduler is not None:
        require_scheduler(scheduler)
    sources = _different(models)
    if scheduler is not None:
        # A worker may stand in another folder.
        sources, folder = [source.absolute() for source in sources], folder.absolute()
        options |= {name: _absolute(options.get(name)) for name in _READ}
    options |= {"target": targets, "opset": opset or 0}
    tasks = [
        Task(source, folder / name, filled(options, source), external_data)
        for source, name in zip(sources, output_names(sources), strict=True)
    ]
    _check(tasks, folder, json_path, force=force)
    folder.mkdir(exist_ok=True)
    with interruptible() as interruption, progress_line() as progress:
        if scheduler is None:
            found = list(_one_by_one(tasks, progress, interruption))
        else:
            found = done_by_workers(tasks, scheduler, progress, interruption)
    document = {
        "format": 1,
        "onnxpress": __version__,
        "seconds": round(time.monotonic() - started, 2),
        "scheduler": scheduler,
        "models": [outcome.document() for outcome in found],
    }
    if write_json(document, json_path):
        within = sum(outcome.status == "within the budget" for outcome in found)
        conclude(f"{folder}: {within} of {len(found)} models within the budget")
        print_several(document, console_for())
    if interruption.wanted:
        sys.exit(INTERRUPTED)
    status = max(_STATUSES[outcome.status] for outcome in found)
    if status:
        sys.exit(status)


def _absolute(given: object) -> object:
    """A file or folder that is there, from the root on; anything else as it is."""
    if isinstance(given, Path):
        return given.absolute()
    if isinstance(given, str) and given and Path(given).exists():
        return str(Path(given).absolute())
    return given


def _different(models: Sequence[Path]) -> list[Path]:
    """Each file once, in the order they were given."""
    return list({model.resolve(): model for model in reversed(models)}.values())[::-1]


def _check(tasks: Sequence[Task], folder: Path, json_path: str | None, *, force: bool) -> None:
    """Refuse before any work what is wrong for all, or would overwrite what is not ours.

    A model that is missing or broken is told when it is its turn.

    Raises:
        OnnxpressError: an option means nothing, or an output cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"{folder}: several models need a folder to be written into, and this is a file; give "
            "another -o [O002]"
        )
    if not folder.exists():
        check_output(folder)
    taken: dict[Path, str] = {task.source.resolve(): "an input" for task in tasks}
    for task in tasks:
        options = dict(task.options)
        targets = options.pop("target")
        asked(task.source, targets, options)
        read = {f"--{name}": options.get(name) for name in ("calibration", "evaluation")}
        outputs = Outputs(task.output, None, None, task.external_data, force)
        target = load_target("+".join(targets))
        outputs.require_target(target)
        if folder.exists():
            outputs.check(task.source, target, read, taken)
        else:
            taken |= {Path(str(file)).resolve(): option for option, file in read.items() if file}
    check_json(json_path, taken, can_force=force)


def _one_by_one(
    tasks: Sequence[Task], progress: Tell, stop: Callable[[], bool]
) -> Iterator[Outcome]:
    """Each in turn; once it is stopped the rest is not begun."""
    for place, task in enumerate(tasks):
        if place and stop():
            yield Outcome(task.source, "stopped", "the run was ended before its turn")
            continue
        yield done_apart(task, _which(progress, place, len(tasks), task.source), stop)


def _which(progress: Tell, place: int, number: int, source: Path) -> Tell:
    """Tell of one of several."""
    inner = part(progress, place / number, (place + 1) / number)

    def told(event: Progress) -> None:
        stage = f"{place + 1} of {number}, {source.name}: {event.stage}"
        # The time that is left is of this model alone.
        inner(replace(event, stage=stage, left_s=None, stage_left_s=event.left_s))

    return told
