"""The report, on run directories built here by hand."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.records import Record
from pipeline.report.page import write_report
from pipeline.report.sharing import WITHHELD

ARMS = ("real", "real+classical", "real+classical+synthetic@1", "synthetic+classical")
METRICS = "stage,arm,fold,seed,gan_seed,split,label,subgroup,metric,value,ci_low,ci_high,n_patients,n_images,detail"
EVIDENCE = {
    "endpoint": "auroc", "arm": ARMS[2], "reference": ARMS[1], "difference": 0.0312, "ci_low": 0.0041,
    "ci_high": 0.0587, "margin": 0.02, "alpha": 0.05, "n_patients": 24, "n_images": 36, "n_folds": 1,
    "n_gan_seeds": 1, "n_classifier_seeds": 2,
}  # fmt: skip
SCALING = {"scaling": {"scale": 1.0, "offset": 0.0, "unit": "HU", "window": [-20.0, 180.0], "dtype": "int16"}}
CONFOUNDER = "maker and class are entangled"


@dataclass(frozen=True)
class Case:
    """What kind of run to fake."""

    classes: tuple[str, ...] = ("cyst", "metastasis", "haemangioma")
    positive: tuple[str, ...] = ("metastasis",)
    spatial_dims: int = 2
    folds: int = 1
    gan_seeds: int = 1
    patients: bool = True
    gan: bool = True
    anomaly: bool = True
    decision: str = "helps"
    per_class: int = 24
    release: tuple[int, int] = (0, 0)


def table(path: Path, columns: str, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([columns.split(","), *rows])


def stage(root: Path, name: str, **fields: Any) -> Path:
    folder = root / "stages" / name
    folder.mkdir(parents=True)
    made = {"versions": {"torch": "2.13.0"}, "wall_s": 12.5, "finished": "2025-03-04T05:06:07+00:00"}
    Record(stage=name, **(made | fields)).save(folder)
    return folder


def data_set(folder: Path, case: Case, rows: list[list[str]], seed: int) -> None:
    shape = (len(rows), 1, *(32,) * case.spatial_dims)
    table(folder / "manifest.csv", "image_id,label,patient_id", rows)
    np.save(folder / "images.npy", np.random.default_rng(seed).normal(80, 40, shape).astype(np.int16))


def noise_png(path: Path, size: tuple[int, int], seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, size[::-1], dtype=np.uint8)).save(path)


def build(root: Path, case: Case) -> Path:
    root.mkdir(parents=True)
    data = {
        "source": {"kind": "csv", "path": "secret-ward/labels.csv"}, "spatial_dims": case.spatial_dims,
        "classes": list(case.classes), "positive": list(case.positive),
        "split": {"kind": "kfold", "folds": case.folds} if case.folds > 1 else {"kind": "holdout"},
    }  # fmt: skip
    release = {"fold": case.release[0], "gan_seed": case.release[1]}
    config = {"name": "fake-study", "seed": 3, "data": data, "gan": {"gan_seeds": case.gan_seeds}, "release": release}
    (root / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    images = [
        [f"IMG{number:04d}", case.classes[number % len(case.classes)], f"PAT{number // 2:03d}" if case.patients else ""]
        for number in range(case.per_class * len(case.classes))
    ]
    gans = [(fold, seed) for fold in range(case.folds) for seed in range(case.gan_seeds)] if case.gan else []
    write_data_stages(root, case, images)
    for fold, seed in gans:
        write_gan_stages(root, case, fold, seed, images)
    write_results(root, case, images, gans)
    return root


def write_data_stages(root: Path, case: Case, images: list[list[str]]) -> None:
    rejected = [["IMG9999", "ward/IMG9999.dcm", "pixel data are cut short"]]
    table(stage(root, "ingest") / "rejected.csv", "image_id,path,reason", rejected)
    split = stage(root, "split", notes=("Only 24 test patients: intervals are wide.",))
    parts = ["train", "train", "train", "val", "test", "test"]
    numbers = product(range(case.folds), range(len(images)))
    rows = [[fold, images[number][0], parts[(number // 6 + fold * 2) % 6]] for fold, number in numbers]
    table(split / "splits.csv", "fold,image_id,split", rows)
    near = ["near_duplicates", "warning", 2, "IMG0003 looks like IMG0004"]
    audit = [["duplicates", "info", 0, "none"], near, ["confounder manufacturer", "warning", 1, CONFOUNDER]]
    table(split / "audit.csv", "check,severity,count,detail", audit)
    manifest = [[*row, f"ward/{row[0]}.dcm", "used"] for row in images]
    table(root / "manifest.csv", "image_id,label,patient_id,path,fate", manifest)
    data_set(stage(root, "prepare", extra=SCALING), case, images, seed=1)


def write_gan_stages(root: Path, case: Case, fold: int, seed: int, images: list[list[str]]) -> None:
    name = f"fold-{fold}-gan-{seed}"
    gan = stage(root, f"fit-gan-{name}")
    rng = np.random.default_rng(10 * fold + seed)
    keys = ("num_images", "images_per_s", "discriminator_loss", "generator_loss", "real_logits", "fake_logits")
    values = [(step * 250, *rng.normal([900, 1, 1, 0.5, -0.5], 0.1)) for step in range(1, 400)]
    lines = [json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in values]
    (gan / "stats.jsonl").write_text("".join(lines), encoding="utf-8")
    noise_png(gan / "film_strip.png", (700, 200), seed)
    made = [[f"SYN{number:04d}", label, ""] for label in case.classes for number in range(8)]
    data_set(stage(root, f"synthesise-{name}", extra=SCALING), case, made, seed=50 + seed)
    rates = {"nearer_to_training_rate": 0.62, "rate_low": 0.55, "rate_high": 0.7, "control_rate": 0.48}
    privacy = stage(root, f"privacy-{name}", figures=rates | {"baseline_rate": 0.5})
    pairs = [[row[0], images[0][0], *rng.uniform(0.5, 2, 2)] for row in made]
    columns = "image_id,nearest_train_id,nearest_train_distance,nearest_heldout_distance"
    table(privacy / "memorisation.csv", columns, pairs)
    noise_png(privacy / "closest_pairs.png", (300, 200), seed)
    if case.anomaly:
        anomaly = stage(root, f"anomaly-{name}", notes=("Scores by reconstruction.",))
        scores = [["test", row[0], row[1], rng.normal(row[1] in case.positive, 1)] for row in images]
        table(anomaly / "anomaly.csv", "split,image_id,label,anomaly_score", scores)


def write_results(root: Path, case: Case, images: list[list[str]], gans: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    disease = case.positive[0]
    labels = [disease] if len(case.classes) == 2 else [*case.classes, "macro"]
    metrics: list[list[Any]] = []
    predictions: list[list[Any]] = []
    for arm in ARMS:
        gan_seed = "0" if "synthetic" in arm else ""
        for metric, label in product(("auroc", "sensitivity", "specificity", "balanced_accuracy"), labels):
            value = rng.uniform(0.7, 0.9)
            row = [value, value - 0.07654, value + 0.06789, 24.0, 36.0, "bootstrap"]
            metrics.append(["downstream", arm, "", "", "", "test", label, "", metric, *row])
            row = [value + 0.01, "", "", 24, 36, ""]
            metrics.append(["downstream", arm, "0", "0", gan_seed, "test", label, "", metric, *row])
        for fold, seed, (image_id, label, patient) in product(range(case.folds), range(2), images[::2]):
            logits = rng.normal(0, 1, len(case.classes)) + 1.5 * (np.array(case.classes) == label)
            scores = np.exp(logits) / np.exp(logits).sum()
            predictions.append([arm, fold, seed, gan_seed, "test", image_id, patient, label, *scores])
    for seed, value in enumerate((0.9, 0.8)):
        metrics.append(["downstream", "real", 0, seed, 0, "synthetic", disease, "", "auroc", value, "", "", "", 24, ""])
    if case.anomaly:
        row = [0.61234, 0.5, 0.72, 24, 36, "reconstruction"]
        metrics += [["anomaly", "", fold, "", seed, "test", disease, "", "auroc", *row] for fold, seed in gans]
    table(root / "metrics.csv", METRICS, metrics)
    columns = "arm,fold,seed,gan_seed,split,image_id,patient_id,label,"
    table(root / "predictions.csv", columns + ",".join(f"score_{name}" for name in case.classes), predictions)
    utility = {"decision": case.decision, "reasons": ["decided by the interval"], "evidence": EVIDENCE}
    release = {"decision": "not_audited", "reasons": ["no attack was run"], "evidence": {"memorisation": {}}}
    (root / "verdict.json").write_text(json.dumps({"utility": utility, "release": release}), encoding="utf-8")
    looks = [["2025-03-04", "fake-study", "downstream", "0", "test images", "36"]]
    table(root / "ledger.csv", "when,run,stage,fold,what,count", looks)


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
def shareable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build(tmp_path_factory.mktemp("shareable") / "run", Case(gan_seeds=2, per_class=12))
    write_report(root, shareable=True)
    return root


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
    assert len(page.of("img")) == 10
    assert len(page.of("caption")) == len(page.of("table")) >= 10
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_first_words_are_confidentiality_and_research_only(plain: Path) -> None:
    body = Page(plain / "report.html").text.split("radaug report: fake-study", 1)[1]
    assert body.strip().startswith(
        "Confidential: this report shows real patients; it is as confidential as its source."
    )
    assert body.index("Research only, not for diagnosis.") < body.index("Does GAN augmentation help this classifier")


def test_verdict_is_told_with_its_numbers(plain: Path) -> None:
    page = Page(plain / "report.html")
    assert "GAN augmentation helps" in page.text
    assert "was 3.1 points higher than that with real+classical" in page.text
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
            row for row in csv.DictReader(handle) if not row["fold"] and not row["seed"] and row["split"] == "test"
        ]
    assert len(means) == 4 * 4 * 4
    for row in means:
        value, low, high = (float(row[name]) for name in ("value", "ci_low", "ci_high"))
        assert f"{value:.3f} ({low:.3f} to {high:.3f})" in text
    assert "real metastasis AUROC 0.850 0.800 to 0.900 2" in text, "the reverse check"
    assert "0.612 (0.500 to 0.720)" in text, "the anomaly score"
    assert "62 % (range 55 % to 70 %) of the synthetic images lie nearer to a training image" in text
    assert "without memory it would be 50 %, and for real validation images it is 48 %" in text
    assert "This is a sign that the generator remembers its patients." in text


def test_warnings_come_with_confounders_first_and_rejected_images_are_counted(plain: Path) -> None:
    text = Page(plain / "report.html").text
    warnings = text.index("Read this before believing the numbers")
    assert warnings < text.index(CONFOUNDER) < text.index("IMG0003 looks like IMG0004") < text.index("What became of")
    assert "Only 24 test patients: intervals are wide." in text
    assert "pixel data are cut short 1" in text
    assert "rejected at reading 1" in text


def test_data_table_counts_images_and_patients(plain: Path) -> None:
    splits = pd.read_csv(plain / "stages/split/splits.csv").merge(pd.read_csv(plain / "manifest.csv"), on="image_id")
    cells = []
    for label in ("cyst", "metastasis"):
        own = [splits[(splits["label"] == label) & (splits["split"] == split)] for split in ("train", "val", "test")]
        cells.append(label + " " + " ".join(f"{len(rows)} ({rows['patient_id'].nunique()})" for rows in own))
    text = Page(plain / "report.html").text
    assert all(cell in text for cell in cells), cells


def test_pictures_are_on_disk_as_in_the_page_and_old_ones_go(tmp_path: Path) -> None:
    root = build(tmp_path / "run", Case(gan=False))
    (root / "figures").mkdir()
    (root / "figures" / "old.png").write_bytes(b"old")
    page = Page(write_report(root))
    on_disk = {base64.b64encode(path.read_bytes()).decode() for path in (root / "figures").iterdir()}
    in_page = {(image["src"] or "").partition(",")[2] for image in page.of("img")}
    assert on_disk == in_page
    assert {path.name for path in (root / "figures").iterdir()} == {
        "difference.png",
        "arms.png",
        "roc.png",
        "reliability.png",
    }
    assert "This run trained no GAN." in page.text
    assert "This run did not look for copies." in page.text


def test_two_reports_of_one_run_are_byte_equal(plain: Path) -> None:
    first = (plain / "report.html").read_bytes()
    assert write_report(plain).read_bytes() == first


def test_shareable_has_no_id_no_path_no_image_and_leaves_no_picture(shareable: Path) -> None:
    page = Page(shareable / "report-shareable.html")
    assert_self_contained(page)
    assert page.text.split("fake-study", 1)[1].strip().startswith("This report has no image of a patient")
    assert not re.search(r"IMG\d|PAT\d|SYN\d|ward", page.without_pictures)
    assert WITHHELD in page.text, "the audit row with image ids"
    assert CONFOUNDER in page.text, "the audit row without"
    assert not {"report.html", "figures"} & {path.name for path in shareable.iterdir()}
    sizes = {Image.open(io.BytesIO(base64.b64decode((image["src"] or "")[22:]))).size for image in page.of("img")}
    assert not sizes & {(700, 200), (300, 200)}, "the stages' pictures"
    plots = {(image["alt"] or "").split()[0] for image in page.of("img")}
    assert plots == {"Difference", "Forest", "ROC", "Reliability", "Training", "Histograms", "Distances"}


def test_samples_show_training_images_left_and_synthetic_ones_right(tmp_path: Path) -> None:
    root = build(tmp_path / "run", Case(anomaly=False))
    splits = pd.read_csv(root / "stages/split/splits.csv").set_index("image_id")["split"]
    manifest = pd.read_csv(root / "stages/prepare/manifest.csv")
    is_train = (manifest["image_id"].map(splits) == "train").to_numpy()
    real = np.where(is_train, 20, 130)[:, None, None, None] * np.ones((1, 1, 32, 32))
    np.save(root / "stages/prepare/images.npy", real.astype(np.int16))
    np.save(root / "stages/synthesise-fold-0-gan-0/images.npy", np.full((24, 1, 32, 32), 80, dtype=np.int16))
    write_report(root)
    with Image.open(root / "figures" / "samples.png") as picture:
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


def test_text_of_users_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> $x^$"
    root = build(tmp_path / "run", Case(("normal", evil), (evil,), gan=False, decision="harms"))
    page = Page(write_report(root))
    assert_self_contained(page)
    assert html.escape(evil) in page.source
    assert evil in page.text


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
    assert not {"report.html", "figures"} & {path.name for path in root.iterdir()}


def test_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = build(tmp_path / "run", Case(gan=False))
    text = (root / "predictions.csv").read_text(encoding="utf-8")
    (root / "predictions.csv").write_text(text.replace("score_cyst", "score_cist"), encoding="utf-8")
    with pytest.raises(UserError, match=r"predictions\.csv: has no column score_cyst"):
        write_report(root)
