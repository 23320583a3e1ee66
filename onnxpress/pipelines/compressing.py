"""The parts of a pipeline compressed one after the other, each with its share of one budget.

The largest part comes first. Each is optimized by `onnxpress.optimize` on the inputs that the
pipeline, as far as it is compressed, really gives it. Noise adds up, so that a part may spend the
share of the budget that its bytes are of all, and what those before it left over:

    allowed(k) = margin · Σ_{i ≤ k} bytes(i) / Σ bytes          of the budget of the whole
    dB(k)      = dB + 10·log10(1 / share(k))                     of the part alone

What the whole spends is measured on samples to choose by; a part that spends more is optimized
again with so much less, and after some attempts left alone. Tokens by labels are counted, and a
share of a point may be less than one of them: one token more wrong shows nothing and is allowed.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onnxpress import model_file
from onnxpress.data import Samples
from onnxpress.judge import Budget, Evaluator, Kind
from onnxpress.pipeline import optimize
from onnxpress.pipelines.description import Part
from onnxpress.pipelines.fitting import Wiring
from onnxpress.pipelines.recipe import PipelineRecipe
from onnxpress.pipelines.recording import recorded
from onnxpress.pipelines.result import PartResult
from onnxpress.pipelines.running import Running
from onnxpress.pipelines.transcripts import Transcripts
from onnxpress.progress import Tell, part
from onnxpress.recipe import Recipe, samples_digest
from onnxpress.result import Result
from onnxpress.runtime import Session

__all__ = ["Work", "compressed"]

_MARGIN = 0.8
"""Of the budget that is spent on samples to choose by: what is chosen looks better than it is."""
_ROUNDED = 1 + 1e-9
"""Shares of the same token differ in the last places."""
_ATTEMPTS = 4
_FURTHER_DB = 0.5
"""Beyond what the first attempt lacked, as the loss of a part is no exact function of its dB; four
times as much beyond each further one, so that the last is 10 dB milder than that."""
_OBSERVED, _CHOSEN_BY = 256, 128
"""Inputs of a part that passes look at, and that a part's own search chooses and judges by."""
_PART_DB, _SCORES_DB = 20.0, 15.0
"""What outputs keep by default (`judge.budget`): values, and log-odds beside a metric."""


@dataclass
class Work:
    """A pipeline as far as it is done.

    Attributes:
        wiring: of the original.
        original: its sessions.
        sessions: as far as parts are compressed.
        calibration: samples that passes look at, with the tokens to follow.
        selection: samples to choose by, likewise.
        chooser: measures the whole on samples to choose by.
        transcripts: of these, where labels say what should be generated.
        options: of `onnxpress.optimize`.
        selected: what else each part's own search is told (`selecting`).
        budget: of the whole.
        deadline: when the search has to end.
        notes: what the user should know.
    """

    wiring: Wiring
    original: Mapping[str, Session]
    sessions: dict[str, Session]
    calibration: Samples
    selection: Samples
    chooser: Evaluator
    transcripts: Transcripts | None
    options: Mapping[str, Any]
    selected: Mapping[str, Mapping[str, Any]]
    budget: Budget
    deadline: float
    notes: list[str] = field(default_factory=list)

    def spent(self, sessions: Mapping[str, Session], wiring: Wiring | None = None) -> float:
        """The share of the whole budget that the pipeline spends with these sessions."""
        return max(self._spent(Running(wiring or self.wiring, sessions)))

    def beyond(
        self, sessions: Mapping[str, Session], allowed: float
    ) -> tuple[tuple[float, float], float]:
        """What the pipeline spends, and how many times what it is allowed; up to 1 it keeps to it.

        Args:
            sessions: of all parts, by name.
            allowed: the share of the budget that may be spent.

        Returns:
            What is spent by the outputs and by the tokens, of the whole budget; and how many times.
        """
        outputs, tokens = self._spent(Running(self.wiring, sessions))
        one = 0.0 if self.transcripts is None else self.transcripts.one(self.budget)
        counted = max(allowed, one * _ROUNDED) if one <= _MARGIN else allowed
        return (outputs, tokens), max(outputs / allowed, tokens / counted)

    def _spent(self, running: Running) -> tuple[float, float]:
        """Of the budget, by the outputs and by the tokens that labels say."""
        outputs = self.chooser.spent(self.chooser.measure(running))
        if self.transcripts is None:
            return outputs, 0.0
        return outputs, self.transcripts.spent(running, self.budget)


def compressed(
    work: Work, told: PipelineRecipe | None, tell: Tell, stop: Callable[[], bool]
) -> list[PartResult]:
    """Every part, in the order in which they were done; the sessions are those of the results."""
    sizes = {p.name: model_file.size_bytes(p.model) for p in work.wiring.pipeline.parts}
    order = sorted(sizes, key=lambda name: -sizes[name]) if told is None else list(told.parts)
    judged = _judged(work)
    # What is left as it is spends nothing, so that the others share the budget.
    counted = {name: sizes[name] if name in judged or told is not None else 0 for name in order}
    whole, done, spent = sum(counted.values()), 0, 0.0
    found: list[PartResult] = []
    for name in order:
        described = work.wiring.pipeline.part(name)
        share = counted[name] / whole
        own = part(tell, done / whole, (done + counted[name]) / whole)
        done += counted[name]
        if told is not None:
            result = _repeated(work, described, told.parts[name], own)
            if result is not None:
                work.sessions[name] = Session(result.model, threads=1, name=name)
            spent = work.spent(work.sessions)
        elif name not in judged:
            result = None
            work.notes.append(
                f"part {name} is left as it is: no later part reads what it gives, so that "
                "nothing would judge it; optimize it alone [N008]"
            )
        elif stop():
            result = None
            work.notes.append(
                f"part {name} is left as it is: the run was interrupted before its turn [N008]"
            )
        else:
            result, spent = _searched(work, described, share, _MARGIN * done / whole, spent, own)
        model = model_file.load(described.model) if result is None else result.model
        found.append(PartResult(name, model, result, sizes[name], spent))
    return found


def _judged(work: Work) -> set[str]:
    """Parts on which the outputs of the last part depend."""
    found: set[str] = set()
    waiting = [work.wiring.pipeline.last]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        loop = work.wiring.pipeline.part(name).loop
        waiting += [loop.first] if loop is not None and loop.first is not None else []
        waiting += [s.part for s in work.wiring.sources[name].values() if s.part is not None]
    return found


def _repeated(work: Work, described: Part, recipe: Recipe | None, tell: Tell) -> Result | None:
    if recipe is None:
        return None
    calibration, evaluation = _inputs(work, described)
    if recipe.calibration is not None:
        # What a part is given follows from the samples, whose digest was compared.
        digest = samples_digest(calibration)
        recipe = replace(recipe, calibration=replace(recipe.calibration, digest=digest))
    options = {k: v for k, v in work.options.items() if k in ("threads", "stop", "max_memory")}
    return optimize(
        described.model,
        calibration=calibration,
        evaluation=evaluation,
        recipe=recipe,
        progress=tell,
        **work.selected[described.name],
        **options,
    )


def _inputs(work: Work, described: Part) -> tuple[Samples, Samples]:
    """What a part is given by the pipeline as far as it is done: to look at, and to judge it by."""
    calibration, evaluation = (
        recorded(work.wiring, work.sessions, samples, described.name, most)
        for samples, most in ((work.calibration, _OBSERVED), (work.selection, 2 * _CHOSEN_BY))
    )
    return calibration, evaluation


def _searched(
    work: Work, described: Part, share: float, allowed: float, before: float, tell: Tell
) -> tuple[Result | None, float]:
    """The best model of a part with which the whole keeps to what is allowed so far.

    Args:
        work: takes the session of that model.
        described: the part.
        share: of the budget, for this part.
        allowed: to be spent by the whole once it is done.
        before: what the whole spends without it.
        tell: told how far it is.

    Returns:
        The result, `None` where the part stays as it is, and what the whole spends now.
    """
    calibration, evaluation = _inputs(work, described)
    less_db, spent = 0.0, (math.inf, 0.0)
    for attempt in range(_ATTEMPTS):
        left = work.deadline - time.monotonic()
        limit = None if math.isinf(left) else max(left * share / _ATTEMPTS, 1.0)
        result = optimize(
            described.model,
            calibration=calibration,
            evaluation=evaluation,
            time_limit=limit,
            progress=tell,
            **_budget_of(work, described, share, less_db),
            **work.selected[described.name],
            **work.options,
        )
        session = Session(result.model, threads=1, name=described.name)
        spent, times = work.beyond({**work.sessions, described.name: session}, allowed)
        if times <= 1:
            work.sessions[described.name] = session
            return result, max(spent)
        # The share of other tokens grows with the size of errors, and not with their power.
        less_db += 20 * math.log10(min(times, 1e3)) + _FURTHER_DB * 4**attempt
        if time.monotonic() > work.deadline:
            break
    by = ("outputs", "tokens that labels say")[spent[1] > spent[0]]
    which = "" if work.transcripts is None else f", by the {by},"
    work.notes.append(
        f"part {described.name} is left as it is: the pipeline would spend {max(spent):.2g} of the "
        f"budget{which} with it compressed, and {allowed:.2g} are allowed by then [N007]"
    )
    return None, before


def _budget_of(work: Work, described: Part, share: float, less_db: float) -> dict[str, Any]:
    """What a part alone may lose: its share of the noise, and so much less as the whole lacked.

    Metrics decide of the whole alone: a share of a point is less than a sample more or less. They
    stay, without a limit, for the stressed inputs that a judge with metrics tries.
    """
    asked, base = work.budget, _PART_DB
    found: dict[str, Any] = {}
    if described.name == work.wiring.pipeline.last and asked.min_sqnr is not None:
        base = asked.min_sqnr
    elif described.loop is not None:
        base = _SCORES_DB - 10 * math.log10(max(asked.max_drop or 1.0, 1.0))
    if described.loop is not None:
        found = {"max_drop": 100.0, "outputs": {described.loop.logits: str(Kind.SEQUENCE)}}
    return {**found, "min_sqnr": base - 10 * math.log10(share) + less_db}
