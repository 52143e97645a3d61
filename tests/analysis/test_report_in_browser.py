"""The report in Chromium: it asks for nothing, has no errors, sorts, brushes, follows the theme."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from analysis import Results
from analysis.report.page import write_report
from tests.analysis.synthetic import search

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"no Chromium at {CHROMIUM}")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def searched(tmp_path_factory, tiny_data):
    states = ("finished", "stopped", "finished", "stopped", "diverged", "finished", "failed")
    storage = tmp_path_factory.mktemp("runs")
    return Results.open(search(storage, tiny_data, trials=28, states=states).path)


@pytest.fixture(scope="module")
def address(searched, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(searched, out, bootstraps=3).as_uri()


@pytest.fixture(scope="module")
def opened(browser, address):
    """The report, opened once and drawn to its end; what it asked for and said is noted."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.asked, page.said = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda m: page.said.append(m.text) if m.type != "log" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(address)
    page.wait_for_selector("html[data-drawn=all]", timeout=60_000)
    yield page
    context.close()


@pytest.fixture
def page(opened):
    """The same page for each test; tests undo what they brushed."""
    opened.set_viewport_size({"width": 1280, "height": 900})
    opened.emulate_media(color_scheme="light")
    return opened


def until(page, condition):
    """Waits until an expression is true; `wait_for_function` needs `eval`, which is forbidden."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never became true: {condition}")


def rows(page):
    return page.eval_on_selector_all(
        "#table tbody tr:not([hidden])", "rows => rows.map(r => [...r.cells].map(c => c.innerText))"
    )


def test_it_asks_for_nothing_and_everything_is_drawn(page, address):
    outside = [url for url in page.asked if url != address and not url.startswith("data:")]
    assert outside == []
    assert page.said == []
    drawn = page.eval_on_selector_all(
        ".canvas", "all => all.map(c => [c.id, c.querySelectorAll('.main-svg').length])"
    )
    assert len(drawn) > 10
    assert [name for name, pictures in drawn if not pictures] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_itself_never_scrolls_sideways(page, width, theme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    page.wait_for_timeout(300)  # plots follow the window after a moment
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.said == []


def test_the_table_sorts_by_number_and_by_keyboard(page, searched):
    page.locator("#table th button", has_text="val_loss").first.click()
    best = [int(row[0]) for row in rows(page)]
    assert best[: len(searched.ranked())] == searched.ranked()["trial"].tolist()
    page.locator("#table th button", has_text="learning_rate").first.click()
    trials = searched.trials.sort_values("learning_rate")["trial"].tolist()
    assert [int(row[0]) for row in rows(page)] == trials
    page.keyboard.press("Enter")  # the heading has the focus
    assert [int(row[0]) for row in rows(page)] == trials[::-1]
    assert page.locator("#table th[aria-sort=descending]").inner_text().startswith("learning_rate")


def test_what_is_missing_stays_last_in_both_orders(page, searched):
    without = set(searched.trials.loc[searched.trials["val_loss"].isna(), "trial"])
    assert without
    heading = page.locator("#table th button", has_text="val_loss").first
    for _ in range(2):
        heading.click()
        assert {int(row[0]) for row in rows(page)[-len(without) :]} == without


def test_an_axis_is_brushed_with_the_mouse(page, searched):
    drawn = page.evaluate("document.getElementById('parallel').data.map(t => t.y[0])")
    ordered = sorted(drawn)
    gaps = [(b - a, a, b) for a, b in pairwise(ordered) if 0.1 < a < 0.6]
    _, below, above = max(gaps)  # where a pixel more or less changes nothing
    expected, total = ordered.index(above), len(searched.ranked())
    assert 0 < expected < total == len(drawn)
    strip = page.locator(".brush-axis").first  # of the objective, the best at the bottom
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + box["height"] * (1 - (below + above) / 2))
    page.mouse.down()
    page.mouse.move(x, box["y"] + box["height"] - 1, steps=5)
    page.mouse.up()
    assert f"{expected} of {total} trials are in the brushed ranges" in page.inner_text("#brushed")
    faint = page.eval_on_selector_all(
        "#parallel .scatterlayer .trace",
        "all => all.filter(t => t.style.opacity === '0.06').length",
    )
    assert faint == total - expected
    assert len(rows(page)) == expected
    page.locator("#brushed button").click()
    assert len(rows(page)) == len(searched.trials)


def test_an_axis_is_brushed_with_the_keyboard(page, searched):
    page.locator(".brush-axis").first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    assert "0 % to 50 %" in page.locator(".brush-axis").first.get_attribute("aria-label")
    assert "trials are in the brushed ranges" in page.inner_text("#brushed")
    page.keyboard.press("Escape")
    assert page.inner_text("#brushed") == ""
    assert len(rows(page)) == len(searched.trials)


def test_plots_follow_the_theme_when_it_changes(page):
    colour = "getComputedStyle(document.querySelector('#incumbent .xtitle')).fill"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    until(page, f"{colour} === 'rgb(230, 233, 237)'")
    page.emulate_media(color_scheme="light")
    until(page, f"{colour} === '{light}'")
