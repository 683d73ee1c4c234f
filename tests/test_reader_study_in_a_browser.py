"""A reader plays a whole study in headless Chromium, by keys, with a pause; other widths, volumes, contrasts."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browsing import NEEDS_CHROMIUM, OVERFLOWING, WIDTHS, Seen, amiss, started_browser
from fake_run import Case
from PIL import Image
from reading import key_of, study_of

from flows.cli import launch

pytestmark = NEEDS_CHROMIUM
KEYS = {"real": "r", "synthetic": "s", "cyst": "a", "metastasis": "b", "haemangioma": "c"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_of(tmp_path_factory.mktemp("study"), images=8)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_of(tmp_path_factory.mktemp("volumes"), Case(spatial_dims=3, per_class=12), images=8)


def opened(browser: Any, study: Path, width: int = 1280, scheme: str = "light", reader: str = "A") -> Seen:
    seen = Seen(browser, study / "for-readers" / "study.html", width, scheme)
    begin(seen, reader)
    return seen


def begin(seen: Seen, reader: str) -> None:
    seen.page.get_by_label("Your code").fill(reader)
    seen.page.keyboard.press("Enter")
    drawn(seen)


def drawn(seen: Seen) -> None:
    seen.page.locator("#image[data-shown]").wait_for(state="attached")


def pixels(seen: Seen) -> np.ndarray:
    """What the canvas shows, as grey values."""
    uri = seen.page.evaluate("document.getElementById('image').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L")).astype(float)


def answer(seen: Seen, row: dict[str, Any]) -> None:
    for key in (KEYS[row["origin"]], "3", KEYS[row["label"]], "Enter"):
        seen.page.keyboard.press(key)
    drawn(seen)


def test_a_whole_study_by_keys_with_a_pause_is_scored(browser: Any, study: Path, tmp_path: Path) -> None:
    key = key_of(study).set_index("number").to_dict("index")
    files = []
    for reader in ("A", "B"):
        seen = opened(browser, study, reader=reader)
        order = [str(number) for number in seen.page.evaluate("order")]
        assert sorted(order, key=int) == list(key)
        for number in order[:3]:
            answer(seen, key[number])
        seen.page.keyboard.press("r")  # the fourth one's first question
        seen.reopen()
        seen.page.get_by_role("button", name=f"Go on as {reader}: 3 of 8 done").click()
        assert seen.page.get_by_role("heading", name="Image 4 of 8").is_visible()
        assert seen.page.get_by_label("Real", exact=False).first.is_checked()
        assert seen.page.get_by_role("button", name="Next").is_disabled()
        seen.page.keyboard.press("Enter")  # not before all three are answered
        assert seen.page.get_by_role("heading", name="Image 4 of 8").is_visible()
        seen.page.keyboard.press("Backspace")
        assert seen.page.get_by_role("heading", name="Image 3 of 8").is_visible()
        seen.page.keyboard.press("Enter")
        for number in order[3:]:
            answer(seen, key[number])
        with seen.page.expect_download() as download:
            seen.page.get_by_role("button", name="Save my answers").click()
        files.append(tmp_path / download.value.suggested_filename)
        download.value.save_as(files[-1])
        assert (seen.requests, seen.complaints) == ([], [])
        seen.close()
    first, second = (json.loads(file.read_text()) for file in files)
    assert first["reader"] == "A" and first["order"] != second["order"]
    assert launch(["readers", "score", str(study), *map(str, files)]) == 0
    table = pd.read_csv(study / "metrics.csv", keep_default_na=False)
    whole = table[(table["label"] == "") & (table["subgroup"] == "")].set_index(["metric", "split"])["value"]
    assert whole["accuracy", "test+synthetic"] == whole["diagnosis_accuracy", "test"] == 1
    assert whole["kappa", "test+synthetic"] == 1


def test_the_window_and_the_size_change_what_is_seen(browser: Any, study: Path) -> None:
    seen = opened(browser, study)
    page = seen.page
    before = pixels(seen)
    page.keyboard.press("[")
    page.keyboard.press("[")
    assert page.locator("#width-said").text_content() == "188 HU"  # of 200, a 32nd less with each key, in its steps
    narrow = pixels(seen)
    assert narrow.std() > 1.03 * before.std()
    page.keyboard.press("0")
    assert (pixels(seen) == before).all()
    box = page.locator("#image").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 240)
    page.mouse.up()
    assert page.locator("#centre-said").text_content() == "100 HU"  # 40 pixels down are a tenth of the window
    page.mouse.wheel(0, -100)
    assert page.locator("#zoom-said").text_content() == "× 1.3"
    page.keyboard.press("0")
    assert page.locator("#zoom-said").text_content() == "× 1.0"
    assert seen.complaints == []
    seen.close()


def test_a_volume_has_its_slices(browser: Any, volumes: Path) -> None:
    seen = opened(browser, volumes)
    assert seen.page.locator("#slice-said").text_content() == "16 of 32"
    first = pixels(seen)
    seen.page.keyboard.press("ArrowUp")
    assert seen.page.locator("#slice-said").text_content() == "17 of 32"
    assert (pixels(seen) != first).any()
    assert seen.complaints == []
    seen.close()


def test_it_fits_every_width_and_axe_finds_nothing_amiss(browser: Any, volumes: Path) -> None:
    for width in WIDTHS:
        seen = opened(browser, volumes, width)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.page.evaluate(OVERFLOWING) == []
        seen.close()
    for scheme in ("light", "dark"):
        seen = Seen(browser, volumes / "for-readers" / "study.html", 1280, scheme)
        assert amiss(seen.page) == []
        begin(seen, "A")
        assert amiss(seen.page) == []
        seen.close()


def test_a_browser_that_keeps_nothing_says_so(browser: Any, study: Path) -> None:
    seen = opened(browser, study)
    seen.page.add_init_script("Storage.prototype.setItem = () => { throw new Error('not here'); }")
    seen.page.reload()
    assert seen.page.get_by_text("This browser keeps nothing when the page is closed.").is_visible()
    begin(seen, "B")
    assert seen.page.get_by_role("heading", name="Image 1 of 8").is_visible()
    assert seen.complaints == []
    seen.close()
