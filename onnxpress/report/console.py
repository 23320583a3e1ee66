"""The closing table, which fits 80 columns, and the layers that matter below it."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = [
    "print_doctor",
    "print_providers",
    "print_result",
    "print_table",
    "print_validation",
    "provider_cells",
]

_SHOWN_REASONS = 6


def print_result(report: Mapping[str, Any], *, written: Sequence[str], console: Console) -> None:
    """Print a report as `document` makes it, and where the files are."""
    validation = report["validation"]
    table = _table()
    size = report["size"]
    if size["bytes"]:
        table.add_row(
            "size", _mb(size["original_bytes"]), _mb(size["bytes"]), f"{size['ratio']:.2f}x smaller"
        )
    if validation is not None:
        _add_validation(table, validation)
    console.print(table)
    if validation is not None:
        print_providers(validation["providers"], console)
    for stage in report["stages"]:
        console.print(f"[bold]{stage['pass']}[/] {escape(_stage_line(stage))}", soft_wrap=False)
    _print_left(report["stages"], console)
    if validation is not None:
        for warning in validation["warnings"]:
            console.print(f"[yellow]warning[/] {escape(warning)}")
    for problem in report["problems"]:
        console.print(f"[red]not met[/] {escape(problem)}")
    if report["within_budget"] and validation is not None:
        console.print(f"[green]within the budget[/] {escape(validation['budget'])}")
    for path in written:
        console.print(f"wrote {escape(path)}", soft_wrap=True)


def print_validation(validation: Mapping[str, Any], console: Console) -> None:
    """Print what `onnxpress validate` found."""
    table = _table()
    _add_validation(table, validation)
    console.print(table)
    if len(validation["default"]["outputs"]) > 1:
        outputs = Table(title="outputs", title_justify="left", box=None, pad_edge=False)
        for heading in ("name", "SQNR dB", "cosine", "largest error"):
            outputs.add_column(heading, justify="left" if heading == "name" else "right")
        for name, output in validation["default"]["outputs"].items():
            outputs.add_row(
                escape(name), _sqnr(output), _plain(output["cosine"]), _plain(output["max_error"])
            )
        console.print(outputs)
    print_providers(validation["providers"], console)
    for warning in validation["warnings"]:
        console.print(f"[yellow]warning[/] {escape(warning)}")
    for problem in validation["problems"]:
        console.print(f"[red]not met[/] {escape(problem)}")
    if validation["within_budget"]:
        console.print(f"[green]within the budget[/] {escape(validation['budget'])}")
    elif not validation["problems"]:
        console.print(f"[red]not met[/] {escape(validation['budget'])}")


def print_providers(verdicts: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what each execution provider did; an emulator's speed says nothing and is not there."""
    if not verdicts:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("provider", "verdict", "placed", "SQNR", "to exact", "int8", "speed"):
        right = heading not in ("provider", "verdict")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for verdict in verdicts:
        table.add_row(verdict["provider"], _status(verdict["status"]), *provider_cells(verdict))
    console.print(table)
    for verdict in verdicts:
        for line in (verdict["detail"], *verdict["warnings"], *verdict["advice"]):
            if line:
                console.print(f"  {verdict['provider']}: {escape(line)}")


def print_doctor(found: Mapping[str, Any], console: Console) -> None:
    """Print what `onnxpress doctor` found."""
    processor = ", ".join(
        f"{name} {'yes' if present else 'no'}" for name, present in found["processor"].items()
    )
    rows = [
        ("python", f"{found['python']} on {found['machine']}"),
        ("packages", ", ".join(f"{name} {v}" for name, v in found["versions"].items())),
        ("processor", processor),
        ("HTML report", found["html_report"]),
    ]
    print_table("this machine", ("what", "found"), rows, console)
    providers = [(e["provider"], e["state"], e["detail"]) for e in found["providers"]]
    print_table("providers", ("name", "here", "with what"), providers, console)
    print_providers(found["verdicts"], console)
    for problem in found["problems"]:
        console.print(f"[red]not met[/] {escape(problem)}")


def provider_cells(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """Placed share, SQNR to the original and to exact, integer kernels, speed."""
    placement, measured = verdict["placement"], verdict["measurement"]
    kernels, latency = verdict["integer_kernels"], verdict["latency"]
    share = "" if placement is None else f"{placement['multiply_add_share']:.0%}"
    sqnr = exact = ""
    if measured is not None:
        sqnr = "equal" if verdict["identical"] else f"{_plain(measured['worst_sqnr_db'])}"
        exact = "equal" if verdict["exact_sqnr_db"] is None else f"{verdict['exact_sqnr_db']:.3g}"
    speed = "" if latency is None else f"{latency['speedup']:.2f}x"
    counted = "?" if measured is not None else ""
    return share, sqnr, exact, counted if kernels is None else str(sum(kernels.values())), speed


def _status(status: str) -> str:
    colour = {"ran": "green", "emulated": "green", "failed": "red"}.get(status, "yellow")
    return f"[{colour}]{status}[/]"


def print_table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], console: Console
) -> None:
    """Print a plain table."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def console_for(stream: object = None) -> Console:
    """A console of at most 80 columns when nobody watches."""
    return Console(file=stream or sys.stdout, highlight=False)  # type: ignore[arg-type]


def _table() -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("original", justify="right")
    table.add_column("pressed", justify="right")
    table.add_column("", overflow="fold")
    return table


def _add_validation(table: Table, validation: Mapping[str, Any]) -> None:
    latency, found = validation["latency"], validation["default"]
    if latency["speedup"] is not None:
        low, high = latency["quartiles"]
        table.add_row(
            "latency",
            f"{latency['original_ms']:.3g} ms",
            f"{latency['ms']:.3g} ms",
            f"{latency['speedup']:.2f}x faster (quartiles {low:.2f} to {high:.2f})",
        )
    if found["metric"] is not None:
        low, high = found["drop_interval"]
        table.add_row(
            escape(found["metric"]),
            f"{found['original']:.2f}%",
            f"{found['value']:.2f}%",
            f"drop {found['drop']:.2f} (95%: {low:.2f} to {high:.2f}), {found['samples']} samples",
        )
    if found["outputs"]:
        name, worst = _worst(found["outputs"])
        table.add_row("SQNR", "", _sqnr(worst), escape(f"output {name}; {found['source']}"))
    for mode, measured in validation["modes"].items():
        _, worst = _worst(measured["outputs"])
        drop = "" if measured["metric"] is None else f"drop {measured['drop']:.2f}"
        table.add_row(f"  {mode}", "", _sqnr(worst), drop)
    kernels = validation["integer_kernels"]
    if kernels:
        listed = ", ".join(f"{name} {count}" for name, count in kernels.items())
        table.add_row("integer kernels", "", str(sum(kernels.values())), listed)


def _worst(outputs: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]]:
    def order(item: tuple[str, Mapping[str, Any]]) -> float:
        output = item[1]
        if output["sqnr_db"] is not None:
            return float(output["sqnr_db"])
        return float("inf") if output["identical"] else float("-inf")

    return min(outputs.items(), key=order)


def _sqnr(output: Mapping[str, Any]) -> str:
    if output["sqnr_db"] is not None:
        return f"{output['sqnr_db']:.1f} dB"
    if output["identical"]:
        return "identical"
    return f"{output['equal_share']:.1%} equal"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _stage_line(stage: Mapping[str, Any]) -> str:
    if not stage["changed"]:
        return f"changed nothing: {stage['note'] or 'no site fits'}"
    forms = Counter(
        str(decision["parameters"].get("form", decision["parameters"].get("level", "sites")))
        for decision in stage["decisions"]
    )
    saved = sum(decision["saved_bytes"] for decision in stage["decisions"])
    zeroed = sum(decision["zeroed_weights"] for decision in stage["decisions"])
    line = ", ".join(f"{count} {form}" for form, count in sorted(forms.items()))
    if saved > 0:
        line += f", {_mb(saved)} less"
    if zeroed > 0:
        line += f", {zeroed:,} weights zeroed"
    return line + (f"; {stage['note']}" if stage["note"] else "")


def _print_left(stages: Sequence[Mapping[str, Any]], console: Console) -> None:
    reasons: dict[str, list[str]] = {}
    for stage in stages:
        if not stage["changed"]:
            continue
        for skip in stage["left"]:
            reasons.setdefault(f"{stage['pass']}: {skip['reason']}", []).append(skip["site"])
    if not reasons:
        return
    console.print("left alone or treated less:")
    most = sorted(reasons.items(), key=lambda item: -len(item[1]))
    for reason, sites in most[:_SHOWN_REASONS]:
        named = sites[0] + (f" and {len(sites) - 1} more" if len(sites) > 1 else "")
        console.print(f"  {escape(named)}: {escape(reason)}")
    if len(most) > _SHOWN_REASONS:
        console.print(f"  and {len(most) - _SHOWN_REASONS} more reasons; --json lists all")
