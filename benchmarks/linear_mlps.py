"""How nearly linear the MLPs of a Transformer are: one matrix in place of each, one at a time.

    python benchmarks/linear_mlps.py FOLDER [--calibration NAME] [--samples 64] [--evaluation 64]

FOLDER holds `model.onnx` and samples, as `models/.cache/minilm`. Of each MLP y = f(x) the best
A·x + b on calibration samples (ridge regression, 1e-2 of the inputs' power) is compared with y on
evaluation samples: dB of the MLP's own answers, and of the residual stream behind it. Where the
activation is GELU, also A = W₁·diag(E[GELU′(u)])·W₂ for normal u of the observed mean and variance,
which is the best there is for normal x (Bussgang 1952), and needs no y but its mean.
"""

import math

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from joint_rank import Weights
from leave_out_blocks import Network, decibels, feeds_of, network_parser, ridge

from onnxpress.transformer import find_structure

Array = npt.NDArray[np.float64]
_RIDGE = 1e-2


def expected_slopes(mean: Array, deviation: Array) -> Array:
    """E[GELU′(u)] = E[z·GELU(u)] / σ for u = mean + σ·z (Stein's lemma), by Gauss–Hermite."""
    places, weights = np.polynomial.hermite_e.hermegauss(31)
    u = mean[:, None] + deviation[:, None] * places
    gelu = u * 0.5 * (1 + np.vectorize(math.erf)(u / math.sqrt(2)))
    return np.asarray((gelu * places * weights).sum(1) / weights.sum() / deviation)


def main() -> None:
    """Print a line for each MLP."""
    given = network_parser(__doc__.splitlines()[0]).parse_args()
    model = onnx.load(given.folder / "model.onnx")
    structure = find_structure(ir.from_proto(model))
    assert structure is not None
    looked_at = feeds_of(given.folder, given.calibration, given.samples)
    unseen = feeds_of(given.folder, "evaluation", given.evaluation)
    stored = Weights(model)
    additions = [one for stream in structure.streams for one in stream.additions if one.mlps]
    for number, addition in enumerate(additions):
        up = addition.mlps[0].up[0]
        source, branch = str(up.source.name), str(addition.branch.name)
        total = str(addition.node.outputs[0].name)
        network = Network(model, [source, branch, total])
        known, other = network.run(looked_at), network.run(unseen)
        x, y = known[source], known[branch]
        centre, target = x.mean(0), y.mean(0)
        matrix, offset = ridge(x, y, _RIDGE)
        found = other[branch] - (other[source] @ matrix + offset)
        alone = decibels(other[branch], other[branch] - found)
        behind = decibels(other[total], other[total] - found)
        words = f"MLP {number} ({len(x):,} rows): {alone:.1f} dB, stream {behind:.1f} dB"
        if addition.mlps[0].activation.lower() == "gelu":
            first, second = stored.whole(up), stored.read(addition.mlps[0].down.name)
            spread = np.sqrt(
                np.einsum("ij,ik,kj->j", first[:-1], np.cov(x.T, bias=True), first[:-1])
            )
            slopes = expected_slopes(centre @ first[:-1] + first[-1], spread)
            matrix = first[:-1] @ (slopes[:, None] * second)
            found = other[branch] - ((other[source] - centre) @ matrix + target)
            level = decibels(other[branch], other[branch] - found)
            words += f"; by slopes {level:.1f} dB, {slopes.min():.2f} to {slopes.max():.2f}"
        print(words, flush=True)


if __name__ == "__main__":
    main()
