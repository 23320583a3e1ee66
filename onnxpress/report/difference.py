"""What tells two models apart, as plain data and in words: console, page and JSON show the same.

Noise over signal is `null` where it is infinite; its dB are `null` there and where nothing differs.
"""

import math
import shlex
from collections.abc import Mapping
from typing import Any

from onnxpress.difference import Difference, Parting, TensorError
from onnxpress.enumeration import few
from onnxpress.judge import OutputFidelity
from onnxpress.report.columns import Column, Document, as_document, number_or_none
from onnxpress.report.text import counted, file_name, megabytes
from onnxpress.version import __version__

__all__ = [
    "OUTPUT_COLUMNS",
    "PARTING_COLUMNS",
    "TENSOR_COLUMNS",
    "WEIGHT_COLUMNS",
    "command_to_paste",
    "decibels",
    "difference_document",
    "first_in_words",
    "line_to_paste",
    "remarks",
    "verdict",
]

_NAMED = 5
_SAME = "equal"
_BROKEN = "not finite"


def decibels(noise: float | None, sqnr_db: float | None) -> str:
    """SQNR as people read it."""
    if noise is None:
        return _BROKEN
    return _SAME if sqnr_db is None else f"{sqnr_db:.1f}"


def _db(noise: float) -> float | None:
    return None if noise <= 0 or math.isinf(noise) else -10 * math.log10(noise)


def _because(row: Document) -> str:
    return "; ".join(row["because"])


PARTING_COLUMNS: tuple[Column[Parting], ...] = (
    Column("node", "node of A", lambda p: p.node, number=False),
    Column("operator", "operator", lambda p: p.operator, number=False),
    Column("tensor", "", lambda p: p.error.tensor.name),
    Column("counterpart", "", lambda p: p.error.counterpart.name),
    Column("paired_by", "", lambda p: p.error.how),
    Column("between", "", lambda p: list(p.between)),
    Column(
        "before_db",
        "before, dB",
        lambda p: _db(p.error.before),
        lambda row: decibels(row["before"], row["before_db"]),
    ),
    Column(
        "after_db",
        "after, dB",
        lambda p: _db(p.error.has),
        lambda row: decibels(row["after"], row["after_db"]),
    ),
    Column(
        "adds_db",
        "alone, dB",
        lambda p: _db(p.error.adds),
        lambda row: decibels(row["adds"], row["adds_db"]),
    ),
    Column("before", "", lambda p: number_or_none(p.error.before)),
    Column("after", "", lambda p: number_or_none(p.error.has)),
    Column("adds", "", lambda p: number_or_none(p.error.adds)),
    Column("because", "what differs there", lambda p: list(p.because), _because, number=False),
    Column("layer", "", lambda p: p.layer),
)
"""`before`: the worst input of the node in B; `after`: its output in B; `alone`: its output where
B is given A's values before it."""

TENSOR_COLUMNS: tuple[Column[TensorError], ...] = (
    Column("tensor", "tensor of A", lambda e: e.tensor.name, number=False),
    Column("counterpart", "of B", lambda e: e.counterpart.name, number=False),
    Column("paired_by", "paired by", lambda e: e.how, number=False),
    Column("operator", "operator", lambda e: e.tensor.op_type, number=False),
    Column("after", "", lambda e: number_or_none(e.has)),
    Column(
        "after_db",
        "dB",
        lambda e: _db(e.has),
        lambda row: decibels(row["after"], row["after_db"]),
    ),
    Column("adds", "", lambda e: number_or_none(e.adds)),
    Column(
        "adds_db",
        "alone, dB",
        lambda e: _db(e.adds),
        lambda row: decibels(row["adds"], row["adds_db"]),
    ),
)


def _output_decibels(row: Document) -> str:
    if not row["is_float"]:
        return ""
    if row["sqnr_db"] is None:
        return _SAME if row["max_error"] is not None else _BROKEN
    return f"{row['sqnr_db']:.1f}"


def _six(row: Document) -> str:
    return "" if row["cosine"] is None else f"{row['cosine']:.6f}"


OUTPUT_COLUMNS: tuple[Column[tuple[str, OutputFidelity]], ...] = (
    Column("output", "output", lambda o: o[0], number=False),
    Column(
        "sqnr_db",
        "dB",
        lambda o: number_or_none(o[1].sqnr_db),
        _output_decibels,
    ),
    Column("worst", "worst slices", lambda o: o[1].worst, number=False),
    Column("cosine", "cosine", lambda o: number_or_none(o[1].cosine), _six),
    Column(
        "max_error",
        "largest error",
        lambda o: number_or_none(o[1].max_error),
        lambda row: "" if row["max_error"] is None else f"{row['max_error']:.3g}",
    ),
    Column(
        "equal_share",
        "equal",
        lambda o: o[1].equal_share,
        lambda row: f"{100 * row['equal_share']:.1f}%",
    ),
    Column("is_float", "", lambda o: o[1].is_float),
)

WEIGHT_COLUMNS: tuple[Column[Any], ...] = (
    Column("name", "changed weight", None, number=False),
    Column("before", "in A", None, number=False),
    Column("after", "in B", None, number=False),
    Column(
        "sqnr_db",
        "dB",
        None,
        lambda row: "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}",
    ),
)


def difference_document(found: Difference) -> dict[str, Any]:
    """A difference as JSON-ready data."""
    return {
        "onnxpress": __version__,
        "a": found.sources[0],
        "b": found.sources[1],
        "same": found.same,
        "tolerance_db": found.tolerance_db,
        "samples": found.samples,
        "data": found.data,
        "first": None if found.first is None else as_document(PARTING_COLUMNS, found.first),
        "worst": [as_document(PARTING_COLUMNS, parting) for parting in found.worst],
        "parted": found.parted,
        "outputs": [as_document(OUTPUT_COLUMNS, item) for item in found.outputs.items()],
        "interface": list(found.interface),
        "operators": {name: list(counts) for name, counts in found.operators.items()},
        "weights": _weights(found),
        "paired": dict(found.paired),
        "unmatched": list(found.unmatched),
        "incomparable": list(found.incomparable),
        "random": list(found.random),
        "notes": list(found.notes),
        "tensors": [as_document(TENSOR_COLUMNS, error) for error in found.errors],
    }


def _weights(found: Difference) -> dict[str, Any]:
    weights = found.weights
    return {
        "equal": weights.equal,
        "bytes": list(weights.bytes),
        "changed": [
            {
                "name": changed.name,
                "before": changed.before,
                "after": changed.after,
                "sqnr_db": None if changed.noise is None else _db(changed.noise),
            }
            for changed in weights.changed
        ],
        "renamed": [list(pair) for pair in weights.renamed],
        "removed": list(weights.removed),
        "added": list(weights.added),
    }


def verdict(found: Document) -> str:
    """Whether the outputs agree, on what."""
    if not found["outputs"]:
        return "nothing was run"
    samples = f"{counted(found['samples'], 'sample')} ({file_name(found['data'])})"
    parts = [
        f"{row['output']} {_output_in_words(row)}"
        for row in sorted(found["outputs"], key=_badness)[:_NAMED]
    ]
    more = len(found["outputs"]) - len(parts)
    rest = f" and {counted(more, 'more output')}" if more > 0 else ""
    return f"outputs over {samples}: {', '.join(parts)}{rest}"


def _output_in_words(row: Document) -> str:
    if not row["is_float"]:
        return f"{100 * row['equal_share']:.1f}% equal"
    return _output_decibels(row) + (" dB" if row["sqnr_db"] is not None else "")


def _badness(row: Document) -> float:
    if not row["is_float"]:
        return 1000.0 * float(row["equal_share"])
    if row["sqnr_db"] is None:
        return math.inf if row["max_error"] is not None else -math.inf
    return float(row["sqnr_db"])


def first_in_words(found: Document) -> list[tuple[str, str]]:
    """Where the two part first, and where most comes in; label and sentence."""
    first, worst = found["first"], found["worst"]
    if first is None:
        if found["same"] or not found["tensors"]:
            return []
        text = f"no node adds more than {found['tolerance_db']:g} dB: rounding adds up"
        return [("parting", text)]
    lines = [("first parting", _in_words(first))]
    if worst[0]["counterpart"] != first["counterpart"]:
        lines.append(("largest", _in_words(worst[0])))
    number = counted(found["parted"], "tensor")
    whole = len(found["tensors"])
    lines.append(("in all", f"{number} of {whole} differ by more than what reaches their nodes"))
    return lines


def _in_words(row: Document) -> str:
    before = decibels(row["before"], row["before_db"])
    after = decibels(row["after"], row["after_db"])
    because = f" ({_because(row)})" if row["because"] else ""
    unit = " dB" if row["after_db"] is not None else ""
    where = f"{row['operator']} {row['node']} at {row['tensor']}"
    return f"{where}: from {before} to {after}{unit}{because}"


def command_to_paste(found: Document) -> list[str]:
    """How the worst node is left alone, where B is made from A: its words, or none."""
    if not found["worst"]:
        return []
    return ["onnxpress", "optimize", found["a"], "--keep", found["worst"][0]["layer"]]


def line_to_paste(found: Document) -> str:
    """The same as a line."""
    return shlex.join(command_to_paste(found))


def remarks(found: Document) -> list[tuple[str, str]]:
    """Everything else, label and sentence."""
    lines = [("interface", problem) for problem in found["interface"]]
    if found["random"]:
        names = few(found["random"], _NAMED)
        lines.append(
            ("random", f"the models draw random numbers in {names}; no node is blamed for that")
        )
    if found["outputs"] and found["data"] == "random inputs":
        lines.append(("data", "the inputs are random numbers; give --data for real ones"))
    lines += [("note", note) for note in found["notes"]]
    lines.append(("weights", _weights_in_words(found["weights"])))
    operators = [f"{name} {a} to {b}" for name, (a, b) in found["operators"].items()]
    lines.append(("operators", ", ".join(operators) or "the same number of each"))
    if found["tensors"]:
        lines.append(("tensors", _tensors_in_words(found)))
    return lines


def _weights_in_words(weights: Mapping[str, Any]) -> str:
    kinds = ("renamed", "changed", "removed", "added")
    parts = [f"{weights['equal']} equal"]
    parts += [f"{len(weights[kind])} {kind}" for kind in kinds if weights[kind]]
    worst = sorted(
        (row for row in weights["changed"] if row["sqnr_db"] is not None),
        key=lambda row: float(row["sqnr_db"]),
    )
    text = f"{', '.join(parts)}; {megabytes(weights['bytes'][0])} and "
    text += megabytes(weights["bytes"][1])
    changed = [f"{row['name']} ({row['sqnr_db']:.1f} dB)" for row in worst]
    return f"{text}; most changed: {few(changed, _NAMED)}" if changed else text


def _tensors_in_words(found: Document) -> str:
    parts = [f"{count} paired by {how}" for how, count in sorted(found["paired"].items())]
    if found["unmatched"]:
        parts.append(f"{len(found['unmatched'])} of A without counterpart")
    if found["incomparable"]:
        parts.append(f"{len(found['incomparable'])} of another shape in B")
    return ", ".join(parts)
