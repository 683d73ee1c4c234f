"""`radaug readers`: what a study shows and what it hides, which answers it takes, and what it makes of them."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_run import Case, build
from packs import released_run
from reading import answered, key_of, right, study_of
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from flows.cli import launch
from flows.ledger import read_ledger
from pipeline.core.files import write_json
from pipeline.reader_study.score import BOTH


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_of(tmp_path_factory.mktemp("study"))


def shown(study: Path) -> tuple[str, dict[str, Any]]:
    """The page, and what it shows."""
    page = (study / "for-readers" / "study.html").read_text()
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)
    assert found
    return page, json.loads(found[1])


def row_of(stage: Path, image: pd.Series) -> int:
    manifest = pd.read_csv(stage / "manifest.csv", dtype=str)
    return int(np.flatnonzero((manifest[["image_id", "label"]] == image[["image_id", "label"]]).all(axis=1))[0])


def pixels(image: dict[str, Any]) -> np.ndarray:
    raw = zlib.decompress(base64.b64decode(image["pixels"]))
    return np.frombuffer(raw, "<u2" if image["levels"] > 255 else "u1").reshape(image["shape"])


def test_real_images_are_held_out_ones_and_each_class_has_as_many_of_either_kind(study: Path) -> None:
    key, run = key_of(study), study.parent / "run"
    splits = pd.read_csv(run / "stages" / "split" / "splits.csv", dtype=str).set_index("image_id")["split"]
    real = key[key["origin"] == "real"]
    assert set(splits[real["image_id"]]) == {"test"} and real["image_id"].is_unique
    assert key.groupby(["origin", "label"]).size().tolist() == [4] * 6
    assert key["number"].tolist() == [str(number) for number in range(1, 25)]
    assert sorted(set(key["origin"][:12])) == ["real", "synthetic"]


def test_showing_test_images_to_people_is_a_look_at_them(study: Path, tmp_path: Path) -> None:
    run = study.parent / "run"
    looks = read_ledger(study.parent / ".cache").looks
    patients = key_of(study)["patient_id"].replace("", np.nan).nunique()
    assert [(one.what, one.utility, one.run) for one in looks] == [("readers", "shown to readers", "fake-study")]
    assert len(read_ledger(study.parent / ".cache").sets[looks[0].sets["test"]]) == patients
    assert launch(["readers", str(run), "--out", str(tmp_path / "again"), "--images", "24"]) == 0
    assert len(read_ledger(study.parent / ".cache").looks) == 1  # the same study


def test_no_patient_is_shown_twice_where_there_are_enough(tmp_path: Path) -> None:
    run = build(tmp_path / "run", Case())
    (run / "run.lock").touch()
    path = run / "stages" / "prepare" / "manifest.csv"
    manifest = pd.read_csv(path, dtype=str)
    # two test images a patient, both of one class: 12 patients for 12 real images
    manifest["patient_id"] = [f"P{number // 6}-{label}" for number, label in enumerate(manifest["label"])]
    manifest.to_csv(path, index=False)
    key = key_of(study_of(tmp_path))
    assert key["patient_id"][key["origin"] == "real"].nunique() == 12


def test_the_same_seed_gives_the_same_study_and_another_one_another(study: Path, tmp_path: Path) -> None:
    again, other = study_of(tmp_path), study_of(tmp_path, seed=1)
    page = "for-readers/study.html"
    assert (again / page).read_bytes() == (study / page).read_bytes() != (other / page).read_bytes()
    assert key_of(again).equals(key_of(study)) and not key_of(other).equals(key_of(study))


def test_the_page_has_no_id_and_no_truth(study: Path) -> None:
    page, told = shown(study)
    manifests = [study.parent / "run" / "manifest.csv", *(study.parent / "run" / "stages").glob("*/manifest.csv")]
    cells = pd.concat([pd.read_csv(one, dtype=str)[["image_id", "patient_id"]].stack().dropna() for one in manifests])
    words = {*cells, "SYN", "IMG0", "PAT0", "fake-study", "secret-ward", str(study)}
    assert len(words) > 100 and not [word for word in words if word in page]
    assert set(told) == {"study", "classes", "confidences", "images", "window", "unit"}
    # an image is told apart by nothing but its grey values
    assert {tuple(image) for image in told["images"]} == {("shape", "levels", "pixels")}
    assert {(tuple(image["shape"]), image["levels"]) for image in told["images"]} == {((1, 32, 32), 4095)}
    assert [path.name for path in (study / "for-readers").iterdir()] == ["study.html"]
    assert "Confidential: this page shows real patients" in page and "http" not in page.replace("http-equiv", "")


def test_grey_values_are_those_of_the_image_cut_to_the_window(study: Path) -> None:
    _, told = shown(study)
    key, stages = key_of(study), study.parent / "run" / "stages"
    for origin, stage in (("real", "prepare"), ("synthetic", "synthesise-fold-0-gan-0")):
        row = key[key["origin"] == origin].iloc[0]
        place = row_of(stages / stage, row)
        stored = np.load(stages / stage / "images.npy")[place, 0]
        assert stored.min() < -20 or stored.max() > 180  # the window of the run: beyond it a generator makes nothing
        back = -20 + 200 / 4095 * pixels(told["images"][int(row["number"]) - 1])[0]
        assert np.abs(back - np.clip(stored, -20, 180)).max() <= 200 / 4095 / 2 + 1e-9


def test_volumes_come_as_slices_from_the_feet_up(tmp_path: Path) -> None:
    out = study_of(tmp_path, Case(spatial_dims=3, per_class=12), images=8)
    page, told = shown(out)
    row = key_of(out).query("origin == 'synthetic'").iloc[0]
    stage = tmp_path / "run" / "stages" / "synthesise-fold-0-gan-0"
    place = row_of(stage, row)
    volume = np.clip(np.load(stage / "images.npy")[place, 0], -20, 180)
    found = pixels(told["images"][int(row["number"]) - 1])
    assert found.shape == (32, 32, 32)
    # row 0 is the front (RAS axes: the highest y), column 0 the patient's right, which is x = 0 ... to the left
    expected = np.stack([np.flip(volume[:, :, z], (0, 1)).T for z in range(32)])
    assert np.abs(-20 + 200 / 4095 * found - expected).max() < 0.03
    assert 'id="slice"' in page and "volumes" in page


def test_what_cannot_be_studied_is_refused(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(study.parent / "run")

    def refused(*words: str) -> str:
        assert launch(["readers", *words]) == 2
        return capsys.readouterr().err

    assert "Give --images 48 at most" in refused(run, "--out", str(tmp_path / "a"), "--images", "60")
    assert "even number" in refused(run, "--out", str(tmp_path / "a"), "--images", "9")
    assert "is there already" in refused(run, "--out", str(study), "--images", "24")
    assert "not a run directory" in refused(str(tmp_path), "--out", str(tmp_path / "a"))
    bare = build(tmp_path / "bare", Case(gan=False))
    (bare / "run.lock").touch()
    assert "holds no stages/synthesise-fold-0-gan-0" in refused(str(bare), "--out", str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_a_page_of_a_release_pack_has_its_images_alone_and_may_leave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pack, out = released_run(tmp_path), tmp_path / "pack", tmp_path / "study"
    assert launch(["release", str(run), "--out", str(pack), "--num-images", "6"]) == 0
    command = ["readers", str(run), "--out", str(out), "--pack", str(pack), "--images"]
    assert launch([*command, "14"]) == 2 and "Give --images 12 at most" in capsys.readouterr().err
    assert launch([*command, "10"]) == 0
    assert read_ledger(run.parent / ".cache").looks == []
    key = key_of(out)
    assert set(key["origin"]) == {"synthetic"} and sorted(key["label"].value_counts()) == [5, 5]
    assert {int(name[-5:]) for name in key["image_id"]} <= set(range(6))
    page, _ = shown(out)
    assert "was released for sharing" in page and "Confidential" not in page
    table = metrics_of(out, answered(out, "A"), answered(out, "B"))
    assert set(table["metric"]) == {"sensitivity", "diagnosis_accuracy", "kappa", "diagnosis_kappa"}
    (pack / "data" / "README.md").write_text("swapped")
    assert launch([*command, "8"]) == 3


def test_answers_that_do_not_belong_are_refused(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*paths: Path) -> str:
        assert launch(["readers", "score", str(study), *map(str, paths)]) == 2
        return capsys.readouterr().err

    good = answered(study, "good")
    first = {"number": 1, "origin": "real"}
    assert "answers to study 123" in refused(good, answered(study, "X", study="123"))
    assert "second file of reader good" in refused(good, good)
    assert "24 of 24 images are not answered" in refused(answered(study, "X", answers=[]))
    assert "24 of 24 images are not answered" in refused(answered(study, "X", answers=[first]))
    assert "answers an image twice" in refused(answered(study, "X", answers=[first, first]))
    assert "names the diagnosis flu" in refused(answered(study, "X", lambda row: {**right(row), "diagnosis": "flu"}))
    assert "is no file of answers" in refused(answered(study, "X", lambda row: right(row) | {"origin": "both"}))
    assert "is no file of answers" in refused(study / "for-readers" / "study.html")
    assert "cannot be read" in refused(study / "nobody.json")
    assert "No answers were given" in refused()
    assert launch(["readers", "score", str(study.parent), str(good)]) == 2
    assert not (study / "metrics.csv").exists()


def metrics_of(study: Path, *answers: Path) -> pd.DataFrame:
    assert launch(["readers", "score", str(study), *map(str, answers)]) == 0
    table = pd.read_csv(study / "metrics.csv", dtype=str, keep_default_na=False)
    assert set(table["stage"]) == {"readers"}
    return table.assign(**{name: pd.to_numeric(table[name]) for name in ("value", "ci_low", "ci_high")})


def one(table: pd.DataFrame, metric: str, split: str = BOTH, label: str = "", reader: str = "") -> pd.Series:
    group = f"reader = {reader}" if reader else ""
    rows = table[(table[["metric", "split", "label", "subgroup"]] == [metric, split, label, group]).all(axis=1)]
    assert len(rows) == 1, (metric, split, label, reader)
    return rows.iloc[0]


def test_figures_are_the_means_of_what_each_reader_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = study_of(tmp_path, images=48)
    random = np.random.default_rng(2)

    def unsure(row: dict[str, Any]) -> dict[str, Any]:
        other = {"real": "synthetic", "synthetic": "real"}[row["origin"]]
        return {"origin": row["origin"] if random.random() < 0.7 else other, "confidence": int(random.integers(1, 4)),
                "diagnosis": row["label"] if random.random() < 0.8 else "cyst"}  # fmt: skip

    files = [answered(place, reader, unsure) for reader in "ABC"]
    table = metrics_of(place, *files)
    key = key_of(place)
    truth = (key["origin"] == "synthetic").to_numpy()
    expected: dict[str, list[float]] = {
        name: [] for name in ("accuracy", "sensitivity", "specificity", "auroc", "cyst")
    }
    for file in files:
        said = pd.DataFrame(json.loads(file.read_text())["answers"])
        synthetic = said["origin"] == "synthetic"
        expected["accuracy"].append(accuracy_score(truth, synthetic))
        expected["sensitivity"].append(recall_score(truth, synthetic))
        expected["specificity"].append(recall_score(~truth, ~synthetic))
        expected["auroc"].append(roc_auc_score(truth, said["confidence"] * np.where(synthetic, 1, -1)))
        cysts = (key["label"] == "cyst").to_numpy()
        expected["cyst"].append(accuracy_score(truth[cysts], synthetic[cysts]))
    splits = {"sensitivity": "synthetic", "specificity": "test"}
    for metric, values in expected.items():
        split = splits.get(metric, BOTH)
        found = one(table, "accuracy", label="cyst") if metric == "cyst" else one(table, metric, split)
        assert found["value"] == pytest.approx(np.mean(values), abs=1e-5)
        assert found["ci_low"] < found["value"] < found["ci_high"]
        if metric != "cyst":
            alone = [one(table, metric, split, reader=name)["value"] for name in "ABC"]
            assert alone == pytest.approx(values, abs=1e-5)
    gap = one(table, "diagnosis_difference")["value"]
    parts = [one(table, "diagnosis_accuracy", split)["value"] for split in ("synthetic", "test")]
    assert gap == pytest.approx(parts[0] - parts[1], abs=2e-6)
    assert one(table, "accuracy")["n_images"] == "48" and one(table, "accuracy")["n_patients"] == "12"
    told = capsys.readouterr().out
    assert "Fleiss" in told and "To see an accuracy 10 points above chance in 80 of 100 studies" in told
    assert "5 readers and" in told


def test_perfect_readers_and_guessing_ones(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = metrics_of(study, answered(study, "A"), answered(study, "B"))
    accuracy = one(table, "accuracy")
    assert accuracy["value"] == accuracy["ci_high"] == 1
    assert accuracy["ci_low"] == pytest.approx(proportion_confint(24, 24, method="wilson")[0], abs=1e-5)
    gap = one(table, "diagnosis_difference")
    assert gap["value"] == 0 and gap["ci_low"] < -0.1 < 0.1 < gap["ci_high"]
    assert one(table, "kappa")["value"] == 1 and np.isnan(one(table, "kappa")["ci_low"])
    assert "answers do not scatter" in (told := capsys.readouterr().out) and "better than by chance" in told

    def always(row: dict[str, Any]) -> dict[str, Any]:
        return right(row) | {"origin": "synthetic"}

    table = metrics_of(study, answered(study, "A", always), answered(study, "B", always))
    accuracy = one(table, "accuracy")
    assert accuracy["value"] == 0.5 and accuracy["ci_low"] < 0.4 < 0.6 < accuracy["ci_high"]
    assert one(table, "sensitivity", "synthetic")["value"] == 1 and one(table, "specificity", "test")["value"] == 0
    assert np.isnan(one(table, "kappa")["value"])
    said = capsys.readouterr().out
    assert "It is not shown that readers tell them apart" in said and "all answers are alike" in said


def test_one_reader_is_told_to_be_one(study: Path) -> None:
    table = metrics_of(study, answered(study, "A"))
    assert "one reader; interval over images" in one(table, "accuracy")["detail"]
    assert "kappa" not in set(table["metric"])


def test_a_key_that_was_changed_is_not_believed(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").mkdir()
    for name in ("key.csv", "study.json"):
        (tmp_path / "key" / name).write_bytes((study / "key" / name).read_bytes())
    write_json(tmp_path / "key" / "study.json", {"name": "x"})
    assert launch(["readers", "score", str(tmp_path), str(answered(study, "A"))]) == 2
    assert "its key is damaged" in capsys.readouterr().err
