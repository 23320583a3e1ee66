"""A pipeline in words: several models, what feeds what, a loop over tokens or over a recording.

    cache = "int8"

    [[part]]
    name = "encoder"
    model = "encoder_model.onnx"

    [[part]]
    name = "decoder"
    model = "decoder_model_merged.onnx"
    [part.inputs]
    encoder_hidden_states = "encoder.last_hidden_state"
    encoder_attention_mask = "attention_mask"
    [part.loop]
    tokens = "input_ids"
    start = 0
    end = [1]
    steps = 32
    flag = "use_cache_branch"
    once = ["past_key_values.*.encoder.*"]
    [part.loop.cache]
    "past_key_values.*" = "present.*"

Parts run in this order. An input that is not named takes the output of an earlier part with its
name, and else is an input of the pipeline, which the samples hold.
"""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from onnxpress.errors import ModelError, UsageError, nearest_file
from onnxpress.pipelines.loop import Loop, loop_of, loop_table
from onnxpress.pipelines.stream import Stream, stream_of, stream_table
from onnxpress.recipe_entries import Entries
from onnxpress.toml_places import places_of, read_toml

__all__ = ["CACHES", "FILE", "Part", "Pipeline", "matched", "read_pipeline", "side_files"]

FILE = "pipeline.toml"
CACHES = ("float", "int8")
_KEYS = ("cache", "part")
_PART_KEYS = ("name", "model", "inputs", "loop", "stream")
_SIDES = (".json", ".txt", ".model", ".spm", ".jinja", ".vocab", ".bpe")
"""What configurations and tokenizers end with."""


@dataclass(frozen=True, slots=True)
class Part:
    """One model of a pipeline.

    Attributes:
        name: by which others name its outputs.
        model: its file.
        inputs: where inputs come from, by name: `PART.OUTPUT`, or an input of the pipeline.
        loop: how it generates tokens.
        stream: how it reads a recording (`stream`). Without either it runs once.
    """

    name: str
    model: Path
    inputs: Mapping[str, str] = field(default_factory=dict)
    loop: Loop | None = None
    stream: Stream | None = None

    def __post_init__(self) -> None:
        """Refuse a name that is no name of a file.

        Raises:
            UsageError: it is empty or leads into another folder.
        """
        if not self.name or any(text in self.name for text in ("/", "\\", "..", "\0")):
            raise UsageError(
                f"{self.model}: the part is called {self.name!r}; expected a name that a file can "
                "have, without /, \\ and .. [N001]"
            )


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Parts in the order in which they run.

    Attributes:
        parts: at least one.
        source: what messages call it.
        cache: `int8` where keys and values of the result are to be kept in bytes.
        side_files: that belong to it and are copied: a tokenizer, a configuration.
    """

    parts: tuple[Part, ...]
    source: str
    cache: str = "float"
    side_files: tuple[Path, ...] = ()

    def part(self, name: str) -> Part:
        """The part of a name that exists."""
        return next(part for part in self.parts if part.name == name)

    @property
    def firsts(self) -> frozenset[str]:
        """Parts that only take the first step of another."""
        return frozenset(p.loop.first for p in self.parts if p.loop and p.loop.first)

    @property
    def last(self) -> str:
        """The part whose outputs are those of the pipeline."""
        return [part for part in self.parts if part.name not in self.firsts][-1].name

    @property
    def loop(self) -> "Loop | None":
        """Of the part that generates, of which there is one at most."""
        return next((part.loop for part in self.parts if part.loop is not None), None)

    @property
    def files(self) -> dict[str, str]:
        """Names of files in one folder, by part: the part's own where two would be the same."""
        # Some file systems take A and a for one.
        times = Counter(part.model.name.casefold() for part in self.parts)
        taken = {name for name, number in times.items() if number == 1}
        found = {}
        for part in self.parts:
            file, number = part.model.name, 1
            if times[file.casefold()] > 1:
                file = f"{part.name}.onnx"
                while file.casefold() in taken:
                    number += 1
                    file = f"{part.name}_{number}.onnx"
                taken.add(file.casefold())
            found[part.name] = file
        return found

    def to_toml(self, *, beside: Path | None = None) -> str:
        """The text that `read_pipeline` reads.

        Args:
            beside: the folder in which it describes files where they are; `None`: all files lie
                in its own folder, by the names in `files`.
        """
        files = self.files
        if beside is not None:
            files = {part.name: _relative(part.model, beside) for part in self.parts}
        table: dict[str, Any] = {} if self.cache == "float" else {"cache": self.cache}
        table["part"] = [_part_table(part, files[part.name]) for part in self.parts]
        return tomli_w.dumps(table)


def matched(pattern: str, names: Sequence[str]) -> dict[str, str]:
    """Names that a pattern with at most one `*` fits, with the text that the star stands for."""
    expression = re.compile(re.escape(pattern).replace(r"\*", "(.*)"))
    found = {name: expression.fullmatch(name) for name in names}
    return {name: ".".join(match.groups()) for name, match in found.items() if match}


def read_pipeline(source: str | os.PathLike[str]) -> Pipeline:
    """Read a description.

    Raises:
        UsageError: it cannot be read.
        RecipeError: an entry means nothing, with its line.
        ModelError: a file that it names is not there.
    """
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
        table = read_toml(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"{path}: cannot be read as the description of a pipeline: {error} [N001]"
        ) from error
    root = Entries(table, str(path), places_of(text))
    root.known(_KEYS)
    entries = root.tables("part")
    if not entries:
        raise UsageError(f"{path}: describes no part; expected [[part]] tables [N001]")
    parts: list[Part] = []
    for entry in entries:
        part = _part(entry, path.parent)
        if any(other.name == part.name for other in parts):
            raise entry.error("name", f"there is a part {part.name!r} already")
        parts.append(part)
    _require_files(parts, path)
    cache = root.value("cache", str, "float")
    if cache not in CACHES:
        raise root.error("cache", f"cache is {cache!r}; expected one of {', '.join(CACHES)}")
    return Pipeline(tuple(parts), str(path), cache, side_files(path.parent, parts))


def side_files(folder: Path, parts: Sequence[Part]) -> tuple[Path, ...]:
    """Configurations and tokenizers that lie beside a description or the models, by name."""
    used = {part.model.name for part in parts} | {FILE}
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return tuple(f for f in files if f.name not in used and f.name.endswith(_SIDES))


def _part(entry: Entries, folder: Path) -> Part:
    entry.known(_PART_KEYS)
    inputs, loop, stream = (entry.table(name) for name in ("inputs", "loop", "stream"))
    if loop is not None and stream is not None:
        raise entry.error("stream", "a part has a loop or a stream, not both")
    return Part(
        entry.value("name", str),
        folder / entry.value("model", str),
        {} if inputs is None else {n: inputs.value(n, str) for n in inputs.table_itself},
        None if loop is None else loop_of(loop),
        None if stream is None else stream_of(stream),
    )


def _require_files(parts: Sequence[Part], source: Path) -> None:
    for part in parts:
        if not part.model.is_file():
            raise ModelError(
                f"{source}: part {part.name} is missing: there is no file {part.model}"
                f"{nearest_file(part.model)} [N002]"
            )


def _relative(file: Path, folder: Path) -> str:
    """As a description in the folder names it."""
    inside = file.is_relative_to(folder)
    return (file.relative_to(folder) if inside else file.resolve()).as_posix()


def _part_table(part: Part, file: str) -> dict[str, Any]:
    table: dict[str, Any] = {"name": part.name, "model": file}
    if part.inputs:
        table["inputs"] = dict(part.inputs)
    if part.loop is not None:
        table["loop"] = loop_table(part.loop)
    if part.stream is not None:
        table["stream"] = stream_table(part.stream)
    return table
