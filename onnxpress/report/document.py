"""The report as plain data: what every form of it shows, and what `--json` writes.

`schema.json` beside this file describes it; `FORMAT` says which version of it a document keeps.
Infinite and missing numbers are `null`. What belongs to a list of `columns` or `rows` is taken
from there.
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from onnxpress import model_file
from onnxpress.drawing.regions import region_documents
from onnxpress.judge import Disagreement
from onnxpress.providers import ProviderVerdict
from onnxpress.report import columns, rows
from onnxpress.report.form_rows import form_rows
from onnxpress.report.layer_rows import Origins, layer_rows
from onnxpress.report.pictures import fed_document
from onnxpress.report.reading import reading_document
from onnxpress.report.sounds import heard_document
from onnxpress.report.text import opened_by_data
from onnxpress.report.weight_figures import histograms, spectra
from onnxpress.result import Result
from onnxpress.search import TriedModel
from onnxpress.stage_result import StageResult
from onnxpress.validation import Validation
from onnxpress.version import __version__

__all__ = ["FORMAT", "document", "provider_document", "validation_document"]

FORMAT = 1
"""Of the document; it grows where a key goes or changes its meaning, not with new keys."""
_TRIED = 1000
"""Models of a search that are listed; a search measures a few hundred at most."""

_TIME_OVER = "[L010]"
_MORE_TIME = 4
"""Times what a run has taken: what is proposed where that was too little."""
_LEAST_LIMIT_S = 60


def document(
    result: Result, command: Sequence[str] = (), *, figures: bool = True
) -> dict[str, Any]:
    """A result as JSON-ready data.

    Args:
        result: of `optimize`.
        command: the command line that asked for it, where there was one.
        figures: with what a page draws of weights and of the graph; a console shows none of it, and
            it takes a second of a graph of 10,000 nodes.
    """
    validation = result.validation
    origins = Origins(result.stages[0].model) if result.stages else None
    layers = [] if origins is None else layer_rows(result, origins)
    return {
        "format": FORMAT,
        "onnxpress": __version__,
        "command": shlex.join(command),
        "source": result.source,
        "target": result.recipe.target,
        "within_budget": result.within_budget,
        "problems": list(result.problems),
        "warnings": list(result.warnings),
        "seconds": round(result.seconds, 2),
        "next": _next(result),
        **{row.key: row.value(result) for row in rows.RESULT_ROWS},
        "validation": None if validation is None else validation_document(validation),
        "weights": _whole_weights(result),
        "tried": [_tried(one) for one in result.tried[:_TRIED]],
        "tried_in_all": len(result.tried),
        "spent": columns.number_or_none(result.spent),
        "constraints": result.recipe.constraints.table(),
        "requirements": [asdict(requirement) for requirement in result.requirements],
        "layers": layers,
        "forms": [] if origins is None else form_rows(result, origins, layers),
        "histograms": histograms(result, origins, layers) if figures and origins else [],
        "activations": [asdict(grid) for grid in result.activations],
        "operators": [
            {
                "operator": one.operator,
                "nodes": list(one.nodes),
                "ms": [float(f"{ms:.4g}") for ms in one.ms],
                "shares": [round(share, 4) for share in one.shares],
            }
            for one in result.operators
        ],
        "spectra": spectra(result) if figures else [],
        "regions": _regions(result) if figures else [],
        "compared": result.compared,
        "disagreements": [_disagreement(one) for one in result.disagreements],
        "stages": _stages(result.stages, result.original_bytes),
        "recipe": result.recipe.to_toml(),
    }


def _whole_weights(result: Result) -> dict[str, int] | None:
    """Bytes of all weights; those of the simplified original where that is known."""
    if not result.stages:
        return None
    return {
        "before": model_file.weight_bytes(result.stages[0].model),
        "after": model_file.weight_bytes(result.model),
    }


def _regions(result: Result) -> list[dict[str, Any]]:
    """Where the graph of the simplified original changed."""
    if not result.stages:
        return []
    return region_documents(result.stages[0].model, result.named or result.model)


def _tried(one: TriedModel) -> dict[str, Any]:
    """A model of the search."""
    found = {name: getattr(one, name) for name in TriedModel.__slots__}
    for name in ("spent", "drop", "worst_sqnr_db", "speedup"):
        found[name] = columns.number_or_none(found[name])
    return {**found, "forms": dict(one.forms)}


def _disagreement(one: Disagreement) -> dict[str, Any]:
    """A sample on which old and new differ."""
    return {
        "sample": one.place,
        "lost": one.lost,
        "error": columns.number_or_none(one.error),
        "label": one.label,
        "fed": fed_document(one.feed, one.rates),
        "heard": heard_document(one.heard),
        "answers": [
            {"output": a.output, "original": a.original, "optimized": a.optimized}
            for a in one.answers
        ],
    }


def validation_document(validation: Validation) -> dict[str, Any]:
    """A validation as JSON-ready data."""
    return {
        "within_budget": validation.within_budget,
        "budget": validation.budget,
        "judgement": _judgement(validation),
        "readings": [reading_document(reading) for reading in validation.readings],
        "problems": list(validation.problems),
        "warnings": list(validation.warnings),
        "timed_on_target": validation.timed_on_target,
        **{row.key: row.value(validation) for row in rows.VALIDATION_ROWS},
        "providers": [provider_document(verdict) for verdict in validation.providers],
    }


def _judgement(validation: Validation) -> dict[str, Any] | None:
    found = validation.judgement
    if found is None:
        return None
    return {
        "verdict": str(found.verdict),
        "reason": found.reason,
        "samples_needed": found.samples_needed,
    }


def provider_document(verdict: ProviderVerdict) -> dict[str, Any]:
    """A provider's verdict as JSON-ready data."""
    return columns.as_document(columns.PROVIDER_COLUMNS, verdict)


def _next(result: Result) -> str:
    """The step that would help most, in a sentence; empty where none is known."""
    if result.recipe.calibration is None:
        left = ((s.pass_.name, skip.reason, 1) for s in result.stages for skip in s.left)
        return opened_by_data(left)
    hurried = [s.pass_.name for s in result.stages if _was_hurried(s)]
    if hurried:
        seconds = max(_LEAST_LIMIT_S, 10 * round(_MORE_TIME * result.seconds / 10))
        return (
            f"give more time, as --time-limit {seconds}: {', '.join(hurried)} had too little of it"
        )
    judgement = None if result.validation is None else result.validation.judgement
    needed = None if judgement is None else judgement.samples_needed
    if needed is None:
        return ""
    return f"give --evaluation with about {needed:,} samples: they show whether the budget holds"


def _was_hurried(stage: StageResult) -> bool:
    return any(_TIME_OVER in text for text in (stage.note, *(skip.reason for skip in stage.left)))


def _stages(stages: Sequence[StageResult], original_bytes: int) -> list[dict[str, Any]]:
    return [
        {**_stage(stage, original_bytes), "weight_bytes": _weights(stages, index)}
        for index, stage in enumerate(stages)
    ]


def _stage(stage: StageResult, original_bytes: int) -> dict[str, Any]:
    latency = stage.latency
    saved = sum(decision.candidate.saved_bytes for decision in stage.decisions)
    return {
        "pass": stage.pass_.name,
        "changed": bool(stage.decisions),
        "note": stage.note,
        "tried": stage.tried,
        "speedup_over_before": None if latency is None else columns.number_or_none(latency.speedup),
        # Candidates may each claim what they share, but a file has no more than it has.
        "saved_bytes": saved if saved <= original_bytes else None,
        "decisions": [
            columns.as_document(columns.DECISION_COLUMNS, decision) for decision in stage.decisions
        ],
        "costliest": [columns.as_document(columns.COST_COLUMNS, cost) for cost in stage.costliest],
        "left": [columns.as_document(columns.SKIP_COLUMNS, skip) for skip in stage.left],
    }


def _weights(stages: Sequence[StageResult], index: int) -> dict[str, int] | None:
    """Bytes of a stage's weights before and after; `None` where it is not known or not its own."""
    stage = stages[index]
    shared = any(
        other is not stage and other.decisions and other.model is stage.model for other in stages
    )
    if index == 0 or shared:
        return None
    return {
        "before": model_file.weight_bytes(stages[index - 1].model),
        "after": model_file.weight_bytes(stage.model),
    }
