"""Which layers go with a residual block, against a search of the whole graph for what is needed."""

import onnx_ir as ir
from generated import initialized

from onnxpress.graph import bodies
from onnxpress.passes.prune import Prune
from onnxpress.passes.prune.blocks import remove_block
from onnxpress.passes.prune.solving import blocks_of
from onnxpress.pool import Pool
from onnxpress.targets import load_target

BRANCHES = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 8] x, bool c, float[8, 8] a, float[8, 8] b, float[8, 8] d, float[8, 8] e)
        => (float[n, 8] y) {
        p = MatMul (x, a)  q = Relu (p)  s = MatMul (q, b)  r = Add (x, s)
        t = MatMul (r, d)  u = If (c) <then_branch = h () => (float[n, 8] v) { v = Relu (READ) },
            else_branch = k () => (float[n, 8] w) { w = Relu (r) }>
        z = Add (t, u)  y = MatMul (z, e) }"""


def inside(text: str) -> dict[str, tuple[str, ...]]:
    model = initialized(text, seed=1)
    pool = Pool((Prune(),))
    return {b.name: b.inside for b in blocks_of(pool.context(model, load_target("cpu")))}


def test_all_layers_of_a_block_go_with_it() -> None:
    assert inside(BRANCHES.replace("READ", "r"))["block:r"] == ("a", "b")


def test_what_a_subgraph_still_reads_stays() -> None:
    assert inside(BRANCHES.replace("READ", "q"))["block:r"] == ("b",)
    assert "block:r" not in inside(BRANCHES.replace("READ", "s"))


def test_what_is_said_to_go_is_what_nothing_needs_afterwards() -> None:
    for read in ("x", "p", "q", "s", "r", "t"):
        model = initialized(BRANCHES.replace("READ", read), seed=1)
        for block in blocks_of(Pool((Prune(),)).context(model, load_target("cpu"))):
            rest = model.clone()
            remove_block(rest, block.name)
            gone = set(model.graph.initializers) - needed(rest.graph)
            assert gone == set(block.inside), (read, block)


def needed(graph: ir.Graph) -> set[str | None]:
    """Names of all values that the outputs depend on."""
    found: set[str | None] = set()
    waiting = list(graph.outputs)
    while waiting:
        value = waiting.pop()
        if value.name in found:
            continue
        found.add(value.name)
        node = value.producer()
        if node is not None:
            inner = [v for body in bodies(node) for n in body.all_nodes() for v in n.inputs]
            waiting += [v for v in (*node.inputs, *inner) if v is not None]
    return found
