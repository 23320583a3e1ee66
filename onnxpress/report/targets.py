"""A target in words and as plain data, and what its rules say of a model; 80 columns."""

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from onnxpress.targets import OperatorRule, Target
from onnxpress.targets.static_rules import StaticReport

__all__ = ["print_static", "print_target", "print_targets", "static_document", "target_document"]

_SHOWN_REASONS = 8
_WIDTH = 80


def target_document(target: Target) -> dict[str, Any]:
    """A target as JSON-ready data."""
    document: dict[str, Any] = {}
    for field in dataclasses.fields(Target):
        value = getattr(target, field.name)
        document[field.name] = sorted(value) if isinstance(value, frozenset) else value
    document["operators"] = {
        name: {key: value for key, value in dataclasses.asdict(rule).items() if value}
        for name, rule in sorted(target.operators.items())
    }
    return document


def print_targets(targets: Sequence[Target], console: Console) -> None:
    """Print a line for each target: name, preferred integers, half types, what it is."""
    console.print(f"[bold]{'name':<10} {'integers':<8} {'half':<10} what it is[/]")
    for target in targets:
        integers = target.layouts[0] if target.quantized_operators else "float"
        lines = textwrap.wrap(target.description, _WIDTH - 31)
        console.print(
            f"{target.name:<10} {integers:<8} {target.float16:<10} {escape(lines[0])}",
            soft_wrap=True,
        )
        for line in lines[1:]:
            console.print(" " * 30 + escape(line), soft_wrap=True)


def print_target(target: Target, console: Console) -> None:
    """Print every fact of a target and where it comes from."""
    console.print(f"[bold]{target.name}[/]: {escape(target.description)}")
    if len(target.members) > 1:
        console.print(f"common ground of {', '.join(target.members)}", soft_wrap=True)
    else:
        console.print(f"provider {target.provider}", soft_wrap=True)
    for field, fact in _facts(target):
        _print_wrapped(f"{field}: {fact}", console)
        source = target.sources.get(field)
        if source is not None:
            _print_wrapped(source, console, indent="    ", style="dim")
    ruled = [
        (name, text)
        for name, rule in sorted(target.operators.items())
        if (text := "; ".join(_rules(rule)))
    ]
    if ruled and len(target.members) == 1:
        console.print("[bold]rules[/]")
        for name, text in ruled:
            _print_wrapped(f"{name}: {text}", console, indent="  ")


def _facts(target: Target) -> Iterator[tuple[str, str]]:
    yield "layouts", ", ".join(target.layouts) or "none: float only"
    if target.layouts:
        yield "per_channel", ", ".join(target.per_channel_layouts) or "none: one scale a tensor"
        yield "weight_bits", str(target.weight_bits)
        yield "quantized_operators", ", ".join(sorted(target.quantized_operators)) or "none"
    yield "four_bit_weights", _yes(target.four_bit_weights)
    yield "float16", target.float16
    yield "sparsity", target.sparsity
    yield "rank_quantum", str(target.rank_quantum)
    yield "channel_quantum", str(target.channel_quantum)
    yield "minimum_opset", str(target.minimum_opset)
    yield "maximum_opset", str(target.maximum_opset)
    yield "static_shapes", "every shape must be known" if target.static_shapes else "not needed"
    yield "maximum_rank", str(target.maximum_rank)
    yield "file_forms", ", ".join(f".{form}" for form in target.file_forms)
    yield "external_data", _yes(target.external_data)
    yield "timed_here", _yes(target.timed_here)
    if len(target.members) == 1:
        yield "placement", target.placement
        yield "types", ", ".join(target.types)
        count = len(target.operators)
        yield "operators", ("all" if target.placement == "all" else f"{count}, by name in --json")


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _rules(rule: OperatorRule) -> Iterator[str]:
    if rule.types:
        yield f"also {', '.join(rule.types)}"
    if rule.ranks:
        yield f"{_or(rule.ranks)} dimensions"
    if rule.known:
        yield f"axes {_and(rule.known)} known"
    if rule.constant:
        yield f"{_inputs(rule.constant)} constant"
    for name, allowed in rule.attributes.items():
        yield f"{name} {_or(allowed)}"
    if rule.outputs:
        yield f"at most {rule.outputs} output"
    if rule.newest:
        yield f"up to the operator of opset {rule.newest}"
    if rule.behind:
        yield f"only behind {_or(rule.behind)}"
    yield from _integer_rules(rule)


def _integer_rules(rule: OperatorRule) -> Iterator[str]:
    if rule.quantized is not None:
        yield f"in integers as {_or(rule.quantized)}" if rule.quantized else "in float only"
    if rule.per_channel is not None and rule.quantized:
        yield f"scale per channel {_or(rule.per_channel) if rule.per_channel else 'never'}"
    if rule.same_scale:
        yield "one scale for input and output"
    if rule.quantized_output:
        yield "output quantized too"
    if rule.integers:
        yield f"integers {_or(rule.integers)}"


def _inputs(indexes: Sequence[int]) -> str:
    return f"input{'s' if len(indexes) > 1 else ''} {_and(indexes)}"


def _and(items: Sequence[object]) -> str:
    return " and ".join(str(item) for item in items)


def _or(items: Sequence[object]) -> str:
    return " or ".join(str(item) for item in items)


def _print_wrapped(text: str, console: Console, *, indent: str = "", style: str = "") -> None:
    lines = textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False
    )
    for line in lines:
        console.print(escape(line), style=style, soft_wrap=True, highlight=False)


def static_document(report: StaticReport) -> dict[str, Any]:
    """What the rules say, as JSON-ready data."""
    document = dataclasses.asdict(report)
    document["refused"] = [{"node": node, "reason": reason} for node, reason in report.refused]
    return document


def print_static(report: StaticReport, console: Console) -> None:
    """Print what the rules of one target say of a model."""
    console.print(
        f"[bold]{report.target}[/] static: {report.taken} of {report.nodes} nodes, "
        f"{report.multiply_add_share:.1%} of the multiply-adds, {report.partitions} "
        f"partition{'s' if report.partitions != 1 else ''}"
    )
    reasons = Counter((node.split(" ")[0], reason) for node, reason in report.refused)
    for (operator, reason), count in reasons.most_common(_SHOWN_REASONS):
        _print_wrapped(f"{count} {operator} not taken: {reason}", console, indent="  ")
    if len(reasons) > _SHOWN_REASONS:
        console.print(f"  and {len(reasons) - _SHOWN_REASONS} more reasons; --json lists all")
    for sentence in report.advice:
        _print_wrapped(f"→ {sentence}", console, indent="  ")
