"""What is kept of activations: mergeable sums whose size does not grow with the samples.

For a layer with input rows x: the number of rows, μ = E[x], max|x| and the Gram matrix
H = E[xxᵀ] (float64, divided by the number of rows), per group. For a tensor: minimum, maximum
and a histogram over [-2ᵏ, 2ᵏ] whose range doubles when needed; because ranges are powers of
two, pairs of bins fall together exactly and histograms of different machines merge exactly.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from onnxpress.errors import DataError
from onnxpress.output_file import replace_file

__all__ = ["BINS", "LayerStatistics", "Statistics", "TensorStatistics"]

BINS = 4096
"""Even at the coarsest, 1,024 bins cover one sign: 4 bins for each level of an 8-bit range."""

_SAFE_EXPONENT = 100
"""Beyond it the bounds or the factor to bins leave float32's own range."""

_OPTIONAL = ("gram", "reference_mean", "cross", "tiles", "noise", "centred_noise")
"""Of a layer's statistics, in files."""

Float64 = npt.NDArray[np.float64]


@dataclass(slots=True)
class TensorStatistics:
    """Range and histogram of one tensor.

    Attributes:
        minimum: exact over all elements seen.
        maximum: exact over all elements seen.
        exponent: the histogram covers [-2**exponent, 2**exponent].
        counts: `[BINS]` elements per bin; large tensors are sampled with a fixed stride.
    """

    minimum: float = np.inf
    maximum: float = -np.inf
    exponent: int = -126
    counts: Float64 = field(default_factory=lambda: np.zeros(BINS))

    def update(self, minimum: float, maximum: float, sample: npt.NDArray[np.float32]) -> None:
        """Add the extremes of a tensor and a sample of its elements."""
        self.minimum = min(self.minimum, minimum)
        self.maximum = max(self.maximum, maximum)
        largest = max(abs(minimum), abs(maximum))
        if largest > 0:
            self.widen(int(np.ceil(np.log2(largest))))
        limit = 2.0**self.exponent
        # The factor is a power of two, so float32 is off by less than a thousandth of a bin.
        kind = np.float32 if abs(self.exponent) < _SAFE_EXPONENT else np.float64
        index = ((sample + kind(limit)) * kind(BINS / (2 * limit))).astype(np.intp)
        self.counts += np.bincount(np.minimum(index, BINS - 1), minlength=BINS)

    def widen(self, exponent: int) -> None:
        """Let the histogram cover [-2**exponent, 2**exponent] at least."""
        while self.exponent < exponent:
            if not self.counts.any():
                self.exponent = exponent
                return
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS)
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = pairs
            self.exponent += 1

    @property
    def centers(self) -> Float64:
        """`[BINS]` the middle of every bin."""
        limit = 2.0**self.exponent
        return np.asarray((np.arange(BINS) + 0.5) * (2 * limit / BINS) - limit, np.float64)

    def copy(self) -> "TensorStatistics":
        """The same, to go on with."""
        return TensorStatistics(self.minimum, self.maximum, self.exponent, self.counts.copy())

    def merge(self, other: Self) -> None:
        """Add what another collector saw; `other` is not changed."""
        twin = other.copy()
        twin.widen(self.exponent)
        self.widen(other.exponent)
        self.counts += twin.counts
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)


@dataclass(frozen=True, slots=True, eq=False)
class LayerStatistics:
    """Moments of a layer's input rows; arrays are read-only, so that what follows from them holds.

    Attributes:
        rows: how many rows the sums hold.
        rows_per_sample: how many times the weight is applied in one run, on average.
        mean: `[groups, in]` μ.
        minimum: `[groups, in]` over the rows drawn.
        maximum: `[groups, in]` over the rows drawn.
        second_moment: `[groups, in]` E[x²], the diagonal of the Gram matrix.
        gram: `[groups, in, in]` H, or `None` where it was not asked for or would be too wide.
        input_shape: of the layer's input tensor in the last run; empty when not observed.
        reference_mean: `[groups, in]` E[x] of the model before its stage, where the other
            moments are those of x̂, what the rewritten model feeds the layer; `None` otherwise.
        cross: `[groups, in, in]` C = E[x·x̂ᵀ] of the same rows; `None` otherwise.
        tiles: `[tiles, in / tiles, in / tiles]` diagonal blocks of H where the whole would be too
            wide, of a layer of one group; `None` where there is H, or nothing of it.
        noise: `[groups]`, of tiles `[tiles]`, E‖H − H*‖² (Frobenius) over the samples there could
            be, as halves of these tell (`sampling`); `None`: they were not compared.
        centred_noise: likewise of centred inputs.
        half: the same of every other sample, so that what is fitted to one half of the samples can
            be tried on the other; only beside a reference, and not written to files.
    """

    rows: int
    rows_per_sample: float
    mean: Float64
    minimum: Float64
    maximum: Float64
    second_moment: Float64
    gram: Float64 | None
    input_shape: tuple[int, ...] = ()
    reference_mean: Float64 | None = None
    cross: Float64 | None = None
    tiles: Float64 | None = None
    noise: Float64 | None = None
    centred_noise: Float64 | None = None
    half: "LayerStatistics | None" = None

    def __post_init__(self) -> None:
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if isinstance(value, np.ndarray):
                # A view of its own: whoever made the array may go on with it.
                frozen = value.view()
                frozen.flags.writeable = False
                object.__setattr__(self, field_.name, frozen)

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        values = [getattr(self, field_.name) for field_ in fields(self)]
        own = sum(value.nbytes for value in values if isinstance(value, np.ndarray))
        return own + (0 if self.half is None else self.half.nbytes)

    @property
    def is_finite(self) -> bool:
        """Whether all that was seen was finite; a Gram matrix is where its diagonal is."""
        sums = (self.mean, self.second_moment, self.reference_mean, self.cross)
        return all(one is None or bool(np.isfinite(one).all()) for one in sums)

    @property
    def absolute_maximum(self) -> Float64:
        """`[groups, in]`."""
        return np.maximum(-self.minimum, self.maximum)

    @property
    def centred_gram(self) -> Float64 | None:
        """`[groups, in, in]` H − μμᵀ, for layers whose bias takes up the mean."""
        if self.gram is None:
            return None
        return self.gram - self.mean[:, :, None] * self.mean[:, None, :]

    @property
    def centred_tiles(self) -> Float64 | None:
        """`[tiles, in / tiles, in / tiles]`, likewise."""
        if self.tiles is None:
            return None
        mean = self.mean.reshape(len(self.tiles), -1)
        return self.tiles - mean[:, :, None] * mean[:, None, :]

    @property
    def centred_cross(self) -> Float64 | None:
        """C − μ·μ̂ᵀ, likewise; `None` where no reference was observed beside."""
        if self.cross is None or self.reference_mean is None:
            return None
        return self.cross - self.reference_mean[:, :, None] * self.mean[:, None, :]

    def merged(self, other: Self) -> Self:
        """Both together, as one collector that saw all rows would give them."""
        total = self.rows + other.rows
        if total == 0:
            return self
        mine, theirs = self.rows / total, other.rows / total

        def mixed(a: Float64 | None, b: Float64 | None) -> Float64 | None:
            return None if a is None or b is None else mine * a + theirs * b

        def chance(a: Float64 | None, b: Float64 | None) -> Float64 | None:
            # Of one sample nothing is known; of the same samples it falls with their number.
            if a is None or b is None:
                return mine * a if a is not None else theirs * b if b is not None else None
            return mine**2 * a + theirs**2 * b

        return replace(
            self,
            rows=total,
            rows_per_sample=mine * self.rows_per_sample + theirs * other.rows_per_sample,
            mean=mine * self.mean + theirs * other.mean,
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
            second_moment=mine * self.second_moment + theirs * other.second_moment,
            gram=mixed(self.gram, other.gram),
            reference_mean=mixed(self.reference_mean, other.reference_mean),
            cross=mixed(self.cross, other.cross),
            tiles=mixed(self.tiles, other.tiles),
            noise=chance(self.noise, other.noise),
            centred_noise=chance(self.centred_noise, other.centred_noise),
            half=None,
        )

    def without(self, part: Self) -> Self:
        """What is left once a part of what was seen is taken away; extremes stay."""
        rows = self.rows - part.rows

        def rest(a: Float64 | None, b: Float64 | None) -> Float64 | None:
            return None if a is None or b is None else (self.rows * a - part.rows * b) / rows

        return replace(
            self,
            rows=rows,
            rows_per_sample=self.rows_per_sample - part.rows_per_sample,
            mean=(self.rows * self.mean - part.rows * part.mean) / rows,
            second_moment=(self.rows * self.second_moment - part.rows * part.second_moment) / rows,
            gram=rest(self.gram, part.gram),
            reference_mean=rest(self.reference_mean, part.reference_mean),
            cross=rest(self.cross, part.cross),
            tiles=rest(self.tiles, part.tiles),
            noise=None,
            centred_noise=None,
            half=None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """All that was observed of one model over one set of samples.

    Attributes:
        tensors: by tensor name.
        layers: by layer name.
        samples: how many runs were observed.
        lookups: by the name of an embedding, `[words]` how often each row of it was looked up.
    """

    tensors: dict[str, TensorStatistics] = field(default_factory=dict)
    layers: Mapping[str, LayerStatistics] = field(default_factory=dict)
    samples: int = 0
    lookups: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        counts = sum(tensor.counts.nbytes for tensor in self.tensors.values())
        counts += sum(lookups.nbytes for lookups in self.lookups.values())
        # Layers that read one tensor alike share what was observed.
        distinct = {id(layer): layer for layer in self.layers.values()}
        return counts + sum(layer.nbytes for layer in distinct.values())

    def merged(self, other: Self) -> Self:
        """This and what another collector saw of the same model; neither is changed."""
        tensors = {name: tensor.copy() for name, tensor in self.tensors.items()}
        for name, tensor in other.tensors.items():
            tensors.setdefault(name, TensorStatistics()).merge(tensor)
        layers = dict(self.layers)
        pairs: dict[tuple[int, int], LayerStatistics] = {}
        for name, layer in other.layers.items():
            pair = id(layers.get(name)), id(layer)
            if pair not in pairs:
                pairs[pair] = layers[name].merged(layer) if name in layers else layer
            layers[name] = pairs[pair]
        lookups = {**other.lookups, **self.lookups}
        for name in self.lookups.keys() & other.lookups.keys():
            lookups[name] = self.lookups[name] + other.lookups[name]
        samples = self.samples + other.samples
        return replace(self, tensors=tensors, layers=layers, samples=samples, lookups=lookups)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a `.npz` file, whole or not at all."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"samples": np.asarray(self.samples)}
        for name, tensor in self.tensors.items():
            extremes = (tensor.minimum, tensor.maximum, tensor.exponent)
            arrays[f"tensor/range/{name}"] = np.asarray(extremes, np.float64)
            arrays[f"tensor/counts/{name}"] = tensor.counts
        for name, layer in self.layers.items():
            arrays[f"layer/rows/{name}"] = np.asarray((layer.rows, layer.rows_per_sample))
            arrays[f"layer/moments/{name}"] = np.stack(
                (layer.mean, layer.minimum, layer.maximum, layer.second_moment)
            )
            arrays[f"layer/input_shape/{name}"] = np.asarray(layer.input_shape, np.int64)
            for kind in _OPTIONAL:
                array = getattr(layer, kind)
                if array is not None:
                    arrays[f"layer/{kind}/{name}"] = array
        for name, counts in self.lookups.items():
            arrays[f"lookups/{name}"] = counts
        with replace_file(Path(path)) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or is no file of statistics.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays: Mapping[str, npt.NDArray[np.generic]] = dict(archive)
            samples = int(arrays["samples"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(
                f"{path}: is no file of statistics ({error}); expected what "
                "Statistics.save wrote [D008]"
            ) from error
        tensors: dict[str, TensorStatistics] = {}
        layers: dict[str, LayerStatistics] = {}
        for key, array in arrays.items():
            kind, _, name = key.partition("/range/")
            if kind == "tensor" and name:
                low, high, exponent = (float(value) for value in array)
                counts = np.asarray(arrays[f"tensor/counts/{name}"], np.float64)
                tensors[name] = TensorStatistics(low, high, int(exponent), counts)
            kind, _, name = key.partition("/rows/")
            if kind == "layer" and name:
                rows, per_sample = (float(value) for value in array)
                moments = np.asarray(arrays[f"layer/moments/{name}"], np.float64)
                optional = {
                    key: np.asarray(arrays[f"layer/{key}/{name}"], np.float64)
                    for key in _OPTIONAL
                    if f"layer/{key}/{name}" in arrays
                }
                layers[name] = LayerStatistics(
                    int(rows),
                    per_sample,
                    moments[0],
                    moments[1],
                    moments[2],
                    moments[3],
                    optional.get("gram"),
                    tuple(int(size) for size in arrays.get(f"layer/input_shape/{name}", ())),
                    optional.get("reference_mean"),
                    optional.get("cross"),
                    optional.get("tiles"),
                    optional.get("noise"),
                    optional.get("centred_noise"),
                )
        lookups = {
            key.removeprefix("lookups/"): np.asarray(array, np.int64)
            for key, array in arrays.items()
            if key.startswith("lookups/")
        }
        return cls(tensors, layers, samples, lookups)
