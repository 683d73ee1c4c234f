"""The stage `quality` on tiny data: fresh images, planted collapse, planted copies; its table in the report."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.config.experiment import ClassifierConfig
from pipeline.config.loading import validate_experiment
from pipeline.config.quality import QualityConfig
from pipeline.core.errors import ConfigError
from pipeline.core.metrics import COLUMNS
from pipeline.core.records import Record
from pipeline.data.batches.dataset import open_dataset
from pipeline.quality.describe import Described, with_nearest
from pipeline.quality.distances import BOUNDS, Rules, compare, figures
from pipeline.quality.measure import NOT_NOISE, run
from pipeline.quality.settings import QualityStageConfig, quality_config
from pipeline.quality.tables import groups
from pipeline.quality.told_apart import makers, told_apart_row
from pipeline.report.quality_plots import curves_plot
from pipeline.report.quality_tables import FIGURES, quality_classes_table, quality_gans_table, quality_table
from pipeline.report.reading import Run

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
RULES = Rules(
    grey=255, neighbours=3, max_images=1000, draws=5, alpha=0.05, seed=0, device="cpu"
)  # fmt: skip


def noise(seed: int, num: int, shape: tuple[int, ...] = (12, 12)) -> np.ndarray:
    """Images as the real ones of `noise_inputs`, the classes in turn."""
    label = (np.arange(num) % 2).reshape(-1, *[1] * (len(shape) + 1))
    return (np.random.default_rng(seed).integers(0, 120, (num, 1, *shape)) + 100 * label).astype(np.uint8)


def stage_config(weights: Path | None = None, **settings: Any) -> QualityStageConfig:
    quality = QualityConfig(classifier_steps=30, pairs=60, draws=8, **settings)
    classifier = ClassifierConfig(batch_size=16, steps=30)
    return QualityStageConfig(
        quality=quality, classifier=classifier, classes=CLASSES, family="sngan", weights=str(weights or ""),
        weights_digest="feedfacecafe0000", fold=0, gan_seed=0, alpha=0.05, seed=0, classifier_seed=0, device="cpu",
        precision="float32",
    )  # fmt: skip


def pooling(path: Path) -> Path:
    """An extractor of the user's own: means of 3 x 3 pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        net = torch.nn.Sequential(torch.nn.AvgPool2d(3), torch.nn.Flatten())
        torch.jit.trace(net, torch.zeros(1, 1, 12, 12)).save(path)
    return path


def measured(
    inputs: Mapping[str, Path], root: Path, images: np.ndarray, config: QualityStageConfig
) -> tuple[Record, pd.DataFrame]:
    """The stage with `images`, the classes in turn, in the synthetic set's place."""
    synthetic, out = root / "synthetic", root / "quality"
    synthetic.mkdir(parents=True)
    out.mkdir()
    np.save(synthetic / "images.npy", images)
    ids = [f"s{number}" for number in range(len(images))]
    labels = [CLASSES[number % 2] for number in range(len(images))]
    pd.DataFrame({"image_id": ids, "label": labels, "patient_id": ""}).to_csv(synthetic / "manifest.csv", index=False)
    Record(kind="synthesise", extra={"scaling": open_dataset(inputs["prepare"]).scaling.as_json()}).save(synthetic)
    record = run(config, dict(inputs) | {"synthesise": synthetic}, out)
    return record, pd.read_csv(out / "metrics.csv", dtype=str, keep_default_na=False)


def values(table: pd.DataFrame, label: str = "all") -> dict[str, float]:
    own = table[(table["label"] == label) & (table["value"] != "")]
    return dict(zip(own["metric"], own["value"].astype(float), strict=True))


@pytest.fixture
def plan(tmp_path: Path) -> QualityStageConfig:
    path = pooling(tmp_path / "own.pt")
    return stage_config(path, extractor="own.pt")


def test_fresh_images_get_what_real_validation_images_get(
    noise_inputs: MakeInputs, plan: QualityStageConfig, tmp_path: Path
) -> None:
    record, table = measured(noise_inputs(num=160), tmp_path, noise(9, 100), plan)
    found = values(table)
    assert found["fid_matched"] == pytest.approx(found["fid_floor"], rel=0.3)
    assert 1 / 3 < found["radiomics_fid_matched"] / found["radiomics_fid_floor"] < 3  # 0.8 to 3.1 among fresh draws
    for name in ("precision", "recall", "density", "coverage"):
        assert found[f"{name}_matched"] == pytest.approx(found[f"{name}_floor"], abs=0.25)
    for name, other in (("nearest_real_distance", 0.15), ("inception_score", 0.15), ("spectrum_distance", 2)):
        assert found[name] == pytest.approx(found[f"{name}_floor"], rel=other)
    assert found["ms_ssim"] == pytest.approx(found["ms_ssim_floor"], abs=0.05)
    kid = table[(table["metric"] == "kid") & table["label"].isin(CLASSES)]
    value, low, high = (kid[name].astype(float) for name in ("value", "ci_low", "ci_high"))
    assert (value.abs() < high - low).all(), "within twice the half width"
    assert record.figures["synthetic_images"] == 100 and record.figures["val_images"] == 40


def test_a_collapse_is_seen_by_every_figure_that_can_see_it(
    noise_inputs: MakeInputs, plan: QualityStageConfig, tmp_path: Path
) -> None:
    """One fresh image a class, and all others nearly it: each is a good image, so the Inception score is high."""
    one = noise(9, 2).astype(int)
    flicker = np.random.default_rng(0).integers(0, 4, (100, 1, 12, 12))
    _, table = measured(noise_inputs(num=160), tmp_path, (one[np.arange(100) % 2] + flicker).astype(np.uint8), plan)
    for label in ("all", *CLASSES):
        found = values(table, label)
        assert found["coverage"] < 0.3 < 0.7 < found["coverage_floor"]
        assert found["recall"] < 0.1 < 0.5 < found["recall_floor"]
        assert found["ms_ssim"] > 0.9 > 0.4 > found["ms_ssim_floor"]
        assert found["fid_matched"] > 1.5 * found["fid_floor"]
        assert found["kid"] > found["kid_floor"]
        assert found["radiomics_fid_matched"] > 2 * found["radiomics_fid_floor"]
        assert found["spectrum_distance_matched"] > 2 * found["spectrum_distance_floor"]
    assert all(values(table, name)["kid"] > 3 * abs(values(table, name)["kid_floor"]) for name in CLASSES)
    assert values(table)["inception_score"] > 0.9 * values(table)["inception_score_floor"] > 1.2


def test_copies_of_training_images_look_perfect_but_for_their_distance(
    noise_inputs: MakeInputs, plan: QualityStageConfig, tmp_path: Path
) -> None:
    inputs = noise_inputs(num=160)
    _, table = measured(inputs, tmp_path, np.array(open_dataset(inputs["prepare"]).images[:80]), plan)
    found = values(table)
    assert found["fid"] < 1e-3 and found["precision"] == found["coverage"] == 1
    assert found["fid_matched"] < found["fid_floor"]
    assert found["histogram_w1"] == found["histogram_js"] == found["spectrum_distance"] == 0
    assert found["nearest_real_distance"] < 1e-6 < 0.01 < found["nearest_real_distance_floor"]
    assert not set(table["metric"]) & {"near_copies", "near_copies_floor"}, "the privacy stage alone judges copies"


def test_the_table_is_in_the_long_form_and_says_what_it_is_made_from(
    noise_inputs: MakeInputs, plan: QualityStageConfig, tmp_path: Path
) -> None:
    _, table = measured(noise_inputs(num=80), tmp_path, noise(9, 60), plan)
    assert tuple(table.columns) == COLUMNS
    guard, table = table[table["stage"] == "guard"], table[table["stage"] == "quality"]
    assert guard["metric"].tolist() == ["synthetic_from_image"] and float(guard["value"].iloc[0]) < 0.7
    assert set(table["arm"]) == set(table["n_patients"]) == {""}
    assert not table.duplicated(["label", "metric"]).any()
    own = table.set_index(["label", "metric"])
    assert own.at[("all", "fid"), "detail"] == "own weights feedfacecafe; 40:60 real:synthetic"
    assert own.at[("disease", "fid_floor"), "detail"] == "own weights feedfacecafe; 20:10 real train:real val"
    assert own.at[("all", "histogram_w1"), "detail"] == "grey values; 40:60 real:synthetic"
    assert own.at[("all", "fid_matched"), "n_images"] == "20"
    for label in ("all", *CLASSES):
        of_label = set(table.loc[table["label"] == label, "metric"])
        wanted = {*BOUNDS, "kid", "ms_ssim"} - ({"inception_score"} if label != "all" else set())
        assert {*wanted, *(f"{name}_floor" for name in wanted)} <= of_label
    whole = table[table["label"] == "all"]
    shares = whole["metric"].str.contains("precision|recall|coverage")  # these may be 1 in every part
    assert (whole.loc[~whole["metric"].str.endswith("_matched") & ~shares, "ci_low"] != "").all()


def test_test_images_are_not_touched(noise_inputs: MakeInputs, plan: QualityStageConfig, tmp_path: Path) -> None:
    inputs = noise_inputs(num=48)
    _, before = measured(inputs, tmp_path / "before", noise(9, 40), plan)
    images = np.load(inputs["prepare"] / "images.npy")
    images[36:] = 255
    np.save(inputs["prepare"] / "images.npy", images)
    _, after = measured(inputs, tmp_path / "after", noise(9, 40), plan)
    pd.testing.assert_frame_equal(before, after)


@pytest.mark.parametrize("extractor", ["classifier", "effnet-lite0"])
def test_volumes_and_sets_too_small_for_intervals(noise_inputs: MakeInputs, tmp_path: Path, extractor: str) -> None:
    inputs = noise_inputs((8, 8, 8), num=16)  # 4 training and 2 validation images a class
    _, table = measured(inputs, tmp_path, noise(9, 12, (8, 8, 8)), stage_config(extractor=extractor))
    own = table.set_index(["label", "metric"])
    names = {"classifier": "the run's classifier", "effnet-lite0": "efficientnet-lite0@128, mean of 3 middle planes"}
    assert own.at[("all", "fid"), "detail"] == f"{names[extractor]}; 8:12 real:synthetic"
    assert float(own.at[("all", "fid"), "ci_high"]) >= float(own.at[("all", "fid"), "value"]) > 0
    small = own.loc[("disease", "coverage_floor")]
    assert small["value"] == "" and small["detail"].endswith("4:2 real train:real val; too few images")


def test_a_translator_has_no_figures_of_noise_samples(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    config = stage_config().model_copy(update={"family": "cyclegan"})
    record, table = measured(noise_inputs(num=16), tmp_path, noise(9, 8), config)
    assert record.figures == {"fid": NOT_NOISE}
    assert table.loc[table["stage"] == "quality", ["metric", "value"]].to_numpy().tolist() == [["fid", ""]]
    assert table["detail"][0].startswith(NOT_NOISE) and NOT_NOISE in record.notes[0]


def described(label: list[str], seed: int = 0) -> Described:
    random = np.random.default_rng(seed)
    num = len(label)
    shares = np.full((num, 2), 0.5)
    return Described(
        np.array(label), random.random((num, 4)), random.random((num, 3)), shares, shares, shares, random.random(num)
    )


def test_synthetic_images_are_told_from_real_ones_of_their_class_by_unseen_patients(noise_inputs: MakeInputs) -> None:
    """A shift of the features that synthetic images alone have is found; the class, which both have, is not. And an
    image that shows its patient, with a translation that shows the patient too, is not told by way of the patient."""
    dataset = open_dataset(noise_inputs(num=80)["prepare"])
    made = dataset.manifest.assign(image_id="made-" + dataset.manifest["image_id"], patient_id="")
    random, rows = np.random.default_rng(0), np.arange(80)
    classed = np.repeat(np.eye(2), 40, axis=0)[np.argsort(np.r_[0:80:2, 1:80:2], kind="stable")] * 5
    marked = random.normal(size=(80, 6)) + np.array([3, 0, 0, 0, 0, 0])

    def told(features: np.ndarray, manifest: pd.DataFrame = made) -> tuple[float, float]:
        both = (np.hstack([random.normal(size=(80, 6)), classed]), np.hstack([features, classed]))
        synthetic = replace(dataset, manifest=manifest)
        row = told_apart_row((dataset, rows), synthetic, "", both, seed=0, alpha=0.05, device="cpu")
        return float(row.value), float(row.detail.rpartition("= ")[2])

    assert told(marked) == (pytest.approx(0.983, abs=0.02), 0.002)  # the normal distribution at 3 / sqrt(2)
    assert 0.2 < np.mean([told(random.normal(size=(80, 6)))[1] for _ in range(12)]) < 0.8
    sources = made.assign(source_image=dataset.manifest["image_id"])
    assert told(marked, sources)[0] == pytest.approx(0.983, abs=0.02)
    units = makers(sources, dataset.manifest)
    assert list(units) == [f"patient p{number}" for number in range(80)]
    assert makers(made, dataset.manifest)[0] == "synthetic made-image-0"


def test_all_classes_together_are_drawn_in_the_training_images_proportion() -> None:
    sets = {
        "train": described(["normal"] * 30 + ["disease"] * 10),
        "val": described(["normal"] * 3 + ["disease"]),
        "synthetic": described(["normal"] * 24 + ["disease"] * 24),
    }
    by_label = dict(groups(sets, CLASSES))
    assert pd.Series(by_label["all"]["synthetic"].label).value_counts().to_dict() == {"normal": 24, "disease": 8}
    assert set(by_label["disease"]["synthetic"].label) == {"disease"}
    assert len(by_label["all"]["train"]) == 40 and len(by_label["disease"]["val"]) == 1


def test_figures_lie_in_their_intervals_and_empty_sets_have_none() -> None:
    real, other = described(["normal"] * 30), described(["normal"] * 20, seed=1)
    found = figures(real, other, RULES)
    assert set(found) == {*BOUNDS, "kid"}
    for name, figure in found.items():
        assert figure.low <= figure.value <= figure.high or np.isnan(figure.low), name
    have = {name for name, figure in found.items() if np.isfinite(figure.low)}
    assert {"fid", "kid", "radiomics_fid", "density", "nearest_real_distance"} <= have
    assert "histogram_w1" not in have, "all images are alike in it, so no part differs"
    assert np.isnan(list(compare(real, described([]), RULES).values())).all()


def test_of_many_images_some_are_drawn_for_the_search_of_the_nearest() -> None:
    train, many = described(["normal"] * 12), described(["normal"] * 50, seed=1)
    whole, part = (with_nearest(many, train, most, 3, "cpu") for most in (50, 20))
    sought = np.isfinite(part.nearest)
    assert np.isfinite(whole.nearest).all() and sought.sum() == 20
    np.testing.assert_array_equal(part.nearest[sought], whole.nearest[sought])
    assert figures(train, part, RULES)["nearest_real_distance"].value == np.median(part.nearest[sought])


def test_a_wrong_extractor_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"source": {"kind": "phantom"}, "classes": ["cyst", "metastasis"], "positive": ["metastasis"]}
    values = {"name": "tiny", "data": data, "compute": {"device": "cpu"}}
    with pytest.raises(ConfigError, match=r"quality\.extractor: must be effnet-lite0 or classifier"):
        validate_experiment(values | {"quality": {"extractor": "inception"}}, "here")
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path))
    experiment = validate_experiment(values | {"quality": {"extractor": "own.pt"}}, "here")
    with pytest.raises(ConfigError, match=r"own\.pt is not there"):
        quality_config(experiment, 0, 0)
    pooling(tmp_path / "own.pt")
    first = quality_config(experiment, 0, 0).weights_digest
    torch.manual_seed(1)
    (tmp_path / "own.pt").write_bytes(b"other weights")
    assert quality_config(experiment, 0, 0).weights_digest != first, "other weights make the stage stale"


# The report


def report_run(table: pd.DataFrame) -> Run:
    """A run of these metrics; the first generator is not the one to be released."""
    numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in ("value", "ci_low", "ci_high")}
    first = table.assign(**numbers)
    metrics = pd.concat([first.assign(value=first["value"] + 1), first.assign(gan_seed="1")], ignore_index=True)
    release, data = SimpleNamespace(fold=0, gan_seed=1), SimpleNamespace(classes=CLASSES)
    return cast("Run", SimpleNamespace(metrics=metrics, experiment=SimpleNamespace(release=release, data=data)))


def test_the_report_shows_each_figure_beside_its_floor(
    noise_inputs: MakeInputs, plan: QualityStageConfig, tmp_path: Path
) -> None:
    _, table = measured(noise_inputs(num=80), tmp_path, noise(9, 60), plan)
    shown = report_run(table)
    whole, classes, gans = quality_table(shown), quality_classes_table(shown), quality_gans_table(shown)
    assert whole and classes and gans
    assert "fold 0, GAN seed 1" in whole.caption
    assert [row[0].split("\n")[0] for row in whole.rows] == [title for title, _ in FIGURES.values()]
    found = values(table)
    precision = next(row for row in whole.rows if row[0].startswith("Precision"))
    assert float(precision[1].split("\n")[0]) == pytest.approx(found["precision"], abs=0.0005)
    assert float(precision[2]) == pytest.approx(found["precision_matched"], abs=0.0005)
    assert float(precision[3].split("\n")[0]) == pytest.approx(found["precision_floor"], abs=0.0005)
    assert precision[4:] == ("40 : 60", "own weights feedfacecafe")
    assert {row[0] for row in classes.rows} == set(CLASSES)
    assert [row[0] for row in gans.rows] == ["fold 0, GAN seed 0", "fold 0, GAN seed 1"]
    empty = report_run(table[:0])
    assert quality_table(empty) is quality_classes_table(empty) is quality_gans_table(empty) is None


def test_the_curves_are_a_picture(noise_inputs: MakeInputs, plan: QualityStageConfig, tmp_path: Path) -> None:
    measured(noise_inputs(num=16), tmp_path, noise(9, 8), plan)
    curves = pd.read_csv(tmp_path / "quality" / "curves.csv")
    shares = curves[curves["curve"] == "histogram"].groupby("set")["y"].sum()
    assert shares.to_dict() == pytest.approx({"train": 1, "val": 1, "synthetic": 1}, abs=1e-4)
    assert curves.loc[curves["curve"] == "spectrum", "x"].max() == 0.5
    wide, phone = (Image.open(io.BytesIO(png)).size for png in curves_plot(curves, "HU"))
    assert wide[0] > 1000 > phone[0] and wide[1] < phone[1], "two panels beside, and below one another"
