"""What lay small in a file stays small: what we added to a graph goes before a file grows."""

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
    if model_file.whole_size(model) <= nbytes:
        return None
    if shed:
        _shed(model, given)
    size = model_file.whole_size(model)
    if size <= nbytes * _TOLERANCE + _STAMP_BYTES:
        return None
    return (
        f"the file is larger than the one that was read: {size:,} bytes, {nbytes:,} before [W011]"
    )


def _shed(model: ir.Model, given: ir.Model) -> None:
    names: set[str | None] = set()
    known: set[str | None] = set()
    for node in given.graph.all_nodes():
        names.add(node.name)
        known.update(value.name for value in node.outputs if value.shape is not None)
    for node in model.graph.all_nodes():
        if node.name not in names:
            node.name = None
        _drop_notes(node.metadata_props)
        for value in node.outputs:
            _drop_notes(value.metadata_props)
            if value.name not in known and not value.is_graph_output():
                value.shape = value.type = None


def _drop_notes(properties: dict[str, str]) -> None:
    for key in [key for key in properties if key.startswith(_FOREIGN)]:
        del properties[key]
