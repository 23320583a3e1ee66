"""`optimize --frontier DIR`: several models, a table, a plot and JSON into a folder."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from onnxpress.cli.begun import left_of
from onnxpress.cli.exit_status import INTERRUPTED, NOT_MET
from onnxpress.cli.interruption import interruptible
from onnxpress.cli.json_output import check_json, stage_json, write_json
from onnxpress.cli.optimization import asked
from onnxpress.cli.progress import progress_line
from onnxpress.errors import OutputError
from onnxpress.external_data import data_left_by
from onnxpress.frontier import MOST_MODELS, Frontier, explore
from onnxpress.output_file import FileSet, check_output
from onnxpress.own_files import (
    require_marked,
    require_own_model,
    require_report,
    was_written_by_us,
)
from onnxpress.report.printing import conclude, console_for
from onnxpress.report.text import printable
from onnxpress.report.trade_off import (
    MARK,
    print_trade_off,
    trade_off_document,
    trade_off_markdown,
    trade_off_plot,
)
from onnxpress.result import recipe_path, require_own_recipe

__all__ = ["explore_and_write"]

_TABLE, _PLOT, _DOCUMENT = "frontier.md", "frontier.svg", "frontier.json"


def explore_and_write(
    model: Path,
    folder: Path,
    *,
    json_path: str | None,
    external_data: bool,
    force: bool,
    targets: tuple[str, ...],
    opset: int | None,
    **options: Any,
) -> None:
    """Models of the frontier into a folder; exit status 1 where none is within the budget.

    Interrupted during a search, what was found so far is written, and the exit status is 130.

    Args:
        model: the file to optimize.
        folder: for all files; made where it is not there.
        json_path: the document once more, or `-`.
        external_data: weights in files of their own.
        force: replace files that are no earlier results.
        targets: names.
        opset: to convert to.
        options: the others of `onnxpress.optimize`.
    """
    others = [options.get("calibration"), options.get("evaluation")]
    others += [folder / name for name in (_TABLE, _PLOT)]
    for path in _models(folder, model):
        others += [path, recipe_path(path)]
    check_json(json_path, [model, *others], can_force=force)
    _check(model, folder, force=force)
    with interruptible() as interruption, progress_line() as progress:
        more = {**options, "opset": opset or 0, "stop": interruption, "progress": progress}
        more["time_limit"] = left_of(options["time_limit"])
        found = explore(asked(model, targets, more))
    names = [_name(model, number) for number in range(1, len(found.models) + 1)]
    document = trade_off_document(
        list(zip(names, found.models, strict=True)), found.judged, found.notes
    )
    written = _write(folder, names, found, document, external_data=external_data)
    if write_json(document, json_path):
        conclude(f"{folder}: {len(found.models)} models of {found.judged} that were judged")
        console = console_for()
        print_trade_off(document, console)
        for path in written:
            console.print(f"wrote {printable(str(path))}", soft_wrap=True, markup=False)
    if interruption.wanted:
        sys.exit(INTERRUPTED)
    if not any(result.within_budget for result in found.models):
        sys.exit(NOT_MET)


def _name(model: Path, number: int) -> str:
    return f"{model.stem}.{number}.onnx"


def _check(model: Path, folder: Path, *, force: bool) -> None:
    """Refuse before any work what cannot be written or is not ours.

    Raises:
        OutputError: the folder cannot be made, or a file in it is the input or is not ours.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: --frontier needs a folder, and this is a file [O002]")
    if not folder.exists():
        check_output(folder)
        return
    for path in _models(folder, model):
        check_output(path, source=model)
        require_own_recipe(path)
        if not force:
            require_own_model(path)
    for name in (_TABLE, _PLOT, _DOCUMENT):
        check_output(folder / name)
        if not force and name == _DOCUMENT:
            require_report(folder / name)
        elif not force:
            require_marked(folder / name, MARK)


def _models(folder: Path, model: Path) -> Iterator[Path]:
    return (folder / _name(model, number) for number in range(1, MOST_MODELS + 1))


def _write(
    folder: Path,
    names: Sequence[str],
    found: Frontier,
    document: dict[str, Any],
    *,
    external_data: bool,
) -> list[Path]:
    """All files of a frontier together; models of an earlier, longer one are removed."""
    folder.mkdir(exist_ok=True)
    written: list[Path] = []
    with FileSet() as files:
        for name, result in zip(names, found.models, strict=True):
            written += result.stage(files, folder / name, external_data=external_data)
        texts = {_TABLE: trade_off_markdown(document), _PLOT: trade_off_plot(document)}
        for name, text in texts.items():
            with files.stage(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")
            written.append(folder / name)
        stage_json(document, folder / _DOCUMENT, files)
        written.append(folder / _DOCUMENT)
        if found.models:
            first = Path(found.models[0].source)
            for path in itertools.islice(_models(folder, first), len(names), None):
                if was_written_by_us(path):
                    for data in data_left_by(path, set()):
                        files.remove(data)
                    files.remove(path)
                    files.remove(recipe_path(path))
    return written
