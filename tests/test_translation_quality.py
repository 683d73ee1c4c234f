"""Figures of translations: a right one, one that changes nothing, and one that changes the class are told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config.experiment import ClassifierConfig
from pipeline.config.quality import QualityConfig
from pipeline.core.guard import TRANSLATION, TRANSLATIONS_PICTURE
from pipeline.core.records import Record
from pipeline.data.batches.dataset import open_dataset
from pipeline.data.cohort.folds import split_ids
from pipeline.quality.measure import run
from pipeline.quality.settings import QualityStageConfig
from pipeline.quality.translations import halves
from pipeline.report.quality_tables import translation_table
from pipeline.report.reading import Run

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
CONFIG = QualityStageConfig(
    quality=QualityConfig(), classifier=ClassifierConfig(batch_size=16, steps=40), classes=CLASSES, family="cyclegan",
    weights="", weights_digest="", fold=0, gan_seed=0, alpha=0.05, seed=0, classifier_seed=0, device="cpu",
    precision="float32", site="hospital",
)  # fmt: skip


@pytest.fixture
def inputs(noise_inputs: MakeInputs) -> dict[str, Path]:
    """30 training images of noise; the diseased are brighter, and those of hospital B have stripes."""
    found = noise_inputs((16, 16), num=60)
    images = np.load(found["prepare"] / "images.npy")
    np.save(found["prepare"] / "images.npy", striped(images, np.arange(60) % 3 != 0))
    return found


def striped(images: np.ndarray, which: np.ndarray) -> np.ndarray:
    images = images.copy()
    images[which, :, ::4] = 255
    return images


def measured(inputs: dict[str, Path], out: Path, *, moves_site: bool, moves_class: bool) -> tuple[Record, pd.DataFrame]:
    """Every training image "translated": fresh noise of the wanted class and site."""
    real = open_dataset(inputs["prepare"]).manifest
    real = real[real["image_id"].isin(split_ids(inputs["split"], 0, "train"))]
    target = np.where(real["hospital"] == "A", "B", "A")
    disease, shown = (real["label"] == "disease").to_numpy(), target if moves_site else real["hospital"].to_numpy()
    noise = np.random.default_rng(5).integers(0, 120, (len(real), 1, 16, 16))
    bright = 100 * (disease ^ moves_class).reshape(-1, 1, 1, 1)
    synthetic, stage = out / "synthetic", out / "quality"
    synthetic.mkdir(parents=True)
    stage.mkdir()
    np.save(synthetic / "images.npy", striped((noise + bright).astype(np.uint8), shown == "B"))
    table = pd.DataFrame({
        "image_id": [f"s{number}" for number in range(len(real))], "label": real["label"].to_numpy(), "site": target,
        "source_image": real["image_id"].to_numpy(), "patient_id": "", "cycle_error": "0.25",
    })  # fmt: skip
    table.to_csv(synthetic / "manifest.csv", index=False)
    Record(kind="synthesise", extra={"scaling": open_dataset(inputs["prepare"]).scaling.as_json()}).save(synthetic)
    record = run(CONFIG, inputs | {"synthesise": synthetic}, stage)
    return record, pd.read_csv(stage / "metrics.csv", dtype=str, keep_default_na=False)


def mean(table: pd.DataFrame, metric: str) -> float:
    values = table.loc[(table["stage"] == TRANSLATION) & (table["metric"] == metric), "value"].astype(float)
    assert len(values) == 4  # two classes to two sites
    return float(values.mean())


def test_a_right_translation_keeps_the_class_and_moves_the_site(inputs: dict[str, Path], tmp_path: Path) -> None:
    record, table = measured(inputs, tmp_path, moves_site=True, moves_class=False)
    assert mean(table, "label_flips") < 0.1 and mean(table, "wrong_calls") < 0.1
    assert mean(table, "called_target") > 0.9 > 0.1 > mean(table, "called_target_source")
    assert mean(table, "called_target_real") > 0.9 and mean(table, "wrong_calls_real") < 0.1
    assert mean(table, "kid_target") < 0.2 * mean(table, "kid_target_source")
    assert mean(table, "cycle_error") == pytest.approx(0.25)
    assert set(table.loc[table["stage"] == "quality", "metric"]) == {"fid"}
    assert record.extra["translations"] == ["disease to A", "normal to A", "disease to B", "normal to B"]
    numbers = table.assign(**{key: pd.to_numeric(table[key]) for key in ("value", "ci_low", "ci_high")})
    release = SimpleNamespace(release=SimpleNamespace(fold=0, gan_seed=0))
    shown = translation_table(cast(Run, SimpleNamespace(metrics=numbers, experiment=release)))
    assert shown is not None and [line[0] for line in shown.rows] == record.extra["translations"]
    assert "(sources: 0.000)" in shown.rows[0][2]
    with Image.open(tmp_path / "quality" / TRANSLATIONS_PICTURE) as picture:
        assert picture.height > 8 * 16 and picture.width > 10 * 16  # four pairs of rows of ten


def test_one_that_flips_the_class_and_leaves_the_site_is_seen(inputs: dict[str, Path], tmp_path: Path) -> None:
    _, table = measured(inputs, tmp_path, moves_site=False, moves_class=True)
    assert mean(table, "label_flips") > 0.9 and mean(table, "wrong_calls_source") < 0.1
    assert mean(table, "called_target") < 0.1


def test_both_halves_have_every_cell_and_no_patient_twice(inputs: dict[str, Path]) -> None:
    dataset = open_dataset(inputs["prepare"])
    rows = dataset.rows(split_ids(inputs["split"], 0, "train"))
    dataset.manifest["patient_id"] = [f"p{number // 2}" for number in range(len(dataset.manifest))]
    side = halves(dataset, rows, "hospital", seed=0)
    known = dataset.manifest.iloc[rows].assign(side=side)
    assert (known.groupby("patient_id")["side"].nunique() == 1).all()
    assert 0.4 < side.mean() < 0.6
