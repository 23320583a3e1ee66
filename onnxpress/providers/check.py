"""Check a model on execution providers: one process each, judged by what it really did.

For each provider: what it took of the model (onnxruntime's own record of the assignment), its
outputs against the original in float and against the exact arithmetic of the same model, which
kernels computed in integers, and its latency against the original's on the same provider.
"""

import collections
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxpress.conversion.convert import dynamic_inputs
from onnxpress.conversion.ort_format import write_ort
from onnxpress.errors import ModelError, OnnxpressError
from onnxpress.judge import Evaluator, FidelitySum, Measurement
from onnxpress.progress import Progress, Tell, unheard
from onnxpress.providers.by_rules import verdict_by_rules
from onnxpress.providers.catalogue import Provider, has_nvidia_gpu, provider
from onnxpress.providers.config import ProviderLocation, ProviderOptions, read_config
from onnxpress.providers.kernels import integer_kernels, write_saturation_probe
from onnxpress.providers.launch import Answer, launch
from onnxpress.providers.placement import place_nodes
from onnxpress.providers.prepare import (
    fixed,
    multiply_adds,
    read_outputs,
    write_feeds,
    write_model,
)
from onnxpress.providers.verdicts import ProviderVerdict, Status
from onnxpress.runtime import EXACT, Array, Feed, Latency, Session
from onnxpress.targets import load_target
from onnxpress.temporary import temporary_folder

__all__ = ["check_providers"]

logger = logging.getLogger(__name__)

_RUN_SHARE = 0.2
"""Of the time limit, for each of running the samples and timing."""
_NOTABLE_DB = 1.0
_REASON = 360
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM")


def check_providers(
    options: ProviderOptions,
    model: ir.Model,
    original: ir.Model,
    evaluator: Evaluator,
    *,
    threads: int = 0,
    progress: Tell = unheard,
) -> tuple[ProviderVerdict, ...]:
    """Check `model` on each provider, one after the other.

    Args:
        options: which, and where they are; see `catalogue.PROVIDERS`.
        model: what to check.
        original: what it came from.
        evaluator: of the original, with the samples and the budget.
        threads: of onnxruntime; 0: all cores.
        progress: told how far it is, see `Progress`.

    Raises:
        UsageError: a name or the configuration means nothing.
    """
    options.check()
    entries = [provider(name) for name in options.names]
    places = read_config(options.config)
    verdicts = []
    with temporary_folder() as folder:
        check = _Check(folder, model, original, evaluator, options.time_limit, threads)
        for number, entry in enumerate(entries):
            progress(Progress(f"checking on {entry.name}", number, len(entries)))
            started = time.monotonic()
            verdict = check.run(entry, places[entry.name])
            seconds = round(time.monotonic() - started, 2)
            verdicts.append(replace(verdict, seconds=seconds))
    return tuple(verdicts)


def _shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feed.items()}


class _Recorded:
    """Outputs of another process in the order of the samples."""

    def __init__(self, outputs: Sequence[Mapping[str, Array]]) -> None:
        self._left = iter(outputs)

    def run(self, _feed: Feed, /) -> Mapping[str, Array]:
        return next(self._left)


@dataclass
class _Check:
    """One model on many providers; files and references they share are made once."""

    folder: Path
    model: ir.Model
    original: ir.Model
    evaluator: Evaluator
    time_limit: float
    threads: int
    _exact: list[dict[str, Array]] = field(default_factory=list)
    _multiply_adds: dict[str, int] | None = None
    _session: Session | None = None

    def run(self, entry: Provider, place: ProviderLocation) -> ProviderVerdict:
        if not entry.execution_provider:
            return self._static(entry, "no build for this machine; by its rules")
        if entry.needs_gpu and not has_nvidia_gpu():
            return self._static(entry, "no NVIDIA GPU here; by its rules")
        feeds = self._feeds(entry)
        work = self.folder / entry.name
        work.mkdir()
        try:
            self._write_job(entry, place, work, feeds)
        except OnnxpressError as error:
            return ProviderVerdict(entry.name, Status.FAILED, str(error))
        answer = launch(entry, place, work, time_limit=self.time_limit)
        try:
            return self._judge(entry, place, work, answer)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _feeds(self, entry: Provider) -> list[Feed]:
        """The first samples, all of one shape where shapes are fixed to the first one's."""
        feeds = list(self.evaluator.samples.feeds[: entry.samples])
        if entry.static_shapes:
            same = [_shapes(feed) == _shapes(feeds[0]) for feed in feeds]
            # A prefix, so that outputs, labels and the original's outputs stay in step.
            feeds = feeds[: same.index(False)] if False in same else feeds
        return feeds

    def _static(self, entry: Provider, why: str, status: Status = Status.STATIC) -> ProviderVerdict:
        feed = self.evaluator.samples.feeds[0]
        model = fixed(self.model, feed) if entry.static_shapes else self.model
        verdict = verdict_by_rules(entry, model, why, status=status)
        warnings = (*verdict.warnings, *self._about_shapes(entry))
        return replace(verdict, warnings=warnings)

    def _about_shapes(self, entry: Provider) -> Iterator[str]:
        if entry.static_shapes and dynamic_inputs(self.model):
            yield (
                "it needs static shapes: the inputs were fixed to the first sample's for this "
                "check; write such a model with --fix-shape"
            )

    def _write_job(
        self, entry: Provider, place: ProviderLocation, work: Path, feeds: Sequence[Feed]
    ) -> None:
        suffix = "ort" if entry.ort_format else "onnx"
        kind = "static" if entry.static_shapes else "dynamic"
        names = {}
        for role, model in (("model", self.model), ("original", self.original)):
            path = self.folder / f"{role}.{kind}.onnx"
            if not path.exists():
                write_model(fixed(model, feeds[0]) if entry.static_shapes else model, path)
            if entry.ort_format and not path.with_suffix(".ort").exists():
                write_ort(path, load_target(entry.target))
            names[role] = f"../{path.stem}.{suffix}"
        if entry.saturates:
            write_saturation_probe(work / "probe.onnx")
        job = {
            **names,
            "execution_provider": entry.execution_provider,
            "plugin": entry.plugin,
            "options": {**entry.options, **place.options},
            "config": dict(entry.config),
            "dump": dict(entry.dump),
            "machine": entry.machine,
            "preload": entry.needs_gpu,
            "probe": "probe.onnx" if entry.saturates else "",
            "timed": entry.timed or entry.is_native,
            "threads": self.threads,
            "seconds": self.time_limit * _RUN_SHARE,
            "feeds": write_feeds(feeds, work / "feeds.bin"),
        }
        (work / "job.json").write_text(json.dumps(job), encoding="utf-8")

    def _judge(
        self, entry: Provider, place: ProviderLocation, work: Path, answer: Answer
    ) -> ProviderVerdict:
        report = answer.report
        absent = answer.absent or (report.get("status") == "absent" and str(report["reason"]))
        if absent:
            hint = f"; get it: {entry.install}" if entry.install else ""
            return self._static(entry, f"{absent}{hint}", Status.ABSENT)
        versions = {
            key: str(report[key])
            for key in ("onnxruntime", "plugin_version", "python", "machine", "device")
            if key in report
        }
        failure = answer.failure or (report.get("status") == "failed" and _brief(report["reason"]))
        if answer.late and "outputs" in report:
            # It ran the model: what it had no time left for is missing, and that is all.
            failure = ""
        if entry.saturates and not failure and not report.get("saturates"):
            failure = "the processor has fused 8-bit dot products, so it proves nothing"
        if failure:
            return ProviderVerdict(entry.name, Status.FAILED, failure, versions)
        return self._verdict(entry, place, work, report, versions)

    def _verdict(
        self,
        entry: Provider,
        place: ProviderLocation,
        work: Path,
        report: Mapping[str, Any],
        versions: Mapping[str, str],
    ) -> ProviderVerdict:
        """The verdict on a model that the worker says it ran."""
        names = self._cpu().output_names
        outputs = read_outputs(work / "outputs.bin", report["outputs"], names)
        measurement = self.evaluator.measure(_Recorded(outputs), most=len(outputs))
        exact = self._exact_outputs(len(outputs))
        floor = None
        if "original_outputs" in report:
            first = read_outputs(work / "floor.bin", report["original_outputs"], names)
            floor = self.evaluator.measure(_Recorded(first), most=1).worst_sqnr_db
        placement = place_nodes(entry, report, self._counts())
        kernels = integer_kernels(entry, report, work)
        latency = Latency.of(report["times"]) if report.get("times") else None
        problem = placement.problem or self._broken(measurement)
        emulated = bool(place.emulator) and not entry.is_native
        status = Status.EMULATED if emulated else Status.RAN
        return ProviderVerdict(
            entry.name,
            Status.FAILED if problem else status,
            problem or (place.emulator if emulated else entry.note),
            versions,
            placement.placement,
            measurement,
            exact_sqnr_db=_worst_sqnr(exact, outputs),
            floor_db=floor,
            latency=latency,
            integer_kernels=kernels,
            warnings=(
                *self._warnings(measurement, exact, kernels, latency, report),
                *self._about_shapes(entry),
            ),
        )

    def _broken(self, found: Measurement) -> str:
        """Why a model that ran must not be used there; a drop counts when it is certain."""
        if any(not math.isfinite(o.max_error) for o in found.outputs.values() if o.is_float):
            return "ran, but its outputs have another shape or are not finite"
        reason = self.evaluator.certainly_broken(found)
        return f"ran, but {reason}" if reason else ""

    def _warnings(
        self,
        measurement: Measurement,
        exact: Sequence[Mapping[str, Array]],
        kernels: Mapping[str, int] | None,
        latency: Latency | None,
        report: Mapping[str, Any],
    ) -> Iterator[str]:
        best = self.evaluator.measure(_Recorded(exact), most=len(exact)).worst_sqnr_db
        lost = best - measurement.worst_sqnr_db
        quantized = any(
            node.op_type in _QUANTIZED for graph in self.model.graphs() for node in graph
        )
        if lost > _NOTABLE_DB and quantized:
            yield f"loses {lost:.1f} dB against exact arithmetic ({best:.1f} dB)"
        if quantized and kernels is not None and not kernels:
            yield "computes the quantized layers in float"
        if latency is not None and latency.high < 1:
            yield f"slower than the original there: {latency.speedup:.2f} times its speed"
        if "original_error" in report:
            yield f"the original does not run there: {_brief(report['original_error'])}"
        if report.get("status") != "ran":
            yield f"the time limit ended it while {report['stage']}"

    def _cpu(self) -> Session:
        if self._session is None:
            self._session = Session(self.model, threads=self.threads, config=EXACT)
        return self._session

    def _exact_outputs(self, number: int) -> list[dict[str, Array]]:
        """Of the first samples, Q and DQ computed in float on this machine's CPU."""
        for feed in self.evaluator.samples.feeds[len(self._exact) : number]:
            self._exact.append(self._cpu().run(feed))
        return self._exact[:number]

    def _counts(self) -> dict[str, int]:
        if self._multiply_adds is None:
            path = self.folder / "model.named.onnx"
            write_model(self.model, path)
            try:
                self._multiply_adds = multiply_adds(path, self.evaluator.samples.feeds[0])
            except ModelError:
                logger.debug("multiply-adds cannot be counted", exc_info=True)
                self._multiply_adds = {}
        return self._multiply_adds


def _brief(text: str) -> str:
    """Providers wrap the reason in their own call chain, which comes first."""
    return text if len(text) <= _REASON else f"{text[:80]} … {text[-(_REASON - 80) :]}"


def _worst_sqnr(
    reference: Sequence[Mapping[str, Array]], found: Sequence[Mapping[str, Array]]
) -> float:
    sums: dict[str, FidelitySum] = collections.defaultdict(FidelitySum)
    for one, other in zip(reference, found, strict=True):
        for name, array in one.items():
            sums[name].add(array, other[name])
    results = [fidelity.finish() for fidelity in sums.values()]
    return min((found.sqnr_db for found in results if found.is_float), default=math.inf)
