"""Pages in headless Chromium: what they ask for, what they complain of, what is amiss with them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
axe_module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
WIDTHS = (360, 768, 1280)
OVERFLOWING = """() => {
  const room = document.documentElement.clientWidth;
  return [...document.body.querySelectorAll("*")]
    .filter(one => !one.closest(".scroll, .plot, pre, details:not([open]) > :not(summary)"))
    .filter(one => one.getBoundingClientRect().right > room + 1)
    .map(one => one.tagName + " " + one.textContent.trim().slice(0, 40));
}"""


@contextmanager
def started_browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield started
        started.close()


class Seen:
    """A page that is open, what it asked for and what it complained about."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str = "light") -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self._path = path
        self.page = self._opened()

    def reopen(self) -> None:
        """Close the page, and open it again in the same browser, which kept what pages may keep."""
        self.page.close()
        self.page = self._opened()

    def close(self) -> None:
        self._context.close()

    def _opened(self) -> Any:
        page = self._context.new_page()
        page.on("console", lambda said: self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.route(re.compile("^(?!file:|data:)"), self._refused)
        page.goto(self._path.as_uri())
        return page

    def _refused(self, route: Any) -> None:
        self.requests.append(route.request.url)
        route.abort()


def amiss(page: Any) -> list[tuple[str, str]]:
    """What axe-core finds amiss; its rules are read from a file of the package, and contrasts are among them."""
    found = axe_module.Axe().run(page).response
    assert "color-contrast" in {one["id"] for one in found["passes"]}
    return [(one["id"], one["nodes"][0]["html"][:80]) for one in found["violations"]]
