"""The structure of a Transformer in a few lines."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from onnxpress.enumeration import few
from onnxpress.report.printing import print_text
from onnxpress.report.text import counted

__all__ = ["print_transformer", "structure_lines"]

_NORMS = {"layer": "LayerNorm", "rms": "RMSNorm"}
_SHOWN = 4
"""Tables and forms of each part."""


def print_transformer(found: Mapping[str, Any] | None, console: Console) -> None:
    """Print what `Structure.document` says, where there is anything to say."""
    if found is not None:
        for line in structure_lines(found):
            print_text(line, console, label="structure")


def structure_lines(found: Mapping[str, Any]) -> list[str]:
    """What `Structure.document` says, a line for each part."""
    lines = [_stream(stream) for stream in found["streams"]]
    lines += _times("attention", [_attention(one) for one in found["attentions"]])
    lines += _times("MLP", [_mlp(one) for one in found["mlps"]])
    if found["tables"]:
        lines.append(f"tables: {few([_table(one) for one in found['tables']], _SHOWN)}")
    return lines


def _times(what: str, forms: list[str]) -> list[str]:
    counts = Counter(forms)
    shown = [f"{what} ({count}): {form}" for form, count in counts.most_common(_SHOWN)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(_SHOWN))
    return [*shown, f"{what}: {rest} of other forms"] if rest else shown


def _stream(stream: Mapping[str, Any]) -> str:
    width = "" if stream["width"] is None else f" of {stream['width']:,} numbers"
    norm = _NORMS.get(stream["norm"], "no norm")
    where = "behind" if stream["post_norm"] else "before"
    said = f"residual stream{width}, {counted(len(stream['blocks']), 'block')}"
    said += f", {norm} {where} each" if stream["norm"] else ", no norm"
    return said + (f", given out as {few(stream['outputs'], _SHOWN)}" if stream["outputs"] else "")


def _attention(one: Mapping[str, Any]) -> str:
    heads, keys = one["heads"], one["key_heads"]
    parts = ["another sequence" if one["kind"] == "cross" else "itself"]
    if heads is not None:
        width = "" if one["head_width"] is None else f" of {one['head_width']:,}"
        parts.append(f"{counted(heads, 'head')}{width}")
    if keys not in (None, heads):
        parts.append(f"{counted(keys, 'head')} of keys and values")
    parts += [
        word for word, said in (("rotary positions", "rotary"), ("biases", "bias")) if one[said]
    ]
    if one["past"] or one["present"]:
        parts.append("a cache")
    return f"to {', '.join(parts)}"


def _mlp(one: Mapping[str, Any]) -> str:
    gated = ", gated" if one["gated"] else ""
    return f"{one['width']:,} wide, {one['activation']}{gated}"


def _table(one: Mapping[str, Any]) -> str:
    by = f" by {one['input']}" if one["input"] else ""
    tied = f", tied to {few(one['tied'], 1)}" if one["tied"] else ""
    return f"{one['name']} ({one['rows']:,} × {one['width']:,}{by}{tied})"
