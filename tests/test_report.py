"""The report, on run directories built here by hand."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import CONFOUNDER, Case, build
from PIL import Image

from flows.flow import SHOWN
from pipeline.core.errors import UserError
from pipeline.report.page import write_report
from pipeline.report.picture import Picture
from pipeline.report.pictures import all_pictures
from pipeline.report.reading import Run, read_run
from pipeline.report.sharing import WITHHELD
from pipeline.report.sheets import sample_sheet
from pipeline.report.summary import _answer


class Page(HTMLParser):
    """Tags with attributes, and the text outside <style>."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self._in_style = False
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self.text += data + " "

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def without_pictures(self) -> str:
        return re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", self.source)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build(tmp_path_factory.mktemp("plain") / "run", Case())
    write_report(root)
    return root


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A run with a shareable report, and the names of that report's pictures."""
    root = build(tmp_path_factory.mktemp("shareable") / "run", Case(gan_seeds=2, per_class=12))
    names: set[str] = set()

    def noted(run: Run, *, shareable: bool) -> dict[str, Picture]:
        pictures = all_pictures(run, shareable=shareable)
        names.update(pictures)
        return pictures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.report.page.all_pictures", noted)
        write_report(root, shareable=True)
    return root, names


@pytest.fixture
def shareable(shared: tuple[Path, set[str]]) -> Path:
    return shared[0]


def test_pictures_that_may_go_to_a_server_are_those_without_images(shared: tuple[Path, set[str]]) -> None:
    assert shared[1] >= set(SHOWN)


def assert_self_contained(page: Page) -> None:
    assert not page.of("script")
    assert not page.of("link")
    assert not re.search(r"(https?:)?//[a-z]", page.without_pictures)
    for attributes in page.of("img"):
        assert (attributes["src"] or "").startswith("data:image/png;base64,")
        assert len(attributes["alt"] or "") > 20
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_page_is_self_contained_and_every_table_has_a_caption(plain: Path) -> None:
    page = Page(plain / "report.html")
    assert_self_contained(page)
    assert len(page.of("img")) == 11
    assert len(page.of("caption")) == len(page.of("table")) >= 10
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_the_summary_answers_in_plain_words(plain: Path) -> None:
    page = Page(plain / "summary.html")
    assert_self_contained(page)
    assert "GAN augmentation helps" in page.text and "Release: not audited" in page.text
    assert "anywhere from 0.4 points better to 5.9 points better (95 % interval)" in page.text
    assert "tested on 24 patients (36 images)" in page.text
    for heading in ("How sure is this?", "How many patients?", "What this does not say", "What would be needed"):
        assert heading in page.text


def test_the_summary_reads_the_auroc_as_pairs_ranked_right() -> None:
    means = {"endpoint": "auroc", "reference_mean": 0.706, "arm_mean": 0.683}
    (said,) = _answer(means)
    assert "71 of 100 such pairs with real images alone, and 68 with synthetic ones too" in said
    assert _answer(means | {"generators": {"state": "failed"}})[1].startswith("The generator did not work")
    assert _answer({"endpoint": "auroc"})[0].startswith("No arm used synthetic images")


def test_first_words_are_confidentiality_and_research_only(plain: Path) -> None:
    body = Page(plain / "report.html").text.split("radaug report: fake-study", 1)[1]
    assert body.strip().startswith(
        "Confidential: this report shows real patients; it is as confidential as its source."
    )
    assert body.index("Research only, not for diagnosis.") < body.index("Does GAN augmentation help this classifier")


def test_verdict_is_told_with_its_numbers(plain: Path) -> None:
    page = Page(plain / "report.html")
    assert "GAN augmentation helps" in page.text
    assert "was 3.1 points higher than that with real images (real+classical)" in page.text
    assert "95 % interval of the difference +0.4 to +5.9 points" in page.text
    assert "24 test patients, 36 test images, 1 fold, 1 GAN seed, 2 classifier seeds" in page.text
    assert "Margin fixed before the run: 2.0 points" in page.text
    assert "Release: not audited" in page.text
    assert [box["class"] for box in page.of("div") if "verdict" in (box.get("class") or "")] == [
        "verdict good",
        "verdict caution",
    ]


def test_numbers_are_those_of_metrics_csv(plain: Path) -> None:
    text = Page(plain / "report.html").text
    with (plain / "metrics.csv").open(encoding="utf-8") as handle:
        means = [
            row
            for row in csv.DictReader(handle)
            if row["stage"] == "downstream" and not row["fold"] and not row["seed"] and row["split"] == "test"
        ]
    assert len(means) == 4 * 4 * 4
    for row in means:
        value, low, high = (float(row[name]) for name in ("value", "ci_low", "ci_high"))
        assert f"{value:.3f} ({low:.3f} to {high:.3f})" in text
    assert "Real images, unaltered metastasis AUROC 0.850 0.800 to 0.900 2" in text, "the reverse check"
    assert "0.612 (0.500 to 0.720)" in text, "the anomaly score"
    assert "62 % (range 55 % to 70 %) of the synthetic images lie nearer to a training image" in text
    assert "without memory it would be 50 %, and for real validation images it is 48 %" in text
    assert "This is a sign that the generator remembers its patients." in text
    assert "3 IMG0002 haemangioma 2.7 0.020" in text, "the worklist"


def test_warnings_come_with_confounders_first_and_rejected_images_are_counted(plain: Path) -> None:
    text = Page(plain / "report.html").text
    warnings = text.index("Read this before believing the numbers")
    assert warnings < text.index(CONFOUNDER) < text.index("IMG0003 looks like IMG0004") < text.index("What became of")
    assert "Only 24 test patients: intervals are wide." in text
    assert "pixel data are cut short 1" in text
    assert "rejected at reading 2" in text
    assert "slice DOE_JANE.dcm: pixel data are cut short 1" in text


def test_data_table_counts_images_and_patients(plain: Path) -> None:
    splits = pd.read_csv(plain / "stages/split/splits.csv").merge(pd.read_csv(plain / "manifest.csv"), on="image_id")
    cells = []
    for label in ("cyst", "metastasis"):
        own = [splits[(splits["label"] == label) & (splits["split"] == split)] for split in ("train", "val", "test")]
        cells.append(label + " " + " ".join(f"{len(rows)} ({rows['patient_id'].nunique()})" for rows in own))
    text = Page(plain / "report.html").text
    assert all(cell in text for cell in cells), cells


def test_two_reports_of_one_run_are_byte_equal_and_old_pictures_go(plain: Path) -> None:
    first = (plain / "report.html").read_bytes()
    (plain / "figures" / "old.png").write_bytes(b"old")
    page = write_report(plain)
    assert page.read_bytes() == first
    on_disk = {base64.b64encode(path.read_bytes()).decode() for path in (plain / "figures").iterdir()}
    assert on_disk == {(image["src"] or "").partition(",")[2] for image in Page(page).of("img")}


def test_shareable_has_no_id_no_path_no_image_and_leaves_no_picture(shareable: Path) -> None:
    page = Page(shareable / "report-shareable.html")
    summary = Page(shareable / "summary-shareable.html")
    assert_self_contained(page)
    assert_self_contained(summary)
    assert not re.search(r"IMG\d|PAT\d|SYN\d|ward|DOE", summary.without_pictures)
    assert {(image["alt"] or "").split()[0] for image in summary.of("img")} == {"Difference"}
    assert page.text.split("fake-study", 1)[1].strip().startswith("This report has no image of a patient")
    assert not re.search(r"IMG\d|PAT\d|SYN\d|ward|DOE", page.without_pictures)
    assert WITHHELD in page.text, "the audit row with image ids"
    assert "The worklist is left out of a shareable report" in page.text and "The worklist of" not in page.text
    assert CONFOUNDER in page.text, "the audit row without"
    assert not {"report.html", "summary.html", "figures"} & {path.name for path in shareable.iterdir()}
    sizes = {Image.open(io.BytesIO(base64.b64decode((image["src"] or "")[22:]))).size for image in page.of("img")}
    assert not sizes & {(700, 200), (300, 200), (500, 300)}, "the stages' pictures"
    plots = {(image["alt"] or "").split()[0] for image in page.of("img")}
    assert plots == {"Difference", "Forest", "ROC", "Training", "Histograms", "Distances"}


def test_samples_show_training_images_left_and_synthetic_ones_right(tmp_path: Path) -> None:
    root = build(tmp_path / "run", Case(anomaly=False))
    splits = pd.read_csv(root / "stages/split/splits.csv").set_index("image_id")["split"]
    manifest = pd.read_csv(root / "stages/prepare/manifest.csv")
    is_train = (manifest["image_id"].map(splits) == "train").to_numpy()
    real = np.where(is_train, 20, 130)[:, None, None, None] * np.ones((1, 1, 32, 32))
    np.save(root / "stages/prepare/images.npy", real.astype(np.int16))
    np.save(root / "stages/synthesise-fold-0-gan-0/images.npy", np.full((24, 1, 32, 32), 80, dtype=np.int16))
    run = read_run(root)
    with Image.open(io.BytesIO(sample_sheet(run, run.only("prepare"), run.of_kind("synthesise")[0]))) as picture:
        pixels = np.asarray(picture)
    left, right = np.split(pixels, [pixels.shape[1] // 2], axis=1)
    greys = {
        "train": 40 * 255 / 200,
        "synthetic": 100 * 255 / 200,
        "test": 150 * 255 / 200,
    }  # HU above the window's low
    share = {name: [np.isclose(half, grey, atol=1).mean() for half in (left, right)] for name, grey in greys.items()}
    assert share["train"][0] > 0.5 > 0.01 > share["train"][1]
    assert share["synthetic"][1] > 0.5 > 0.01 > share["synthetic"][0]
    assert max(share["test"]) < 0.01


def test_volumes_without_patient_ids(tmp_path: Path) -> None:
    case = Case(
        ("normal", "pneumonia"), ("pneumonia",), spatial_dims=3, patients=False, anomaly=False, decision="inconclusive"
    )
    page = Page(write_report(build(tmp_path / "run", case)))
    assert "No patient ids for 48 of 48 images." in page.text
    assert [box["class"] for box in page.of("p") if "banner" in (box.get("class") or "")] == ["banner bad"]
    assert "Inconclusive: these data cannot tell" in page.text
    assert "This run has no anomaly scores of test images." in page.text
    assert "middle axial, coronal and sagittal planes" in page.text
    assert "Each class against the rest" not in page.text, "two classes: the disease table says it all"


def test_folds_have_a_film_strip_each_the_released_one_first(tmp_path: Path) -> None:
    case = Case(folds=2, per_class=12, anomaly=False, decision="no_benefit", release=(1, 0))
    page = Page(write_report(build(tmp_path / "run", case)))
    strips = [image["alt"] or "" for image in page.of("img") if "Film strip" in (image["alt"] or "")]
    assert [strip.rsplit("training, ")[1] for strip in strips] == ["fold 1, GAN seed 0.", "fold 0, GAN seed 0."]
    assert "that the generator made (fold 1, GAN seed 0)" in page.text
    assert "No benefit from GAN augmentation" in page.text


def test_text_of_users_is_escaped_and_a_run_without_a_gan_says_so(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> $x^$"
    root = build(tmp_path / "run", Case(("normal", evil), (evil,), gan=False, decision="harms"))
    page = Page(write_report(root))
    assert_self_contained(page)
    assert html.escape(evil) in page.source
    assert evil in page.text
    names = {path.name for path in (root / "figures").iterdir()}
    assert names == {"difference.png", "arms.png", "roc.png"}
    assert "This run trained no GAN." in page.text
    assert "This run did not look for copies." in page.text


@pytest.mark.parametrize(
    "name",
    ["verdict.json", "metrics.csv", "stages/split/splits.csv", "stages/fit-gan-fold-0-gan-0/stats.jsonl",
     "stages/privacy-fold-0-gan-0/closest_pairs.png", "stages/prepare/record.json"],
)  # fmt: skip
def test_missing_file_is_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    root = build(tmp_path / "run", Case(per_class=6))
    (root / name).unlink()
    with pytest.raises(UserError, match=re.escape(name)):
        write_report(root)
    assert not {"report.html", "summary.html", "figures"} & {path.name for path in root.iterdir()}


def test_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = build(tmp_path / "run", Case(gan=False))
    text = (root / "predictions.csv").read_text(encoding="utf-8")
    (root / "predictions.csv").write_text(text.replace("score_cyst", "score_cist"), encoding="utf-8")
    with pytest.raises(UserError, match=r"predictions\.csv: has no column score_cyst"):
        write_report(root)
