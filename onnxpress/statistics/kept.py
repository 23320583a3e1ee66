"""Statistics of many layers with their Gram matrices in one temporary file.

A Gram matrix is as large as its layer's weight, or larger: those of all layers do not fit where the
model does not. Each is written as it comes and read when its layer is asked for, through a mapping
whose pages are given back (`mapped`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxpress.mapped import Mapping as FileMapping
from onnxpress.statistics.store import LayerStatistics
from onnxpress.temporary import TemporaryFolder, no_room

__all__ = ["kept_on_disk"]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a Gram matrix stands in the file.

    Attributes:
        start: bytes before it.
        shape: of the matrix, in float64.
        tiled: whether it is `tiles`, not `gram`.
    """

    start: int
    shape: tuple[int, ...]
    tiled: bool


class _Kept(Mapping[str, LayerStatistics]):
    """By layer name; the same object each time, so that what follows from it is remembered."""

    def __init__(
        self,
        layers: Mapping[str, LayerStatistics],
        places: Mapping[str, "_Place"],
        path: Path,
        folder: TemporaryFolder,
    ) -> None:
        self._places = {
            name: (place.start, 8 * int(np.prod(place.shape))) for name, place in places.items()
        }
        self._layers = dict(layers)
        if not places:
            return
        self._mapping = FileMapping(path, keeper=folder)
        for name, place in places.items():
            array = self._mapping.bytes_at(*self._places[name]).view(np.float64)
            array = array.reshape(place.shape)
            gram, tiles = (None, array) if place.tiled else (array, None)
            self._layers[name] = replace(layers[name], gram=gram, tiles=tiles)

    def __getitem__(self, name: str) -> LayerStatistics:
        found = self._layers[name]
        if name in self._places:
            # Whoever asks reads it: what was read before is given back in time.
            self._mapping.bytes_at(*self._places[name])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def kept_on_disk(
    layers: Iterable[tuple[str, LayerStatistics]],
) -> Mapping[str, LayerStatistics]:
    """Statistics by name, as they come; of each only what is small stays in memory.

    Args:
        layers: names and statistics, one after the other.

    Raises:
        OutputError: there is no room in the temporary folder.
    """
    small: dict[str, LayerStatistics] = {}
    places: dict[str, _Place] = {}
    try:
        folder = TemporaryFolder()
        path = folder.path / "gram.data"
        with path.open("wb") as file:
            for name, one in layers:
                large = one.tiles if one.gram is None else one.gram
                if large is not None:
                    places[name] = _Place(file.tell(), large.shape, tiled=one.gram is None)
                    file.write(np.ascontiguousarray(large).data)
                small[name] = replace(one, gram=None, tiles=None)
        return _Kept(small, places, path, folder)
    except OSError as error:
        raise no_room(error) from error
