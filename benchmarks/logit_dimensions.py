"""What fewer dimensions of queries and keys cost, the others made up for (CORP, arXiv 2602.05243).

    python benchmarks/logit_dimensions.py FOLDER [--calibration NAME] [--samples 64]

FOLDER holds `model.onnx` and samples, `models/.cache/minilm` or `decoder`. Of each head the
dimensions with the largest E[q²]·E[k²] are kept (rotary positions: pairs of them). What the others
give to a logit is then an affine function of what is kept,

    q_R·k_R ≈ [q_S, 1]·M·k_S

by ridge regression over the pairs of tokens that attend to each other, less the mean over the keys
of a query, which Softmax does not see; M goes into the weights and the bias of the query. Rotated
pairs leave M a complex number for each pair, as nothing else commutes with the rotation. Weights
are put back at full width with zeros, so that nothing but the arithmetic changes, and answers are
compared over evaluation samples, which chose nothing.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from joint_rank import Weights
from leave_out_blocks import Feed, Network, feeds_of, figures, network_parser

from onnxpress.transformer import find_structure
from onnxpress.transformer.attention import Attention

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
_RIDGE = 1e-3
"""Of the mean power of the features."""


def product_of(attention: Attention) -> ir.Node:
    """The node that multiplies queries and keys."""
    waiting = [attention.node.inputs[0]]
    for value in waiting:
        node = None if value is None else value.producer()
        if node is None:
            continue
        if node.op_type == "MatMul":
            return node
        waiting.append(node.inputs[1] if node.op_type == "Where" else node.inputs[0])
    raise ValueError(attention.node.name)


def rows(network: Network, feeds: Sequence[Feed], names: tuple[str, str]) -> Iterator[Array]:
    """Of each text its queries and keys as they are multiplied, [2, heads, tokens, width]."""
    for feed in feeds:
        answers = network.answers(feed)
        q, k = answers[names[0]], answers[names[1]].swapaxes(-1, -2)
        for text, seen in enumerate(feed["attention_mask"].astype(bool)):
            yield np.stack([q[text][:, seen], k[text][:, seen]]).astype(np.float64)


def units(width: int, *, rotary: bool) -> Places:
    """Dimensions that go together, [units, 1 or 2]: halves are rotated into each other."""
    every = np.arange(width, dtype=np.intp)
    return every.reshape(2, -1).T if rotary else every[:, None]


def kept_units(texts: Sequence[Array], each: Places, number: int) -> list[Places]:
    """Of each head those with the most energy, as indices of units."""
    power = sum(((text**2).mean(axis=2) for text in texts), np.zeros(1))
    energy = (power[0] * power[1])[:, each].sum(axis=-1)
    return [np.sort(np.argsort(-row)[:number]) for row in energy]


def centred(logits: Array, *, causal: bool) -> Array:
    """[…, queries, keys] less the mean over the keys that a query sees; 0 where it sees none."""
    seen = np.tril(np.ones(logits.shape[-2:])) if causal else np.ones(logits.shape[-2:])
    return np.asarray(
        (logits - (logits * seen).sum(-1, keepdims=True) / seen.sum(-1)[:, None]) * seen
    )


def mapped(texts: Sequence[Array], head: int, kept: Places, gone: Places) -> tuple[Array, Array]:
    """I + M [kept, kept] and an offset [kept]: normal equations solved by conjugate gradients."""
    sides = []
    for text in texts:
        q, k = text[0, head], text[1, head] - text[1, head].mean(0)
        one = np.hstack([q[:, kept], np.ones((len(q), 1))])
        sides.append(
            (one.T @ one, k[:, kept].T @ k[:, kept], one.T @ q[:, gone], k[:, gone].T @ k[:, kept])
        )
    left, right, cross, other = (np.stack(parts) for parts in zip(*sides, strict=True))
    wanted = np.einsum("nab,nbc->ac", cross, other)
    damping = (
        _RIDGE
        * np.mean(
            np.einsum("naa->na", left)[:, :, None] * np.einsum("nbb->nb", right)[:, None],
            axis=(1, 2),
        ).sum()
    )
    found, rest = np.zeros_like(wanted), wanted.copy()
    step, power = rest.copy(), float((rest**2).sum())
    for _ in range(300):
        turned = np.einsum("nab,bc,ncd->ad", left, step, right, optimize=True) + damping * step
        size = power / float((step * turned).sum())
        found, rest = found + size * step, rest - size * turned
        power, before = float((rest**2).sum()), power
        if power < 1e-12 * float((wanted**2).sum()):
            break
        step = rest + power / before * step
    return found[:-1] + np.eye(len(kept)), found[-1]


def turned(texts: Sequence[Array], head: int, kept: Places, gone: Places) -> Array:
    """Of rotated pairs a block [2·kept, 2·kept] of complex factors, in the order of `kept`."""
    number = len(kept) // 2
    gram, wanted = np.zeros((2 * number, 2 * number)), np.zeros(2 * number)
    for text in texts:
        q, k = text[0, head], text[1, head]
        zq, zk = (x[:, kept[:number]] + 1j * x[:, kept[number:]] for x in (q, k))
        pairs = np.einsum("ip,jp->pij", zq, zk.conj())
        features = centred(np.concatenate([pairs.real, -pairs.imag]), causal=True).reshape(
            2 * number, -1
        )
        target = centred(q[:, gone] @ k[:, gone].T, causal=True).reshape(-1)
        gram += features @ features.T
        wanted += features @ target
    gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    a, b = np.linalg.solve(gram, wanted).reshape(2, number)
    a = np.diag(1 + a)
    return np.block([[a, np.diag(b)], [-np.diag(b), a]])


def cut(
    weights: Weights, attention: Attention, texts: Sequence[Array], number: int, *, mended: bool
) -> None:
    """Keep some units of each head, in place."""
    width = attention.head_width or 0
    each = units(width, rotary=attention.rotary)
    q, k = (weights.whole(side[0]) for side in (attention.query, attention.key))
    for head, chosen in enumerate(kept_units(texts, each, number)):
        kept = each[chosen].T.reshape(-1)
        gone = np.setdiff1d(np.arange(width), kept)
        first = head * width
        own = q[:, first + kept]
        if mended and attention.rotary:
            own = own @ turned(texts, head, kept, gone)
        elif mended:
            matrix, offset = mapped(texts, head, kept, gone)
            own = own @ matrix
            own[-1] += offset
        q[:, first + kept] = own
        q[:, first + gone] = 0
        k[:, first + gone] = 0
    weights.put(attention.query[0], q)
    weights.put(attention.key[0], k)


def main() -> None:
    """Print a line for each width, with and without compensation."""
    parser = network_parser(__doc__.splitlines()[0])
    parser.add_argument("--keep", type=float, nargs="+", default=[1.0, 0.9, 0.75, 0.5])
    given = parser.parse_args()
    model = onnx.load(given.folder / "model.onnx")
    structure = find_structure(ir.from_proto(model))
    assert structure is not None
    floats = [one.name for one in model.graph.output if one.type.tensor_type.elem_type == 1]
    outputs = [name for name in floats if not name.startswith("present")]
    looked_at = feeds_of(given.folder, given.calibration, given.samples)
    unseen = feeds_of(given.folder, "evaluation", given.evaluation)
    names = []
    for attention in structure.attentions:
        first, second = product_of(attention).inputs
        names.append((str(first and first.name), str(second and second.name)))
    network = Network(model, [name for pair in names for name in pair])
    texts = [list(rows(network, looked_at, pair)) for pair in names]
    reference = Network(model, outputs).run(unseen)
    print("as it is:", figures(reference, reference, unseen), flush=True)
    for keep in given.keep:
        for mended in (False, True):
            made, number = Weights(model), 0
            for attention, own in zip(structure.attentions, texts, strict=True):
                every = len(units(attention.head_width or 0, rotary=attention.rotary))
                number = round(keep * every)
                cut(made, attention, own, number, mended=mended)
            words = "made up for" if mended else "left out"
            answers = Network(made.proto, outputs).run(unseen)
            share = f"{number} of {every}{' pairs' if attention.rotary else ''}"
            print(f"{share}, {words}: {figures(reference, answers, unseen)}", flush=True)


if __name__ == "__main__":
    main()
