"""Samples from ONNX test data sets: folders of `input_*.pb`, as the model zoo holds them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxpress.data.checks import from_feeds
from onnxpress.data.reader import Reader, path_of
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError
from onnxpress.runtime import Array, Feed, InputSpec

__all__ = ["READER"]


def _accepts(data: object) -> bool:
    path = path_of(data)
    return path is not None and any(
        next(path.glob(pattern), None) is not None for pattern in ("test_data_set_*", "input_*.pb")
    )


def _read(data: str | Path, inputs: Sequence[InputSpec]) -> Samples:
    path = Path(data)
    folders = sorted(path.glob("test_data_set_*")) or [path]
    return from_feeds((_feed(folder, inputs) for folder in folders), inputs, str(path))


def _feed(folder: Path, inputs: Sequence[InputSpec]) -> Feed:
    """The tensors of a folder by input name; one without a name of the model's goes by place."""
    files = sorted(folder.glob("input_*.pb"), key=lambda file: (len(file.stem), file.stem))
    if not files:
        raise DataError(
            f"{folder}: holds no input_*.pb; expected an ONNX test data set, or a .npz file [D005]"
        )
    named = {spec.name for spec in inputs}
    feed: dict[str, Array] = {}
    for position, (name, array) in enumerate(_tensors(files)):
        fallback = inputs[position].name if position < len(inputs) else name
        fed = name if name in named else fallback
        if fed in feed:
            raise DataError(
                f"{files[position]}: holds the input {fed!r}, which another file of the folder "
                "holds, too; remove one of them [D002]"
            )
        feed[fed] = array
    return feed


def _tensors(files: Sequence[Path]) -> Iterator[tuple[str, Array]]:
    for file in files:
        tensor = onnx.TensorProto()
        try:
            tensor.ParseFromString(file.read_bytes())
            array = onnx.numpy_helper.to_array(tensor)
        except (DecodeError, ValueError, TypeError) as error:
            raise DataError(f"{file}: is not an ONNX tensor: {error} [D008]") from error
        yield tensor.name, array


READER = Reader("a folder of ONNX test_data_set_* folders", _accepts, _read)
