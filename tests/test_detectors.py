"""What every anomaly detector keeps to, whatever its method, and the stage that fits one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from detecting import BUDGET, CPU, SHAPES, normal_tensor, normals_of, planted_tensor, setting_of, tiny_gan

from pipeline.anomaly import detect
from pipeline.anomaly.cohort import cohort_of
from pipeline.anomaly.detector import Detector, ImageSet, Normals
from pipeline.anomaly.detectors import DETECTORS
from pipeline.anomaly.files import DESCRIPTION, STATE, load_detector, save_detector
from pipeline.config.anomaly import AnomalyConfig
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.records import Record
from pipeline.verdict.detectors import detector_rows, detector_table, detector_warnings

MakeInputs = Callable[..., dict[str, Path]]
LEARNING_NOTHING = ("discriminator-logit", "anogan")
"""What they know lies in the GAN."""
CASES = [(name, dims) for name, facts in DETECTORS.items() for dims in facts.dimensions]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}d")
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int, Detector]:
    name, dims = request.param
    gan = tiny_gan(tmp_path_factory.mktemp("gan"), dims) if DETECTORS[name].needs_gan else None
    detector = DETECTORS[name].make(setting_of(dims, gan))
    detector.fit(normals_of(dims, 24 if dims == 2 else 9))
    return name, dims, detector.eval()


def test_scores_depend_on_the_image_alone(fitted: tuple[str, int, Detector]) -> None:
    _, dims, detector = fitted
    images = torch.cat([normal_tensor(dims), planted_tensor(dims)])
    together = detector.score(images)
    assert together.shape == (12,) and together.dtype == torch.float32 and torch.isfinite(together).all()
    order = torch.tensor([7, 0, 11, 3, 5, 1])
    one_by_one = torch.cat([detector.score(images[place : place + 1]) for place in order.tolist()])
    torch.testing.assert_close(one_by_one, together[order], rtol=2e-4, atol=2e-5)
    assert len(set(together.tolist())) > 1


def test_maps_have_the_images_size(fitted: tuple[str, int, Detector]) -> None:
    name, dims, detector = fitted
    found = detector.map(planted_tensor(dims, 2))
    assert (found is not None) == DETECTORS[name].says_where
    if found is not None:
        assert found.shape == (2, *SHAPES[dims]) and torch.isfinite(found).all()


def test_a_detector_comes_back_from_its_files(fitted: tuple[str, int, Detector], tmp_path: Path) -> None:
    name, dims, detector = fitted
    save_detector(tmp_path, name, detector, {})
    again = load_detector(tmp_path, CPU, detector.setting.gan, None)
    images = torch.cat([normal_tensor(dims, 3), planted_tensor(dims, 3)])
    torch.testing.assert_close(again.score(images), detector.score(images), rtol=0, atol=0)
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=f"does not match {DESCRIPTION}"):
        load_detector(tmp_path, CPU, detector.setting.gan, None)


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in LEARNING_NOTHING])
def test_too_few_normal_images_are_refused(name: str, tmp_path: Path) -> None:
    gan = tiny_gan(tmp_path, 2) if DETECTORS[name].needs_gan else None
    few = normals_of(2)
    few = Normals(ImageSet(few.train.dataset, few.train.rows[:1]), few.val, few.mixed)
    with pytest.raises(DataError, match="normal training images"):
        DETECTORS[name].make(setting_of(2, gan)).fit(few)


@pytest.mark.parametrize("name", ["pca", "padim", "patchcore", "knn", "mahalanobis"])
def test_a_planted_square_is_ranked_first_and_found(name: str) -> None:
    """A bright square on simple images: what learns the normals' appearance cannot miss it."""
    detector = DETECTORS[name].make(setting_of(2))
    detector.fit(normals_of(2))
    normal, planted = detector.score(normal_tensor(2)), detector.score(planted_tensor(2))
    assert planted.min() > normal.max()
    found = detector.map(planted_tensor(2))
    if found is not None:
        place = found.flatten(1).argmax(dim=1)
        rows, columns = place // SHAPES[2][1], place % SHAPES[2][1]
        assert (rows <= 7).all() and (columns <= 7).all()  # the square is in 1 to 5; maps are smoothed


def test_normal_patients_are_those_without_any_other_image(noise_inputs: MakeInputs) -> None:
    inputs = noise_inputs()
    for folder in inputs.values():
        table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
        table["patient_id"] = [f"p{number // 4}" if number < 12 else f"q{number}" for number in range(len(table))]
        table.loc[[1, 3], "label"] = "normal"  # p0 is normal throughout; p1 and p2 have diseased images
        table.to_csv(folder / "manifest.csv", index=False)
    cohort = cohort_of(inputs["prepare"], inputs["split"], 0, ("normal",))
    assert cohort.normals.train.rows.tolist() == [0, 1, 2, 3]
    assert cohort.normals.val.rows.tolist() == [12, 14, 16]
    assert cohort.normals.mixed.rows.tolist() == list(range(12))
    assert {name: len(images) for name, images in cohort.tried.items()} == {"val": 6, "test": 6}


def detected(inputs: dict[str, Path], out: Path, name: str = "pca", **changes: object) -> Record:
    config = detect.DetectConfig(
        detector=name, anomaly=BUDGET.model_copy(update={"seeds": 2, **changes}), classes=("normal", "disease"),
        positive=("disease",), normal=("normal",), fold=0, gan_seed=None, seed=1, device="cpu", precision="float32",
    )  # fmt: skip
    out.mkdir()
    return detect.run(config, inputs, out)


def test_the_stage_scores_every_validation_and_test_image(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    record = detected(noise_inputs(), tmp_path / "pca")
    table = pd.read_csv(tmp_path / "pca" / "anomaly.csv", dtype=str)
    assert record.figures["train_images"] == 6 and record.figures["val_normals"] == 3
    assert table.groupby(["seed", "split"]).size().to_dict() == {
        (seed, split): 6 for seed in ("0", "1") for split in ("val", "test")
    }
    assert (table["normal"] == "1").tolist() == (table["label"] == "normal").tolist()
    first = table[(table["seed"] == "0") & (table["split"] == "test")]
    assert set(first["p_value"].astype(float)) <= {0.25, 0.5, 0.75, 1.0}  # three calibration patients
    # images of the brighter class lie outside what six normal images span
    assert first[first["label"] == "disease"]["anomaly_score"].astype(float).min() > (
        first[first["label"] == "normal"]["anomaly_score"].astype(float).max()
    )


def test_scores_do_not_know_the_labels_of_what_is_tried(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs, found = noise_inputs(), []
    for name in ("first", "second"):
        detected(inputs, tmp_path / name)
        found.append(pd.read_csv(tmp_path / name / "anomaly.csv"))
        for folder in inputs.values():
            manifest = pd.read_csv(folder / "manifest.csv", dtype=str)
            tried = manifest.index >= 12
            manifest.loc[tried, "label"] = manifest.loc[tried, "label"].map({"normal": "disease", "disease": "normal"})
            manifest.to_csv(folder / "manifest.csv", index=False)
    assert (found[0]["anomaly_score"] == found[1]["anomaly_score"]).all()
    assert (found[0]["label"] != found[1]["label"]).all()


def test_without_normal_patients_there_is_no_score_and_the_reason_is_told(
    noise_inputs: MakeInputs, tmp_path: Path
) -> None:
    inputs = noise_inputs()
    for folder in inputs.values():
        manifest = pd.read_csv(folder / "manifest.csv", dtype=str)
        manifest.loc[12:17, "label"] = "disease"
        manifest.to_csv(folder / "manifest.csv", index=False)
    record = detected(inputs, tmp_path / "out")
    assert "Fold 0 has 6 training and 0 validation images of patients whose images are all normal" in record.notes[0]
    assert pd.read_csv(tmp_path / "out" / "anomaly.csv").empty


def test_detectors_are_not_judged_on_patients_of_one_side(tmp_path: Path) -> None:
    place = tmp_path / "one"
    place.mkdir()
    scored("one", 0, {"val-normal": [0.0, 1.0] * 20, "test-ill": [1.0] * 24}).to_csv(place / "anomaly.csv", index=False)
    Record(kind="detect", fold=0, variant="one").save(place)
    table = detector_table({"one": place}, pd.DataFrame(columns=["arm", "split", "image_id", "patient_id"]), ("well",))
    rows = detector_rows(table, ("one",), 0.05, alpha=0.05, bootstrap=200, seed=0)
    assert rows == []
    (warning,) = detector_warnings(table, rows, 0.05)
    assert "fold 0 has no test patient whose images are all normal" in warning


def test_unknown_names_are_told_the_nearest_right_one() -> None:
    with pytest.raises(ValueError, match="did you mean patchcore"):
        AnomalyConfig(detectors=("patchcoer",))
    with pytest.raises(ValueError, match="looks through no GAN"):
        AnomalyConfig(detectors=("pca@run",))
    with pytest.raises(ValueError, match="snapshots of a GAN of its own; leave out @run"):
        AnomalyConfig(detectors=("discriminator-average@run",))
    with pytest.raises(ValueError, match="named twice"):
        AnomalyConfig(detectors=("pca", "pca"))
    assert not AnomalyConfig(detectors=("pca", "discriminator-logit@run")).needs_gan
    assert AnomalyConfig(detectors=("discriminator-logit",)).needs_gan


def test_normal_classes_are_named_among_the_classes_and_are_not_all() -> None:
    from pipeline.config.anomaly import normal_classes

    classes = ("cyst", "metastasis", "haemangioma")
    assert normal_classes(AnomalyConfig(), classes, ("metastasis",)) == ("cyst", "haemangioma")
    assert normal_classes(AnomalyConfig(normal=("cyst",)), classes, ("metastasis",)) == ("cyst",)
    for wrong, words in ((("cysts",), "not among data.classes"), (classes, "nothing to find")):
        with pytest.raises(ConfigError, match=words):
            normal_classes(AnomalyConfig(normal=wrong), classes, ("metastasis",))


def scored(detector: str, fold: int, scores: dict[str, list[float]], seed: int = 0) -> pd.DataFrame:
    """anomaly.csv of a detector: `val` normals, `test` normals, then abnormal ones; two images a patient."""
    rows = [
        [detector, fold, "", seed, split.split("-")[0], f"{split}-{number}", f"{split}-{number // 2}",
         "well" if "normal" in split else "sick", int("normal" in split), score, 1.0]
        for split, values in scores.items() for number, score in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(detect.COLUMNS)).astype(str)


def test_patients_not_images_are_judged_and_thresholds_come_from_validation_normals(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    val = random.normal(0, 1, 80)
    normal, abnormal = random.normal(0, 1, 60), random.normal(1.5, 1, 40)
    tables = {
        "good": scored("good", 0, {"val-normal": list(val), "test-normal": list(normal), "test-ill": list(abnormal)}),
        "poor": scored(
            "poor", 0, {"val-normal": list(val), "test-normal": list(normal), "test-ill": list(normal[:40])}
        ),
    }
    inputs = {}
    for name, table in tables.items():
        inputs[name] = tmp_path / name
        inputs[name].mkdir()
        table.to_csv(inputs[name] / "anomaly.csv", index=False)
        Record(kind="detect", fold=0, variant=name).save(inputs[name])
    predictions = pd.DataFrame(
        columns=[
            "arm",
            "fold",
            "gan_seed",
            "seed",
            "split",
            "image_id",
            "patient_id",
            "label",
            "score_well",
            "score_sick",
        ]
    )
    table = detector_table(inputs, predictions, ("well",))
    assert table.groupby(["arm", "split"]).size().to_dict() == {
        (arm, split): size for arm in ("good", "poor") for split, size in (("test", 50), ("val", 40))
    }
    rows = detector_rows(table, ("poor", "good"), 0.1, alpha=0.05, bootstrap=200, seed=0)
    means = {(row.arm, row.metric): row for row in rows if row.fold == ""}
    pairs = normal.reshape(-1, 2).mean(axis=1), abnormal.reshape(-1, 2).mean(axis=1)
    won = (pairs[1][:, None] > pairs[0][None]).mean()
    assert float(means["good", "auroc"].value) == pytest.approx(won, abs=1e-5)
    calibration = np.sort(val.reshape(-1, 2).mean(axis=1))
    # of 40 calibration patients the 4th largest: (1 + 3) / 41 <= 0.1 < (1 + 4) / 41
    cut = calibration[-4]
    assert float(means["good", "false_alarms"].value) == pytest.approx((pairs[0] > cut).mean(), abs=1e-5)
    assert float(means["good", "sensitivity@0.9"].value) == pytest.approx((pairs[1] > cut).mean(), abs=1e-5)
    difference = means["good", "auroc_difference"]
    assert difference.detail.startswith("better than poor") and float(difference.ci_low) > 0
    assert ("poor", "auroc_difference") not in means


def test_too_few_validation_normals_raise_no_alarm_and_it_is_said(tmp_path: Path) -> None:
    values = {"val-normal": [0.0] * 10, "test-normal": list(range(24)), "test-ill": list(range(24))}
    place = tmp_path / "one"
    place.mkdir()
    scored("one", 0, {name: [float(one) for one in found] for name, found in values.items()}).to_csv(
        place / "anomaly.csv", index=False
    )
    Record(kind="detect", fold=0, variant="one").save(place)
    table = detector_table({"one": place}, pd.DataFrame(columns=["arm", "split", "image_id", "patient_id"]), ("well",))
    rows = detector_rows(table, ("one",), 0.05, alpha=0.05, bootstrap=200, seed=0)
    assert {row.value for row in rows if row.metric == "false_alarms"} == {"0"}
    (mean,) = (row for row in rows if row.metric == "false_alarms" and row.fold == "")
    # Wilson's interval of 0 of 12: z^2 / (12 + z^2), z = 1.96
    assert float(mean.ci_low) == 0 and float(mean.ci_high) == pytest.approx(3.8415 / 15.8415, abs=1e-4)
    (warning,) = detector_warnings(table, rows, 0.05)
    assert "no alarm can be raised" in warning and "19 normal validation patients" in warning
