"""MatMulNBits beside MatMul in float: speed and error by bits, block, accuracy level and batch.

    python benchmarks/block_kernels.py

One thread, random weights and inputs; the least time of 30 runs of each, in turn.
"""

import time

import numpy as np
import onnx_ir as ir

from onnxpress.passes.quantize.packing import packed
from onnxpress.runtime import Array, Session

RUNS = 30
SIZES = ((384, 1536), (2048, 2048), (4096, 4096))
"""Outputs and inputs; 16 MB in float and more exceed the cache mostly."""


def session_of(node: ir.Node, x: ir.Value, constants: list[ir.Value], domain: str) -> Session:
    """Of one operator."""
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    opsets = {"": 17} | ({domain: 1} if domain else {})
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=constants, opset_imports=opsets)
    return Session(ir.Model(graph, ir_version=9), threads=1)


def constant(name: str, array: Array) -> ir.Value:
    """An initializer."""
    tensor = ir.Tensor(array, name=name)
    return ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )


def compared(sizes: tuple[int, int], bits: int, block: int, level: int) -> str:
    """Cells of batches of 1, 8 and 64."""
    outputs, inputs = sizes
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2**bits, (outputs, inputs // block, block)).astype(np.uint8)
    scales = rng.normal(size=codes.shape[:2]).astype(np.float32)
    whole = (codes.astype(np.float32) - 2 ** (bits - 1)) * scales[:, :, None]
    weight = np.ascontiguousarray(whole.reshape(outputs, inputs).T)
    (own,) = packed(codes, bits) if bits < 8 else [codes]
    parts = [constant("b", own.reshape(*scales.shape, -1)), constant("s", scales)]
    numbers = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
    numbers["accuracy_level"] = level
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["m", inputs]))
    other = ir.Value(name="x", type=x.type, shape=x.shape)
    attributes = [ir.AttrInt64(key, value) for key, value in numbers.items()]
    domain = "com.microsoft"
    blocks = session_of(ir.Node(domain, "MatMulNBits", [x, *parts], attributes), x, parts, domain)
    weights = [constant("w", weight)]
    floats = session_of(ir.Node("", "MatMul", [other, *weights]), other, weights, "")
    cells = []
    for batch in (1, 8, 64):
        feed = {"x": rng.normal(size=(batch, inputs)).astype(np.float32)}
        wanted = np.asarray(floats.run(feed)["y"], np.float64)
        noise = np.square(np.asarray(blocks.run(feed)["y"], np.float64) - wanted).sum()
        times: list[list[float]] = [[], []]
        for _ in range(RUNS):
            for own_times, session in zip(times, (floats, blocks), strict=True):
                started = time.perf_counter()
                session.run(feed)
                own_times.append(time.perf_counter() - started)
        db = 10 * np.log10(np.square(wanted).sum() / noise)
        cells.append(f"{min(times[0]) / min(times[1]):.2f}, {db:.0f} dB")
    return " | ".join(cells)


def main() -> None:
    """Print a Markdown table of speeds against float."""
    print("| outputs x inputs | bits | block | level | batch 1 | batch 8 | batch 64 |")
    print("| --- " * 7 + "|")
    for sizes in SIZES:
        for bits in (2, 4, 8):
            for level in (0, 4):
                found = compared(sizes, bits, 32, level)
                print(f"| {sizes[0]} x {sizes[1]} | {bits} | 32 | {level} | {found} |", flush=True)


if __name__ == "__main__":
    main()
