"""A target in words and as plain data, and what its rules say of a model; 80 columns."""

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from onnxpress.report.saying import some
from onnxpress.report.text import printable
from onnxpress.targets import OperatorRule, Target
from onnxpress.targets.schema import facts
from onnxpress.targets.static_rules import StaticReport

__all__ = ["print_static", "print_target", "print_targets", "static_document", "target_document"]

_SHOWN_REASONS = 8
_WIDTH = 80


def target_document(target: Target) -> dict[str, Any]:
    """A target as JSON-ready data."""
    document: dict[str, Any] = {}
    for name in facts(Target):
        value = getattr(target, name)
        document[name] = sorted(value) if isinstance(value, frozenset) else value
    document["operators"] = {
        name: {field.name: getattr(rule, field.name) for field in _restrictions(rule)}
        for name, rule in sorted(target.operators.items())
    }
    return document


def _restrictions(rule: OperatorRule) -> "Iterator[dataclasses.Field[Any]]":
    """The fields that a file gives."""
    for field in dataclasses.fields(rule):
        if getattr(rule, field.name) != getattr(OperatorRule(), field.name):
            yield field


def print_targets(targets: Sequence[Target], console: Console) -> None:
    """Print a line for each target: name, preferred integers, half types, what it is."""
    console.print(f"[bold]{'name':<10} {'integers':<8} {'half':<10} what it is[/]")
    for target in targets:
        integers = target.layouts[0] if target.quantized_operators else "float"
        lines = textwrap.wrap(printable(target.description), _WIDTH - 31)
        console.print(
            f"{target.name:<10} {integers:<8} {target.float16:<10} {escape(lines[0])}",
            soft_wrap=True,
        )
        for line in lines[1:]:
            console.print(" " * 30 + escape(line), soft_wrap=True)


def print_target(target: Target, console: Console) -> None:
    """Print every fact of a target and where it comes from."""
    console.print(
        f"[bold]{escape(printable(target.name))}[/]: {escape(printable(target.description))}"
    )
    single = len(target.members) == 1
    if single:
        console.print(f"provider {escape(printable(target.provider))}", soft_wrap=True)
    else:
        _print_wrapped(f"common ground of {', '.join(target.members)}", console)
    for name, fact in facts(Target).items():
        if fact.sourced and fact.applies(target):
            _print_wrapped(f"{name}: {fact.show(getattr(target, name))}", console)
            source = target.sources.get(name)
            if source is not None:
                _print_wrapped(source, console, indent="    ", style="dim")
    ruled = {name: text for name, rule in target.operators.items() if (text := _in_words(rule))}
    if ruled and single:
        console.print("[bold]rules[/]")
        for name, text in sorted(ruled.items()):
            _print_wrapped(f"{name}: {text}", console, indent="  ")


def _in_words(rule: OperatorRule) -> str:
    shown = ((facts(OperatorRule)[field.name], field.name) for field in _restrictions(rule))
    return "; ".join(fact.show(getattr(rule, name)) for fact, name in shown if fact.applies(rule))


def _print_wrapped(text: str, console: Console, *, indent: str = "", style: str = "") -> None:
    lines = textwrap.wrap(
        printable(text),
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
    )
    for line in lines:
        console.print(Text(line), style=style, soft_wrap=True, highlight=False)


def static_document(report: StaticReport) -> dict[str, Any]:
    """What the rules say, as JSON-ready data."""
    document = dataclasses.asdict(report)
    document["refused"] = [{"node": node, "reason": reason} for node, reason in report.refused]
    return document


def print_static(report: StaticReport, console: Console) -> None:
    """Print what the rules of one target say of a model."""
    name = escape(printable(report.target))
    console.print(
        f"[bold]{name}[/] by its rules: {report.taken} of {report.nodes} nodes, "
        f"{report.multiply_add_share:.1%} of the multiply-adds, {report.partitions} "
        f"partition{'s' if report.partitions != 1 else ''}",
        soft_wrap=True,
    )
    reasons = Counter((node.split(" ")[0], reason) for node, reason in report.refused)
    shown = some(reasons.most_common(), _SHOWN_REASONS)
    for (operator, reason), count in shown:
        _print_wrapped(f"{count} {operator} not taken: {reason}", console, indent="  ")
    if len(reasons) > len(shown):
        console.print(f"  and {len(reasons) - len(shown)} more reasons; -v lists all")
    for sentence in report.advice:
        _print_wrapped(f"→ {sentence}", console, indent="  ")
