"""The probe hears a planted scanner, is deaf to chance, and never takes the disease for the scanner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from pipeline.config.loading import load_experiment, validate_experiment
from pipeline.core.errors import DataError
from pipeline.core.metrics import MetricRow
from pipeline.core.records import Record
from pipeline.data import ingest, prepare
from pipeline.data.batches.dataset import DataSet, open_dataset, read_table, write_table
from pipeline.data.cohort import split
from pipeline.measures.readable import readable
from pipeline.verdict.decide import VerdictPlan
from pipeline.verdict.probe import probe_rows, probe_warnings

ROOT = Path(__file__).resolve().parents[1]
PLAN = VerdictPlan(positive=("contrast",), bootstrap=300)
NO_PREDICTIONS = pd.DataFrame(columns=["arm", "fold", "seed", "gan_seed", "split", "image_id", "patient_id", "label"])


def cohort(seed: int, shown: float, patients: int = 60, size: int = 20) -> tuple[np.ndarray, ...]:
    """Features of two images a patient, a property of each patient that moves some of them, and a class that does too.

    Half of the patients of a class have the property.
    """
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(patients), 2)
    label, value = number % 2, number // 2 % 2 == 1
    features = random.normal(size=(patients, size))[number] + 0.5 * random.normal(size=(len(number), size))
    features[:, :3] += shown * value[:, None]
    features[:, 3:6] += 2 * label[:, None]
    return features, value[:, None], label.astype(np.int64), np.array([f"p{one}" for one in number])


def test_a_property_that_images_show_is_found_and_one_that_they_do_not_is_not() -> None:
    seen = readable(*cohort(0, shown=2.0), seed=0, shufflings=199)
    assert seen is not None and seen.auroc.low is not None
    assert seen.p_value == pytest.approx(1 / 200) and seen.auroc.low > 0.8
    p_values = []
    for seed in range(40):
        hidden = readable(*cohort(seed, shown=0.0), seed=seed, shufflings=39)
        assert hidden is not None
        p_values.append(hidden.p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.15  # 5 % of 40 are 2; seven or more happen once in 300
    assert 0.35 < np.mean(p_values) < 0.65


def test_a_property_that_only_goes_with_the_class_is_not_found_by_way_of_the_disease() -> None:
    """The class is plain to see and nine in ten of one class have the property: still chance, within a class."""
    p_values = []
    for seed in range(20):
        features, _, label, patients = cohort(seed, shown=0.0)
        number = np.array([int(name[1:]) for name in patients])
        value = np.where(number // 2 % 10 == 0, label == 0, label == 1)
        assert np.corrcoef(value, label)[0, 1] > 0.75
        found = readable(features, value[:, None], label, patients, seed=seed, shufflings=39)
        assert found is not None
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.2


def test_it_is_ridge_regression_asked_about_unseen_patients() -> None:
    """With one image a patient and one class: the mean over folds and repeats is near scikit-learn's, made plainly."""
    features, value, _, _ = cohort(3, shown=0.7, patients=80)
    features, value = features[::2], value[::2]
    patients = np.array([f"p{one}" for one in range(80)])
    found = readable(features, value, np.zeros(80, np.int64), patients, seed=1, shufflings=19)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    random, shares = np.random.default_rng(9), []
    for _ in range(30):
        fold = random.permutation(80) % 5
        won = pairs = 0.0
        for held in range(5):
            model = Ridge(alpha=standard.shape[1]).fit(standard[fold != held], value[fold != held, 0].astype(float))
            score = model.predict(standard[fold == held])
            yes, no = score[value[fold == held, 0]], score[~value[fold == held, 0]]
            won += (yes[:, None] > no[None]).sum()
            pairs += len(yes) * len(no)
        shares.append(won / pairs)
    assert found is not None
    assert found.auroc.value == pytest.approx(np.mean(shares), abs=4 * np.std(shares) / 2)


def planted(root: Path, *, shown: bool, told: float, seed: int = 0) -> tuple[DataSet, pd.DataFrame]:
    """80 patients with one image each; maker B leaves a grid on its images (if `shown`), and goes with the disease."""
    random = np.random.default_rng(seed)
    label = np.arange(80) % 2
    maker = np.where(random.random(80) < told, label, random.integers(0, 2, 80))
    images = random.integers(60, 160, (80, 1, 32, 32))
    if shown:
        images[maker == 1, :, ::4] = 250
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "images.npy", images.astype(np.uint8))
    ids = [f"i{number}" for number in range(80)]
    table = pd.DataFrame({"image_id": ids, "label": np.array(["normal", "contrast"])[label], "patient_id": ids})
    table = table.assign(split=np.where(np.arange(80) < 40, "train", "test"), manufacturer=np.array(["A", "B"])[maker])
    write_table(root / "manifest.csv", table)
    scaling = {"scale": 1.0, "offset": 0.0, "unit": "none", "window": [0.0, 255.0], "dtype": "uint8"}
    Record(kind="prepare", extra={"scaling": scaling}).save(root)
    return open_dataset(root), table


def scores(table: pd.DataFrame, hears: float, seed: int = 0) -> pd.DataFrame:
    """Test predictions of three classifiers whose score is disease, what they hear of the maker, and noise."""
    random = np.random.default_rng(seed)
    test = table[table["split"] == "test"]
    fits = []
    for number in range(3):
        value = (test["label"] == "contrast") + hears * (test["manufacturer"] == "B") + random.normal(size=len(test))
        facts = {"arm": "real+classical", "fold": "0", "seed": str(number), "gan_seed": ""}
        fits.append(test[["image_id", "patient_id", "label", "split"]].assign(**facts, score_contrast=value))
    return pd.concat(fits, ignore_index=True)


def figure(rows: list[MetricRow], metric: str) -> tuple[float, float, float]:
    (row,) = [row for row in rows if row.metric == metric]
    return float(row.value), float(row.ci_low or "nan"), float(row.ci_high or "nan")


CLASSES = ("normal", "contrast")


def test_a_planted_scanner_is_heard_through_the_class_or_through_the_score(tmp_path: Path) -> None:
    dataset, table = planted(tmp_path / "told", shown=True, told=0.7)
    rows = probe_rows(dataset, table, scores(table, 0.0), ["manufacturer"], PLAN, CLASSES)
    assert figure(rows, "column_from_image")[0] > 0.95
    (text,) = probe_warnings(rows)
    assert "goes with the class" in text and "disease score tells" not in text
    dataset, table = planted(tmp_path / "heard", shown=True, told=0.0)
    rows = probe_rows(dataset, table, scores(table, 3.0), ["manufacturer"], PLAN, CLASSES)
    value, low, _ = figure(rows, "column_from_score")
    # one normal score above another by 3: Phi(3 / sqrt(2)) = 0.983
    assert value == pytest.approx(0.983, abs=0.04) and low > 0.5
    (text,) = probe_warnings(rows)
    assert "disease score tells it within a class (real+classical)" in text and "goes with" not in text


@pytest.mark.parametrize(("shown", "told"), [(False, 0.7), (True, 0.0), (False, 0.0)])
def test_it_is_silent_where_images_do_not_show_it_or_nothing_goes_with_it(
    tmp_path: Path, shown: bool, told: float
) -> None:
    dataset, table = planted(tmp_path, shown=shown, told=told)
    rows = probe_rows(dataset, table, scores(table, 0.0), ["manufacturer"], PLAN, CLASSES)
    assert probe_warnings(rows) == ()
    assert {row.metric for row in rows} == {"column_from_image", "label_from_column", "column_from_score"}


def test_columns_that_cannot_be_probed(tmp_path: Path) -> None:
    dataset, table = planted(tmp_path, shown=True, told=0.5)
    (row,) = probe_rows(dataset, table.assign(site="one"), scores(table, 0.0), ["site"], PLAN, CLASSES)
    assert (row.value, row.detail) == ("", "Not probed: no two values of 10 patients each.")
    with pytest.raises(DataError, match="no column site"):
        probe_rows(dataset, table, scores(table, 0.0), ["site"], PLAN, CLASSES)


def prepared(root: Path, name: str, changes: list[str]) -> tuple[DataSet, pd.DataFrame, tuple[str, ...]]:
    experiment = load_experiment(ROOT / "configs" / name, changes)
    places = {stage: root / stage for stage in ("ingest", "split", "prepare")}
    for place in places.values():
        place.mkdir(parents=True)
    ingest.run(ingest.ingest_config(experiment), {}, places["ingest"])
    split.run(split.split_config(experiment), places, places["split"])
    prepare.run(prepare.prepare_config(experiment), places, places["prepare"]).save(places["prepare"])
    return open_dataset(places["prepare"]), read_table(places["split"] / "manifest.csv"), experiment.data.classes


def test_it_speaks_up_on_the_tcga_pack(data_packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its page says: maker is confounded with class (40 of 50 against 27 of 50 Siemens)."""
    monkeypatch.setenv("RADAUG_DATA", str(data_packs))
    dataset, manifest, classes = prepared(tmp_path, "tcga-contrast.yaml", [])
    rows = probe_rows(dataset, manifest, NO_PREDICTIONS, ["manufacturer", "sex"], PLAN, classes)
    (text,) = probe_warnings(rows)
    assert text.startswith("manufacturer can be read off the images") and "goes with the class" in text
    assert figure([row for row in rows if row.subgroup == "manufacturer"], "column_from_image")[1] > 0.6


def test_it_is_silent_on_a_random_column_of_the_phantoms(tmp_path: Path) -> None:
    changes = ["data.source.cysts=18", "data.source.metastases=18", "data.source.haemangiomas=18"]
    dataset, manifest, classes = prepared(tmp_path, "demo.yaml", changes)
    patients = sorted(set(manifest["patient_id"]))
    drawn = {
        f"site {seed}": manifest["patient_id"].map(
            dict(zip(patients, np.random.default_rng(seed).choice(["A", "B"], len(patients)), strict=True))
        )
        for seed in range(4)
    }
    plan = VerdictPlan(positive=("metastasis",))
    rows = probe_rows(dataset, manifest.assign(**drawn), NO_PREDICTIONS, list(drawn), plan, classes)
    assert probe_warnings(rows) == ()
    found = [float(row.value) for row in rows if row.metric == "column_from_image"]
    assert len(found) == 4 and np.mean(found) == pytest.approx(0.5, abs=0.15)  # each scatters by 0.1


def test_experiments_can_ask_for_it() -> None:
    data = {"source": {"kind": "phantom"}, "classes": ["a", "b"], "positive": ["a"]}
    experiment = validate_experiment({"name": "t", "data": data, "verdict": {"probe": ["manufacturer"]}}, "t")
    assert experiment.verdict.probe == ("manufacturer",)
