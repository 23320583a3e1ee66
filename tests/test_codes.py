"""Codes of errors and reasons: each is explained once, used, and written down in docs/messages.md.

`python tests/test_codes.py` writes the page anew.
"""

import ast
import inspect
import json
import re
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import onnxpress.errors
from onnxpress import registry
from onnxpress.cli import cli
from onnxpress.codes import AREAS, explained, split
from onnxpress.errors import ModelError, OnnxpressError, PassError, UsageError
from onnxpress.testing import Cell

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "messages.md"
SOURCES = sorted([*(ROOT / "onnxpress").rglob("*.py"), *(ROOT / "passes").rglob("*.py")])
CATALOGUE = ROOT / "onnxpress" / "codes"

_CODE = re.compile(r"\b[A-Z]\d{3}\b")
_HEADER = """# Messages and their codes

Errors, warnings and reasons end with a code, such as `its weight holds NaN or infinity [L001]`;
an error begins with it, `error[M001]: …`. A code keeps its meaning in later versions, so that it
can be searched for and compared with. `onnxpress explain L001` prints what is said here, and
`onnxpress explain` lists all. In the JSON report each reason has its `code` beside it; sentences
of warnings, notes and problems end with theirs. Passes of other packages need not have codes.

<!-- written by `python tests/test_codes.py` from onnxpress/codes/*.toml -->
"""


def page() -> str:
    """What docs/messages.md has to be."""
    parts = [_HEADER]
    for letter, about in AREAS.items():
        parts.append(f"## {letter}: {about}\n")
        for code, entry in explained().items():
            if code.startswith(letter) and not entry.retired:
                parts.append(f"**{code}** {entry.title}. {entry.why} *What to do:* {entry.do}\n")
    return "\n".join(parts)


def used(path: Path) -> Iterator[str]:
    """Codes in texts of a module, its documentation apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from () if node in documentation else _CODE.findall(node.value)


def test_every_code_in_the_source_is_explained_and_every_explained_one_is_used() -> None:
    found = {code for path in SOURCES if "codes" not in path.parts for code in used(path)}
    known = {code for code, entry in explained().items() if not entry.retired}
    assert found == known


def test_a_code_is_in_the_catalogue_once_and_begins_with_the_letter_of_an_area() -> None:
    names = [
        name
        for file in sorted(CATALOGUE.glob("*.toml"))
        for name in re.findall(r"^\[(.*)\]$", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert {name[0] for name in names} == set(AREAS)
    assert all(_CODE.fullmatch(name) for name in names)


@pytest.mark.parametrize("code", explained())
def test_an_explanation_is_made_of_sentences(code: str) -> None:
    entry = explained()[code]
    assert not entry.title.endswith(".")
    for text in (entry.why, entry.do):
        assert text[0] in string.ascii_uppercase + "`"
        assert text.endswith(".")


def test_the_page_of_messages_says_what_the_catalogue_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_class_of_errors_has_a_code_of_its_own_for_the_rest() -> None:
    classes = [
        found
        for _, found in inspect.getmembers(onnxpress.errors, inspect.isclass)
        if issubclass(found, OnnxpressError)
    ]
    assert {found.general for found in classes} <= explained().keys()


def test_the_code_of_an_error_is_that_of_its_sentence_or_else_of_its_class() -> None:
    assert ModelError("x: cannot be loaded [M006]").code == "M006"
    assert UsageError("no such thing").code == "U000"
    assert PassError("quantize", "it fails").code == "X001"


def test_the_last_code_of_a_sentence_is_its_own() -> None:
    assert split("cannot be pruned: kept as asked [L005] [P001]") == (
        "cannot be pruned: kept as asked",
        "P001",
    )
    assert split("of another package [1, 2]") == ("of another package [1, 2]", "")


@pytest.mark.parametrize("model", ["mlp_opset17", "cnn_opset13", "shared_weights", "if_body"])
@pytest.mark.parametrize("name", ["quantize", "factorize", "prune", "sparsify", "distill", "pack"])
def test_every_reason_of_our_passes_has_a_code(name: str, model: str) -> None:
    cell = Cell(registry.create(name), model)
    reasons = [skip.reason for _, offer in cell.situations for _, skip in offer.left]
    reasons += [
        proposal.limit
        for _, offer in cell.situations
        for proposal in offer.proposals
        if proposal.limit is not None
    ]
    assert [reason for reason in reasons if split(reason)[1] not in explained()] == []


def test_explain_says_what_helps_and_takes_small_letters_and_brackets() -> None:
    found = CliRunner().invoke(cli, ["explain", "[l001]"])
    assert found.exit_code == 0
    assert found.output.startswith("L001 the weight holds NaN or infinity\n")
    assert "What to do:" in found.output


def test_explain_names_the_nearest_code() -> None:
    found = CliRunner().invoke(cli, ["explain", "Q03"])
    assert found.exit_code == 2
    assert "error[U017]: there is no code Q03; did you mean 'Q003'?" in found.output


def test_explain_without_a_code_lists_all_also_as_json() -> None:
    lines = CliRunner().invoke(cli, ["explain"]).output.splitlines()
    assert len([line for line in lines if _CODE.match(line)]) == len(explained())
    document = json.loads(CliRunner().invoke(cli, ["explain", "--json", "-"]).output)
    assert document.keys() == explained().keys()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
