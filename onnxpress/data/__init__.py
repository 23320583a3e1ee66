"""Samples: what a model is fed, one run after the other, checked against its inputs first.

One *sample* is what a single run of the model takes. For an input whose first dimension is
the batch, an array `[samples, ...]` holds one row per sample; an array with one axis more than
the input holds one complete input per sample (the way for scalars, states and inputs whose
batch is not in front).

Each kind of data has a reader, found by an entry point in the group `onnxpress.data`. A new one
is a module with a `Reader` that calls `from_arrays` or `from_feeds`, which check what it read.
"""

from onnxpress.data.checks import from_arrays, from_feeds, require_runnable
from onnxpress.data.described import check_preparation, load_prepared
from onnxpress.data.function import import_function
from onnxpress.data.reader import Data, Reader, load_samples
from onnxpress.data.samples import GROUPS, LABELS, Samples
from onnxpress.data.synthetic import MOST_SECONDS, random_samples, rows_looked_up

__all__ = [
    "GROUPS",
    "LABELS",
    "MOST_SECONDS",
    "Data",
    "Reader",
    "Samples",
    "check_preparation",
    "from_arrays",
    "from_feeds",
    "import_function",
    "load_prepared",
    "load_samples",
    "random_samples",
    "require_runnable",
    "rows_looked_up",
]
