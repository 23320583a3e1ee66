"""Gradients of operators by PyTorch, for `tests/gradients/test_reference.py` to compare with.

    python benchmarks/torch_gradients.py tests/gradients/torch_reference.npz

In an environment of its own that has torch and numpy; ours is not needed. Every case is a function
of arrays in ONNX's layout; the file holds them, the weights of the sum that is the loss, and the
gradients.
"""

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Arrays = dict[str, torch.Tensor]
_LENGTHS = [5, 2, 3]


def drawn(seed: int, *shape: int) -> np.ndarray:
    """Numbers from -1 to 1."""
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def _recurrent(kind: str, a: Arrays, *, lengths: bool) -> torch.Tensor:
    """Both directions; rows of ONNX's gates in the order that PyTorch has them."""
    order = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}[kind]
    units = a["r"].shape[2]
    rows = np.concatenate([np.arange(gate * units, (gate + 1) * units) for gate in order])
    module = getattr(torch.nn, kind)(a["x"].shape[2], units, bidirectional=True).double()
    given = {}
    for place, name in enumerate(("", "_reverse")):
        first, second = a["b"][place].chunk(2)
        given[f"weight_ih_l0{name}"] = a["w"][place][rows]
        given[f"weight_hh_l0{name}"] = a["r"][place][rows]
        given[f"bias_ih_l0{name}"] = first[rows]
        given[f"bias_hh_l0{name}"] = second[rows]
    states = (a["h"], a["c"]) if kind == "LSTM" else a["h"]
    x = pack_padded_sequence(a["x"], _LENGTHS, enforce_sorted=False) if lengths else a["x"]
    y, last = functional_call(module, given, (x, states))
    y = pad_packed_sequence(y, total_length=a["x"].shape[0])[0] if lengths else y
    y = y.unflatten(2, (2, units)).transpose(1, 2)
    last = last[0] * last[1] if kind == "LSTM" else last * last
    return y + last


def cell(gates: int) -> dict[str, np.ndarray]:
    """Five turns of three samples, two directions of three units."""
    return {
        "x": drawn(0, 5, 3, 4),
        "w": drawn(1, 2, gates * 3, 4),
        "r": drawn(2, 2, gates * 3, 3),
        "b": drawn(3, 2, gates * 6),
        "h": drawn(4, 2, 3, 3),
        **({"c": drawn(5, 2, 3, 3)} if gates == 4 else {}),
    }


IMAGE = {"x": drawn(0, 2, 4, 9, 8)}
CASES: dict[str, tuple[dict[str, np.ndarray], Callable[[Arrays], torch.Tensor]]] = {
    "LSTM": (cell(4), lambda a: _recurrent("LSTM", a, lengths=False)),
    "LSTM with lengths": (cell(4), lambda a: _recurrent("LSTM", a, lengths=True)),
    "GRU": (cell(3), lambda a: _recurrent("GRU", a, lengths=False)),
    "GRU with lengths": (cell(3), lambda a: _recurrent("GRU", a, lengths=True)),
    "Conv": (
        {**IMAGE, "w": drawn(1, 6, 2, 3, 3), "b": drawn(2, 6)},
        lambda a: functional.conv2d(a["x"], a["w"], a["b"], (2, 1), (1, 2), (1, 2), 2),
    ),
    "Conv depthwise": (
        {**IMAGE, "w": drawn(1, 4, 1, 3, 3)},
        lambda a: functional.conv2d(a["x"], a["w"], None, 2, 1, 1, 4),
    ),
    "ConvTranspose": (
        {**IMAGE, "w": drawn(1, 4, 3, 3, 3), "b": drawn(2, 3)},
        lambda a: functional.conv_transpose2d(a["x"], a["w"], a["b"], 2, 1, 1),
    ),
    "LayerNormalization": (
        {"x": drawn(0, 3, 4, 5), "s": drawn(1, 5), "b": drawn(2, 5)},
        lambda a: functional.layer_norm(a["x"], (5,), a["s"], a["b"], 1e-5),
    ),
    "Gelu": ({"x": 3 * drawn(0, 3, 4)}, lambda a: functional.gelu(a["x"])),
    "HardSwish": ({"x": 5 * drawn(0, 3, 4)}, lambda a: functional.hardswish(a["x"])),
    "Softmax": ({"x": 3 * drawn(0, 3, 4, 2)}, lambda a: functional.softmax(a["x"], 1)),
    "MaxPool": (IMAGE, lambda a: functional.max_pool2d(a["x"], 3, 2, 1)),
    "AveragePool": (IMAGE, lambda a: functional.avg_pool2d(a["x"], 3, 2, 1)),
    "Resize": (
        IMAGE,
        lambda a: functional.interpolate(
            a["x"], scale_factor=2, mode="bilinear", align_corners=False
        ),
    ),
    "Gather": (
        {"x": drawn(0, 6, 3)},
        lambda a: functional.embedding(torch.tensor([[0, 5, 5], [2, 0, 1]]), a["x"]),
    ),
    "Einsum": (
        {"a": drawn(0, 2, 3, 4), "b": drawn(1, 2, 4, 5)},
        lambda a: torch.einsum("bij,bjk->kbi", a["a"], a["b"]),
    ),
}


def main() -> None:
    """Write the file."""
    stored = {"torch": np.asarray(torch.__version__)}
    for name, (arrays, formula) in CASES.items():
        leaves = {key: torch.tensor(array, requires_grad=True) for key, array in arrays.items()}
        y = formula(leaves)
        weights = np.random.default_rng(9).standard_normal(tuple(y.shape))
        (y * torch.tensor(weights)).sum().backward()
        stored[f"{name}/weights"] = weights.astype(np.float32)
        for key, array in arrays.items():
            stored[f"{name}/{key}"] = array.astype(np.float32)
            stored[f"{name}/d{key}"] = leaves[key].grad.numpy().astype(np.float32)
    np.savez_compressed(sys.argv[1], **stored)


if __name__ == "__main__":
    main()
