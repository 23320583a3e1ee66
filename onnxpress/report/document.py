"""The report as plain data: what every form of it shows, and what `--json` writes."""

import math
from typing import TYPE_CHECKING, Any

import onnxpress
from onnxpress import model_file
from onnxpress.judge import Measurement
from onnxpress.providers import ProviderVerdict
from onnxpress.search import StageResult
from onnxpress.validation import Validation

if TYPE_CHECKING:
    from onnxpress.pipeline import Result

__all__ = ["document", "provider_document", "validation_document"]


def document(result: "Result") -> dict[str, Any]:
    """A result as JSON-ready data; infinite and missing numbers are `null`."""
    size = len(model_file.to_bytes(result.model)) if _fits(result) else None
    return {
        "onnxpress": onnxpress.__version__,
        "source": result.source,
        "target": result.recipe.target,
        "within_budget": result.within_budget,
        "problems": list(result.problems),
        "seconds": round(result.seconds, 2),
        "size": {
            "original_bytes": result.original_bytes,
            "bytes": size,
            "ratio": result.original_bytes / size if size else None,
        },
        "validation": (
            None if result.validation is None else validation_document(result.validation)
        ),
        "stages": [_stage(stage) for stage in result.stages],
        "recipe": result.recipe.to_toml(),
    }


def _fits(result: "Result") -> bool:
    return model_file.weight_bytes(result.model) < model_file.PROTOBUF_LIMIT_BYTES


def validation_document(validation: Validation) -> dict[str, Any]:
    """A validation as JSON-ready data."""
    latency = validation.latency
    return {
        "within_budget": validation.within_budget,
        "budget": validation.budget,
        "problems": list(validation.problems),
        "warnings": list(validation.warnings),
        "latency": {
            "original_ms": _number(latency.reference_ms),
            "ms": _number(latency.median_ms),
            "speedup": _number(latency.speedup),
            "quartiles": [_number(latency.low), _number(latency.high)],
        },
        "integer_kernels": dict(validation.integer_kernels),
        "default": _measurement(validation.measurement),
        "modes": {name: _measurement(found) for name, found in validation.modes.items()},
        "providers": [provider_document(verdict) for verdict in validation.providers],
    }


def provider_document(verdict: ProviderVerdict) -> dict[str, Any]:
    """A provider's verdict as JSON-ready data."""
    placement, latency = verdict.placement, verdict.latency
    measured = verdict.measurement
    return {
        "provider": verdict.provider,
        "status": str(verdict.status),
        "detail": verdict.detail,
        "counts": verdict.counts,
        "versions": dict(verdict.versions),
        "placement": None
        if placement is None
        else {
            "nodes": placement.nodes,
            "placed": placement.placed,
            "multiply_add_share": placement.multiply_add_share,
            "partitions": placement.partitions,
            "left": dict(placement.left),
        },
        "measurement": None if measured is None else _measurement(measured),
        "identical": measured is not None and math.isinf(measured.worst_sqnr_db),
        "exact_sqnr_db": _decibels(verdict.exact_sqnr_db),
        "floor_db": _decibels(verdict.floor_db),
        "latency": None
        if latency is None
        else {
            "original_ms": _number(latency.reference_ms),
            "ms": _number(latency.median_ms),
            "speedup": _number(latency.speedup),
            "quartiles": [_number(latency.low), _number(latency.high)],
        },
        "integer_kernels": None
        if verdict.integer_kernels is None
        else dict(verdict.integer_kernels),
        "warnings": list(verdict.warnings),
        "advice": list(verdict.advice),
        "seconds": verdict.seconds,
    }


def _decibels(value: float | None) -> float | None:
    return None if value is None else _number(value)


def _measurement(found: Measurement) -> dict[str, Any]:
    return {
        "samples": found.samples,
        "source": found.source,
        "metric": found.metric,
        "original": _number(found.reference),
        "value": _number(found.value),
        "drop": _number(found.drop) if found.metric else None,
        "drop_interval": [_number(end) for end in found.interval] if found.metric else None,
        "worst_sqnr_db": _number(found.worst_sqnr_db),
        "outputs": {
            name: {
                "sqnr_db": _number(output.sqnr_db),
                "identical": output.equal_share == 1.0,
                "cosine": _number(output.cosine),
                "max_error": _number(output.max_error),
                "equal_share": output.equal_share,
            }
            for name, output in found.outputs.items()
        },
    }


def _stage(stage: StageResult) -> dict[str, Any]:
    return {
        "pass": stage.pass_.name,
        "changed": bool(stage.decisions),
        "note": stage.note,
        "tried": stage.tried,
        "speedup_over_before": None if stage.latency is None else _number(stage.latency.speedup),
        "decisions": [
            {
                "site": decision.site,
                "predicted_error": _number(decision.candidate.predicted_error),
                "saved_bytes": decision.candidate.saved_bytes,
                "saved_multiply_adds": decision.candidate.saved_multiply_adds,
                "zeroed_weights": decision.candidate.zeroed_weights,
                "parameters": dict(decision.candidate.parameters),
            }
            for decision in stage.decisions
        ],
        "left": [{"site": skip.site, "reason": skip.reason} for skip in stage.left],
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
