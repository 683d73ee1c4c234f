"""Low-data settings: surplus as a pool without labels, disjoint labelled draws, imbalance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.adversarial import fit
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.core.records import Record
from pipeline.data.batches.dataset import open_dataset, read_table, write_table
from pipeline.data.batches.streams import UNLABELLED, stored_images
from pipeline.data.cohort import folds, split
from pipeline.data.cohort.leakage import assert_no_leakage

CLASSES = ["a", "b"]
Split = Callable[..., pd.DataFrame]


def stage(seed: int = 0, split_options: dict[str, Any] | None = None, **data: Any) -> split.SplitStage:
    plain = {"source": {"kind": "npz", "path": "x.npz"}, "classes": CLASSES, "positive": ["a"]} | data
    plain["split"] = split_options or {"kind": "holdout"}
    return split.split_config(validate_experiment({"name": "t", "seed": seed, "data": plain}, "t"))


def cohort(patients: int = 60, seed: int = 0) -> pd.DataFrame:
    """Patients of one to four images, one in ten of both classes."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        own = CLASSES[number % 2]
        images = range(int(rng.integers(1, 5)))
        rows += [(f"SECRET{number}", own if rng.random() < 0.9 else rng.choice(CLASSES)) for _ in images]
    table = pd.DataFrame(rows, columns=["patient_id", "label"])
    ids = [f"i{number:04d}" for number in range(len(table))]
    return table.assign(image_id=ids, path=ids, pixel_digest=ids, near_group="")


@pytest.fixture
def split_of(tmp_path: Path) -> Split:
    """Runs the split stage on a table and gives fold, image_id, split with the table's columns."""

    def run(table: pd.DataFrame, config: split.SplitStage) -> pd.DataFrame:
        source, out = tmp_path / "ingest", tmp_path / "split"
        source.mkdir(exist_ok=True)
        out.mkdir(exist_ok=True)
        write_table(source / "manifest.csv", table)
        write_table(source / "rejected.csv", pd.DataFrame(columns=["image_id", "path", "reason"]))
        write_table(source / "audit.csv", pd.DataFrame(columns=["check", "severity", "count", "detail"]))
        split.run(config, {"ingest": source}, out)
        found = read_table(out / "splits.csv")
        return found.merge(table.drop(columns="split", errors="ignore"), on="image_id")

    return run


def test_surplus_is_a_pool_of_training_patients_only(split_of: Split) -> None:
    table = cohort()
    plain = split_of(table, stage(train_per_class=8))
    pool = split_of(table, stage(train_per_class=8, surplus="unlabelled"))
    whole = split_of(table, stage())
    for part in ("train", "val", "test"):
        assert set(pool["image_id"][pool["split"] == part]) == set(plain["image_id"][plain["split"] == part])
    left = set(whole["image_id"][whole["split"] == "train"]) - set(pool["image_id"][pool["split"] == "train"])
    assert set(pool["image_id"][pool["split"] == "unlabelled"]) == left
    assert left
    held = set(whole["patient_id"][whole["split"].isin(["val", "test"])])
    assert held.isdisjoint(pool["patient_id"][pool["split"] == "unlabelled"])
    assert "unlabelled" not in set(plain["split"])


def test_a_pool_image_of_a_tested_patient_is_refused(split_of: Split) -> None:
    table = cohort()
    pool = split_of(table, stage(train_per_class=8, surplus="unlabelled"))[["fold", "image_id", "split"]]
    assert_no_leakage(pool, table)
    tested = table.set_index("image_id")["patient_id"][pool.loc[pool["split"] == "test", "image_id"].iloc[0]]
    leaky = table.copy()
    leaky.loc[leaky["image_id"] == pool.loc[pool["split"] == "unlabelled", "image_id"].iloc[0], "patient_id"] = tested
    with pytest.raises(LeakageError, match=r"1 patient\(s\) and 0 identical") as error:
        assert_no_leakage(pool, leaky)
    assert "SECRET" not in str(error.value)


def gan_inputs(root: Path, labels: list[str]) -> dict[str, Path]:
    """24 images, the first 8 of each class's 12 in the pool; `labels` are the manifest's."""
    prepare, split_dir = root / "prepare", root / "split"
    prepare.mkdir(parents=True)
    split_dir.mkdir()
    ids = [f"i{number}" for number in range(24)]
    np.save(prepare / "images.npy", np.random.default_rng(0).integers(0, 255, (24, 1, 8, 8)).astype(np.uint8))
    table = pd.DataFrame({"image_id": ids, "label": labels, "patient_id": ids})
    table.to_csv(prepare / "manifest.csv", index=False)
    table.assign(pixel_digest=ids).to_csv(split_dir / "manifest.csv", index=False)
    scaling = {"scale": 1.0, "offset": 0.0, "unit": "none", "window": [0.0, 255.0], "dtype": "uint8"}
    Record(kind="prepare", extra={"scaling": scaling}).save(prepare)
    sides = ["unlabelled"] * 16 + ["train"] * 8
    pd.DataFrame({"fold": "0", "image_id": ids, "split": sides}).to_csv(split_dir / "splits.csv", index=False)
    return {"prepare": prepare, "split": split_dir}


def test_what_trains_never_sees_the_label_of_a_pool_image(tmp_path: Path) -> None:
    """A generator comes out the same, bit for bit, whether the manifest's labels of the pool are right or wrong."""
    right = [CLASSES[number % 2] for number in range(24)]
    wrong = [CLASSES[number < 5] if number < 16 else label for number, label in enumerate(right)]
    gan = {"family": "ssgan", "num_images": 32, "batch_size": 8, "watch": {"checks": 0}, "snapshots": 1}
    data = {"source": {"kind": "phantom"}, "classes": CLASSES, "positive": ["a"], "spatial_size": 8}
    experiment = validate_experiment({"name": "t", "data": data, "gan": gan, "compute": {"device": "cpu"}}, "t")
    weights = []
    for name, labels in (("right", right), ("wrong", wrong)):
        inputs, out = gan_inputs(tmp_path / name, labels), tmp_path / name / "fit"
        out.mkdir()
        fit.run(fit.fit_config(experiment, 0, 0), inputs, out)
        weights.append({path.name: path.read_bytes() for path in out.glob("*.safetensors")})
    assert weights[0] and weights[0] == weights[1]


def test_a_fold_hides_labels_and_streams_say_so(tmp_path: Path) -> None:
    labels = [CLASSES[number % 2] for number in range(24)]
    inputs = gan_inputs(tmp_path, labels)
    dataset = folds.open_fold(inputs["prepare"], inputs["split"], fold=0)
    assert dataset.manifest["label"].tolist() == [""] * 16 + labels[16:]
    with pytest.raises(DataError, match="labels outside"):
        dataset.labels(np.arange(24), CLASSES)
    images = stored_images(dataset, np.arange(24), CLASSES, (), "cpu")
    assert images.label.tolist() == [UNLABELLED] * 16 + [0, 1] * 4
    assert len(images.of_classes([0, 1]).label) == 8
    assert open_dataset(inputs["prepare"]).manifest["label"].tolist() == labels  # the file keeps what is known


def test_an_imbalanced_setting_has_the_numbers_of_each_class(split_of: Split) -> None:
    found = split_of(cohort(200), stage(train_per_class={"a": 40, "b": 4}))
    counts = found.groupby(["split", "label"]).size()
    assert (counts["train", "a"], counts["train", "b"]) == (40, 4)
    assert counts["val", "a"] <= 40 and counts["val", "b"] <= 4
    with pytest.raises(DataError, match=r"asks for a: 4000, b: 4 training images a class, but .* only \d+ of a"):
        split_of(cohort(200), stage(train_per_class={"a": 4000, "b": 4}))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("surplus", ["unused", "unlabelled"])
def test_draws_share_no_training_patient_and_have_one_test_set(split_of: Split, seed: int, surplus: str) -> None:
    table = cohort(120, seed)
    options = {"kind": "holdout", "draws": 3}
    found = split_of(table, stage(seed, options, train_per_class=9, surplus=surplus))
    assert set(found["fold"]) == {"0", "1", "2"}
    parts = {(fold, part): rows for (fold, part), rows in found.groupby(["fold", "split"])}
    trained = [set(parts[str(draw), "train"]["patient_id"]) for draw in range(3)]
    assert all(trained[one].isdisjoint(trained[other]) for one, other in ((0, 1), (0, 2), (1, 2)))
    for draw in "012":
        assert parts[draw, "train"]["label"].value_counts().to_dict() == {"a": 9, "b": 9}
        assert list(parts[draw, "test"]["image_id"]) == list(parts["0", "test"]["image_id"])
        assert list(parts[draw, "val"]["image_id"]) == list(parts["0", "val"]["image_id"])
    of_others = set(parts["1", "train"]["image_id"]) | set(parts["2", "train"]["image_id"])
    assert of_others <= set(parts["0", surplus]["image_id"])
    one = split_of(table, stage(seed, train_per_class=9, surplus=surplus))
    same = found[found["fold"] == "0"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one, same)  # the first draw does not depend on how many there are


def test_draws_share_no_exact_copy(split_of: Split) -> None:
    table = cohort(120)
    copies = [f"d{number // 2}" for number in range(len(table))]
    table = table.assign(pixel_digest=copies, patient_id=table["image_id"])
    sides = ["train" if number < len(table) // 2 else "test" for number in range(len(table) // 2 * 2)]
    table = table.iloc[: len(sides)].assign(split=[sides[number // 2 * 2] for number in range(len(sides))])
    table = pd.concat([table, table.iloc[:2].assign(
        image_id=["v1", "v2"], path=["v1", "v2"], patient_id=["v1", "v2"], pixel_digest=["v1", "v2"],
        label=CLASSES, split="val")])  # fmt: skip
    found = split_of(table, stage(split_options={"kind": "column", "draws": 4}, train_per_class=3))
    trained = found[found["split"] == "train"]
    assert (trained.groupby("pixel_digest")["fold"].nunique() == 1).all()


def test_too_many_draws_say_how_many_would_do(split_of: Split) -> None:
    """20 training patients of each class with one image each are good for two draws of ten, not for three."""
    ids = [f"i{number:03d}" for number in range(60)]
    sides = ["train"] * 40 + ["val"] * 4 + ["test"] * 16
    table = pd.DataFrame({"image_id": ids, "path": ids, "pixel_digest": ids, "patient_id": ids, "near_group": ""})
    table = table.assign(label=CLASSES * 30, split=sides)
    assert (
        split_of(table, stage(split_options={"kind": "column", "draws": 2}, train_per_class=10))["fold"].nunique() == 2
    )
    with pytest.raises(DataError, match=r"asks for 3 training sets .* suffice for 2 at data.train_per_class 10"):
        split_of(table, stage(split_options={"kind": "column", "draws": 3}, train_per_class=10))
    with pytest.raises(DataError, match=r"has only 20 of a, 20 of b"):
        split_of(table, stage(split_options={"kind": "column", "draws": 3}, train_per_class=21))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"split": {"kind": "kfold", "draws": 2}, "train_per_class": 5}, "draws are for one test set"),
        (
            {"split": {"kind": "holdout", "draws": 2}},
            r"split\.draws is about what train_per_class \(or correlation\) takes",
        ),
        ({"surplus": "unlabelled"}, r"surplus is about what train_per_class \(or correlation\) takes"),
        ({"train_per_class": {"a": 5}}, r"must name each of \['a', 'b'\] once; it names \['a'\]"),
        ({"train_per_class": {"a": 5, "b": 1}}, "greater than or equal to 2"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(data: dict[str, Any], expected: str) -> None:
    plain = {"source": {"kind": "npz", "path": "x.npz"}, "classes": CLASSES, "positive": ["a"]} | data
    with pytest.raises(ConfigError, match=expected):
        validate_experiment({"name": "t", "data": plain}, "t")


def test_draws_count_as_folds() -> None:
    data = {"source": {"kind": "npz", "path": "x.npz"}, "classes": CLASSES, "positive": ["a"], "train_per_class": 5}
    for kind in ("holdout", "column"):
        experiment = validate_experiment({"name": "t", "data": data | {"split": {"kind": kind, "draws": 4}}}, "t")
        assert experiment.data.split.num_folds == 4
