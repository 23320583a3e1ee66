"""What the documents name is there: files, headings, scripts, decisions."""

import re
from pathlib import Path

import pytest

from onnxpress.version import __version__

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), ROOT / "models" / "README.md", *(ROOT / "docs").rglob("*.md")]
)
DECISIONS = ROOT / "docs" / "decisions"

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#* *$", re.MULTILINE)
_SCRIPT = re.compile(r"\b(?:benchmarks|models|tests)/[\w./-]*\.py\b")


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def prose(document: Path) -> str:
    """The text without blocks of code."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def links(text: str) -> list[str]:
    """Targets of links in text, those in code left out."""
    return _LINK.findall(_CODE.sub("", text))


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, no punctuation, numbered when repeated."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(document)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        repeats = 0
        while (name := f"{slug}-{repeats}" if repeats else slug) in found:
            repeats += 1
        found.add(name)
    return found


def broken(document: Path, link: str) -> str | None:
    """Why a relative link leads nowhere; `None` where it does, or leaves the repository."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return None
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    if not target.exists():
        return f"{link}: no such file"
    if anchor and anchor not in anchors(target):
        return f"{link}: no such heading"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    problems = [broken(document, link) for link in links(prose(document))]
    assert [problem for problem in problems if problem] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_script_that_is_named_exists(document: Path) -> None:
    named = set(_SCRIPT.findall(document.read_text(encoding="utf-8")))
    assert sorted(script for script in named if not (ROOT / script).is_file()) == []


def test_decisions_are_numbered_without_a_gap() -> None:
    files = sorted(file.name for file in DECISIONS.iterdir() if file.name != "README.md")
    assert [name for name in files if not re.fullmatch(r"\d{3}-[a-z0-9-]+\.md", name)] == []
    assert [int(name[:3]) for name in files] == list(range(1, len(files) + 1))


def test_the_index_of_decisions_has_each_once_under_its_own_title() -> None:
    rows = re.findall(
        r"^\| \[([\w-]+)\]\(([\w-]+\.md)\) \| (.+) \|$",
        (DECISIONS / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    files = sorted(file for file in DECISIONS.glob("*.md") if file.name != "README.md")
    assert rows == [
        (file.stem, file.name, file.read_text(encoding="utf-8").split("\n")[0][len("# 000: ") :])
        for file in files
    ]


def test_results_are_dated_and_in_the_index() -> None:
    folder = ROOT / "docs" / "results"
    names = {file.name for file in folder.iterdir() if file.name != "README.md"}
    files = {name for name in names if not name.endswith((".png", ".svg"))}
    # Of a plot the text beside it says what it shows.
    assert {f"{name.rpartition('.')[0]}.md" for name in names - files} <= files
    assert {
        name for name in files if not re.fullmatch(r"\d{4}-\d\d-\d\d-[a-z0-9-]+\.md", name)
    } == (set())
    assert files == {link for link in links(prose(folder / "README.md")) if "/" not in link}


def test_the_version_to_cite_is_that_of_the_package() -> None:
    cited = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == [__version__]


def test_every_page_is_in_the_index_and_in_the_site() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    index = set(links(prose(ROOT / "docs" / "README.md")))
    site = set(re.findall(r"^ *- (\w[\w-]*\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert pages - index == set()
    assert site == pages


def test_the_site_is_built_so_that_a_broken_link_ends_it() -> None:
    (line,) = re.findall(r".*mkdocs build.*", (ROOT / ".ci" / "run").read_text())
    assert "--strict" in line
    # Quiet, mkdocs drops warnings before they are counted.
    assert not re.search(r" -q| --quiet", line)
    validation = (
        (ROOT / "mkdocs.yml").read_text().partition("validation:")[2].partition("plugins")[0]
    )
    assert set(re.findall(r": (\w+)[,}]", validation)) == {"warn"}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `title`, here\n\n```\n# no title\n[no](link.md)\n```\n## Twice\n## Twice\n"
    )
    assert anchors(page) == {"a-title-here", "twice", "twice-1"}
    assert links(prose(page)) == []
    assert broken(page, "absent.md") == "absent.md: no such file"
    assert broken(page, "#no-title") == "#no-title: no such heading"
    assert broken(page, "page.md#twice-1") is None
    assert broken(page, "https://example.org/absent.md#any") is None
