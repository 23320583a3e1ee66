"""Let a pass run inside anyone's `onnx_ir.passes.Sequential`."""

from collections.abc import Mapping

import onnx_ir as ir

from onnxpress.contract import Pass
from onnxpress.conversion import stored_again, with_float_weights
from onnxpress.data import Samples, load_samples
from onnxpress.pool import Pool
from onnxpress.runtime import Array, Session
from onnxpress.search.allocation import strongest
from onnxpress.targets import Target, load_target

__all__ = ["PressPass"]


class PressPass(ir.passes.FunctionalPass):
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
        self._pool = Pool((pass_,))
        self._calibration = calibration
        self._target = load_target(target) if isinstance(target, str) else target
        self._seed = seed

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Propose and rewrite; the given model is not changed.

        Raises:
            PassError: the pass breaks its contract.
        """
        samples = None
        if self._calibration is not None:
            samples = load_samples(self._calibration, Session(model).inputs)
        context = self._pool.context(
            with_float_weights(model), self._target, samples, seed=self._seed
        )
        offer = self._pool.offer(context)
        if offer.failures:
            raise offer.failures[0]
        decisions = strongest(self._pool, context, offer)
        if not decisions:
            return ir.passes.PassResult(model.clone(), modified=False)
        rewritten = self._pool.rewrite(context, decisions)
        return ir.passes.PassResult(stored_again(rewritten), modified=True)
