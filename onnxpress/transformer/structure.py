"""What a Transformer is made of, found in the graph of any export."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxpress.transformer.attention import SOFTMAXES, Attention, find_attentions
from onnxpress.transformer.embeddings import Table, find_tables
from onnxpress.transformer.mlp import MLP, find_mlps
from onnxpress.transformer.norms import find_norms
from onnxpress.transformer.projections import find_projections
from onnxpress.transformer.sides import OPERATORS
from onnxpress.transformer.streams import Stream, find_streams
from onnxpress.transformer.tensors import Tensors

__all__ = ["Structure", "find_structure"]


@dataclass(slots=True)
class Structure:
    """Of a model with attention in it.

    Attributes:
        streams: residual streams that attention takes part in.
        attentions: all, those outside of streams too.
        mlps: of the streams' blocks.
        tables: that streams begin with.
    """

    streams: list[Stream]
    attentions: list[Attention]
    mlps: list[MLP]
    tables: list[Table]

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "streams": [self._stream(stream) for stream in self.streams],
            "attentions": [_attention(one) for one in self.attentions],
            "mlps": [_mlp(one) for one in self.mlps],
            "tables": [table.document() for table in self.tables],
        }

    def _stream(self, stream: Stream) -> dict[str, Any]:
        numbers = {one: at for at, one in enumerate(self.attentions)}
        mlps = {one: at for at, one in enumerate(self.mlps)}
        return {
            "width": stream.width,
            "norm": _most(norm.kind for norm in stream.norms),
            "post_norm": stream.post_norm,
            "norms": len(stream.norms),
            "outputs": list(stream.outputs),
            "blocks": [
                {
                    "written_by": [writer.name for writer in addition.writers],
                    "attentions": [numbers[one] for one in addition.attentions],
                    "mlps": [mlps[one] for one in addition.mlps],
                }
                for addition in stream.additions
            ],
        }


def _attention(one: Attention) -> dict[str, Any]:
    return {
        "name": one.node.name or one.result.name,
        "operator": one.node.op_type if one.node.op_type in OPERATORS else None,
        "kind": one.kind,
        "heads": one.heads,
        "key_heads": one.key_heads,
        "head_width": one.head_width,
        "value_width": one.value_width,
        "rotary": one.rotary,
        "bias": one.bias,
        "query": [layer.name for layer in one.query],
        "key": [layer.name for layer in one.key],
        "value": [layer.name for layer in one.value],
        "past": list(one.past),
        "present": list(one.present),
    }


def _mlp(one: MLP) -> dict[str, Any]:
    return {
        "up": [layer.name for layer in one.up],
        "down": one.down.name,
        "width": one.width,
        "gated": one.gated,
        "activation": one.activation,
    }


def _most(kinds: Iterable[str]) -> str | None:
    counts = Counter(kinds).most_common(1)
    return counts[0][0] if counts else None


def find_structure(model: ir.Model, *, read_weights: bool = True) -> Structure | None:
    """The structure of a model; `None` where there is no attention in it.

    Bodies of If, Loop and Scan are looked at too; functions are not, inline them first.

    Args:
        model: it is not changed.
        read_weights: compare weights to find tables that are stored twice; the same constant read
            twice is found in any case.
    """
    if all(node.op_type not in SOFTMAXES | OPERATORS for node in model.graph.all_nodes()):
        return None
    tensors = Tensors(model)
    projections = find_projections(tensors)
    norms = find_norms(tensors)
    attentions = find_attentions(tensors, projections, norms)
    if not attentions:
        return None
    mlps = find_mlps(tensors, projections)
    streams = find_streams(tensors, projections, norms, attentions, mlps)
    inside = {one for stream in streams for block in stream.additions for one in block.mlps}
    tables = find_tables(tensors, projections, streams, read_weights=read_weights)
    kept = [one for one in mlps if one in inside]
    return Structure(streams, attentions, kept, tables)
