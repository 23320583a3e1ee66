"""The quadratic form behind every pass: the error of a changed layer is tr(ΔW·H·ΔWᵀ).

H = E[xxᵀ] is the Gram matrix of the layer's inputs `[groups, in, in]`; the rows of W `[out, in]`
belong to the groups in order. Without statistics H is taken as the identity.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxpress.pieces import pieces, row_blocks
from onnxpress.runtime import eigh, solve, svd
from onnxpress.statistics import LayerStatistics

__all__ = [
    "LowRank",
    "damped_gram",
    "low_rank",
    "output_energy",
    "refitted_to",
    "relative_error",
    "repaired",
    "shrinkage",
]

Float64 = npt.NDArray[np.float64]

_DAMPING = 0.01
"""Of the mean diagonal, as is usual for layer-wise least squares (GPTQ, SparseGPT)."""
_DAMPING_FOR_SCARCITY = 0.3
"""Times inputs over rows: what few rows say of many inputs is mostly chance. From 0.1 to 1 the
result on unseen samples is nearly the same; without it a fit on 256 rows loses 1 to 2 dB."""
_DAMPINGS = (0.01, 0.1, 1.0)
"""That are tried where half of the samples can judge what is fitted to the other half."""
_MOST_CHANCE = 0.99
"""Of a Gram matrix: beyond, it is damped by a hundred times its mean diagonal."""
_OUTPUTS = 128
"""Of a group, evenly spread, that the damping is chosen by: all read the same inputs, so that more
of them say little else."""
Weights = npt.NDArray[np.floating]


def output_energy(
    weights: Weights, gram: Float64 | None, second_moment: Float64 | None = None
) -> float:
    """E‖Wx‖² = tr(W·H·Wᵀ), summed over all outputs.

    Args:
        weights: `[out, in]`.
        gram: `[groups, in, in]`, or `None`.
        second_moment: `[groups, in]` E[x²], used as a diagonal H when there is no Gram matrix.
    """
    if gram is None and second_moment is None:
        return sum(
            float(np.square(piece, dtype=np.float64).sum()) for piece in pieces(np.asarray(weights))
        )
    w = np.asarray(weights)
    if gram is not None and len(gram) == 1:
        # Of a large weight there is no copy in double precision.
        rows = (np.asarray(w[block], np.float64)[None] for block in row_blocks(w))
        return sum(float(np.einsum("goi,goi->", one @ gram, one)) for one in rows)
    w = np.asarray(w, np.float64)
    if gram is not None:
        grouped = w.reshape(len(gram), -1, w.shape[1])
        return float(np.einsum("goi,goi->", grouped @ gram, grouped))
    assert second_moment is not None
    grouped = w.reshape(len(second_moment), -1, w.shape[1])
    return float(np.einsum("goi,gi->", np.square(grouped), second_moment))


def relative_error(
    delta: Weights,
    weights: Weights,
    gram: Float64 | None,
    second_moment: Float64 | None = None,
) -> float:
    """Power of the output's change over the power of the output; 0 for an output of zeros."""
    energy = output_energy(weights, gram, second_moment)
    return output_energy(delta, gram, second_moment) / energy if energy > 0 else 0.0


def damped_gram(gram: Float64, rows: int | None = None) -> Float64:
    """H + λI for fits that must hold beyond the samples they were made on.

    λ is 0.01 of the mean diagonal, as in GPTQ and SparseGPT; more where few rows speak of many
    inputs.

    Args:
        gram: `[groups, in, in]`, of raw or centred inputs.
        rows: how many it was made of; `None`: enough, or it is damped for them already.
    """
    return _damped(gram, _share_for(gram.shape[1], rows))


def _share_for(inputs: int, rows: int | None) -> float:
    """Of the mean diagonal, that damps what so many rows say of so many inputs."""
    scarcity = 0.0 if rows is None else _DAMPING_FOR_SCARCITY * inputs / max(rows, 1)
    return max(_DAMPING, scarcity)


def _damped(gram: Float64, share: float) -> Float64:
    inputs = gram.shape[1]
    damping = share * np.einsum("gii->g", gram) / inputs + np.finfo(np.float64).tiny
    return np.asarray(gram + damping[:, None, None] * np.eye(inputs), np.float64)


def shrinkage(gram: Float64, noise: Float64 | None) -> Float64:
    """`[groups]` shares of the mean diagonal by which Gram matrices are damped for chance.

    The least squares estimate between H and the multiple of the identity with its trace is
    (1 − ρ)·H + ρ·μI, ρ = E‖H − H*‖² / ‖H − μI‖² (Ledoit and Wolf, J. Multivariate Analysis 88,
    2004): H damped by ρ/(1 − ρ). Of matrices that are chance alone only the diagonal counts.

    Args:
        gram: `[groups, in, in]`, of raw or centred inputs.
        noise: `[groups]` E‖H − H*‖² of the same; `None`: not known, nothing is damped.
    """
    if noise is None:
        return np.zeros(len(gram))
    mean = np.einsum("gii->g", gram) / gram.shape[1]
    apart = np.einsum("gij,gij->g", gram, gram) - gram.shape[1] * mean**2
    tiny = np.finfo(np.float64).tiny
    part = np.minimum(noise / np.maximum(apart, tiny), _MOST_CHANCE)
    return np.asarray(part / (1 - part), np.float64)


def repaired(
    weights: Weights, moments: LayerStatistics | None, *, biased: bool
) -> tuple[Float64, Float64]:
    """What a layer should compute of x̂, the inputs a rewritten network feeds it, to give Wx.

    The least squares answer Ŵ = W·C·Ĥ⁻¹ with C = E[xx̂ᵀ], written as a step from W and damped
    towards it, so that what x̂ never excites stays as it was.

    Args:
        weights: `[out, in]` W.
        moments: of x̂, with `cross` and `reference_mean`; without them nothing changes.
        biased: whether a bias can take up the means; the fit is then of centred inputs.

    Returns:
        Ŵ `[out, in]`, and what to add to the bias `[out]`.
    """
    w = np.asarray(weights, np.float64)
    nothing = np.zeros(len(w))
    if moments is None or moments.cross is None or moments.gram is None:
        return w, nothing
    assert moments.reference_mean is not None
    grouped = w.reshape(len(moments.gram), -1, moments.gram.shape[1])
    found = refitted_to(grouped, grouped, moments, biased=biased)
    if not biased:
        return found.reshape(w.shape), nothing
    wanted = grouped @ moments.reference_mean[:, :, None]
    offset = wanted - found @ moments.mean[:, :, None]
    return found.reshape(w.shape), offset.reshape(-1)


def refitted_to(
    wanted: Float64, start: Float64, moments: LayerStatistics, *, biased: bool
) -> Float64:
    """`start` moved towards W·C·Ĥ⁻¹, the least squares answer for x̂, as far as that holds.

    How strongly the step is damped, and how much of it is taken, is what serves the other half of
    the samples best when it is fitted to one half: rows of one sample are alike, so that counting
    rows says little of how well a fit holds elsewhere. A step that serves neither is not taken.

    Args:
        wanted: `[groups, out, in]` W, whose answers of x are wanted.
        start: `[groups, out, kept]`.
        moments: of x̂, with `cross` `[groups, in, kept]`.
        biased: whether a bias takes up the means; the fit is then of centred inputs.
    """
    if moments.half is None:
        share, taken = _share_for(start.shape[2], moments.rows), 1.0
    else:
        parts = moments.half, moments.without(moments.half)
        stride = -(-start.shape[1] // _OUTPUTS)
        some, begun = wanted[:, ::stride], start[:, ::stride]
        halves = [_Half(h.rows, *_normal(some, begun, h, biased=biased)) for h in parts]
        share, taken = _held_out(halves[0], halves[1])
    if not taken:
        return start
    step = _step(*_normal(wanted, start, moments, biased=biased), share)
    return start if step is None else start + taken * step


@dataclass(frozen=True)
class _Half:
    """Of the samples.

    Attributes:
        rows: of them.
        gram: `[groups, kept, kept]` Ĥ.
        slope: `[groups, out, kept]` as `_normal` gives it.
    """

    rows: int
    gram: Float64
    slope: Float64


def _held_out(first: _Half, second: _Half) -> tuple[float, float]:
    """The damping, as a share of the mean diagonal, and how much of the step to take."""
    best = (0.0, 0.0, 0.0)
    for share in _DAMPINGS:
        along = across = 0.0
        for own, other in ((first, second), (second, first)):
            step = _step(own.gram, own.slope, share)
            if step is None:
                continue
            along += other.rows * float(np.einsum("goi,goi->", step, other.slope))
            across += other.rows * float(np.einsum("goi,goi->", step @ other.gram, step))
        if along <= 0 or not 0 < across < np.inf:
            continue
        taken = min(along / across, 1.0)
        best = max(best, (2 * taken * along - taken**2 * across, share, taken))
    return best[1:]


def _normal(
    wanted: Float64, start: Float64, moments: LayerStatistics, *, biased: bool
) -> tuple[Float64, Float64]:
    """Ĥ, and half the slope of the error at `start`: W·C − start·Ĥ."""
    gram = moments.centred_gram if biased else moments.gram
    cross = moments.centred_cross if biased else moments.cross
    assert gram is not None
    assert cross is not None
    return gram, wanted @ cross - start @ gram


def _step(gram: Float64, slope: Float64, share: float) -> Float64 | None:
    """(Ĥ + λI)⁻¹ times the slope, or `None` where that is no number."""
    try:
        step = solve(_damped(gram, share), slope.swapaxes(1, 2)).swapaxes(1, 2)
    except np.linalg.LinAlgError:
        return None
    return np.asarray(step, np.float64) if np.isfinite(step).all() else None


@dataclass(frozen=True)
class LowRank:
    """The principal components of a layer's outputs.

    Attributes:
        basis: `[out, min(out, in)]` U, orthonormal columns in order of falling energy.
        energies: `[min(out, in)]` what each component carries.
        weights: `[out, in]` the layer's W.
        mean: `[in]` μ of the inputs, or `None`: without statistics, or without a bias to
            take the mean up.
    """

    basis: Float64
    energies: Float64
    weights: Float64
    mean: Float64 | None

    def error(self, rank: int) -> float:
        """Relative output error at `rank`: the share of the energy that is left out."""
        total = self.energies.sum()
        return float(self.energies[rank:].sum() / total) if total > 0 else 0.0

    def factors(self, rank: int) -> tuple[Float64, Float64]:
        """`(first [rank, in], second [out, rank])`, whose product replaces W."""
        kept = self.basis[:, :rank]
        return kept.T @ self.weights, kept

    def bias_shift(self, first: Weights, second: Weights) -> Float64:
        """`[out]` (W − second·first)·μ, to be added to the bias; zeros without a mean."""
        if self.mean is None:
            return np.zeros(len(self.basis))
        return np.asarray(self.weights @ self.mean - second @ (first @ self.mean), np.float64)


def low_rank(weights: Weights, gram: Float64 | None, mean: Float64 | None) -> LowRank:
    """Principal components of the outputs, the best low rank for E‖Wx − W'x‖².

    W·H_c·Wᵀ = UΛUᵀ with the centred H_c = H − μμᵀ; no inverse is needed, so a singular H
    (fewer rows than inputs, dead inputs) is as good as any (DRONE, NeurIPS 2021; the same
    optimum as the whitened SVD of SVD-LLM, arXiv 2403.07378). Without H it is the plain
    truncated SVD of W.

    Args:
        weights: `[out, in]`.
        gram: `[in, in]` H or `None`.
        mean: `[in]` μ, or `None` to leave the outputs uncentred.
    """
    w = np.asarray(weights, np.float64)
    centred = gram
    if gram is None:
        mean = None
    elif mean is not None:
        centred = gram - np.outer(mean, mean)
    # The left singular vectors of W·H½ are the eigenvectors of W·H_c·Wᵀ; the product is formed
    # only where it is the smaller (an embedding has thousands of columns, a classifier rows).
    if w.shape[0] <= w.shape[1]:
        energies, basis = eigh((w if centred is None else w @ centred) @ w.T)
        energies, basis = np.maximum(energies[::-1], 0.0), basis[:, ::-1]
    else:
        rooted = w
        if centred is not None:
            values, vectors = eigh(centred)
            rooted = w @ (vectors * np.sqrt(np.maximum(values, 0.0)))
        basis, singular, _ = svd(rooted)
        energies = singular**2
    # The sign of a singular vector is arbitrary: fix it, so that files are reproducible.
    signs = np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    return LowRank(basis * np.where(signs == 0, 1.0, signs), energies, w, mean)
