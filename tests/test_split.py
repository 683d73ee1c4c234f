"""Patients stay together, copies are refused or dropped, and every class is everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.config.loading import validate_experiment
from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.core.records import Record
from pipeline.data import ingest
from pipeline.data.batches.dataset import read_table, write_table
from pipeline.data.cohort import folds, split
from pipeline.data.cohort.assignment import assign_patients
from pipeline.data.cohort.leakage import assert_no_leakage

CLASSES = ["a", "b", "c"]
Ingested = Callable[..., Path]


def stage(kind: str = "holdout", *, seed: int = 0, classes: list[str] | None = None, **data: Any) -> split.SplitStage:
    options = {key: data.pop(key) for key in ("val", "test", "folds") if key in data}
    plain = {"source": {"kind": "npz", "path": "x.npz"}, "classes": classes or CLASSES, "positive": ["a"]}
    plain |= {"split": {"kind": kind} | options} | data
    return split.split_config(validate_experiment({"name": "t", "seed": seed, "data": plain}, "t"))


def table_of(patients: list[str], labels: list[str], **columns: Any) -> pd.DataFrame:
    ids = [f"i{number:04d}" for number in range(len(labels))]
    table = pd.DataFrame({"image_id": ids, "path": ids, "label": labels, "patient_id": patients})
    for name, values in ({"pixel_digest": ids, "near_group": ""} | columns).items():
        table[name] = values
    return table.astype(str)


@pytest.fixture
def ingested(tmp_path: Path) -> Ingested:
    def make(table: pd.DataFrame) -> Path:
        folder = tmp_path / "ingest"
        folder.mkdir(exist_ok=True)
        write_table(folder / "manifest.csv", table)
        write_table(
            folder / "rejected.csv", pd.DataFrame({"image_id": ["bad"], "path": ["bad.png"], "reason": ["torn"]})
        )
        write_table(folder / "audit.csv", pd.DataFrame(columns=["check", "severity", "count", "detail"]))
        return folder

    return make


def ran(folder: Path, config: split.SplitStage) -> tuple[Path, Record]:
    out = folder.parent / "split"
    out.mkdir(exist_ok=True)
    return out, split.run(config, {"ingest": folder}, out)


def random_table(seed: int) -> pd.DataFrame:
    """A cohort with patients of one to six images, some of them in two classes."""
    rng = np.random.default_rng(seed)
    patients, labels = [], []
    for number in range(int(rng.integers(60, 200))):
        own = rng.choice(CLASSES, p=[0.6, 0.3, 0.1])
        for _ in range(int(rng.integers(1, 7))):
            patients.append(f"p{number}")
            labels.append(own if rng.random() < 0.9 else rng.choice(CLASSES))
    return table_of(patients, labels)


@pytest.mark.parametrize("kind", ["holdout", "kfold"])
@pytest.mark.parametrize("seed", range(6))
def test_random_cohorts_are_split_by_patient_and_in_proportion(ingested: Ingested, kind: str, seed: int) -> None:
    table = random_table(seed)
    out, _ = ran(ingested(table), stage(kind, seed=seed, val=0.2, test=0.3, folds=4))
    splits = read_table(out / "splits.csv").merge(table, on="image_id")
    shares = {"val": 0.2, "test": 0.3 if kind == "holdout" else 0.25}
    for _, fold in splits.groupby("fold"):
        assert sorted(fold["image_id"]) == sorted(table["image_id"])
        assert (fold.groupby("patient_id")["split"].nunique() == 1).all()
        for name, share in shares.items():
            for label in ("a", "b"):
                part = fold[fold["label"] == label]
                assert np.mean(part["split"] == name) == pytest.approx(share, abs=0.06)
            assert set(fold["label"][fold["split"] == name]) == set(CLASSES)
    tested = splits[splits["split"] == "test"]["image_id"]
    if kind == "kfold":
        assert sorted(tested) == sorted(table["image_id"])  # each image is tested once


def test_the_same_seed_gives_the_same_split_whatever_the_order_of_rows() -> None:
    table = random_table(0)
    shares = {"train": 0.5, "val": 0.2, "test": 0.3}
    first = assign_patients(table, shares, 3, "x")
    assert assign_patients(table.sample(frac=1, random_state=1), shares, 3, "x") == first
    assert assign_patients(table, shares, 4, "x") != first


def test_few_patients_of_a_class_reach_every_split() -> None:
    table = table_of([f"p{number}" for number in range(40)], ["a"] * 37 + ["b"] * 3)
    for seed in range(10):
        found = assign_patients(table, {"train": 0.5, "val": 0.2, "test": 0.3}, seed)
        assert {found[image] for image in table["image_id"][37:]} == {"train", "val", "test"}


def test_images_without_a_patient_are_their_own(ingested: Ingested) -> None:
    table = table_of([""] * 60, CLASSES * 20)
    out, record = ran(ingested(table), stage())
    manifest = read_table(out / "manifest.csv")
    counts = manifest[manifest["fate"] == "used"].groupby(["split", "label"]).size()
    assert all(counts["train", label] == 10 for label in CLASSES)
    assert all(counts["val", label] == 4 for label in CLASSES)
    assert record.figures["fold_0"] == {"train": 30, "val": 12, "test": 18, "unused": 0}


def test_manifest_lists_every_image_with_its_fate(ingested: Ingested) -> None:
    table = table_of([f"p{number}" for number in range(60)], [*CLASSES * 19, "", "", "a"])
    out, _ = ran(ingested(table), stage("kfold", folds=3))
    manifest = read_table(out / "manifest.csv").set_index("image_id")
    assert list(manifest.index) == [*table["image_id"], "bad"]
    assert manifest["fate"]["bad"] == "rejected: torn"
    assert manifest["split"]["i0057"] == "unlabelled"
    labelled = manifest[manifest["label"] != ""]
    assert set(labelled["fold"]) == {"0", "1", "2"}
    assert set(labelled["split"]) == {"test"}
    for image, fold in labelled["fold"].items():
        assert image in folds.split_ids(out, int(str(fold)), "test")
    with pytest.raises(DataError, match="there is no fold 3"):
        folds.split_ids(out, 3, "test")


def test_unlabelled_images_of_tested_patients_are_not_for_training(ingested: Ingested) -> None:
    table = table_of([f"p{number}" for number in range(60)] * 2, [*CLASSES * 20, *[""] * 60])
    out, _ = ran(ingested(table), stage())
    splits = dict(read_table(out / "splits.csv")[["image_id", "split"]].itertuples(index=False))
    for number in range(60):
        labelled, unlabelled = splits[f"i{number:04d}"], splits[f"i{number + 60:04d}"]
        assert unlabelled == ("unlabelled" if labelled == "train" else "unused")


@pytest.mark.parametrize("kind", ["holdout", "kfold"])
def test_copies_of_different_patients_are_refused_or_dropped(ingested: Ingested, kind: str) -> None:
    table = table_of([f"SECRET{number}" for number in range(60)], CLASSES * 20)
    table["pixel_digest"] = [f"d{number % 30}" for number in range(60)]  # i0030 is a copy of i0000, and so on
    with pytest.raises(LeakageError) as error:
        ran(ingested(table), stage(kind))
    assert error.value.exit_code == 3
    assert "duplicates: drop" in str(error.value)
    assert "SECRET" not in str(error.value)
    out, record = ran(ingested(table), stage(kind, duplicates="drop"))
    manifest = read_table(out / "manifest.csv")
    assert list(manifest["image_id"][manifest["fate"] == "duplicate"]) == [f"i{number:04d}" for number in range(30, 60)]
    assert any("30 exact copies" in note for note in record.notes)


def test_with_a_split_column_the_training_copy_goes(ingested: Ingested) -> None:
    sides = ["train"] * 9 + ["validation"] * 3 + ["Test"] * 3
    table = table_of([f"p{number}" for number in range(15)], CLASSES * 5, split=sides)
    digests = list(table["pixel_digest"])
    digests[0] = digests[9]  # train and val
    digests[1] = digests[10] = digests[13]  # train, val and test
    digests[2] = digests[5]  # twice in train
    table["pixel_digest"] = digests
    with pytest.raises(LeakageError, match="2 images"):
        ran(ingested(table), stage("column"))
    extra = {"image_id": "i9", "pixel_digest": "new", "path": "i9", "patient_id": "q"}  # val keeps an image of class b
    table = pd.concat([table, table.loc[[10]].assign(**extra)], ignore_index=True)
    out, _ = ran(ingested(table), stage("column", duplicates="drop"))
    manifest = read_table(out / "manifest.csv")
    assert list(manifest["image_id"][manifest["fate"] == "duplicate"]) == ["i0000", "i0001", "i0005", "i0010"]


def test_copies_within_a_patient_are_no_leak(ingested: Ingested) -> None:
    patients = [f"p{number // 2}" for number in range(120)]
    table = table_of(patients, [CLASSES[number // 2 % 3] for number in range(120)])
    table["pixel_digest"] = patients
    out, _ = ran(ingested(table), stage())
    assert set(read_table(out / "manifest.csv")["fate"]) == {"used", "rejected: torn"}


@pytest.mark.parametrize(
    ("sides", "error", "expected"),
    [
        (["train"] * 8 + ["test"] * 4, LeakageError, r"1 patient\(s\) into more than one"),
        (["train"] * 9 + ["holdout"] * 3, DataError, "in 3 rows"),
        (["train"] * 9 + ["val"] * 3, DataError, "only train, val: train and test are needed"),
    ],
)
def test_split_columns_that_are_wrong(
    ingested: Ingested, sides: list[str], error: type[Exception], expected: str
) -> None:
    patients = [f"SECRET{number // 3}" for number in range(12)]
    with pytest.raises(error, match=expected) as raised:
        ran(ingested(table_of(patients, CLASSES * 4, split=sides)), stage("column"))
    assert "SECRET" not in str(raised.value)


def test_val_is_cut_from_train_by_patient(ingested: Ingested) -> None:
    patients = [f"p{number // 2}" for number in range(120)]
    table = table_of(
        patients, [CLASSES[number // 2 % 3] for number in range(120)], split=["train"] * 90 + ["test"] * 30
    )
    out, _ = ran(ingested(table), stage("column", val=0.2))
    splits = read_table(out / "splits.csv").merge(table, on="image_id", suffixes=("", "_given"))
    assert (splits["split"] == "val").sum() == pytest.approx(24, abs=4)  # 0.2 of all 120
    assert set(splits["split_given"][splits["split"] == "val"]) == {"train"}
    assert (splits.groupby("patient_id")["split"].nunique() == 1).all()


def test_low_data_training_has_exactly_that_many_a_class(ingested: Ingested) -> None:
    table = random_table(2)
    out, _ = ran(ingested(table), stage(train_per_class=7))
    full = read_table(out / "splits.csv").merge(table, on="image_id")
    counts = full.groupby(["split", "label"]).size()
    assert [counts["train", label] for label in CLASSES] == [7, 7, 7]
    assert max(counts["val", label] for label in CLASSES) <= 7
    whole, _ = ran(ingested(table), stage())
    tested = read_table(whole / "splits.csv").query("split == 'test'")["image_id"]
    assert list(full["image_id"][full["split"] == "test"]) == list(tested)
    with pytest.raises(DataError, match=r"train_per_class asks for 500 training images a class"):
        ran(ingested(table), stage(train_per_class=500))


def test_a_class_with_too_few_patients_is_named(ingested: Ingested) -> None:
    table = table_of([f"p{number}" for number in range(41)], ["a", "b"] * 20 + ["c"])
    with pytest.raises(DataError, match=r"has no image of c.*too few patients"):
        ran(ingested(table), stage())


def test_folds_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ConfigError, match="Use more folds"):
        stage("kfold", folds=2, val=0.5)


def test_leakage_check_finds_patients_and_copies_and_hides_ids() -> None:
    table = table_of(["SECRET", "SECRET", "q", "r", "", ""], ["a"] * 6)
    table["pixel_digest"] = ["1", "2", "3", "3", "5", "6"]

    def splits(*sides: str) -> pd.DataFrame:
        return pd.DataFrame({"fold": "0", "image_id": table["image_id"], "split": sides})

    assert_no_leakage(splits("train", "train", "val", "val", "train", "test"), table)
    assert_no_leakage(splits("train", "unused", "val", "val", "train", "test"), table)
    assert_no_leakage(splits("train", "unlabelled", "val", "val", "train", "test"), table)
    for leaky in (
        ("train", "test", "val", "val", "train", "test"),
        ("train", "train", "val", "test", "train", "test"),
        ("unlabelled", "test", "val", "val", "train", "test"),
    ):
        with pytest.raises(LeakageError) as error:
            assert_no_leakage(splits(*leaky), table)
        assert "SECRET" not in str(error.value)
    two = pd.concat([splits("train", "train", "val", "val", "train", "test"), splits(*["test"] * 6).assign(fold="1")])
    assert_no_leakage(two, table)


def test_near_duplicates_across_splits_and_few_test_patients_are_noted(ingested: Ingested) -> None:
    table = table_of([f"p{number}" for number in range(27)], CLASSES * 9)
    table["near_group"] = ["near-0"] * 24 + [""] * 3
    out, record = ran(ingested(table), stage())
    rows = read_table(out / "audit.csv").set_index("check")
    assert (rows["severity"]["near duplicates across splits"], rows["count"]["near duplicates across splits"]) == (
        "warning",
        "1",
    )
    assert any("too few for an interval" in note for note in record.notes)


def ingest_pack(data: dict[str, Any], packs: Path, out: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADAUG_DATA", str(packs))
        ingest.run(ingest.ingest_config(validate_experiment({"name": "t", "data": data}, "t")), {}, out)
    return out


def test_pneumoniamnist_copies_are_refused_or_dropped(data_packs: Path, tmp_path: Path) -> None:
    source = {"kind": "npz", "path": "pneumoniamnist-28/pneumoniamnist.npz"}
    classes = ["normal", "pneumonia"]
    data = {"source": source, "classes": classes, "positive": ["pneumonia"]}
    (folder := tmp_path / "ingest").mkdir()
    ingest_pack(data, data_packs, folder)
    before = {"classes": classes, "positive": ["pneumonia"]}
    with pytest.raises(LeakageError, match=r"^8 images") as error:  # val images that are in train, of the pack's page
        ran(folder, stage("column", **before))
    assert error.value.exit_code == 3
    out, record = ran(folder, stage("column", **before, duplicates="drop"))
    manifest = read_table(out / "manifest.csv")
    gone = manifest[manifest["fate"] == "duplicate"]
    # of the page: 18 repeats inside train, 3 inside test, and 8 val images whose copies leave train
    assert dict(gone["source_split"].value_counts()) == {"train": 26, "test": 3}
    assert record.figures["fold_0"] == {"train": 4708 - 26, "val": 524, "test": 624 - 3, "unused": 0}
    audit = read_table(out / "audit.csv").set_index("check")
    assert audit["severity"]["patient ids missing"] == "warning"


def test_nih_patients_stay_apart(data_packs: Path, tmp_path: Path) -> None:
    columns = {"path": "file", "label": "class", "split": "suggested_split"}
    source = {"kind": "csv", "path": "nih-cxr-normal-vs-pneumonia-256/labels.csv", "columns": columns}
    classes = ["no_finding", "pneumonia"]
    (folder := tmp_path / "ingest").mkdir()
    ingest_pack({"source": source, "classes": classes, "positive": ["pneumonia"]}, data_packs, folder)
    audit = read_table(folder / "audit.csv").set_index("check")["count"]
    assert audit["patients with several images"] == "164"
    assert audit["patients in several classes"] == "21"
    assert audit["exact duplicates"] == "1"
    chosen = {"classes": classes, "positive": ["pneumonia"]}
    out, record = ran(folder, stage("column", **chosen))
    assert record.figures["fold_0"] == {"train": 686, "val": 152, "test": 162, "unused": 0}
    out, _ = ran(folder, stage("kfold", **chosen, folds=3, duplicates="drop"))
    manifest = read_table(out / "manifest.csv")
    assert list(manifest["image_id"][manifest["fate"] == "duplicate"]) == ["images-no_finding-00002658_002"]
    joined = read_table(out / "splits.csv").merge(manifest[["image_id", "patient_id"]], on="image_id")
    assert (joined.groupby(["fold", "patient_id"])["split"].nunique() == 1).all()
    assert joined["patient_id"].nunique() == 682


def test_culprits_are_named_by_their_files_and_never_by_patient(ingested: Ingested) -> None:
    ids = [f"p{number}" for number in range(40)]
    sides = ["train", "test"] * 18 + ["val"] * 4
    copies = [f"digest-{number if number != 21 else 20}" for number in range(40)]
    table = table_of(ids, CLASSES[:2] * 20, split=sides, pixel_digest=copies)
    with pytest.raises(LeakageError, match=r"The first: i0020 \(train\) and i0021 \(test\)\."):
        ran(ingested(table), stage("column", classes=CLASSES[:2]))
    torn = table_of(["S3CRET" if n in (4, 7) else f"p{n}" for n in range(40)], CLASSES[:2] * 20, split=sides)
    with pytest.raises(LeakageError) as error:
        ran(ingested(torn), stage("column", classes=CLASSES[:2]))
    assert "1 patient(s) into more than one of train, val and test, the first: i0004 (train) and i0007 (test)" in (
        str(error.value)
    )
    assert "S3CRET" not in str(error.value)
    odd = table_of(ids, CLASSES[:2] * 20, split=[*sides[:39], "left"])
    with pytest.raises(DataError, match=r"in 1 rows: i0039\."):
        ran(ingested(odd), stage("column", classes=CLASSES[:2]))


def test_a_split_that_is_there_and_not_used_is_said(ingested: Ingested) -> None:
    table = table_of([f"p{number}" for number in range(60)], CLASSES * 20, split=["train"] * 40 + ["Test"] * 20)
    out, record = ran(ingested(table), stage("holdout"))
    row = read_table(out / "audit.csv").set_index("check").loc["split of the source"]
    assert (row["severity"], row["count"]) == ("warning", "60")
    assert "train 40, test 20 images" in row["detail"] and "column" in row["detail"]
    assert row["detail"] in record.notes
    for other in (table.assign(split="left"), table.drop(columns="split")):
        out, _ = ran(ingested(other), stage("holdout"))
        assert "split of the source" not in set(read_table(out / "audit.csv")["check"])
