"""How much `onnxpress view` holds, and pictures of its page: Chromium, and Pillow for pictures.

    python benchmarks/view_pages.py MODEL.onnx...
    python benchmarks/view_pages.py --pictures FOLDER A B DATA

The first prints for each model its nodes, seconds of processor time to make the page, its bytes,
how long the browser takes to open it, and elements that are drawn; the second writes pictures of
two models side by side, in two widths and both themes.
"""

import sys
import tempfile
import time
from pathlib import Path

from report_pages import save

from onnxpress import model_file
from onnxpress.difference import compare_models
from onnxpress.drawing.viewing import view_document
from onnxpress.report.view import view_page

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import Page, chromium, opened

_SIZES = {1440: 900, 390: 844}
_CHOOSE = """(() => {
  const one = boxes.find(({box}) => box.status === 'changed' && box.other && box.constants.length);
  told.select(one.side, one.number, one.at, {move: true});
})()"""


def figures(page: Page, models: list[Path]) -> None:
    """A row for each model."""
    print("| model | nodes | make, s | page, MB | open, ms | elements |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in models:
        began = time.process_time()
        document = view_document([model_file.load(path)], [str(path)])
        text = view_page(document)
        took = time.process_time() - began
        _open(page, text)
        opening = page.run("performance.getEntriesByType('navigation')[0].domComplete")
        drawn = page.run("document.getElementsByTagName('*').length")
        nodes = document["models"][0]["nodes"]
        row = f"{nodes:,} | {took:.1f} | {len(text) / 1e6:.1f} | {opening:.0f} | {drawn:,}"
        print(f"| {path.parent.name}/{path.stem} | {row} |")


def pictures(page: Page, folder: Path, a: Path, b: Path, data: str) -> None:
    """Both widths, both themes."""
    found = compare_models(a, b, data=data)
    models = [model_file.load(path) for path in (a, b)]
    text = view_page(view_document(models, [a.name, b.name], found))
    folder.mkdir(parents=True, exist_ok=True)
    for width, height in _SIZES.items():
        for theme in ("light", "dark"):
            page.size(width, height=height, dark=theme == "dark")
            _open(page, text)
            page.run(_CHOOSE)
            page.run("new Promise(done => setTimeout(done, 300))")
            save(page.picture(0, height), folder / f"view-{width}-{theme}.png")


def _open(page: Page, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "view.html")
        place.write_text(text, encoding="utf-8")
        page.open(place)


if __name__ == "__main__":
    browser = chromium()
    if browser is None:
        sys.exit("no Chromium on this machine")
    with opened(browser) as page:
        if sys.argv[1:2] == ["--pictures"]:
            folder, a, b, data = sys.argv[2:]
            pictures(page, Path(folder), Path(a), Path(b), data)
        else:
            figures(page, [Path(name) for name in sys.argv[1:]])
