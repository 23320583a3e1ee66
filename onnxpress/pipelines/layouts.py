"""Folders of known layouts read as pipelines.

- `pipeline.toml`: our own description;
- optimum (`optimum-cli export onnx`): `encoder_model.onnx` with `decoder_model.onnx` and
  `decoder_with_past_model.onnx`, or `decoder_model_merged.onnx`, whose `use_cache_branch` says
  whether there is a past; a decoder alone is `model.onnx` or one of these; `config.json` has the
  tokens that begin and end, and the trained length;
- onnxruntime-genai: `genai_config.json` names files, inputs and outputs, `%d` for a layer.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxpress import model_file
from onnxpress.errors import ModelError, UsageError
from onnxpress.pipelines.description import FILE, Part, Pipeline, matched, read_pipeline, side_files
from onnxpress.pipelines.loop import Loop

__all__ = ["read_folder"]

_GENAI = "genai_config.json"
_ENCODER = "encoder_model.onnx"
_MERGED, _FIRST, _NEXT = (
    "decoder_model_merged.onnx",
    "decoder_model.onnx",
    "decoder_with_past_model.onnx",
)
_ALONE = "model.onnx"
_DECODER_ONLY = (_MERGED, _ALONE, _FIRST)
_GENERATING = ("CausalLM", "LMHeadModel", "ConditionalGeneration")
"""What architectures that generate end with (transformers)."""
_ONCE = ("past_key_values.*.encoder.*",)
_MASK, _POSITIONS, _FLAG, _TOKENS = (
    "attention_mask",
    "position_ids",
    "use_cache_branch",
    "input_ids",
)
_LONGEST_NAMES = ("max_position_embeddings", "n_positions", "max_target_positions")


def read_folder(source: str | os.PathLike[str]) -> Pipeline:
    """Read a description, or a folder in one of the known layouts.

    Raises:
        UsageError: no layout is recognized.
        ModelError: a file that belongs to the layout is missing.
    """
    path = Path(source)
    if not path.is_dir():
        return read_pipeline(path)
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    if FILE in names:
        return read_pipeline(path / FILE)
    if _GENAI in names:
        parts = _genai(path)
    elif _ENCODER in names or any(name in names for name in _DECODER_ONLY):
        parts = _optimum(path, names)
    else:
        raise UsageError(
            f"{path}: no layout of a pipeline is recognized in this folder (it holds "
            f"{', '.join(names[:8]) or 'nothing'}); expected {FILE}, {_GENAI}, or optimum's "
            f"{_ENCODER} and {_FIRST}; write a {FILE} (docs/pipelines.md) [N001]"
        )
    return Pipeline(tuple(parts), str(path), side_files=side_files(path, parts))


@dataclass(frozen=True, slots=True)
class _Names:
    """What a model takes and gives, by its file alone; ranks of outputs where it says them."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ranks: Mapping[str, int]

    def having(self, name: str) -> str | None:
        """A name where it is an input."""
        return name if name in self.inputs else None


def _names(path: Path) -> _Names:
    graph = model_file.parsed(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(value.name for value in graph.input if value.name not in weights)
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in graph.output
        if value.type.tensor_type.HasField("shape")
    }
    return _Names(inputs, tuple(value.name for value in graph.output), ranks)


def _config(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON: {error} [N001]") from error
    said = found if isinstance(found, dict) else {}
    return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Told:
    """A JSON object whose values are read by type.

    Attributes:
        source: what messages call it.
        said: values by name; what is null is left out.
    """

    source: str
    said: Mapping[str, Any]

    def error(self, name: str, expected: str) -> UsageError:
        """What is wrong with a value."""
        found = self.said[name]
        return UsageError(f"{self.source}: {name} is {found!r}; expected {expected} [N001]")

    def number(self, name: str, least: int = 0) -> int | None:
        """A whole number, `None` where it is not said."""
        if name not in self.said:
            return None
        found = self.said[name]
        if type(found) is not int or found < least:
            raise self.error(name, f"a whole number of {least} or more")
        return found

    def text(self, name: str, default: str) -> str:
        """A text."""
        found = self.said.get(name, default)
        if not isinstance(found, str):
            raise self.error(name, "a text")
        return found

    def numbers(self, name: str) -> tuple[int, ...]:
        """A whole number or a list of them."""
        found = self.said.get(name, [])
        found = found if isinstance(found, list) else [found]
        if not all(type(one) is int for one in found):
            raise self.error(name, "a whole number or a list of them")
        return tuple(found)

    def table(self, name: str) -> "_Told":
        """An object inside, empty where there is none."""
        found = self.said.get(name, {})
        if not isinstance(found, dict):
            raise self.error(name, "an object")
        said = {key: value for key, value in found.items() if value is not None}
        return _Told(f"{self.source}, {name}", said)


def _optimum(folder: Path, names: Sequence[str]) -> list[Part]:
    config = _Told(
        f"{folder / 'config.json'} or generation_config.json",
        # What one of them leaves empty is not known, and hides nothing that the other says.
        _config(folder / "config.json") | _config(folder / "generation_config.json"),
    )
    parts = []
    wires: dict[str, str] = {}
    if _ENCODER in names:
        if _FIRST not in names and _MERGED not in names:
            raise ModelError(
                f"{folder}: the decoder is missing: there is {_ENCODER}, and neither {_FIRST} nor "
                f"{_MERGED} beside it; export it again [N002]"
            )
        encoder = _names(folder / _ENCODER)
        parts.append(Part("encoder", folder / _ENCODER))
        wires["encoder_hidden_states"] = f"encoder.{encoder.outputs[0]}"
        wires["encoder_attention_mask"] = _MASK
    start = _start(config) if parts else None
    file = next((name for name in _DECODER_ONLY if name in names), None)
    if file is None:
        raise ModelError(f"{folder}: {_NEXT} has no {_FIRST} beside it [N002]")
    first = None
    if file == _FIRST and _NEXT in names:
        own = _names(folder / _FIRST)
        parts.append(Part("decoder", folder / _FIRST, _fitting(wires, own)))
        first, file = "decoder", _NEXT
    decoder = _names(folder / file)
    if file == _ALONE:
        _require_decoder(folder, decoder, config)
    cache = {"past_key_values.*": "present.*"} if any("past" in n for n in decoder.inputs) else {}
    # Networks without learned positions say 0 or -1.
    known = (config.number(name, -1) for name in _LONGEST_NAMES)
    longest = next((number for number in known if number is not None and number > 0), None)
    loop = Loop(
        _TOKENS,
        cache=cache,
        once=_ONCE if matched(_ONCE[0], decoder.inputs) else (),
        mask=decoder.having(_MASK),
        positions=decoder.having(_POSITIONS),
        flag=decoder.having(_FLAG),
        first=first,
        start=start,
        end=config.numbers("eos_token_id"),
        longest=longest,
    )
    name = "decoder" if first is None else "decoder_with_past"
    parts.append(Part(name, folder / file, _fitting(wires, decoder), loop))
    return parts


def _fitting(wires: Mapping[str, str], names: _Names) -> dict[str, str]:
    return {name: source for name, source in wires.items() if name in names.inputs}


def _start(config: _Told) -> int:
    """The token that a decoder behind an encoder begins with.

    As transformers' `generate` finds it: `decoder_start_token_id`, else `bos_token_id`; T5 and its
    kin begin with the padding.
    """
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        found = config.number(name)
        if found is not None:
            return found
    raise UsageError(
        f"{config.source}: says no token that the decoder begins with (decoder_start_token_id, "
        f"bos_token_id); add it, or write a {FILE} with `start` (docs/pipelines.md) [N001]"
    )


def _require_decoder(folder: Path, names: _Names, config: _Told) -> None:
    """Refuse a `model.onnx` that generates nothing: exporters call classifiers the same."""
    told = config.said.get("architectures")
    architectures = told if isinstance(told, list) else []
    generates = any(str(one).endswith(_GENERATING) for one in architectures)
    takes_past = any("past" in name for name in names.inputs)
    of_tokens = "logits" in names.outputs and names.ranks.get("logits", 3) == 3
    if not of_tokens or not (generates or takes_past):
        raise UsageError(
            f"{folder}: is a single model: {_ALONE} takes no cache, its logits are not of each "
            f"token, or config.json says another task than to generate; give {folder / _ALONE} "
            f"itself, or write a {FILE} (docs/pipelines.md) [N001]"
        )


def _genai(folder: Path) -> list[Part]:
    path = folder / _GENAI
    model = _Told(str(path), _config(path)).table("model")
    decoder = model.table("decoder")
    if "filename" not in decoder.said:
        kinds = ", ".join(key for key, value in model.said.items() if isinstance(value, dict))
        raise UsageError(
            f"{path}: model.decoder.filename is missing (it describes {kinds or 'nothing'}); only "
            f"one decoder file is understood; write a {FILE} (docs/pipelines.md) [N001]"
        )
    if isinstance(model.said.get("encoder"), dict) or isinstance(model.said.get("vision"), dict):
        raise UsageError(
            f"{path}: describes an encoder beside the decoder, which is not understood yet; write "
            f"a {FILE} (docs/pipelines.md) [N001]"
        )
    file = folder / decoder.text("filename", "")
    if not file.is_file():
        raise ModelError(f"{path}: part decoder is missing: there is no file {file} [N002]")
    told, given = decoder.table("inputs"), decoder.table("outputs")
    names = _names(file)
    cache = {
        told.text(f"past_{kind}_names", f"past_key_values.%d.{kind}").replace(
            "%d", "*"
        ): given.text(f"present_{kind}_names", f"present.%d.{kind}").replace("%d", "*")
        for kind in ("key", "value")
    }
    loop = Loop(
        told.text("input_ids", _TOKENS),
        given.text("logits", "logits"),
        cache,
        mask=names.having(told.text("attention_mask", _MASK)),
        positions=names.having(told.text("position_ids", _POSITIONS)),
        end=model.numbers("eos_token_id"),
        longest=model.number("context_length", 1),
    )
    return [Part("decoder", file, {}, loop)]
