"""What lay small in a file stays small: what we added to a graph goes before a file grows.

Shapes between nodes, which runtimes infer, go from a file that had none: of a small quantized CNN
they are a tenth.
"""

import onnx_ir as ir

from onnxpress import model_file

__all__ = ["kept_small"]

_TOLERANCE = 1.02
_STAMP_BYTES = 1024
"""What the file says of its origin."""
_FOREIGN = "pkg.onnxscript."
"""Notes that rewrite rules leave at what they write."""


def kept_small(model: ir.Model, given: ir.Model, nbytes: int, *, shed: bool = True) -> str | None:
    """Shed names and shapes that were added, where the file would be larger; say if it still is.

    Args:
        model: about to be written; changed in place.
        given: the model as it was read.
        nbytes: of its file.
        shed: whether names and shapes may go; not where passes added what people look for by name.
    """
    known = {
        value.name
        for node in given.graph.all_nodes()
        for value in node.outputs
        if value.shape is not None and not value.is_graph_output()
    }
    if not known:
        _shed_shapes(model, known)
    if model_file.whole_size(model) <= nbytes:
        return None
    if shed:
        _shed_names(model, given)
        _shed_shapes(model, known)
    size = model_file.whole_size(model)
    if size <= nbytes * _TOLERANCE + _STAMP_BYTES:
        return None
    return (
        f"the file is larger than the one that was read: {size:,} bytes, {nbytes:,} before [W011]"
    )


def _shed_names(model: ir.Model, given: ir.Model) -> None:
    names = {node.name for node in given.graph.all_nodes()}
    for node in model.graph.all_nodes():
        if node.name not in names:
            node.name = None
        _drop_notes(node.metadata_props)


def _shed_shapes(model: ir.Model, known: set[str | None]) -> None:
    """Of what nodes give, where they were not known before."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            _drop_notes(value.metadata_props)
            if value.name not in known and not value.is_graph_output():
                value.shape = value.type = None


def _drop_notes(properties: dict[str, str]) -> None:
    for key in [key for key in properties if key.startswith(_FOREIGN)]:
        del properties[key]
