"""The page of the Python interface has all that is public, and nothing there is undocumented."""

import ast
import dataclasses
import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxpress

ROOT = Path(__file__).parents[1]
SHOWN = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
PUBLIC = (
    "onnxpress",
    "onnxpress.adapter",
    "onnxpress.contract",
    "onnxpress.data",
    "onnxpress.errors",
    "onnxpress.testing",
)


def found(place: str) -> object:
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(module), name)


def string_behind(place: str) -> bool:
    """Whether a constant has its docstring, where it is defined or imported from."""
    module, _, name = place.rpartition(".")
    source = inspect.getsource(importlib.import_module(module))
    body = ast.parse(source).body
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if name in {ast.unparse(target) for target in targets}:
                return isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(node, ast.ImportFrom) and name in {one.name for one in node.names}:
            return string_behind(f"{node.module}.{name}")
    return False


def undocumented(place: str) -> Iterator[str]:
    """What of a name has no words: itself, its methods and properties, fields, arguments."""
    thing = found(place)
    if not inspect.isclass(thing):
        if not inspect.isroutine(thing):
            if not string_behind(place):
                yield place
            return
        yield from _of_routine(place, thing)
        return
    text = inspect.getdoc(thing) or ""
    if not text:
        yield place
    fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
    for field in fields:
        own = field.name in vars(thing).get("__annotations__", {})
        said = re.search(rf"\b{field.name}`?:", text) or field.metadata
        if own and not field.name.startswith("_") and not said:
            yield f"{place}.{field.name}"
    for name, member in vars(thing).items():
        of = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        of_field = name in {field.name for field in fields}
        if name.startswith("_") or of_field or not inspect.isroutine(of):
            continue
        if not inspect.getdoc(of):
            yield f"{place}.{name}"


def _of_routine(place: str, routine: object) -> Iterator[str]:
    text = inspect.getdoc(routine) or ""
    if not text:
        yield place
    if "Args:" in text:
        for name in inspect.signature(routine).parameters:  # type: ignore[arg-type]
            if not re.search(rf"\b{name}\b", text):
                yield f"{place}({name})"


def test_the_page_has_every_public_name() -> None:
    shown = {id(found(place)) for place in SHOWN} | {id(onnxpress.__version__)}
    public = {
        f"{module}.{name}": getattr(importlib.import_module(module), name)
        for module in PUBLIC
        for name in importlib.import_module(module).__all__
    }
    # Of errors the classes are for others; the rest words our messages.
    wanted = {
        place: thing
        for place, thing in public.items()
        if not (place.startswith("onnxpress.errors.") and not inspect.isclass(thing))
    }
    assert [place for place, thing in wanted.items() if id(thing) not in shown] == []


@pytest.mark.parametrize("place", SHOWN)
def test_nothing_shown_is_undocumented(place: str) -> None:
    assert list(undocumented(place)) == []


def test_what_has_no_words_is_found() -> None:
    def bare(given: int) -> int:
        return given

    def said(given: int, other: int) -> int:  # noqa: D417 - what is to be found
        """Add.

        Args:
            given: one.
        """
        return given + other

    assert list(_of_routine("bare", bare)) == ["bare"]
    assert list(_of_routine("said", said)) == ["said(other)"]
    assert not string_behind("onnxpress.version.__version__")
