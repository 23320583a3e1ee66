"""Let a pass run inside anyone's `onnx_ir.passes.Sequential`."""

from collections.abc import Mapping

import onnx_ir as ir

from onnxpress.contract import Context, Decision, Pass, Proposal
from onnxpress.data import Samples, load_samples
from onnxpress.runtime import Array, Session
from onnxpress.search.allocation import allocate_to
from onnxpress.statistics import Statistics, collect
from onnxpress.targets import Target, load_target

__all__ = ["PressPass", "observe"]


def observe(
    pass_: Pass, context: Context, samples: Samples | None, *, threads: int = 0
) -> Statistics | None:
    """The statistics `pass_` asks for, or `None` when it asks for none or there are no samples."""
    wanted = pass_.observes(context)
    if samples is None or not (wanted.tensors or wanted.layers):
        return None
    return collect(
        context.model, context.layers, samples, wanted, seed=context.seed, threads=threads
    )


class PressPass(ir.passes.InPlacePass):
    """Apply the strongest candidate of every site, or the quota the pass has, without a budget.

    Example::

        ir.passes.Sequential(PressPass(Sparsify(sparsity=0.5)), CheckerPass())(model)
    """

    def __init__(
        self,
        pass_: Pass,
        *,
        calibration: "str | Mapping[str, Array] | Samples | None" = None,
        target: str | Target = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.pass_ = pass_
        self._calibration = calibration
        self._target = load_target(target) if isinstance(target, str) else target
        self._seed = seed

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Propose and rewrite in place."""
        context = Context(model, self._target, seed=self._seed)
        if self._calibration is not None:
            samples = load_samples(self._calibration, Session(model).inputs)
            statistics = observe(self.pass_, context, samples)
            context = Context(model, self._target, statistics, self._seed)
        proposals = [item for item in self.pass_.propose(context) if isinstance(item, Proposal)]
        quota = self.pass_.quota(context)
        if quota is not None and proposals:
            # Without an evaluation the predicted errors count as they are.
            ladder = allocate_to(
                proposals, quota, lambda rung: self.pass_.saving(context, rung, quota.unit)
            )
            decisions = list(ladder[-1])
        else:
            decisions = [Decision(item.site, item.candidates[0]) for item in proposals]
        if decisions:
            self.pass_.rewrite(context, decisions)
        return ir.passes.PassResult(model, bool(decisions))
