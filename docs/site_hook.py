"""Of the site alone: pages that lie beside the folder of documents, and links to what is no page.

Documents link to files of the repository (`../README.md`, `../../benchmarks/…`), as one reads them
there. The site shows the few that are texts and leaves the rest as words; a link to what is not
there is a warning, which `--strict` makes an error, as are mkdocs' own of pages and headings.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {
    "README.md": "project/readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "models/README.md": "project/models.md",
}
_LOG = logging.getLogger("mkdocs.hooks.links")
_LINK = re.compile(r"(!?)\[((?:[^\]\\`]|\\.|`[^`]*`)*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:  # noqa: ANN401 - mkdocs hands over its own
    """Add the texts beside the folder."""
    for source, place in BESIDE.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:  # noqa: ANN401 - likewise
    """Let links lead within the site, or be words."""
    own = page.file.src_uri
    homes = {place: source for source, place in BESIDE.items()}
    base = posixpath.dirname(homes.get(own, posixpath.join("docs", own)))

    def led(match: re.Match[str]) -> str:
        image, words, link = match.groups()
        path, _, anchor = link.partition("#")
        if not path or re.match(r"[a-z][a-z0-9+.-]*:", link):
            return match.group(0)
        target = posixpath.normpath(posixpath.join(base, path))
        if not (ROOT / target).exists():
            _LOG.warning("%s: a link leads to %s, which is not there", own, target)
        if target in BESIDE:
            inside = BESIDE[target]
        elif target.startswith("docs/") and (ROOT / target).is_file():
            inside = target.removeprefix("docs/")
        elif target.startswith("docs/") and (ROOT / target / "README.md").is_file():
            inside = target.removeprefix("docs/") + "/README.md"
        else:
            return words
        relative = posixpath.relpath(inside, posixpath.dirname(own) or ".")
        return f"{image}[{words}]({relative}{'#' + anchor if anchor else ''})"

    return _LINK.sub(led, markdown)
