"""Several models, each a task of its own: where its files go, what became of it, how it is timed.

A task is plain data: another process, here or on another machine with the same files, carries it
out (`apart`, `distributed`) and answers with plain data. What a model needs that others do not, its
samples or its recipe, is named by `{name}` and `{folder}` in a path.
"""

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from onnxpress.codes import split
from onnxpress.errors import OnnxpressError
from onnxpress.output_file import FileSet
from onnxpress.pipeline import optimize
from onnxpress.progress import Tell
from onnxpress.report.document import document
from onnxpress.runtime import Clock, Feed, Latency, Session, compare_latency
from onnxpress.temporary import alone

__all__ = ["AloneClock", "Outcome", "Status", "Task", "done", "filled", "output_names"]

Status = Literal["within the budget", "not met", "failed", "fault", "stopped"]
_FILLED = ("calibration", "evaluation", "recipe")
"""Options that may name a file of each model."""


@dataclass(frozen=True)
class Task:
    """One model of several.

    Attributes:
        source: the model's file.
        output: where the result goes; its folder is there.
        options: others of `onnxpress.optimize`; with the same ones the same task gives the same
            bytes in any process.
        external_data: put the weights into a file of their own.
    """

    source: Path
    output: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    external_data: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a model.

    Attributes:
        source: the model's file.
        status: `failed`: the input cannot be used; `fault`: ours, or the process was ended;
            `stopped`: it was not begun.
        message: why, where it is not within the budget.
        code: of an error.
        written: files, the model first; none where it failed.
        report: the document that `optimize --json` writes, without figures of pages.
        host: the machine that did it.
    """

    source: Path
    status: Status
    message: str = ""
    code: str = ""
    written: tuple[str, ...] = ()
    report: Mapping[str, Any] | None = None
    host: str = ""

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "source": str(self.source),
            "status": self.status,
            "message": self.message,
            "code": self.code or None,
            "written": list(self.written),
            "host": self.host,
            "report": self.report,
        }


def output_names(sources: Sequence[Path]) -> list[str]:
    """A file name for each model; those of one name are told apart by their folders.

    `a/onnx/model.onnx` and `b/onnx/model.onnx` become `a-onnx-model.onnx` and
    `b-onnx-model.onnx`. Names that differ in case alone count as one, as on some systems.
    """
    parts = [source.absolute().parts for source in sources]
    names = [source.name for source in sources]
    depth = 1
    while max((often := _often(names)).values(), default=0) > 1 and depth < max(map(len, parts)):
        depth += 1
        names = [
            "-".join(own[-depth:]).lstrip("/-") if often[name.casefold()] > 1 else name
            for name, own in zip(names, parts, strict=True)
        ]
    often = _often(names)
    # Only what folders and hyphens make alike is left: a/b.onnx beside a-b.onnx.
    return [
        f"{Path(name).stem}-{place}{Path(name).suffix}" if often[name.casefold()] > 1 else name
        for place, name in enumerate(names, 1)
    ]


def _often(names: Sequence[str]) -> Counter[str]:
    return Counter(name.casefold() for name in names)


def filled(options: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Options of one model: `{name}` is its file without the suffix, `{folder}` where it lies."""
    found = dict(options)
    for key in _FILLED:
        given = found.get(key)
        if isinstance(given, str | Path):
            text = str(given).replace("{name}", source.stem)
            found[key] = type(given)(text.replace("{folder}", str(source.parent)))
    return found


def done(task: Task, progress: Tell, stop: Callable[[], bool]) -> Outcome:
    """Optimize and write one model in this process.

    Args:
        task: which and how.
        progress: told how far it is.
        stop: whether to take the best so far.
    """
    options = dict(task.options)
    clock = AloneClock(options.pop("clock", compare_latency))
    host = platform.node()
    try:
        result = optimize(task.source, progress=progress, stop=stop, clock=clock, **options)
        with FileSet() as files:
            written = result.stage(files, task.output, external_data=task.external_data)
    except OnnxpressError as error:
        message = split(str(error))[0]
        return Outcome(task.source, "failed", message, error.code, host=host)
    return Outcome(
        task.source,
        "within the budget" if result.within_budget else "not met",
        "; ".join(result.problems),
        "",
        tuple(map(str, written)),
        document(result, figures=False),
        host,
    )


@dataclass(frozen=True)
class AloneClock:
    """A clock that waits until no other task of this user is being timed on this machine.

    Attributes:
        clock: that compares.
    """

    clock: Clock

    def __call__(
        self,
        reference: Session,
        model: Session,
        feed: Feed,
        model_feed: Feed | None = None,
        **limits: Any,  # noqa: ANN401 - rounds and seconds, as the clock's own
    ) -> Latency:
        """See `compare_latency`."""
        with alone("clock"):
            return self.clock(reference, model, feed, model_feed, **limits)
