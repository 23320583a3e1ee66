"""The page of `onnxpress view` in headless Chromium."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from bodies import NESTED
from browser import Page, chromium, opened
from made_reports import HOSTILE, chain

from onnxpress import model_file
from onnxpress.difference import compare_models
from onnxpress.drawing.viewing import view_document
from onnxpress.report.view import view_page

BROWSER = chromium()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
FAULTS = Path(__file__).with_name("accessibility.js")
SIZES = [(1440, False), (1440, True), (390, False), (390, True)]
OVERLAPPING = """(() => {
  const drawn = [...document.querySelectorAll('.box > rect')];
  const all = drawn.map(rect => [rect, rect.getBoundingClientRect()]);
  const within = (one, other) => one.parentElement.contains(other);
  const meet = (a, b) =>
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return all.filter(([one, a]) => all.some(([other, b]) =>
    one !== other && !within(one, other) && !within(other, one) && meet(a, b))).length;
})()"""
"""How many boxes lie over one that they are not inside of."""
SETTLED = "new Promise(done => setTimeout(done, 80))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    assert BROWSER is not None
    with opened(BROWSER) as page:
        yield page


def show(browser: Page, folder: Path, *models: ir.Model, width: int = 1440) -> Page:
    """The page of models in the browser."""
    names = [f"{'ab'[place]}.onnx" for place in range(len(models))]
    place = folder / "view.html"
    place.write_text(view_page(view_document(models, names)), encoding="utf-8")
    browser.size(width)
    browser.said.clear()
    browser.requested.clear()
    browser.open(place)
    browser.run(SETTLED)
    return browser


@pytest.fixture
def page(browser: Page, tmp_path: Path) -> Page:
    names = ["first", "second", "third"]
    return show(browser, tmp_path, chain(names), chain(names, integers=True))


def drawn(page: Page, side: int, style: str = "box") -> list[str]:
    """First lines of the boxes that are drawn in a pane."""
    found = page.run(
        f"[...document.querySelectorAll('.pane')[{side}].querySelectorAll('.{style} > .op')]"
        ".map(text => text.textContent)"
    )
    return list(found)


def click(page: Page, side: int, key: str) -> None:
    x, y = page.run(
        f"(() => {{ const box = document.querySelectorAll('.pane')[{side}]"
        f".querySelector('[data-key=\"{key}\"] rect').getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + 10]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    page.run(SETTLED)


def look_for(page: Page, words: str) -> None:
    page.run(f"search.value = {words!r}; search.dispatchEvent(new Event('input'))")


def about(page: Page) -> str:
    return str(page.run("document.querySelector('.about').innerText"))


def test_nothing_is_requested_and_nothing_complains(page: Page) -> None:
    assert page.said == []
    assert len(page.requested) == 1


def test_both_graphs_are_drawn_with_what_changed(page: Page) -> None:
    assert drawn(page, 0) == ["input", "≠ MatMul", "≠ MatMul", "≠ MatMul", "output"]
    assert drawn(page, 1) == drawn(page, 0)
    assert page.run("document.querySelector('.summary').textContent") == (
        "0 nodes the same in both, 3 changed, 0 removed, 0 added."
    )


def test_click_tells_what_is_in_a_node_and_what_changed(page: Page) -> None:
    click(page, 0, "0:2")
    told = about(page)
    assert told.startswith("MatMul node 1\n")
    assert "second [8, 8] differs" in told
    assert "int8[8, 8], through DequantizeLinear" in told
    assert page.run("document.querySelectorAll('.about .histogram').length") == 2
    chosen = page.run("[...document.querySelectorAll('.chosen')].map(box => box.dataset.key)")
    assert chosen == ["0:2", "0:2"]


def test_search_lists_nodes_and_goes_to_one(page: Page) -> None:
    look_for(page, "node 2")
    assert page.run("document.querySelector('.hits').innerText").strip() == "≠ MatMul node 2"
    assert page.run("document.querySelector('output').textContent") == "1 found"
    page.run("document.querySelector('.hits button').click()")
    assert about(page).startswith("MatMul node 2\n")


def test_keys_go_along_the_graph_and_from_change_to_change(page: Page) -> None:
    page.run("panes[0].holder.focus()")
    for key in ("ArrowDown", "ArrowDown"):
        page.press(key)
    assert about(page).startswith("MatMul node 0\n")
    page.press("ArrowUp")
    assert about(page).startswith("input x\n")
    page.press("End")
    assert about(page).startswith("output y2\n")
    for key in ("n", "n", "p"):
        page.press(key)
    assert about(page).startswith("MatMul node 0\n")
    page.press("/")
    assert page.run("document.activeElement.id") == "search"


def test_bodies_are_opened_in_place_and_closed_again(browser: Page, tmp_path: Path) -> None:
    text = NESTED.replace("{opset}", "17")
    page = show(browser, tmp_path, ir.from_proto(onnx.parser.parse_model(text)))
    whole = drawn(page, 0)
    key = page.run(
        "(() => { const b = boxes.find(b => b.box.op === 'If'); return `0:${b.at}`; })()"
    )
    click(page, 0, key)
    page.run("panes[0].holder.focus()")
    page.press("Enter")
    page.run(SETTLED)
    assert "Neg" in drawn(page, 0)
    overlap = page.run(OVERLAPPING)
    assert overlap == 0
    page.press("Enter")
    page.run(SETTLED)
    assert drawn(page, 0) == whole


def test_what_lies_inside_is_opened_when_it_is_gone_to(browser: Page, tmp_path: Path) -> None:
    text = NESTED.replace("{opset}", "17")
    page = show(browser, tmp_path, ir.from_proto(onnx.parser.parse_model(text)))
    assert "Neg" not in drawn(page, 0)
    page.run(
        "search.value = 'flat neg'; search.value = 'Neg'; search.dispatchEvent(new Event('input'))"
    )
    page.run("[...document.querySelectorAll('.hits button')].at(-1).click()")
    page.run(SETTLED)
    assert "Neg" in drawn(page, 0)


def test_rows_that_are_the_same_are_folded_and_opened(browser: Page, tmp_path: Path) -> None:
    names = [f"layer {number}" for number in range(80)]
    after = chain(names)
    (node,) = [node for node in after.graph if node.name == "node 40"]
    node.op_type = "Add"
    page = show(browser, tmp_path, chain(names), after)
    assert len(drawn(page, 0)) == 5
    bands = page.run(
        "[...document.querySelectorAll('.pane')[0].querySelectorAll('.band text')]"
        ".map(text => text.textContent)"
    )
    assert bands == ["38 nodes that are the same", "37 nodes that are the same"]
    page.run("told.select(0, 0, 60, {move: true})")
    page.run(SETTLED)
    assert page.run("document.querySelectorAll('.pane')[0].querySelectorAll('.band').length") <= 1
    assert page.run("document.querySelector('.chosen .small').textContent") == "8×8"
    page.run("fold.click()")
    page.run(SETTLED)
    assert page.run("document.querySelectorAll('.band').length") == 0


def test_of_three_thousand_nodes_only_what_is_seen_is_drawn(browser: Page, tmp_path: Path) -> None:
    page = show(browser, tmp_path, chain([f"layer {number}" for number in range(3000)], side=2))
    assert 5 < len(drawn(page, 0)) < 40
    look_for(page, "node 2990")
    page.run("document.querySelector('.hits button').click()")
    page.run(SETTLED)
    assert about(page).startswith("MatMul node 2990\n")
    assert page.run("document.querySelectorAll('.chosen').length") == 1
    assert page.run("document.getElementsByTagName('*').length") < 2000


def test_errors_of_tensors_are_marked(browser: Page, models: Path, tmp_path: Path) -> None:
    names = ["first", "second"]
    files = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for integers, file in enumerate(files):
        model_file.save(chain(names, integers=bool(integers)), file)
    found = compare_models(*files, samples=2)
    both = [model_file.load(file) for file in files]
    place = tmp_path / "view.html"
    place.write_text(view_page(view_document(both, ["a", "b"], found)), encoding="utf-8")
    browser.size(1440)
    browser.open(place)
    browser.run(SETTLED)
    errors = browser.run(
        "[...document.querySelectorAll('.box text')].map(text => text.textContent)"
        ".filter(text => text.endsWith('dB'))"
    )
    assert len(errors) == 4
    assert browser.run("document.querySelectorAll('.net.e0').length") == 2
    listed = browser.run("kinds.value = 'error'; list(); hits.innerText").splitlines()
    added = [float(line.rpartition("adds ")[2].split()[0]) for line in listed if "adds" in line]
    assert added == sorted(added)
    assert len(added) == 3


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_nobody_is_kept_out(page: Page, width: int, dark: bool) -> None:  # noqa: FBT001
    page.size(width, dark=dark)
    page.run("told.select(0, 0, 2, {move: true})")
    page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.run(SETTLED)
    assert page.run(FAULTS.read_text(encoding="utf-8")) == []


def test_on_a_phone_one_model_is_seen_at_a_time(page: Page) -> None:
    page.size(390)
    seen = "[...document.querySelectorAll('.pane')].map(p => p.checkVisibility())"
    assert page.run(seen) == [True, False]
    page.run("document.querySelectorAll('.tab')[1].click()")
    page.run(SETTLED)
    assert page.run(seen) == [False, True]
    assert len(drawn(page, 1)) > 0


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_neither_act_nor_break_the_page(
    browser: Page, tmp_path: Path, name: str
) -> None:
    names = (f"1{name}", f"2{name}")
    models = chain(names), chain(names, integers=True)
    for model in models:
        for node in model.graph:
            node.name = f"{node.name}{name}"
    for width in (390, 1440):
        page = show(browser, tmp_path, *models, width=width)
        page.run("told.select(0, 0, 1, {move: true})")
        page.run(SETTLED)
        assert page.said == []
        assert page.run("document.title") == "onnxpress: a.onnx and b.onnx"
        assert page.run("document.querySelectorAll('script').length") == 2
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run(FAULTS.read_text(encoding="utf-8")) == []
