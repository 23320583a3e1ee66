"""Two models side by side: what they take and give, hold, and compute, and where they part."""

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxpress import model_file
from onnxpress.conversion import opened_file
from onnxpress.data import Data, Samples, load_prepared, random_samples, require_runnable
from onnxpress.difference.explaining import Explainer, Parting
from onnxpress.difference.matching import match
from onnxpress.difference.pairing import Matching
from onnxpress.difference.parting import TensorError, measure
from onnxpress.difference.tensors import Tensors, prepared, random_nodes, tensors_of
from onnxpress.difference.weights import WeightsCompared, compare_weights
from onnxpress.errors import DataError, UsageError
from onnxpress.graph import node_label
from onnxpress.judge import interface_problems, read_outputs
from onnxpress.judge.cuts import cut_all
from onnxpress.judge.fidelity import FidelitySum, OutputFidelity
from onnxpress.judge.slices import SliceSum
from onnxpress.progress import Progress, Tell, followed, part, unheard
from onnxpress.runtime import Feed, InputSpec, Session

__all__ = ["DEFAULT_TOLERANCE_DB", "Difference", "compare_models"]

DEFAULT_TOLERANCE_DB = 80.0
"""Folding and reordering float32 operations leaves 100 dB and more, half precision 60 to 75."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What tells two models apart.

    Attributes:
        sources: what A and B are called.
        same: whether interface and outputs agree within the tolerance.
        interface: differences of inputs and outputs, in sentences.
        operators: how often each operator is in A and in B, where that differs.
        weights: constants compared.
        outputs: of each output that both have, how near B's are to A's.
        first: the first tensor whose own node adds more than the tolerance.
        worst: those that add most, the worst first.
        parted: how many tensors add more than the tolerance.
        paired: how many pairs were found by name, value, structure, or as a copy.
        unmatched: tensors of A without counterpart.
        incomparable: tensors of A whose counterparts have other shapes.
        errors: of all tensors compared, in the order in which A computes them.
        random: nodes that draw other numbers in every run.
        notes: what limits the comparison, in sentences.
        tolerance_db: SQNR from which two tensors are equal within rounding.
        samples: how many were run.
        data: where they came from.
    """

    sources: tuple[str, str]
    same: bool
    interface: tuple[str, ...]
    operators: Mapping[str, tuple[int, int]]
    weights: WeightsCompared
    outputs: Mapping[str, OutputFidelity]
    first: Parting | None
    worst: tuple[Parting, ...]
    parted: int
    paired: Mapping[str, int]
    unmatched: tuple[str, ...]
    incomparable: tuple[str, ...]
    errors: tuple[TensorError, ...]
    random: tuple[str, ...]
    notes: tuple[str, ...]
    tolerance_db: float
    samples: int
    data: str


def compare_models(
    a: str | Path,
    b: str | Path,
    *,
    data: Data | None = None,
    preparation: Mapping[str, Any] | None = None,
    samples: int = 16,
    tolerance_db: float = DEFAULT_TOLERANCE_DB,
    listed: int = 10,
    threads: int = 0,
    seed: int = 0,
    progress: Tell = unheard,
) -> Difference:
    """Compare two model files.

    Args:
        a: the original.
        b: the other, such as what a converter or quantizer made of it.
        data: samples for A; without, random inputs.
        preparation: how a recipe says that files are prepared (`Recipe.preparation`).
        samples: how many of them are run.
        tolerance_db: SQNR from which two tensors are equal within rounding.
        listed: how many of the worst nodes are given.
        threads: of onnxruntime; 0: all cores.
        seed: of random inputs.
        progress: told how far it is, see `Progress`.

    Raises:
        ModelError: one of the files is no model, or onnxruntime cannot load or run it.
        DataError: the samples do not fit.
        UsageError: the models have no output in common.
    """
    progress = followed(progress)
    progress(Progress("reading", fraction=0.0))
    loaded = tuple(model_file.load(path) for path in (a, b))
    sessions = tuple(opened_file(Path(p), threads=threads) for p in (a, b))
    if data is None:
        taken = _made_up(sessions[0], loaded[0], samples, seed, str(a))
    else:
        taken = _samples(sessions[0], data, samples, preparation or {})
    common = _common_outputs(sessions, (str(a), str(b)))
    inputs, missing = _inputs(sessions)
    views = tuple(
        tensors_of(prepared(model, str(path))) for model, path in zip(loaded, (a, b), strict=True)
    )
    found = _Compared((str(a), str(b)), loaded, sessions, views, tolerance_db, listed)
    if missing:
        note = (
            f"B takes {', '.join(missing)}, which A does not: nothing was run; "
            "interface, operators and weights are compared"
        )
        return _difference(found, None, (), {}, taken, (note,))
    feeds = _feeds(taken, inputs, sessions[1])
    progress(Progress("pairing tensors", fraction=0.1))
    matching = match(views[0], views[1], feeds, inputs, threads=threads)
    fixed = _drawn(matching, views[0])
    errors = measure(
        views[0],
        views[1],
        matching,
        feeds,
        fixed,
        threads=threads,
        progress=part(progress, 0.4, 0.9),
    )
    progress(Progress("comparing outputs", fraction=0.9))
    outputs = _outputs(sessions, feeds, common)
    return _difference(found, matching, errors, outputs, taken, ())


@dataclass(frozen=True, slots=True)
class _Compared:
    """Both models, A first."""

    sources: tuple[str, ...]
    loaded: tuple[ir.Model, ...]
    sessions: tuple[Session, ...]
    tensors: tuple[Tensors, ...]
    tolerance_db: float
    listed: int

    @property
    def tolerance(self) -> float:
        """Noise over signal."""
        return float(10 ** (-self.tolerance_db / 10))


def _made_up(session: Session, model: ir.Model, number: int, seed: int, source: str) -> Samples:
    try:
        return random_samples(session, number, seed, model)
    except DataError as error:
        raise DataError(f"{source}: {str(error).replace('--evaluation', '--data')}") from error


def _samples(session: Session, data: Data, number: int, preparation: Mapping[str, Any]) -> Samples:
    found = load_prepared(data, session.inputs, preparation)
    taken = found.take(range(min(number, len(found))))
    require_runnable(session, taken)
    return taken


def _common_outputs(sessions: Sequence[Session], sources: tuple[str, str]) -> list[str]:
    one, other = sessions
    common = [name for name in one.output_names if name in other.output_names]
    if not common:
        raise UsageError(
            f"{sources[1]}: gives {', '.join(other.output_names)}, but {sources[0]} gives "
            f"{', '.join(one.output_names)}; expected an output of one name in both; rename them, "
            "or compare models of one origin [U016]"
        )
    return common


def _inputs(sessions: Sequence[Session]) -> tuple[dict[str, str], list[str]]:
    """B's inputs to A's: by name, then by place among those alike; and those only B has."""
    one, other = sessions
    free = {spec.name: spec for spec in one.inputs}
    found = {spec.name: spec.name for spec in other.inputs if free.pop(spec.name, None)}
    missing = []
    for spec in other.inputs:
        if spec.name in found:
            continue
        fits = next((name for name, one_spec in free.items() if _alike(one_spec, spec)), None)
        if fits is None:
            missing.append(str(spec))
        else:
            found[spec.name] = fits
            del free[fits]
    return found, missing


def _alike(one: InputSpec, other: InputSpec) -> bool:
    kinds = {np.dtype(spec.dtype).kind if "(" not in spec.dtype else "?" for spec in (one, other)}
    return len(kinds) == 1 and len(one.shape) == len(other.shape)


def _feeds(
    samples: Samples, inputs: Mapping[str, str], session: Session
) -> list[tuple[Feed, Feed]]:
    """For A and for B, in the types that B takes."""
    types = {spec.name: spec.dtype for spec in session.inputs}
    return [
        (feed, {name: feed[other].astype(types[name]) for name, other in inputs.items()})
        for feed in samples
    ]


def _drawn(matching: Matching, a: Tensors) -> list[str]:
    """Tensors of B whose counterparts A draws at random."""
    random = {value.name for node in random_nodes(a.model) for value in node.outputs}
    return [name for name, other in matching.pairs.items() if other in random]


def _outputs(
    sessions: Sequence[Session], feeds: Sequence[tuple[Feed, Feed]], common: Sequence[str]
) -> dict[str, OutputFidelity]:
    """How near B's outputs are to A's, as both run by default, in slices as they are judged."""
    answers = [sessions[0].run(feed) for feed, _ in feeds]
    readings = read_outputs(None, sessions[0], answers)
    cuts = cut_all({name: readings[name] for name in common}, answers)
    sums = {
        name: FidelitySum(SliceSum(cuts[name], readings[name].axis) if name in cuts else None)
        for name in common
    }
    for one, (_, feed) in zip(answers, feeds, strict=True):
        other = sessions[1].run(feed, common)
        for name, total in sums.items():
            total.add(one[name], other[name])
    return {name: total.finish() for name, total in sums.items()}


def _difference(
    found: _Compared,
    matching: Matching | None,
    errors: Sequence[TensorError],
    outputs: Mapping[str, OutputFidelity],
    samples: Samples,
    notes: tuple[str, ...],
) -> Difference:
    interface = tuple(interface_problems(found.sessions[0], found.sessions[1]))
    random = [node_label(n) for t in found.tensors for n in random_nodes(t.model)]
    blamed = _blamed(found, errors)
    pairs = {} if matching is None else matching.pairs
    explained = Explainer(found.tensors[0], found.tensors[1], pairs)
    worst = sorted(blamed, key=lambda error: -error.adds)[: found.listed]
    agree = bool(outputs) and all(_agrees(o, found.tolerance_db) for o in outputs.values())
    return Difference(
        sources=(found.sources[0], found.sources[1]),
        same=agree and not interface,
        interface=interface,
        operators=_operators(found.loaded),
        weights=compare_weights(found.loaded[0], found.loaded[1]),
        outputs=outputs,
        first=explained.parting(blamed[0]) if blamed else None,
        worst=tuple(explained.parting(error) for error in worst),
        parted=len(blamed),
        paired=dict(collections.Counter(() if matching is None else matching.how.values())),
        unmatched=() if matching is None else matching.unmatched,
        incomparable=tuple(
            pairs[name]
            for name in pairs
            if matching is not None
            and name in matching.sketches_b
            and pairs[name] in matching.sketches_a
            and not matching.comparable(name)
        ),
        errors=tuple(errors),
        random=tuple(dict.fromkeys(random)),
        notes=notes,
        tolerance_db=found.tolerance_db,
        samples=len(samples) if outputs else 0,
        data=samples.source,
    )


def _blamed(found: _Compared, errors: Sequence[TensorError]) -> list[TensorError]:
    """What adds more than the tolerance, without what is drawn at random."""
    random = {
        value.name for t in found.tensors for n in random_nodes(t.model) for value in n.outputs
    }
    return [
        error
        for error in errors
        if error.adds > found.tolerance
        and error.tensor.name not in random
        and error.counterpart.name not in random
    ]


def _agrees(output: OutputFidelity, tolerance_db: float) -> bool:
    return output.whole_db >= tolerance_db if output.is_float else output.equal_share == 1


def _operators(models: Sequence[ir.Model]) -> dict[str, tuple[int, int]]:
    """How often A and B have an operator, bodies included, where that differs."""
    one, other = (
        collections.Counter(node.op_type for node in model.graph.all_nodes()) for model in models
    )
    return {
        name: (one[name], other[name]) for name in sorted(one | other) if one[name] != other[name]
    }
