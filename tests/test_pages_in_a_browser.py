"""The pages in headless Chromium: no overflow at three widths, no error, no request, readable contrasts, few pages."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import NEEDS_CHROMIUM, OVERFLOWING, WIDTHS, Seen, amiss, started_browser
from fake_run import Case, build_curve, with_maps
from test_compare import two_runs

from flows.cli import launch
from pipeline.report.curve_page import write_curve_page
from pipeline.report.page import write_report

pytestmark = NEEDS_CHROMIUM
PAGES = ("report.html", "summary.html", "compare.html", "curve.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds with its pages, and a comparison beside them."""
    root = tmp_path_factory.mktemp("pages")
    place = with_maps(root / "run", Case(folds=2, per_class=12))
    write_report(place)
    runs = two_runs(root)
    assert launch(["compare", *map(str, runs), "--out", str(place / "compare.html")]) == 0
    shutil.copy(write_curve_page(build_curve(root / "curve")), place)
    return place


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_every_width_asks_nobody_and_complains_of_nothing(browser: Any, folder: Path, name: str) -> None:
    for width in WIDTHS:
        seen = Seen(browser, folder / name, width)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, width
        assert seen.page.evaluate(OVERFLOWING) == [], width
        seen.page.evaluate("document.querySelectorAll('main details').forEach(one => one.open = true)")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, f"{width}, all unfolded"
        assert (seen.requests, seen.complaints) == ([], [])
        seen.close()


def test_the_watch_of_overflow_requests_and_complaints_sees_them(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        "<body><div style='width: 2000px'>wide</div><img src='http://198.51.100.7/a.png'><script>lost()</script></body>"
    )
    seen = Seen(browser, tmp_path / "bad.html", 360)
    assert seen.page.evaluate("document.documentElement.scrollWidth") >= 2000
    assert seen.page.evaluate(OVERFLOWING) == ["DIV wide"]
    assert seen.requests == ["http://198.51.100.7/a.png"]
    assert any("lost" in said for said in seen.complaints)
    seen.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_amiss(browser: Any, folder: Path, name: str, scheme: str) -> None:
    seen = Seen(browser, folder / name, 1280, scheme)
    dark = seen.page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert amiss(seen.page) == []
    seen.close()


def test_a_phone_gets_plots_with_panels_below_one_another(browser: Any, folder: Path) -> None:
    shape = """() => Object.fromEntries([...document.querySelectorAll("picture:has(source) > img")]
        .map(one => [one.alt.split(" ")[0], [one.naturalWidth, one.width]]))"""
    phone, wide = (Seen(browser, folder / "report.html", width).page for width in (360, 1280))
    small, large = phone.evaluate(shape), wide.evaluate(shape)
    assert set(small) == set(large) == {"Difference", "Forest", "ROC", "Training"}
    for name, (pixels, shown) in small.items():
        assert pixels < 700 < large[name][0] and 300 < shown <= 332, name
    phone.close()
    wide.close()


def test_contents_stay_in_sight(browser: Any, folder: Path) -> None:
    wide = Seen(browser, folder / "report.html", 1280).page
    wide.evaluate("window.scrollTo(0, 4000)")
    contents = wide.get_by_role("navigation", name="Contents", exact=True)
    assert contents.bounding_box()["y"] == pytest.approx(0, abs=1)
    narrow = Seen(browser, folder / "report.html", 360).page
    narrow.evaluate("window.scrollTo(0, 4000)")
    folded = narrow.get_by_role("navigation", name="Contents, folded")
    assert folded.bounding_box()["y"] == pytest.approx(0, abs=1) and folded.bounding_box()["height"] < 60
    folded.get_by_text("Contents").click()
    folded.get_by_role("link", name="Privacy").click()
    assert narrow.url.endswith("#memorisation")
    links = wide.eval_on_selector_all("nav.wide a", "all => all.map(one => one.getAttribute('href').slice(1))")
    assert len(links) > 10 and all(wide.locator(f"#{link}").count() == 1 for link in links)
    wide.close()
    narrow.close()


def test_on_paper_a_report_is_ten_pages_at_most_and_its_summary_one(browser: Any, folder: Path) -> None:
    for name, most in (("report.html", 10), ("summary.html", 1)):
        seen = Seen(browser, folder / name, 1280, "dark")
        assert seen.page.evaluate("document.querySelectorAll('main details[open]').length") == 0
        pdf = seen.page.pdf(format="A4", prefer_css_page_size=True)
        assert 1 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) <= most, name
        seen.page.emulate_media(media="print")
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not seen.page.locator("nav:visible, .hint:visible").count()
        seen.close()
