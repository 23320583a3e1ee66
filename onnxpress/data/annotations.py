"""What is said about samples beside their inputs: labels of their rows, and groups of samples."""

from collections.abc import Sequence

import numpy as np

from onnxpress.data.samples import GROUPS, LABELS, Integers
from onnxpress.errors import DataError
from onnxpress.runtime import Array

__all__ = ["checked_groups", "checked_labels", "one_per_feed"]


def checked_labels(labels: object, number: int, rows: int, source: str) -> Integers:
    """Class numbers `[number]`, or `[number, …]` where there is one for each row.

    Args:
        labels: one for each sample, one for each row of all samples, or a row of them per sample.
        number: of samples.
        rows: of each sample along its first axis.
        source: for messages.

    Raises:
        DataError: they are no integers, or neither one a sample nor one a row.
    """
    found = np.asarray(labels)
    each = f"expected one integer class per sample, [{number}]"
    if rows > 1:
        each += f", or one per row, [{number * rows}]"
    if found.dtype.kind == "f":
        whole = bool(np.isfinite(found).all()) and bool((found == np.rint(found)).all())
        advice = (
            f"convert them with labels.astype('int64') or, if they are no classes, remove {LABELS}"
            if whole
            else f"where the model gives values rather than classes, remove {LABELS}: it is "
            "compared with the original, or by --metric module:function"
        )
        raise DataError(
            f"{source}: {LABELS} is {found.dtype}{list(found.shape)}; {each}; {advice} [D006]"
        )
    if found.dtype.kind not in "iu":
        raise DataError(f"{source}: {LABELS} is {found.dtype}{list(found.shape)}; {each} [D006]")
    integers = found.astype(np.int64)
    if integers.shape == (number, 1):
        return integers.reshape(number)
    if len(integers.shape) in {1, 2} and integers.shape[0] == number and integers.size:
        return integers
    if rows > 1 and integers.shape == (number * rows,):
        return integers.reshape(number, rows)
    raise DataError(f"{source}: {LABELS} is {found.dtype}{list(found.shape)}; {each} [D006]")


def checked_groups(groups: object, number: int, rows: int, source: str) -> Integers:
    """A number for each sample, the same for those of one group; names become numbers.

    Raises:
        DataError: they are neither integers nor strings, not one a sample or row, or rows of one
            sample are of different groups.
    """
    found = np.asarray(groups)
    if found.dtype.kind == "O" and all(isinstance(one, str) for one in found.reshape(-1)):
        found = found.astype(str)
    if found.shape == (number * rows,) and rows > 1 and found.dtype.kind in "iuU":
        found = found.reshape(number, rows)
        mixed = np.flatnonzero((found != found[:, :1]).any(axis=1))
        if mixed.size:
            raise DataError(
                f"{source}: the rows of sample {mixed[0]}, a batch of {rows}, are of several "
                f"{GROUPS}; sort the rows so that each batch is of one [D006]"
            )
        found = found[:, 0]
    if found.shape != (number,) or found.dtype.kind not in "iuU":
        raise DataError(
            f"{source}: {GROUPS} is {found.dtype}{list(found.shape)}; expected one integer or "
            f"string per sample, [{number}], the same for samples that belong together [D006]"
        )
    return np.unique(found, return_inverse=True)[1].astype(np.int64).reshape(number)


def one_per_feed(name: str, values: Sequence[Array], number: int, source: str) -> Array | None:
    """What feeds were given beside their inputs, as one array; `None` where there is none.

    Raises:
        DataError: some feeds have it and others not, or in different shapes.
    """
    if not values:
        return None
    if len(values) != number:
        raise DataError(f"{source}: {len(values)} of {number} samples have {name} [D006]")
    shapes = sorted({value.shape for value in values})
    if len(shapes) > 1:
        raise DataError(
            f"{source}: {name} has different shapes, {list(shapes[0])} and {list(shapes[-1])}; "
            "expected the same number for every sample, or --metric module:function that knows "
            "the labels itself [D006]"
        )
    return np.stack(list(values))
