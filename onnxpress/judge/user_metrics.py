"""A user's own metric: `module:function`, for each sample or for all of them.

A function of one sample is called with (outputs, original outputs, label), one of the whole set
(`set=module:function`, for figures that are no means over samples, as mAP, WER, F1 or AUC) with
lists of them. Either gives a score, higher is better, 1 is all.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from onnxpress.data import import_function
from onnxpress.errors import UsageError
from onnxpress.judge.metrics import Answers, Label, Metric, WholeMetric

__all__ = ["user_metric"]

Floats = npt.NDArray[np.float64]
_SET = "set="


def user_metric(text: str) -> Metric | WholeMetric:
    """The metric of `module:function` or `set=module:function`.

    Raises:
        UsageError: it cannot be imported, or fails on a sample, which is named.
    """
    place = text.removeprefix(_SET)
    try:
        function: Callable[..., float] = import_function(place)
    except Exception as error:
        # Importing the user's module runs its code.
        raise UsageError(
            f"metric {text}: cannot be imported: {error}; expected module:function, called with "
            "(outputs, original outputs, label) of a sample, giving a score of 0 to 1 [U013]"
        ) from error
    if text.startswith(_SET):
        return WholeMetric(place, (), _of_set(text, function))
    return Metric(place, (), _of_sample(text, function))


def _of_sample(
    text: str, function: Callable[..., float]
) -> Callable[[Answers, Answers, Label], Floats]:
    def rows(found: Answers, reference: Answers, label: Label) -> Floats:
        known = None if label is None else (int(label[0]) if label.size == 1 else label)
        scores = [
            _called(text, function, answers, reference, known) for answers in (found, reference)
        ]
        return np.array([[*scores, 1.0]])

    return rows


def _of_set(
    text: str, function: Callable[..., float]
) -> Callable[[Sequence[Answers], Sequence[Answers], Sequence[Label] | None], float]:
    def value(
        found: Sequence[Answers], reference: Sequence[Answers], labels: Sequence[Label] | None
    ) -> float:
        return _called(text, function, found, reference, labels)

    return value


def _called(text: str, function: Callable[..., float], *arguments: object) -> float:
    try:
        score = float(function(*arguments))
    except Exception as error:
        # The function is the user's own.
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"metric {text}: fails: {reason} [U013]") from error
    if not np.isfinite(score):
        raise UsageError(f"metric {text}: gives {score}; expected a number, 1 is all [U013]")
    return score
