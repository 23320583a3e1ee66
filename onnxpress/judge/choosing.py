"""Which metrics a budget is about, and which output labels belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnxpress.data import Samples
from onnxpress.errors import BudgetError, DataError, UsageError, nearest
from onnxpress.judge.budget import Budget
from onnxpress.judge.kinds import Kind, Reading
from onnxpress.judge.metrics import Answers, Metric, WholeMetric, metrics_of
from onnxpress.judge.user_metrics import user_metric

__all__ = ["chosen_metrics", "labelled_output"]

_METRICS = ("auto", "accuracy", "agreement", "none")
"""Besides those of users."""
_AGREEING = (Kind.CLASSIFICATION, Kind.SEQUENCE, Kind.MULTI_LABEL)


def labelled_output(budget: Budget, samples: Samples, first: Answers) -> str | None:
    """The output that labels belong to.

    Args:
        budget: which metric is asked for.
        samples: with labels, or without.
        first: the original's answers to one of them.

    Raises:
        BudgetError: accuracy is asked for and there are no labels.
        DataError: no output has a score for each of them.
    """
    labels, metric = samples.labels, budget.metric
    if metric == "accuracy" and labels is None:
        raise BudgetError(
            f"metric accuracy needs labels, but {samples.source} has no __labels__ [B002]"
        )
    if labels is None or metric in ("agreement", "none") or ":" in metric:
        return None
    rows, top = max(1, labels[0].size), int(labels.max())
    if top < 0:
        raise DataError(
            f"{samples.source}: all labels are below 0, which says that there is none; expected "
            "classes from 0 on; mend or remove __labels__ [D006]"
        )
    for name, array in first.items():
        if array.dtype.kind != "f" or array.size % rows or array.ndim == 0:
            continue
        classes = array.size // rows
        if array.shape[-1] == classes > top and (classes > 1 or array.ndim == 2):
            return name
        if classes == 1 and array.ndim <= 2 and top <= 1:
            return name
    for name, array in first.items():
        if array.dtype.kind in "iub" and array.size == rows and array.ndim <= 2:
            return name
    shapes = "; ".join(f"{name} {list(array.shape)}" for name, array in first.items())
    raise DataError(
        f"{samples.source}: has labels up to {top}, but no output of the model is "
        f"[{rows}, classes] with that many classes ({shapes}); remove __labels__ (of a "
        "folder: labels = false in a description), or judge by --metric module:function [D006]"
    )


def chosen_metrics(
    budget: Budget,
    readings: Mapping[str, Reading],
    labelled: str | None,
    references: Sequence[Answers],
    *,
    made_up: bool,
) -> list[Metric | WholeMetric]:
    """The metrics that the budget is about.

    Args:
        budget: what was asked for.
        readings: of every output.
        labelled: the output that labels belong to.
        references: the original's answers to some samples.
        made_up: whether the samples are random inputs.

    Raises:
        BudgetError: none fits what was asked for.
        UsageError: there is no such metric.
    """
    name = budget.metric
    if ":" in name:
        return [user_metric(name)]
    if name not in _METRICS:
        raise UsageError(
            f"metric is {name!r}{nearest(name, _METRICS)} (there are: "
            f"{', '.join(_METRICS)}, module:function, set=module:function) [U009]"
        )
    if name == "none":
        return []
    if made_up:
        # Random inputs are of no class; what must be equal still is.
        readings = {
            name: replace(reading, kind=Kind.INTEGERS, form="values")
            for name, reading in readings.items()
            if reading.kind in (Kind.INTEGERS, Kind.SEGMENTATION)
            and references[0][name].dtype.kind != "f"
        }
    found = metrics_of(readings, labelled, references)
    if name == "accuracy":
        found = [metric for metric in found if metric.name == "accuracy"]
    if name == "agreement":
        found = [m for m in found if readings[m.outputs[0]].kind in _AGREEING]
        if not found:
            raise BudgetError(
                "metric agreement needs an output of class scores on real samples [B002]"
            )
    return found
