"""Keep what was measured of an original and its results in the machine's table."""

from collections.abc import Sequence

import onnx_ir as ir

from onnxpress.costs.measuring import Measured, measured_rows
from onnxpress.costs.predicting import model_digest
from onnxpress.costs.store import load_table, save_table
from onnxpress.costs.table import this_machine
from onnxpress.runtime import Feed

__all__ = ["recorded"]


def recorded(
    models: Sequence[ir.Model],
    feed: Feed,
    milliseconds: Sequence[float],
    *,
    threads: int = 0,
    budget_s: float = 2.0,
) -> list[Measured]:
    """Profile models in turn, and add what the table of this machine does not know.

    Args:
        models: the original first; not changed.
        feed: that they run on.
        milliseconds: of one run of each, from the same rounds.
        threads: of onnxruntime; 0: all cores.
        budget_s: seconds for all together, about.

    Raises:
        ModelError: a model does not run.
    """
    whole = [1e3 * ms for ms in milliseconds]
    found = measured_rows(
        models, [feed] * len(models), threads=threads, budget_s=budget_s, whole=whole
    )
    table = load_table(this_machine(threads))
    for one in found:
        table.add(one.rows)
        table.models.setdefault(model_digest(one.keys), one.time)
    save_table(table)
    return found
