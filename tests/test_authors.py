"""What `docs/authors.md` quotes and lists is what the code says.

`python tests/test_authors.py` writes the tables anew.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "authors.md"
PLUGIN = ROOT / "tests" / "plugin"
MODULES = ("contract.py", "context.py")

_QUOTE = re.compile(r"<!-- (tests/plugin/\S+) -->\n```\w+\n(.*?)```\n", re.DOTALL)
_TABLE = re.compile(r"(<!-- (fields|methods) of (\w+) -->\n)(.*?)(?=\n\n|\n\Z)", re.DOTALL)
_INDENTED = re.compile(r"\n {4,}")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def class_of(name: str) -> ast.ClassDef:
    """The source of a class that authors use."""
    for module in MODULES:
        for found in ast.parse((ROOT / "onnxpress" / module).read_text(encoding="utf-8")).body:
            if isinstance(found, ast.ClassDef) and found.name == name:
                return found
    raise LookupError(name)


def attributes(found: ast.ClassDef) -> dict[str, str]:
    """What the docstring says of each attribute, and strings behind class variables."""
    documented: dict[str, str] = {}
    _, _, section = (ast.get_docstring(found) or "").partition("Attributes:\n")
    for entry in re.split(r"\n(?= {4}\w)", "\n" + section.partition("\n\n")[0])[1:]:
        name, _, text = _INDENTED.sub(" ", entry).strip().partition(": ")
        documented[name] = text
    for place, node in enumerate(found.body[:-1]):
        after = found.body[place + 1]
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            documented[ast.unparse(node.target)] = ast.literal_eval(after.value)
    return documented


def sentence(text: str) -> str:
    """As a cell of a table."""
    plain = " ".join(text.split()).replace("|", "\\|")
    return plain[:1].upper() + plain[1:].rstrip(".")


def field_rows(found: ast.ClassDef) -> Iterator[str]:
    documented = attributes(found)
    for node in found.body:
        if isinstance(node, ast.AnnAssign):
            name = ast.unparse(node.target)
            kind = ast.unparse(node.annotation).replace("|", "\\|")
            yield f"| `{name}` | `{kind}` | {sentence(documented.get(name, ''))} |"


def method_rows(found: ast.ClassDef) -> Iterator[str]:
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            called = any("property" in ast.unparse(item) for item in node.decorator_list)
            names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            shown = node.name if called else f"{node.name}({', '.join(names)})"
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            yield f"| `{shown}` | {sentence(first)} |"


def table(kind: str, name: str) -> str:
    found = class_of(name)
    if kind == "fields":
        return "\n".join(["| field | type | meaning |", "| --- | --- | --- |", *field_rows(found)])
    return "\n".join(["| method | meaning |", "| --- | --- |", *method_rows(found)])


def with_tables(text: str) -> str:
    """The page with every table made anew."""
    return _TABLE.sub(lambda found: found[1] + table(found[2], found[3]), text)


def quotes(file: str) -> list[str]:
    return [text for name, text in _QUOTE.findall(page()) if name == f"tests/plugin/{file}"]


@pytest.mark.parametrize("file", ["pyproject.toml", "minifloat.py"])
def test_the_page_quotes_the_plugin(file: str) -> None:
    source = (PLUGIN / file).read_text(encoding="utf-8")
    assert [quote for quote in quotes(file) if quote not in source] == []


@pytest.mark.parametrize("file", ["pyproject.toml", "minifloat.py"])
def test_the_page_leaves_nothing_of_the_plugin_out(file: str) -> None:
    rest = (PLUGIN / file).read_text(encoding="utf-8")
    for quote in sorted(quotes(file), key=len, reverse=True):
        rest = rest.replace(quote, "", 1)
    assert rest.strip() == ""


def test_the_tables_are_those_of_the_docstrings() -> None:
    assert len(_TABLE.findall(page())) >= 9
    assert page() == with_tables(page())


def test_a_table_has_a_row_for_each_field_and_each_method() -> None:
    rows = table("fields", "Proposal").splitlines()
    assert rows[2:4] == [
        "| `site` | `str` | Which |",
        "| `candidates` | `tuple[Candidate, ...]` | At least one |",
    ]
    assert "`limit` | `str \\| None` | Why a stronger form is not among them" in rows[4]
    assert len(rows) == 5
    assert "| `quota(context)` |" in table("methods", "Pass")


if __name__ == "__main__":
    PAGE.write_text(with_tables(page()), encoding="utf-8")
