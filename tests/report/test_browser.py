"""The page in headless Chromium: sorts, filters, tells, asks for nothing, keeps nobody out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, chromium, opened
from command_line import run
from made_reports import HOSTILE, chain, large_page, rich_page, rich_result
from made_results import page as html_page

from onnxpress import model_file

BROWSER = chromium()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
FAULTS = Path(__file__).with_name("accessibility.js")
SIZES = [(1440, False), (1440, True), (390, False), (390, True)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    assert BROWSER is not None
    with opened(BROWSER) as page:
        yield page


@pytest.fixture
def page(browser: Page, tmp_path: Path) -> Page:
    browser.size(1440)
    browser.said.clear()
    browser.requested.clear()
    browser.open(rich_page(tmp_path))
    return browser


def column(page: Page, place: int) -> list[str]:
    """What the shown rows of the layers' table say in a column."""
    found = page.run(
        "[...document.querySelectorAll('#layers ~ .searchable tbody tr:not([hidden])')]"
        f".map(row => row.cells[{place}].textContent)"
    )
    return list(found)


def test_nothing_is_requested_and_nothing_complains(page: Page) -> None:
    assert page.said == []
    assert [address for address in page.requested if not address.startswith("file:")] == []
    assert len(page.requested) == 1


def test_policy_stops_what_would_be_requested(page: Page) -> None:
    page.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))")
    page.run("new Promise(done => setTimeout(done, 100))")
    assert any("violates the following Content Security Policy" in line for line in page.said)


def test_click_on_a_heading_sorts_by_numbers_and_back(page: Page) -> None:
    click = "document.querySelectorAll('#layers ~ .searchable th button')[{}].click()"
    errors = column(page, 7)
    assert errors == ["1%", "0.5%", ""]
    page.run(click.format(7))
    assert column(page, 7) == ["", "0.5%", "1%"]
    page.run(click.format(7))
    assert column(page, 7) == ["1%", "0.5%", ""]
    page.run(click.format(0))
    assert column(page, 0) == ["first", "second", "third"]
    sorted_by = page.run(
        "document.querySelector('#layers ~ .searchable th[aria-sort]').textContent"
    )
    assert sorted_by == "layer"


def test_search_keeps_rows_with_all_words(page: Page) -> None:
    search = (
        "(() => {{ const field = document.getElementById('layers-search'); field.value = {!r};"
        "field.dispatchEvent(new Event('input')); }})()"
    )
    page.run(search.format("MatMul SECOND"))
    assert column(page, 0) == ["second"]
    assert page.run("document.querySelector('#layers ~ .searchable output').textContent") == (
        "1 of 3 shown"
    )
    page.run(search.format("nowhere"))
    assert column(page, 0) == []
    page.run(search.format(""))
    assert len(column(page, 0)) == 3


def test_pointing_at_a_mark_tells_what_it_is(page: Page) -> None:
    x, y = page.run(
        "(() => { const mark = document.querySelector('.plot.broad .taken');"
        "mark.scrollIntoView({block: 'center'}); const box = mark.getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    page.point_at(x, y)
    told = page.run("document.querySelector('.told').textContent")
    assert told.startswith("The model that was taken: weights 288 B, 40% of the budget spent")


def test_arrow_keys_go_from_mark_to_mark(page: Page) -> None:
    page.run("document.querySelector('.plot.broad [tabindex=\"0\"]').focus()")
    told = [page.run("document.querySelector('.told').textContent")]
    for key in ("ArrowLeft", "Home", "End"):
        page.press(key)
        told.append(page.run("document.querySelector('.told').textContent"))
    assert told[0].startswith("The model that was taken")
    assert told[2].startswith("Model 1, logits: 1 logits pair; weights 100 B; 1% of the budget")
    assert told[3].startswith("The original")
    stops = page.run("document.querySelectorAll('.plot.broad [tabindex=\"0\"]').length")
    assert stops == 1


def test_copy_button_hands_over_the_recipe(page: Page) -> None:
    page.call("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    page.run("document.querySelector('button[data-of=recipe]').click()")
    page.run("new Promise(done => setTimeout(done, 100))")
    label = page.run("document.querySelector('button[data-of=recipe]').textContent")
    assert label in ("copied", "selected: press Ctrl-C")


def test_recordings_can_be_played(page: Page) -> None:
    loaded = (
        "Promise.all([...document.querySelectorAll('audio')].map(sound => new Promise(done => {"
        "sound.onloadedmetadata = () => done(sound.duration); sound.onerror = () => done(-1);"
        "sound.load(); })))"
    )
    assert page.run(loaded) == [0.5, 0.5, 0.5]
    assert page.said == []


def test_printing_opens_what_is_folded(page: Page) -> None:
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.querySelectorAll('details:not([open])').length") == 0
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("document.querySelectorAll('details[open]').length") == 0


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_nobody_is_kept_out(page: Page, width: int, dark: bool) -> None:  # noqa: FBT001
    page.size(width, dark=dark)
    page.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.run(FAULTS.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("width", [390, 1440])
def test_hostile_names_neither_act_nor_break_the_page(
    browser: Page, tmp_path: Path, name: str, width: int
) -> None:
    browser.size(width)
    browser.said.clear()
    found = rich_result((f"1{name}", f"2{name}", f"3{name}"), name=name)
    html_page(found, tmp_path)
    browser.open(tmp_path / "report.html")
    assert browser.said == []
    assert browser.run("document.title").startswith("onnxpress: ")
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.run(FAULTS.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_page_of_a_difference_keeps_nobody_out(
    browser: Page,
    tmp_path: Path,
    width: int,
    dark: bool,  # noqa: FBT001
) -> None:
    models = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for integers, file in enumerate(models):
        model_file.save(chain(["first", "second"], integers=bool(integers)), file)
    assert run("diff", *models, "--report", tmp_path / "page.html").exit_code == 1
    browser.size(width, dark=dark)
    browser.said.clear()
    browser.open(tmp_path / "page.html")
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert browser.said == []
    assert browser.run(FAULTS.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("width", [390, 1440])
def test_no_letters_stand_one_below_the_other(page: Page, width: int) -> None:
    page.size(width)
    narrow = page.run(
        "[...document.querySelectorAll('h1, h2, h3, th, td, p, summary, b, dd')]"
        ".filter(e => e.checkVisibility() && e.textContent.trim().length > 3)"
        ".filter(e => !e.querySelector('svg') && getComputedStyle(e).position !== 'absolute')"
        ".filter(e => e.getBoundingClientRect().width < 24).map(e => e.outerHTML.slice(0, 99))"
    )
    assert narrow == []


@pytest.mark.slow
def test_ten_thousand_layers_stay_a_page_of_little(browser: Page, tmp_path: Path) -> None:
    browser.size(1440)
    browser.open(large_page(tmp_path))
    assert browser.run("document.querySelectorAll('#layers ~ .searchable tbody tr').length") == 1000
    assert browser.run("document.getElementsByTagName('*').length") < 40_000
    browser.run("document.querySelectorAll('#layers ~ .searchable th button')[0].click()")
    assert column(browser, 0)[:2] == ["encoder/layer 0/weight", "encoder/layer 1/weight"]
