"""Samples from lines of text: tokens where the model takes numbers, the text itself else."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Gt

from onnxpress.data.files import MOST, Row, assembled, has_files, listed, spread
from onnxpress.data.preparation import preparation_of
from onnxpress.data.reader import Reader, path_of
from onnxpress.data.samples import Samples
from onnxpress.errors import DataError, UsageError
from onnxpress.runtime import Array, Feed, InputSpec
from onnxpress.settings import setting, validate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["READER", "Texts", "read_texts"]

_SUFFIXES = frozenset((".txt", ".jsonl"))
_WHAT = "texts, one a line"
_TOKENIZER = "tokenizer.json"
_LENGTH = 128
"""Tokens, where nothing says how many: what sentence encoders are mostly used with."""
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Texts:
    """How texts are prepared: the table `[texts]` of a description.

    Raises:
        UsageError: a setting has the wrong type.
    """

    tokenizer: str | None = setting(
        None, "A tokenizer.json; without: the one beside the texts or in the folder above."
    )
    length: Annotated[int, Gt(0)] | None = setting(
        None, "Tokens at most; without: as the model or the tokenizer says, else 128."
    )
    field: str = setting("text", "Of each line of a .jsonl: the text.")
    pair: str | None = setting(None, "Of each line of a .jsonl: a second text.")
    label: str = setting("label", "Of each line of a .jsonl: the class, a whole number.")
    most: Annotated[int, Gt(0)] = setting(MOST, "Texts that are read, evenly spread.")

    def __post_init__(self) -> None:
        validate(self, "[texts]")


Line = tuple[str, str | None, int | None]
"""A text, a second one, and a class."""


def _accepts(data: object) -> bool:
    return has_files(path_of(data), _SUFFIXES)


def _read(data: str | Path, inputs: Sequence[InputSpec]) -> Samples:
    return read_texts(Path(data), None, inputs, {})


def read_texts(
    path: Path,
    how: Texts | None,
    inputs: Sequence[InputSpec],
    constants: Mapping[str, Array],
) -> Samples:
    """Samples of the lines of a `.txt` or `.jsonl`, or of the files of a folder.

    Args:
        path: of the file or folder.
        how: they are prepared; `None`: by the defaults.
        inputs: of the model: text, or token ids with what goes with them, by their names.
        constants: what its other inputs are fed.

    Raises:
        DataError: no texts, no tokenizer, or a model that takes neither.
        UsageError: the tokenizers library is not installed.
    """
    how = how or Texts()
    found = listed(path, _SUFFIXES, _WHAT, MOST)
    lines = [
        line
        for number, file in enumerate(found.files)
        for line in _lines(file, how, None if found.labels is None else found.labels[number])
    ]
    if not lines:
        raise DataError(f"{path}: holds no text; expected one a line [D005]")
    notes = list(found.notes)
    taken = spread(len(lines), how.most)
    if len(taken) < len(lines):
        notes.append(f"{path}: {len(taken):,} of {len(lines):,} texts are read, evenly spread")
    lines = [lines[index] for index in taken]
    specs = [spec for spec in inputs if spec.name not in constants]
    if len(specs) == 1 and specs[0].dtype == "object":
        samples = assembled(_as_they_are(lines, specs[0]), inputs, constants, str(path), notes)
    else:
        roles = _roles(specs, path)
        how = replace(how, tokenizer=str(_tokenizer_file(how, path)))
        rows, note = _tokenized(lines, how, specs, roles, path)
        samples = assembled(rows, inputs, constants, str(path), [*notes, note])
    kept = preparation_of("texts", how, inputs, constants)
    # Of a batch of several there is no one line.
    texts = tuple(_in_words(line) for line in lines) if len(samples) == len(lines) else ()
    return replace(samples, preparation=kept, texts=texts)


def _in_words(line: Line) -> str:
    text, second, _ = line
    return text if second is None else f"{text} | {second}"


def _lines(file: Path, how: Texts, label: int | None) -> Iterator[Line]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise DataError(
                f"{file}: is larger than {_MOST_BYTES >> 20} MiB; a few thousand "
                "lines are enough [D017]"
            )
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        at = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}, line {at}: is no UTF-8 text (byte 0x{error.object[error.start]:02x}); save "
            f"it as UTF-8: iconv -f LATIN1 -t UTF-8, or another encoding that it has [D008]"
        ) from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error}) [D008]") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if file.suffix.lower() != ".jsonl":
            yield line.strip(), None, label
            continue
        yield _parsed(line, how, f"{file}, line {number}", label)


def _parsed(line: str, how: Texts, where: str, label: int | None) -> Line:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not JSON ({error}) [D008]") from error
    text = said.get(how.field) if isinstance(said, dict) else said
    second = said.get(how.pair) if how.pair and isinstance(said, dict) else None
    if not isinstance(text, str) or not (second is None or isinstance(second, str)):
        keys = ", ".join(said) if isinstance(said, dict) else type(said).__name__
        raise DataError(
            f"{where}: has no text in {how.field!r} (it has: {keys}); say which field holds it, in "
            "a description: [texts], field = … [D010]"
        )
    if isinstance(said, dict) and how.label in said:
        given = said[how.label]
        if type(given) is not int:
            raise DataError(
                f"{where}: {how.label!r} is {given!r}; expected the number of a class, or name "
                "another field in a description: [texts], label = … [D010]"
            )
        label = given
    return text, second, label


def _as_they_are(lines: Sequence[Line], spec: InputSpec) -> Iterator[Row]:
    for text, _, label in lines:
        yield {spec.name: np.array([text], dtype=object).reshape((1,) * len(spec.shape))}, label


def _roles(specs: Sequence[InputSpec], path: Path) -> dict[str, str]:
    """What each input takes of a tokenized text.

    Raises:
        DataError: one takes nothing of it.
    """
    roles = {spec.name: _role(spec) for spec in specs}
    others = [spec for spec in specs if roles[spec.name] is None]
    if "ids" not in roles.values() and len(others) == 1 and _may_be_ids(others[0]):
        # Whatever its name, it is the only one that the tokens can go to.
        roles[others[0].name] = "ids"
    told = {name: role for name, role in roles.items() if role is not None}
    if "ids" not in told.values() or len(told) < len(specs):
        wanted = "; ".join(str(spec) for spec in specs)
        raise DataError(
            f"{path}: text feeds token ids, a mask, token types and positions, told by their "
            f"names; the model wants {wanted}; feed others in the table [constants] of a "
            "description, or give module:function that yields a dictionary of arrays "
            "per sample [D013]"
        )
    return told


def _may_be_ids(spec: InputSpec) -> bool:
    return spec.dtype in ("int64", "int32") and len(spec.shape) == 2


def _tokenized(
    lines: Sequence[Line],
    how: Texts,
    specs: Sequence[InputSpec],
    roles: Mapping[str, str],
    path: Path,
) -> tuple[Iterator[Row], str]:
    file = _tokenizer_file(how, path)
    tokenizer = _loaded(file)
    fixed = {spec.shape[1] for spec in specs if isinstance(spec.shape[1], int)}
    exact = next((size for size in fixed if isinstance(size, int) and size > 0), None)
    own = tokenizer.truncation
    length = exact or how.length or (own["max_length"] if own else _LENGTH)
    padding = tokenizer.padding
    filler = padding["pad_id"] if padding else _padding_id(tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    note = f"{path}: texts are fed as tokens of {file}, at most {length}"
    note += f", filled up to {exact} with {filler}" if exact else ", each as long as it is"

    def rows() -> Iterator[Row]:
        for text, second, label in lines:
            coded = tokenizer.encode(text, second)
            count = exact or len(coded.ids)
            values = {
                "ids": _filled(coded.ids, count, filler),
                "mask": _filled(coded.attention_mask, count, 0),
                "types": _filled(coded.type_ids, count, 0),
                "positions": list(range(count)),
            }
            feed: Feed = {
                spec.name: np.array([values[roles[spec.name]]], dtype=spec.dtype) for spec in specs
            }
            yield feed, label

    return rows(), note


def _role(spec: InputSpec) -> str | None:
    """What of a tokenized text an input takes, told by its name; `None`: nothing."""
    name = spec.name.lower()
    if len(spec.shape) != 2 or spec.dtype in ("object", "bool"):
        return None
    if "mask" in name:
        return "mask"
    if "type" in name or "segment" in name:
        return "types"
    if "position" in name:
        return "positions"
    return "ids" if "id" in name or "token" in name else None


def _filled(values: Sequence[int], count: int, filler: int) -> list[int]:
    return [*values, *[filler] * (count - len(values))]


def _padding_id(tokenizer: "Tokenizer") -> int:
    for token in ("[PAD]", "<pad>", "<|endoftext|>"):
        number = tokenizer.token_to_id(token)
        if number is not None:
            return int(number)
    return 0


def _tokenizer_file(how: Texts, path: Path) -> Path:
    if how.tokenizer is not None:
        return Path(how.tokenizer)
    folder = path if path.is_dir() else path.parent
    for place in (folder / _TOKENIZER, folder.parent / _TOKENIZER):
        if place.is_file():
            return place
    raise DataError(
        f"{path}: the model takes numbers of tokens, and there is no {_TOKENIZER} beside the "
        "texts; put the model's own there, or name it in a description: [texts], "
        "tokenizer = … [D015]"
    )


def _loaded(file: Path) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            f"{file}: texts are split by the tokenizers library, which is not installed; install "
            "it with pip install 'onnxpress[texts]' [U007]"
        ) from error
    if not file.is_file():
        raise DataError(f"{file}: there is no such tokenizer file [D015]")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(
            f"{file}: is no file of the tokenizers library ({error}); give the model's own "
            "tokenizer.json [D015]"
        ) from error


READER = Reader(
    "lines of text (.txt, .jsonl) beside a tokenizer.json",
    _accepts,
    _read,
)
