"""Choose among the candidates of a stage under the budget, by measurement.

`stage` is where to begin: it runs a pool through `layer_timing` and `strategy`, which sees what
is in `trial` and asks `measured` to build and measure, `sensitivity` for what candidates cost at
the outputs, `allocation` to share a saving out, and `bisection` for how much of it holds.
`findings` is what the next search of the same model need not find out again, `journal` all that
was measured. `objective` says what is weighed. `costliest` tells afterwards which decisions cost
most, within an `allowance` of time.
"""

from onnxpress.search.allocation import allocate, strongest
from onnxpress.search.allowance import Allowance
from onnxpress.search.bisection import bisected
from onnxpress.search.costliest import Cost
from onnxpress.search.findings import Findings, seen_of
from onnxpress.search.journal import Journal, TriedModel
from onnxpress.search.objective import GOALS, Goal, Objective
from onnxpress.search.splits import Look, Split, best_split, even_split, until_each
from onnxpress.search.stage import PoolResult, fit_stage, search_stage
from onnxpress.search.strategy import choose
from onnxpress.search.trial import Choice, Magnifications, SearchOptions, Trial
from onnxpress.search.worth import hardly_gains, told_how

__all__ = [
    "GOALS",
    "Allowance",
    "Choice",
    "Cost",
    "Findings",
    "Goal",
    "Journal",
    "Look",
    "Magnifications",
    "Objective",
    "PoolResult",
    "SearchOptions",
    "Split",
    "Trial",
    "TriedModel",
    "allocate",
    "best_split",
    "bisected",
    "choose",
    "even_split",
    "fit_stage",
    "hardly_gains",
    "search_stage",
    "seen_of",
    "strongest",
    "told_how",
    "until_each",
]
