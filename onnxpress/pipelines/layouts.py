"""Folders of known layouts read as pipelines.

- `pipeline.toml`: our own description;
- optimum (`optimum-cli export onnx`): `encoder_model.onnx` with `decoder_model.onnx` and
  `decoder_with_past_model.onnx`, or `decoder_model_merged.onnx`, whose `use_cache_branch` says
  whether there is a past; a decoder alone is `model.onnx` or one of these; `config.json` has the
  tokens that begin and end, and the trained length;
- onnxruntime-genai: `genai_config.json` names files, inputs and outputs, `%d` for a layer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from onnxpress.errors import ModelError, UsageError
from onnxpress.pipelines.description import FILE, Loop, Part, Pipeline, read_pipeline

__all__ = ["read_folder"]

_GENAI = "genai_config.json"
_ENCODER = "encoder_model.onnx"
_MERGED, _FIRST, _NEXT = (
    "decoder_model_merged.onnx",
    "decoder_model.onnx",
    "decoder_with_past_model.onnx",
)
_DECODER_ONLY = (_MERGED, "model.onnx", _FIRST)
_ONCE = ("past_key_values.*.encoder.*",)
_MASK, _POSITIONS, _FLAG, _TOKENS = (
    "attention_mask",
    "position_ids",
    "use_cache_branch",
    "input_ids",
)
_SIDES = (".json", ".txt", ".model", ".spm", ".jinja", ".vocab", ".bpe")
"""What configurations and tokenizers end with."""
_LONGEST_NAMES = ("max_position_embeddings", "n_positions", "max_target_positions")


def read_folder(path: Path) -> Pipeline:
    """Read a description, or a folder in one of the known layouts.

    Raises:
        UsageError: no layout is recognized.
        ModelError: a file that belongs to the layout is missing.
    """
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
    used = {part.model.name for part in parts} | {FILE}
    sides = tuple(path / n for n in names if n not in used and n.endswith(_SIDES))
    return Pipeline(tuple(parts), str(path), side_files=sides)


@dataclass(frozen=True, slots=True)
class _Names:
    """What a model takes and gives, by its file alone."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def having(self, name: str) -> str | None:
        """A name where it is an input."""
        return name if name in self.inputs else None


def _names(path: Path) -> _Names:
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:
        # Protobuf raises its own exceptions for what is no model.
        raise ModelError(f"{path}: cannot be read as an ONNX model: {error} [M002]") from error
    weights = {tensor.name for tensor in graph.initializer}
    inputs = tuple(value.name for value in graph.input if value.name not in weights)
    return _Names(inputs, tuple(value.name for value in graph.output))


def _config(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON: {error} [N001]") from error
    return found if isinstance(found, dict) else {}


def _optimum(folder: Path, names: Sequence[str]) -> list[Part]:
    config = {**_config(folder / "config.json"), **_config(folder / "generation_config.json")}
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
    start = config.get("decoder_start_token_id") if parts else None
    if parts and start is None:
        start = config.get("pad_token_id", 0)
    file = next((name for name in _DECODER_ONLY if name in names), None)
    if file is None:
        raise ModelError(f"{folder}: {_NEXT} has no {_FIRST} beside it [N002]")
    first = None
    if file == _FIRST and _NEXT in names:
        own = _names(folder / _FIRST)
        parts.append(Part("decoder", folder / _FIRST, _fitting(wires, own)))
        first, file = "decoder", _NEXT
    decoder = _names(folder / file)
    cache = {"past_key_values.*": "present.*"} if any("past" in n for n in decoder.inputs) else {}
    longest = next((config[name] for name in _LONGEST_NAMES if config.get(name)), None)
    loop = Loop(
        _TOKENS,
        cache=cache,
        once=_ONCE if any(".encoder." in name for name in decoder.inputs) else (),
        mask=decoder.having(_MASK),
        positions=decoder.having(_POSITIONS),
        flag=decoder.having(_FLAG),
        first=first,
        start=start,
        end=_ends(config.get("eos_token_id")),
        longest=longest,
    )
    name = "decoder" if first is None else "decoder_with_past"
    parts.append(Part(name, folder / file, _fitting(wires, decoder), loop))
    return parts


def _fitting(wires: Mapping[str, str], names: _Names) -> dict[str, str]:
    return {name: source for name, source in wires.items() if name in names.inputs}


def _ends(told: object) -> tuple[int, ...]:
    found = told if isinstance(told, list) else [told]
    return tuple(token for token in found if isinstance(token, int))


def _genai(folder: Path) -> list[Part]:
    path = folder / _GENAI
    model = _config(path).get("model", {})
    decoder = model.get("decoder")
    if not isinstance(decoder, dict) or "filename" not in decoder:
        kinds = ", ".join(key for key, value in model.items() if isinstance(value, dict))
        raise UsageError(
            f"{path}: model.decoder.filename is missing (it describes {kinds or 'nothing'}); only "
            f"one decoder file is understood; write a {FILE} (docs/pipelines.md) [N001]"
        )
    if isinstance(model.get("encoder"), dict) or isinstance(model.get("vision"), dict):
        raise UsageError(
            f"{path}: describes an encoder beside the decoder, which is not understood yet; write "
            f"a {FILE} (docs/pipelines.md) [N001]"
        )
    file = folder / decoder["filename"]
    if not file.is_file():
        raise ModelError(f"{path}: part decoder is missing: there is no file {file} [N002]")
    told, given = decoder.get("inputs", {}), decoder.get("outputs", {})
    names = _names(file)
    cache = {
        told.get(f"past_{kind}_names", f"past_key_values.%d.{kind}").replace("%d", "*"): given.get(
            f"present_{kind}_names", f"present.%d.{kind}"
        ).replace("%d", "*")
        for kind in ("key", "value")
    }
    loop = Loop(
        told.get("input_ids", _TOKENS),
        given.get("logits", "logits"),
        cache,
        mask=names.having(told.get("attention_mask", _MASK)),
        positions=names.having(told.get("position_ids", _POSITIONS)),
        end=_ends(model.get("eos_token_id")),
        longest=model.get("context_length"),
    )
    return [Part("decoder", file, {}, loop)]
