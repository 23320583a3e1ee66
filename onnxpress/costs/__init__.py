"""What models take on the processor: a table of measured latencies, and predictions from it.

- `sizes`, `inferring`: a size for every dimension.
- `keys`: what the latency of a node depends on.
- `table`, `store`: what nodes took on a machine, in memory and on disk.
- `measuring`, `recording`: rows of the table from profiles of whole models.
- `rates`, `predicting`: the latency of a model that was never run.
- `replaying`: a clock that gives the answers of an earlier run.
"""

from onnxpress.costs.keys import NodeKey, node_keys
from onnxpress.costs.measuring import measured_rows
from onnxpress.costs.predicting import Prediction, model_digest, predict
from onnxpress.costs.recording import recorded
from onnxpress.costs.replaying import RecordedClock, for_judging
from onnxpress.costs.sizes import Sizes, sizes_of
from onnxpress.costs.store import load_table, save_table
from onnxpress.costs.table import CostTable, Machine, ModelTime, Row, this_machine

__all__ = [
    "CostTable",
    "Machine",
    "ModelTime",
    "NodeKey",
    "Prediction",
    "RecordedClock",
    "Row",
    "Sizes",
    "for_judging",
    "load_table",
    "measured_rows",
    "model_digest",
    "node_keys",
    "predict",
    "recorded",
    "save_table",
    "sizes_of",
    "this_machine",
]
