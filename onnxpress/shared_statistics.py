"""Statistics of one model, collected once for all pools that find it as it was.

Most models leave an early pool unchanged: what the later ones want to see of it is seen in the same
run over the samples. That run, with the products of rows that it adds up, is the dearest step of
many searches. The first model comes again where a plan is followed once more without its early
passes: what was seen of it is kept where that is small.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.contract import Context, Pass
from onnxpress.data import Samples
from onnxpress.enforcement import observed_by
from onnxpress.errors import PassError
from onnxpress.statistics import (
    Observations,
    Statistics,
    TensorStatistics,
    collect,
    wide_note,
)

__all__ = ["KEPT_BYTES", "SharedStatistics"]

logger = logging.getLogger(__name__)

KEPT_BYTES = 256_000_000
"""Of the first model's statistics: more is collected again when it comes again."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was observed of a model.

    Attributes:
        model: held, so that it is known when it comes again.
        wanted: what passes asked for.
        statistics: what was seen.
    """

    model: ir.Model
    wanted: Observations
    statistics: Statistics

    def answers(self, model: ir.Model, wanted: Observations) -> bool:
        """Whether it is of this model and holds all that is wanted."""
        return self.model is model and self.wanted.covers(wanted)


class SharedStatistics:
    """What was observed of the last model, and of the first: Gram matrices are large.

    Attributes:
        samples: that are observed; `None`: none.
        shortened: whether time was too short for all of them.
        note: what of some layers is not observed; empty where all is.
    """

    def __init__(
        self, samples: Samples | None, *, most: int | None = None, threads: int = 0
    ) -> None:
        """Of nothing yet.

        Args:
            samples: to observe; `None`: nothing is observed.
            most: of the samples, the first ones; `None`: as many as there is time for.
            threads: of onnxruntime.
        """
        self.samples, self.shortened, self.note = samples, False, ""
        self._threads = threads
        self._settled = most is not None
        if most is not None:
            self._shorten(most)
        self._first: _Seen | None = None
        self._last: _Seen | None = None

    def of(
        self,
        model: ir.Model,
        context: Context,
        passes: Iterable[Pass],
        others: Sequence[Pass] = (),
        over: Callable[[], bool] = lambda: False,
    ) -> Statistics | None:
        """What the passes want to see of a model, from a run over the samples or an earlier one.

        What else is observed decides which operators a session fuses, and so the last bits: a
        repetition has to name the same passes.

        Args:
            model: held, so that it is known when it comes again.
            context: of a clone of it that no pass has prepared differently.
            passes: that look at it now.
            others: that looked at it before, or may look at it afterwards.
            over: whether the first run has to end with the samples it has had, which are the
                samples of all later runs then.

        Raises:
            PassError: one of `passes` fails.
        """
        wanted = Observations.union(observed_by(pass_, context) for pass_ in passes)
        if self.samples is None or not (wanted.tensors or wanted.layers):
            return None
        for seen in (self._last, self._first):
            if seen is not None and seen.answers(model, wanted):
                return seen.statistics
        # Free first: two sets of large Gram matrices at a time may be too many.
        self._last = None
        everything = Observations.union((wanted, *_wanted_by(others, context)))
        found = collect(
            context.model,
            context.layers,
            self.samples,
            everything,
            seed=context.seed,
            threads=self._threads,
            over=(lambda: False) if self._settled else over,
        )
        self._settled = True
        self._shorten(found.samples)
        if everything.gram:
            wide = [one for one in found.layers.values() if one.gram is None]
            self.note = wide_note(len(wide), sum(one.tiles is not None for one in wide))
        self._last = _Seen(model, everything, found)
        if self._first is None and found.nbytes <= KEPT_BYTES:
            self._first = self._last
        return found

    def tensors(self) -> dict[str, TensorStatistics]:
        """Ranges and histograms of tensors: of the last model, what it lacks of the first."""
        seen = [one for one in (self._first, self._last) if one is not None]
        return {name: found for one in seen for name, found in one.statistics.tensors.items()}

    def _shorten(self, number: int) -> None:
        if self.samples is not None and number < len(self.samples):
            self.samples, self.shortened = self.samples.take(range(number)), True


def _wanted_by(passes: Iterable[Pass], context: Context) -> list[Observations]:
    """What passes want to see; one that fails is asked again when its turn comes."""
    found: list[Observations] = []
    for pass_ in passes:
        try:
            found.append(observed_by(pass_, context))
        except PassError as error:
            logger.debug("%s", error)
    return found
