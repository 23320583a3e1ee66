"""Keys and values of a cache in bytes: a scale a channel for keys, a scale a token for values.

    key   [batch, heads, past, dim]: round(k / s), s = max|k| / 127 of each (head, channel), fixed
    value [batch, heads, past, dim]: round(v / s), s = max|v| / 127 of each (token, head), kept in
                                     half precision as one more input and output, `NAME_scale`

Keys have channels that are large in every token, values have not (KIVI, arXiv:2402.02750, section
3; KVQuant, arXiv:2401.18079). A round trip changes no byte that is in the cache already: what a
scale was made from is 127 of it, and half precision is exact from the second time on.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxpress.data import Samples
from onnxpress.graph import Names, add_initializer, insert_behind, prepend, standard_opset
from onnxpress.pipelines.fitting import Wiring
from onnxpress.pipelines.running import Call, Running
from onnxpress.runtime import Array, InputSpec, Session

__all__ = ["SCALE", "cache_bytes", "in_bytes", "key_peaks", "refusal"]

SCALE = "_scale"
"""Behind the name of a value's cache: its scales."""
_MOST = 127.0
_KEY = re.compile(r"key(?!_?values?)|(?<![a-z])k(?![a-z])", re.IGNORECASE)
"""`past_key_values.0.key`, `past.0.k` and `k_cache_0`, not `past_key_values.0.value`."""
_FLOATS = ("float32", "float16")
_LEAST_SCALE = 2.0**-14
"""The smallest normal number of half precision."""
_REDUCE_BY_INPUT = 18
"""The opset from which on ReduceMax takes its axes as an input."""


def refusal(spec: InputSpec) -> str | None:
    """Why a cache stays as it is; `None` where it can be kept in bytes."""
    if spec.dtype not in _FLOATS:
        return f"{spec} is of {spec.dtype} already; expected one of {', '.join(_FLOATS)} [N006]"
    free = _free_axes(spec)
    if len(spec.shape) < 3 or len(free) != 1 or free[0] == len(spec.shape) - 1:
        return (
            f"{spec} is no [batch, heads, past, dim]: expected one free size for the past, and a "
            "last one that is fixed [N006]"
        )
    return None


def _free_axes(spec: InputSpec) -> list[int]:
    return [axis for axis, dim in enumerate(spec.shape) if axis and not isinstance(dim, int)]


def _is_key(name: str) -> bool:
    return _KEY.search(name) is not None


def key_peaks(
    wiring: Wiring, sessions: Mapping[str, Session], samples: Samples, part: str
) -> dict[str, Array]:
    """The largest |key| of each head and channel in all samples, `[1, heads, 1, dim]` by input.

    Args:
        wiring: of the pipeline.
        sessions: as they will be used.
        samples: with the tokens to follow.
        part: whose cache it is.
    """
    loop = wiring.pipeline.part(part).loop
    assert loop is not None
    specs = {s.name: s for s in sessions[part].inputs if s.name in loop.cache and _is_key(s.name)}
    peaks: dict[str, Array] = {}
    latest: list[Call] = []

    def heard(call: Call) -> None:
        if call.part == part:
            latest[:] = [call]

    running = Running(wiring, sessions, heard)
    for feed in samples.feeds:
        latest.clear()
        running.run(feed)
        for name, spec in specs.items() if latest else ():
            keys = np.abs(latest[0].feed[name].astype(np.float32))
            if keys.size:
                peak = keys.max(axis=(0, *_free_axes(spec)), keepdims=True)
                peaks[name] = np.maximum(peaks.get(name, peak), peak)
    return peaks


def in_bytes(
    model: ir.Model, caches: Mapping[str, str], peaks: Mapping[str, Array]
) -> tuple[ir.Model, dict[str, str]]:
    """A model whose caches are bytes at its inputs and outputs; the given one is not changed.

    Args:
        model: one part.
        caches: outputs by the inputs that take them; what this model lacks of either is passed
            over.
        peaks: of keys, by input (`key_peaks`); a key without one is kept a scale a token.

    Returns:
        The model, and the pairs of scales that the loop carries as well.
    """
    changed = model.clone()
    names = Names(changed)
    inputs = {value.name: value for value in changed.graph.inputs}
    outputs = {value.name: value for value in changed.graph.outputs}
    scales: dict[str, str] = {}
    for name, output in caches.items():
        fixed = peaks.get(name)
        if fixed is None:
            scales[name + SCALE] = output + SCALE
        if name in inputs:
            _read_bytes(changed, names, inputs[name], fixed)
        if output in outputs:
            _write_bytes(changed, names, outputs[output], fixed)
    return changed, scales


class _Nodes:
    """Nodes that are put into a graph together."""

    def __init__(self, model: ir.Model, names: Names, stem: str, dtype: ir.DataType) -> None:
        self.nodes: list[ir.Node] = []
        self._model, self._names, self._stem, self._dtype = model, names, stem, dtype

    def add(self, operator: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        name = self._names.free(f"{self._stem}_{operator.lower()}")
        node = ir.node(operator, inputs, attributes, name=name)
        node.outputs[0].name = self._names.free(f"{name}_output")
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, what: str, array: Array | float) -> ir.Value:
        made = np.asarray(array).astype(self._dtype.numpy())
        return add_initializer(self._names, self._model.graph, f"{self._stem}_{what}", made)

    def cast(self, value: ir.Value, dtype: ir.DataType | None = None) -> ir.Value:
        return self.add("Cast", value, to=int(dtype or self._dtype))

    def peak_of_token(self, value: ir.Value) -> ir.Value:
        """The largest size of a token's numbers in a head."""
        size = self.add("Abs", value)
        if standard_opset(self._model) < _REDUCE_BY_INPUT:
            return self.add("ReduceMax", size, axes=[-1], keepdims=1)
        axes = np.asarray([-1], np.int64)
        given = add_initializer(self._names, self._model.graph, f"{self._stem}_axes", axes)
        return self.add("ReduceMax", size, given, keepdims=1)


def _read_bytes(model: ir.Model, names: Names, value: ir.Value, fixed: Array | None) -> None:
    """An input in bytes in place of a float one, which nodes compute from it."""
    graph, name, dtype = model.graph, value.name or "", value.dtype or ir.DataType.FLOAT
    taken = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT8), shape=value.shape)
    value.name = names.free(f"{name}_float")
    place = next(at for at, other in enumerate(graph.inputs) if other is value)
    graph.inputs[place] = taken
    nodes = _Nodes(model, names, name, dtype)
    wide = nodes.cast(taken)
    if fixed is None:
        scale = ir.Value(
            name=names.free(name + SCALE),
            type=ir.TensorType(ir.DataType.FLOAT16),
            shape=_of_tokens(value),
        )
        graph.inputs.insert(place + 1, scale)
        factor = nodes.cast(scale)
    else:
        factor = nodes.constant("key_scale", _scale_of(fixed))
    result = nodes.add("Mul", wide, factor)
    result.type, result.shape = value.type, value.shape
    ir.convenience.replace_all_uses_with(value, result, replace_graph_outputs=True)
    prepend(graph, nodes.nodes)


def _write_bytes(model: ir.Model, names: Names, value: ir.Value, fixed: Array | None) -> None:
    """An output in bytes in place of a float one."""
    graph, name, dtype = model.graph, value.name or "", value.dtype or ir.DataType.FLOAT
    value.name = names.free(f"{name}_float")
    place = next(at for at, other in enumerate(graph.outputs) if other is value)
    nodes = _Nodes(model, names, name, dtype)
    most = nodes.constant("most", _MOST)
    scale = None
    if fixed is None:
        peak = nodes.add("Div", nodes.peak_of_token(value), most)
        larger = nodes.add("Max", peak, nodes.constant("least", _LEAST_SCALE))
        scale = nodes.cast(larger, ir.DataType.FLOAT16)
        factor = nodes.cast(scale)
    else:
        factor = nodes.constant("key_scale", _scale_of(fixed))
    rounded = nodes.add("Round", nodes.add("Div", value, factor))
    within = nodes.add("Clip", rounded, nodes.constant("fewest", -_MOST), most)
    stored = nodes.cast(within, ir.DataType.INT8)
    stored.name, stored.shape = name, value.shape
    stored.type = ir.TensorType(ir.DataType.INT8)
    graph.outputs[place] = stored
    if scale is not None:
        scale.name, scale.type = names.free(name + SCALE), ir.TensorType(ir.DataType.FLOAT16)
        scale.shape = _of_tokens(value)
        graph.outputs.insert(place + 1, scale)
    insert_behind(graph, value, nodes.nodes)


def _of_tokens(value: ir.Value) -> ir.Shape | None:
    """The shape of a scale a token and head."""
    return None if value.shape is None else ir.Shape([*tuple(value.shape)[:-1], 1])


def _scale_of(peak: Array) -> Array:
    return np.asarray(np.maximum(peak.astype(np.float32) / _MOST, _LEAST_SCALE))


def cache_bytes(session: Session, caches: Mapping[str, str], once: Sequence[str]) -> int:
    """Bytes that a token adds to the caches of one sequence, scales included."""
    total = 0
    for spec in session.inputs:
        if spec.name in caches and spec.name not in once:
            numbers = [dim for dim in spec.shape[1:] if isinstance(dim, int)]
            total += int(np.prod(numbers)) * np.dtype(spec.dtype).itemsize
    return total
