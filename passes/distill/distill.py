"""The pass itself: which weights are trained, and for how many steps.

It acts on what the lossy passes left, under its masks, ranks and integer grids, so that nothing it
does changes size or speed. All weights are trained together; the candidate of each says how long.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Interval

from onnxpress.contract import Candidate, Context, Decision, Pass, Proposal, Skip, Stage, setting
from onnxpress.errors import DataError, ModelError, RecipeError

if TYPE_CHECKING:
    from onnxpress.distillation.teaching import Teacher
    from onnxpress.distillation.training import Schedule

__all__ = ["Distill"]

_FEWEST = 16
"""Samples: a fifth of them, three, choose the best state."""
_FEWEST_STEPS = 10
_WHOLE = "weights"
"""The site of what is said of all."""


@dataclass(frozen=True)
class Distill(Pass):
    """The original teaches what was made of it."""

    name: ClassVar[str] = "distill"
    stage: ClassVar[Stage] = Stage.RECOVERY
    families: ClassVar[tuple[str, ...]] = ("trained",)
    by_name_only: ClassVar[str] = (
        "it takes minutes, and what it brings back is more than a search in the same time only "
        "where much was lost; name distill to apply it [T001]"
    )

    steps: Annotated[int, Ge(1)] = setting(
        300, "Steps at most; fewer where the time limit leaves no time for them."
    )
    learning_rate: Annotated[float, Interval(gt=0, le=1)] = setting(
        0.005, "Of the first steps, as a share of each weight's size."
    )
    temperature: Annotated[float, Interval(gt=0)] = setting(
        2.0, "By which class scores are divided, so that small ones count."
    )

    def propose(self, context: Context) -> list[Proposal | Skip]:
        """Every weight that has a gradient, with as many steps as there is time for."""
        teacher = context.teacher
        if teacher is None:
            reason = "there is no original with samples to learn from here [T002]"
            return [Skip(_WHOLE, reason)]
        if len(teacher.samples) < _FEWEST:
            return [
                Skip(
                    _WHOLE,
                    f"found {len(teacher.samples)} calibration sample(s) to train with; expected "
                    f"at least {_FEWEST}, and some hundreds do much better [T003]",
                )
            ]
        # Whoever only asks what could be done loads no judge and no session.
        from onnxpress.distillation.teaching import learnable, steps_within  # noqa: PLC0415

        try:
            found = learnable(context.model, teacher, self.temperature)
            left: list[Proposal | Skip] = [
                Skip(name, f"{reason} [T004]") for name, reason in sorted(found.left.items())
            ]
            if not found.names:
                return left or [Skip(_WHOLE, "no weight has a gradient of the loss [T004]")]
            steps = steps_within(
                context.model, teacher, found.names, self._schedule(teacher), self.temperature
            )
        except (ModelError, DataError) as error:
            return [Skip(_WHOLE, f"cannot be trained: {error} [T004]")]
        if steps < min(_FEWEST_STEPS, self.steps):
            reason = f"the time is enough for {steps} steps: give more with --time-limit [L010]"
            return [Skip(_WHOLE, reason)]
        offer = Candidate({"steps": steps}, family="trained", keeps_kernels=True)
        return [*(Proposal(name, (offer,)) for name in found.names), *left]

    def changes(self, context: Context, decision: Decision) -> Collection[str]:
        """The weight, and the layers that it is a bias or scale of."""
        value = context.model.graph.initializers.get(decision.site)
        readers = set() if value is None else {node for node, _ in value.uses()}
        layers = [
            layer.name for layer in context.layers if any(use.node in readers for use in layer.uses)
        ]
        return [decision.site, *layers]

    def rewrite(self, context: Context, decisions: Sequence[Decision]) -> None:
        """Train the weights that were decided on, all together.

        Raises:
            RecipeError: a decision says no number of steps, or there is nothing to learn from.
        """
        teacher = context.teacher
        if teacher is None:
            raise RecipeError(
                "the recipe has weights trained towards the original, and no samples are there to "
                "train with; give those that it names with --calibration [R002]"
            )
        steps = {decision.candidate.parameters["steps"] for decision in decisions}
        if len(steps) != 1 or not isinstance(number := steps.pop(), int):
            raise RecipeError(
                "distill's decisions name several numbers of steps, or none; expected the same "
                "whole number in all of them, as weights are trained together [R005]"
            )
        from onnxpress.distillation.teaching import teach  # noqa: PLC0415 - as above

        schedule = replace(self._schedule(teacher), steps=number)
        names = [decision.site for decision in decisions]
        teach(context.model, teacher, names, schedule, self.temperature)

    def _schedule(self, teacher: "Teacher") -> "Schedule":
        from onnxpress.distillation.training import Schedule  # noqa: PLC0415 - as above

        return Schedule(self.steps, self.learning_rate, None, teacher.seed)
