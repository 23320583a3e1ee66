"""Random inputs that a model accepts, where there is no data."""

import itertools
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxpress.data.samples import Samples
from onnxpress.errors import DataError, ModelError
from onnxpress.graph import attribute, is_standard, node_label, static_shape
from onnxpress.growth import largest_made
from onnxpress.runtime import Array, InputSpec, Session

__all__ = ["MOST_SECONDS", "random_samples", "rows_looked_up"]

_LEAVING_NUMBERS = ("Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
_EMBEDDED = (2, 4)
"""Of EmbedLayerNormalization, the tables that words and segments are looked up in."""
# Sizes tried for dynamic dimensions, the usual ones of texts and images first.
MOST_SECONDS = 30.0
"""Of a run of inputs that are made up: a file may also say that a Loop never ends."""
_MOST_ELEMENTS = 1 << 25
"""Of an input that is made up: no model is meant for more, but a file may say anything."""
_MOST_MADE = 1 << 28
"""Elements of one tensor: models that are run on made-up inputs have no larger ones."""
_LARGEST_COUNT = (1 << 31) - 1
"""Of an attribute: onnxruntime gives up between two nodes, and not within one."""
_MOST_INPUTS = 10_000
"""onnxruntime looks for each input in a list of all."""
_LENGTH = re.compile(r"len(s|gths?)?($|[^a-z])")
_SIZES = (64, 16, 224, 320, 576, 512, 288, 256, 1, 2, 32, 128, 1024)


def random_samples(
    session: Session, number: int, seed: int, model: ir.Model | None = None
) -> Samples:
    """Random inputs that the model accepts; dynamic dimensions are found by trying.

    Floats are normal, integers 0 or 1 (valid indices almost everywhere). If the model runs on
    these, integers are words of the whole table that they are looked up in, and what is called a
    length is at least half of what there is. Dimensions of the same name get the same size; a
    dynamic first dimension is a batch of one.

    Args:
        session: of the model.
        number: of samples.
        seed: of the draws.
        model: its graph, where it is at hand, which says what inputs are looked up in.

    Raises:
        DataError: the model runs on none of the sizes tried, or takes strings.
    """
    _require_modest(session, model)
    if len(session.inputs) > _MOST_INPUTS:
        raise DataError(
            f"{len(session.inputs):,} inputs are not made up at random; give "
            "--evaluation data [D012]"
        )
    for spec in session.inputs:
        if spec.dtype == "object" or "(" in spec.dtype:
            raise DataError(
                f"input {spec} cannot be made up at random; give --evaluation data [D012]"
            )
    failure = "it has no inputs"
    rows = {} if model is None else rows_looked_up(model)
    lengths = {spec.name for spec in session.inputs if _is_length(spec)} - rows.keys()
    bounds = [(rows, lengths)] if rows or lengths else []
    bounds += [({}, lengths)] if rows and lengths else []
    started = time.monotonic()
    trials = itertools.product([*bounds, ({}, set())], list(_size_trials(session.inputs)))
    for (most, counts), sizes in trials:
        large = next((s for s in session.inputs if _elements(s, sizes) > _MOST_ELEMENTS), None)
        if large is not None:
            failure = f"input {large} would have {_elements(large, sizes):,} elements"
            continue
        rng = np.random.default_rng(seed)
        ends = {name: (0, most[name]) for name in most}
        ends |= dict.fromkeys(counts, _about(_longest(session.inputs, sizes)))
        feeds = tuple(
            {
                spec.name: _random_input(spec, sizes, ends.get(spec.name, (0, 2)), rng)
                for spec in session.inputs
            }
            for _ in range(number)
        )
        try:
            # Any index may be the one that is out of bounds.
            for feed in feeds[: number if ends else 1]:
                session.run(feed, most_s=MOST_SECONDS)
        except ModelError as error:
            failure = str(error)[:300]
            if time.monotonic() - started > MOST_SECONDS:
                break
            continue
        return Samples(feeds, None, "random inputs")
    raise DataError(
        f"the model runs on no random input that was tried ({failure}); give "
        "--evaluation data [D012]"
    )


def rows_looked_up(model: ir.Model) -> dict[str, int]:
    """Inputs that tables are read by, with the least number of rows of these.

    Random words from the whole table say more of a model than two of them.
    """
    found: dict[str, int] = {}
    for value in model.graph.inputs:
        if value.dtype in (ir.DataType.INT64, ir.DataType.INT32):
            rows = [size for size in _tables(value) if size > 1]
            if rows:
                found[value.name or ""] = min(rows)
    return found


def _tables(value: ir.Value) -> Iterator[int]:
    """Of Gathers that look the value up, and behind what leaves its numbers as they are."""
    for node, index in value.uses():
        if is_standard(node) and node.op_type in _LEAVING_NUMBERS and index == 0:
            yield from _tables(node.outputs[0])
            continue
        table, axis = None, 0
        if is_standard(node) and node.op_type == "Gather" and index == 1:
            table, axis = node.inputs[0], attribute(node, "axis", 0)
        elif node.op_type == "EmbedLayerNormalization" and index < len(_EMBEDDED):
            table = node.inputs[_EMBEDDED[index]]
        shape = static_shape(table)
        if shape:
            yield shape[axis]


def _require_modest(session: Session, model: ir.Model | None) -> None:
    """Refuse to run unasked what says that it takes gigabytes, or hours."""
    if model is None:
        model = session.model if isinstance(session.model, ir.Model) else _read(session.model)
    if model is None:
        return
    for node in model.graph.all_nodes():
        # The end of a Shape may be beyond all axes.
        for given in node.attributes.values() if node.op_type != "Shape" else ():
            if given.type == ir.AttributeType.INT and given.value > _LARGEST_COUNT:
                raise DataError(
                    f"{node_label(node)} has a {given.name} of {given.value:,}, which may take "
                    "hours; give data if that is meant [D012]"
                )
    large = largest_made(model)
    if large is not None and large[1] > _MOST_MADE:
        raise DataError(
            f"{node_label(large[0])} makes a tensor of {large[1]:,} elements; give data if that is "
            "meant [D012]"
        )


def _read(path: Path) -> ir.Model | None:
    """The graph of a file; `None` for onnxruntime's own form."""
    return None if path.suffix == ".ort" else ir.load(path)


def _size_trials(inputs: Sequence[InputSpec]) -> Iterator[dict[str, int]]:
    """Sizes of the dynamic dimensions: all alike first, then some of them 1."""
    batch = {_dimension(spec, 0) for spec in inputs if spec.shape}
    others = sorted(
        {
            _dimension(spec, axis)
            for spec in inputs
            for axis, dim in enumerate(spec.shape)
            if not _is_fixed(dim)
        }
        - batch
    )
    for ones in itertools.product((False, True), repeat=min(len(others), 3)):
        for size in _SIZES:
            small = dict(zip(others, ones, strict=False))
            yield {name: 1 if small.get(name) else size for name in others}


def _is_fixed(dim: int | str | None) -> bool:
    return isinstance(dim, int) and dim > 0


def _dimension(spec: InputSpec, axis: int) -> str:
    """The name of a dynamic dimension; those without a name are all different."""
    dim = spec.shape[axis]
    return dim if isinstance(dim, str) else f"{spec.name}/{axis}"


def _shape(spec: InputSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        int(dim) if _is_fixed(dim) else sizes.get(_dimension(spec, axis), 1)  # type: ignore[arg-type]
        for axis, dim in enumerate(spec.shape)
    )


def _elements(spec: InputSpec, sizes: Mapping[str, int]) -> int:
    return math.prod(_shape(spec, sizes))


def _is_length(spec: InputSpec) -> bool:
    """Whether an input says how much of another counts: one whole number for each sample.

    Nobody has to call it a length, but those who do mean it: 0 or 1 would leave nothing to compare.
    """
    whole = spec.dtype.startswith(("int", "uint"))
    return whole and len(spec.shape) <= 1 and _LENGTH.search(spec.name.lower()) is not None


def _longest(inputs: Sequence[InputSpec], sizes: Mapping[str, int]) -> int:
    """The largest dimension that is no batch."""
    return max((size for spec in inputs for size in _shape(spec, sizes)[1:]), default=1)


def _about(most: int) -> tuple[int, int]:
    """From half of it to all of it, as a range whose end does not belong to it."""
    return -(-most // 2), most + 1


def _random_input(
    spec: InputSpec, sizes: Mapping[str, int], ends: tuple[int, int], rng: np.random.Generator
) -> Array:
    shape = _shape(spec, sizes)
    kind = np.dtype(spec.dtype)
    if kind.kind == "f":
        return np.asarray(rng.standard_normal(shape).astype(kind))
    return np.asarray(rng.integers(*ends, shape).astype(kind))
