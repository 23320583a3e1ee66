"""For each kind of output a model, and what to do to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from zoo import broken_detectors, broken_pictures, broken_sequences, detectors, pictures, sequences
from zoo.builder import Made
from zoo.faults import (
    Edit,
    noisy,
    renamed,
    rounded,
)
from zoo.pictures import CLASSES

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """A model and its candidates.

    Attributes:
        make: the model.
        broken: by name.
        harmless: beside those that do no harm to any model.
    """

    make: Callable[[], Made]
    broken: Mapping[str, Edit]
    harmless: Mapping[str, Edit]


_NO_MORE: Mapping[str, Edit] = {}
_ALWAYS: Mapping[str, Edit] = {
    "noise on weights": noisy,
    "8-bit weights": rounded,
    "renamed": renamed,
}


def _kind(
    make: Callable[[], Made], broken: Mapping[str, Edit], harmless: Mapping[str, Edit] = _NO_MORE
) -> Kind:
    return Kind(make, broken, {**_ALWAYS, **harmless})


KINDS: Mapping[str, Kind] = {
    "classes, probabilities": _kind(pictures.classifier, broken_pictures.probabilities()),
    "classes, logits": _kind(partial(pictures.classifier, "logits"), broken_pictures.logits()),
    "labels": _kind(pictures.multi_label, broken_pictures.labels()),
    "regression": _kind(pictures.regression, broken_pictures.regression()),
    "landmarks": _kind(pictures.landmarks, broken_pictures.landmarks()),
    "embedding": _kind(pictures.embedding, broken_pictures.embedding()),
    "segmentation": _kind(pictures.segmentation, broken_pictures.segmentation()),
    "masks": _kind(pictures.masks, broken_pictures.masks()),
    "class numbers": _kind(partial(pictures.segmentation, "numbers"), broken_pictures.numbers()),
    "heat maps": _kind(pictures.heat_maps, broken_pictures.maps("heat", CLASSES)),
    "picture": _kind(pictures.restored, broken_pictures.picture()),
    "class and depth": _kind(pictures.class_and_depth, broken_pictures.two_outputs()),
    "YOLOv8": _kind(detectors.head, broken_detectors.yolov8()),
    "YOLOv5": _kind(partial(detectors.head, "yolov5"), broken_detectors.yolov5()),
    "DETR": _kind(detectors.detr, broken_detectors.detr()),
    "PicoDet": _kind(detectors.picodet, broken_detectors.picodet()),
    "objects in lists": _kind(
        detectors.listed,
        broken_detectors.listed(),
        {"rows permuted": broken_detectors.permuted("boxes", "scores", "labels")},
    ),
    "objects in rows": _kind(
        detectors.rows_of_objects,
        broken_detectors.rows(),
        {"rows permuted": broken_detectors.permuted("detections")},
    ),
    "lines": _kind(sequences.lines, broken_sequences.lines()),
    "tokens": _kind(sequences.tagger, broken_sequences.tagger()),
    "gains": _kind(sequences.denoiser, broken_sequences.gains()),
    "recurrent": _kind(sequences.recurrent, broken_sequences.recurrent()),
    "accumulator": _kind(sequences.accumulator, broken_sequences.accumulator()),
    "decoder": _kind(sequences.decoder, broken_sequences.decoder()),
}
