"""Choose among the candidates of a stage under the budget, by measurement.

`stage` is where to begin: it runs a pool through `layer_timing` and `strategy`, which asks
`trial` to build and measure, `sensitivity` for what candidates cost at the outputs, and
`allocation` to share a saving out. `objective` says what is weighed.
"""

from onnxpress.search.objective import GOALS, Goal, Objective
from onnxpress.search.stage import PoolResult, search_stage
from onnxpress.search.trial import SearchOptions

__all__ = ["GOALS", "Goal", "Objective", "PoolResult", "SearchOptions", "search_stage"]
