"""Pages of stored reports, and pictures of them as docs/report.md shows: Chromium and Pillow.

    python benchmarks/report_pages.py FOLDER REPORT.json...

writes FOLDER/NAME-WIDTH-THEME.png of the first screens of each. Without arguments: bytes of the
page and the document of a model of 10,000 layers, and how long the page takes to open.
"""

import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

from onnxpress.output_file import FileSet
from onnxpress.report.html import write_html

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import chromium, opened
from made_reports import large_document, large_page

_HEIGHTS = {1440: 1900, 390: 2400}
_COLOURS = 96
"""In a palette: half the bytes, and nothing that is seen is lost."""


def main(folder: Path, reports: list[Path]) -> None:
    """Write the pictures of all reports in both themes and widths."""
    browser = chromium()
    if browser is None:
        sys.exit("no Chromium on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, opened(browser) as page:
        for report in reports:
            place = Path(temporary, f"{report.stem}.html")
            with FileSet() as files:
                write_html(json.loads(report.read_text(encoding="utf-8")), place, files)
            for width, height in _HEIGHTS.items():
                for theme in ("light", "dark"):
                    page.size(width, dark=theme == "dark")
                    page.open(place)
                    target = folder / f"{report.stem}-{width}-{theme}.png"
                    save(page.picture(0, height), target)
                    print(target, target.stat().st_size)


def save(content: bytes, target: Path) -> None:
    """With a palette, and at three quarters of the size where it is wide."""
    with Image.open(io.BytesIO(content)) as picture:
        found = picture.convert("RGB")
        if found.width > 1000:
            found = found.resize((960, round(found.height * 960 / found.width)), Image.LANCZOS)
        found.quantize(_COLOURS, kmeans=1).save(target, optimize=True)


def large() -> None:
    """Print what a page of 10,000 layers takes."""
    browser = chromium()
    if browser is None:
        sys.exit("no Chromium on this machine")
    with tempfile.TemporaryDirectory() as temporary, opened(browser) as page:
        place = large_page(Path(temporary))
        page.size(1440)
        page.open(place)
        took = page.run("performance.getEntriesByType('navigation')[0].domComplete")
        document = len(json.dumps(large_document()))
        print(f"page {place.stat().st_size:,} bytes, document {document:,} bytes, {took:.0f} ms")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        large()
        sys.exit()
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
