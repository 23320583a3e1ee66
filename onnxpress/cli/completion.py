"""What a shell completes besides commands and options: names of targets, passes and codes."""

from collections.abc import Callable, Iterable

import click

from onnxpress import registry
from onnxpress.codes import explained

__all__ = ["codes", "passes", "targets"]

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _of(names: Callable[[], Iterable[str]]) -> Complete:
    return lambda _ctx, _parameter, begun: [name for name in names() if name.startswith(begun)]


def _target_names() -> Iterable[str]:
    from onnxpress.targets import target_names  # noqa: PLC0415 - loads the model's libraries

    return target_names()


codes = _of(explained)
targets = _of(_target_names)


def passes(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Of a list with commas: the last one."""
    before, comma, last = begun.rpartition(",")
    return [f"{before}{comma}{name}" for name in registry.names() if name.startswith(last)]
