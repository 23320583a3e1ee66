"""One or two models as plain data: boxes with their places, what is in them, and what changed.

The document that the page of `onnxpress view` is made of. A place of a box in another graph is
`[graph, box]`; graphs of a model are in the order in which they are met, the main one first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from onnxpress.difference import Difference, TensorError
from onnxpress.difference.explaining import attribute_text
from onnxpress.drawing.changes import Changes, compare_pictures
from onnxpress.drawing.graphs import Box, Constant, Picture, pictures_of, with_shapes
from onnxpress.drawing.layout import layered
from onnxpress.drawing.weights import constant_document, value_text

__all__ = ["box_note", "box_width", "view_document"]

_LETTER, _SMALL_LETTER, _MARGIN = 8.4, 7.2, 24.0
"""Widths in pixels, of a letter of an operator's name, which has a sign before it, and of the note
below it."""
_WIDTHS = (64.0, 236.0)
_ATTRIBUTE = 300
"""Letters of an attribute that are shown."""
_MOST_NOISE = 1e9
"""Over the signal; JSON has nothing that is infinite."""
_LEVELS = (40.0, 25.0, 15.0)
"""Decibels below which an error is marked more: visible in an 8-bit model, large, spoilt."""


@dataclass(frozen=True, slots=True)
class _Model:
    """A model while it is written down."""

    pictures: tuple[Picture, ...]
    numbers: dict[ir.Value, int] = field(default_factory=dict)
    tensors: list[ir.TensorProtocol] = field(default_factory=list)


def view_document(
    models: Sequence[ir.Model], sources: Sequence[str], found: Difference | None = None
) -> dict[str, Any]:
    """One or two models as JSON-ready data.

    Args:
        models: one, or the original and the other.
        sources: what they are called.
        found: where the two part, when samples were run.
    """
    shaped = [with_shapes(model) for model in models]
    mains = [pictures_of(model) for model in shaped]
    written = [_Model(tuple(dict.fromkeys(main.all()))) for main in mains]
    errors = () if found is None else found.errors
    changes = None
    if len(mains) == 2:
        by_value = {e.tensor.name: e.counterpart.name for e in errors if e.how != "copy"}
        changes = compare_pictures(mains[0], mains[1], by_value)
    tolerance = math.inf if found is None else found.tolerance_db
    documents = []
    for side, (model, source) in enumerate(zip(written, sources, strict=True)):
        links = {} if changes is None else _links(written, changes, side)
        known = _errors(errors, side, tolerance)
        graphs = [_graph(picture, model, changes, links, known) for picture in model.pictures]
        documents.append(
            {
                "source": source,
                "nodes": sum(box.kind == "node" for p in model.pictures for box in p.boxes),
                "graphs": graphs,
                "constants": [constant_document(tensor) for tensor in model.tensors],
            }
        )
    return {
        "models": documents,
        "changes": None if changes is None else changes.counts(),
        "measured": None
        if found is None
        else {"samples": found.samples, "data": found.data, "tolerance_db": found.tolerance_db},
        "notes": _notes(changes, found),
    }


def _notes(changes: Changes | None, found: Difference | None) -> list[str]:
    notes = [] if found is None else list(found.notes)
    if changes is not None:
        counts = changes.counts()
        if not counts["same"] and not counts["changed"]:
            notes.append(
                "the models have nothing in common: no node of one has a counterpart in the other"
            )
    return notes


def _links(
    written: Sequence[_Model], changes: Changes, side: int
) -> dict[tuple[Picture, int], list[int]]:
    """Of boxes of one model, the places of their counterparts in the other."""
    numbers = [{picture: n for n, picture in enumerate(model.pictures)} for model in written]
    found = {}
    for pictures, pairs in changes.pairs.items():
        for pair in pairs.items():
            other = 1 - side
            found[pictures[side], pair[side]] = [numbers[other][pictures[other]], pair[other]]
    return found


def _errors(
    errors: Sequence[TensorError], side: int, tolerance: float
) -> dict[str, dict[str, Any]]:
    """By name of a tensor; of several counterparts of one, that which is no mere copy."""
    found: dict[str, dict[str, Any]] = {}
    for error in sorted(errors, key=lambda e: e.how == "copy"):
        name = (error.tensor, error.counterpart)[side].name
        found.setdefault(
            name,
            {
                "has": _decibels(error.has),
                "noise": min(error.adds, _MOST_NOISE),
                "adds": _decibels(error.adds),
                "level": _level(error.has, tolerance),
            },
        )
    return found


def _decibels(noise: float) -> str:
    if noise == 0:
        return "equal"
    return f"{-10 * math.log10(noise):.1f} dB" if math.isfinite(noise) else "not finite"


def _level(noise: float, tolerance: float) -> int:
    """0: equal within the tolerance, to 4."""
    if not math.isfinite(noise):
        return len(_LEVELS) + 1
    decibels = math.inf if noise == 0 else -10 * math.log10(noise)
    return int(decibels < tolerance) + sum(decibels < min(level, tolerance) for level in _LEVELS)


def _graph(
    picture: Picture,
    model: _Model,
    changes: Changes | None,
    links: Mapping[tuple[Picture, int], list[int]],
    errors: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    notes = [box_note(box) for box in picture.boxes]
    widths = [box_width(box.op_type, note) for box, note in zip(picture.boxes, notes, strict=True)]
    layout = layered(widths, [(net.source, net.targets) for net in picture.nets])
    numbers = {inside: number for number, inside in enumerate(model.pictures)}
    boxes = []
    for place, box in enumerate(picture.boxes):
        document = _box(box, model)
        document.update(
            note=notes[place],
            row=layout.rows[place],
            x=round(layout.places[place], 1),
            width=round(widths[place], 1),
            inner=[
                [name, numbers[inside]]
                for (at, name), inside in picture.inner.items()
                if at == place
            ],
            status=None if changes is None else changes.status[box],
            why=[] if changes is None else changes.why.get(box, []),
            other=links.get((picture, place)),
            error=next((errors[n] for v in _shown(box) if (n := v.name or "") in errors), None),
        )
        boxes.append(document)
    nets = [
        {
            "name": net.value.name or "",
            "type": value_text(net.value),
            "level": errors.get(net.value.name or "", {}).get("level", 0),
            "from": net.source,
            "to": list(net.targets),
            "bends": [round(x, 1) for x in layout.bends[index]],
            "far": list(layout.far[index]),
        }
        for index, net in enumerate(picture.nets)
    ]
    return {
        "title": picture.title,
        "boxes": boxes,
        "nets": nets,
        "width": round(layout.width, 1),
    }


def _shown(box: Box) -> Sequence[ir.Value]:
    return [box.value] if box.kind == "output" and box.value is not None else box.gives


def box_note(box: Box) -> str:
    """The second line of a box: what its largest constant is like, or its name's last part."""
    if box.node is None:
        return "" if box.value is None else box.value.name or ""
    tensors = [c.tensor for c in box.constants.values() if c.tensor is not None]
    largest = max(tensors, key=lambda tensor: tensor.size, default=None)
    if largest is not None and len(largest.shape) > 1:
        kind = "" if largest.dtype == ir.DataType.FLOAT else f"{largest.dtype.name.lower()} "
        return kind + "×".join(str(dim) for dim in largest.shape)
    return (box.node.name or "").rstrip("/").rpartition("/")[2]


def box_width(operator: str, note: str) -> float:
    """In pixels, so that what it says fits where it is not very long."""
    wide = max(_LETTER * (len(operator) + 2), _SMALL_LETTER * len(note)) + _MARGIN
    return min(max(wide, _WIDTHS[0]), _WIDTHS[1])


def _box(box: Box, model: _Model) -> dict[str, Any]:
    if box.node is None:
        value = box.value
        named = [] if value is None else [[value.name or "", value_text(value)]]
        sides: dict[str, Any] = {"inputs": [], "outputs": []}
        sides["inputs" if box.kind == "output" else "outputs"] = named
        name = "" if value is None else value.name or ""
        nothing: dict[str, Any] = {"attributes": [], "constants": [], "domain": ""}
        return {"kind": box.kind, "op": box.kind, "name": name, **sides, **nothing}
    node = box.node
    return {
        "kind": "node",
        "op": node.op_type,
        "domain": node.domain,
        "name": node.name or "",
        "attributes": [
            [name, _attribute(attribute)] for name, attribute in sorted(node.attributes.items())
        ],
        "inputs": [[v.name or "", value_text(v)] for v in box.reads.values()],
        "outputs": [[v.name or "", value_text(v)] for v in node.outputs],
        "constants": [
            [found.value.name or "", _number(found, model), list(found.through)]
            for found in box.constants.values()
        ],
    }


def _attribute(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"of the function's {attribute.ref_attr_name}"
    if attribute.type == ir.AttributeType.GRAPH:
        return "a graph, see inside"
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype.name.lower()}{list(tensor.shape.numpy())}"
    text = attribute_text(attribute)
    return text if len(text) <= _ATTRIBUTE else f"{text[:_ATTRIBUTE]}… ({len(text):,} letters)"


def _number(found: Constant, model: _Model) -> int | None:
    """The place of a constant among those of its model; `None` where nothing is known of it."""
    if found.tensor is None:
        return None
    if found.holder not in model.numbers:
        model.numbers[found.holder] = len(model.tensors)
        model.tensors.append(found.tensor)
    return model.numbers[found.holder]
