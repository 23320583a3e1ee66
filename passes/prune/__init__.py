"""Remove whole channels, heads and blocks (structured pruning).

- `prune`: the pass: how many of which group, and what their readers become.
- `coupling`: which indices go together; `reader`: the walk that finds out; `operators`,
  `elementwise`, `moving`, `reshaping`: what each operator says of that.
- `layout`: groups and layers; `importance`: which units to remove; `redundant`: which
  are free; `blocks`: residual blocks.
- `cut`: take units out of the graph.
"""

from onnxpress.passes.prune.prune import Prune

__all__ = ["Prune"]
