"""An external site is only ever tested: same preparation, its own names, nothing shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config.experiment import Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.data import ingest, prepare
from pipeline.data.batches.dataset import DataSet, open_dataset, read_table
from pipeline.data.cohort import folds, split
from pipeline.data.cohort.leakage import assert_no_leakage

CLASSES = ["normal", "disease"]


def write_site(
    folder: Path, labels: list[str], patient: str, seed: int, *, bits: int = 8, size: int = 16
) -> np.ndarray:
    """A table and PNG files of noise, two images a patient; gives the images [n, size, size]."""
    folder.mkdir(parents=True, exist_ok=True)
    top = 255 if bits == 8 else 60_000
    images = np.random.default_rng(seed).integers(0, top, (len(labels), size, size))
    for number, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8 if bits == 8 else np.uint16)).save(folder / f"{number}.png")
    table = {"path": [f"{number}.png" for number in range(len(labels))], "label": labels}
    pd.DataFrame(table | {"patient_id": [f"{patient}{n // 2}" for n in range(len(labels))]}).to_csv(
        folder / "labels.csv", index=False
    )
    return images


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """80 images of ours in `a`, 24 in `b` with other names of the classes; a third of these is of no class of ours."""
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path))
    write_site(tmp_path / "a", [CLASSES[n // 2 % 2] for n in range(80)], "SECRETa", 0)
    write_site(tmp_path / "b", [["healthy", "sick", "other"][n // 2 % 3] for n in range(24)], "SECRETb", 1)
    return tmp_path


NAMES = {"healthy": "normal", "sick": "disease", "other": ""}


def experiment(labels: dict[str, str] | None = None, **data: Any) -> Experiment:
    source = {"kind": "csv", "path": "a/labels.csv"}
    site = {"source": {"kind": "csv", "path": "b/labels.csv"}, "labels": NAMES if labels is None else labels}
    plain = {"source": source, "external": site, "classes": CLASSES, "positive": ["disease"], "spatial_size": 16}
    return validate_experiment({"name": "t", "data": plain | data}, "t")


def ran(root: Path, config: Experiment) -> tuple[dict[str, Path], DataSet]:
    places = {stage: root / "out" / stage for stage in ("ingest", "split", "prepare")}
    for place in places.values():
        place.mkdir(parents=True)
    ingest.run(ingest.ingest_config(config), {}, places["ingest"])
    split.run(split.split_config(config), places, places["split"])
    prepare.run(prepare.prepare_config(config), places, places["prepare"]).save(places["prepare"])
    return places, open_dataset(places["prepare"])


@pytest.mark.parametrize("kind", [{"kind": "holdout", "draws": 2}, {"kind": "kfold", "folds": 2}])
def test_its_images_are_a_split_of_their_own_in_every_fold(sites: Path, kind: dict[str, Any]) -> None:
    places, dataset = ran(sites, experiment(split=kind, train_per_class=6))
    used = [number for number in range(24) if number // 2 % 3 < 2]
    for fold in (0, 1):
        parts = {part: folds.split_ids(places["split"], fold, part) for part in ("train", "val", "test", "external")}
        assert parts["external"] == [f"external-{number}" for number in used]
        assert not any(image.startswith("external") for part in ("train", "val", "test") for image in parts[part])
        rows = dataset.rows(parts["external"])
        assert dataset.labels(rows, CLASSES).tolist() == [number // 2 % 3 for number in used]
        raw = np.stack([np.asarray(Image.open(sites / "b" / f"{number}.png")) for number in used])
        np.testing.assert_array_equal(dataset.images[rows, 0], raw)  # 8-bit grey values as they are, as ours
    manifest = read_table(places["split"] / "manifest.csv").set_index("image_id")
    assert set(manifest.loc[parts["external"], "split"]) == {"external"}
    assert set(manifest.loc[parts["external"], "fate"]) == {"used"}
    audit = read_table(places["split"] / "audit.csv").set_index("check")
    assert audit["detail"]["fold 1 external"] == "16 images of 8 patients."


def test_ours_are_split_as_if_there_were_no_other_site(sites: Path) -> None:
    places, _ = ran(sites, experiment())
    alone = experiment(external=None)
    (places["split"].parent / "alone").mkdir()
    split.run(
        split.split_config(alone), places | {"ingest": write_alone(places, alone)}, places["split"].parent / "alone"
    )
    both, one = (read_table(places["split"].parent / name / "splits.csv") for name in ("split", "alone"))
    pd.testing.assert_frame_equal(both[both["split"] != "external"].reset_index(drop=True), one)


def write_alone(places: dict[str, Path], config: Experiment) -> Path:
    folder = places["ingest"].parent / "ingest-alone"
    folder.mkdir()
    ingest.run(ingest.ingest_config(config), {}, folder)
    return folder


def test_it_is_prepared_with_our_window_and_size_whatever_its_own_values(sites: Path) -> None:
    """Our grey values reach 255, theirs 60,000: with percentiles for both all is well, else it is refused."""
    write_site(sites / "b", [["healthy", "sick"][n // 2 % 2] for n in range(24)], "SECRETb", 1, bits=16, size=40)
    with pytest.raises(DataError, match=r"data.external: its images have values of another kind \(other\)"):
        ran(sites, experiment())
    (sites / "again").mkdir()
    _, dataset = ran(sites / "again", experiment(window="image"))
    rows = np.flatnonzero(dataset.manifest["split"] == "external")
    assert dataset.images.shape[2:] == (16, 16) and len(rows) == 24
    assert dataset.images[rows].min() >= 0 and dataset.images[rows].max() <= 1


def test_a_shared_patient_or_a_copy_is_a_leak(sites: Path) -> None:
    table = read_table(sites / "b" / "labels.csv")
    table.assign(patient_id=table["patient_id"].replace("SECRETb3", "SECRETa7")).to_csv(
        sites / "b" / "labels.csv", index=False
    )
    with pytest.raises(LeakageError, match=r"data.external: 1 patient id\(s\) and 0 image\(s\)") as error:
        ran(sites, experiment())
    assert error.value.exit_code == 3 and "SECRET" not in str(error.value)
    table.to_csv(sites / "b" / "labels.csv", index=False)
    (sites / "b" / "2.png").write_bytes((sites / "a" / "9.png").read_bytes())
    (sites / "again").mkdir()
    with pytest.raises(LeakageError, match=r"0 patient id\(s\) and 1 image\(s\)"):
        ran(sites / "again", experiment(duplicates="drop"))


@pytest.mark.parametrize("side", ["train", "unlabelled", "val", "test"])
def test_later_stages_find_a_patient_of_it_on_another_side(side: str) -> None:
    manifest = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "p"], "pixel_digest": ["1", "2"]})
    splits = pd.DataFrame({"fold": "0", "image_id": ["a", "b"], "split": [side, "external"]})
    with pytest.raises(LeakageError, match=r"1 patient\(s\)"):
        assert_no_leakage(splits, manifest)
    assert_no_leakage(splits.assign(split=["unused", "external"]), manifest)


def test_labels_must_be_known_and_lead_to_classes(sites: Path) -> None:
    with pytest.raises(DataError, match=r"1 label\(s\) of the external site are not in .*: other\."):
        ran(sites, experiment({"healthy": "normal", "sick": "disease"}))
    with pytest.raises(ConfigError, match=r"external\.labels must lead to one of"):
        experiment({"healthy": "well"})


def test_a_change_in_its_files_is_seen(sites: Path) -> None:
    config = ingest.ingest_config(experiment())
    before = ingest.source_digest(config)
    assert (
        before == ingest.source_digest(config) != ingest.source_digest(ingest.ingest_config(experiment(external=None)))
    )
    (sites / "b" / "0.png").write_bytes((sites / "b" / "1.png").read_bytes())
    assert ingest.source_digest(config) != before


def test_phantoms_of_another_seed_are_another_site(tmp_path: Path) -> None:
    def cohort(seed: int) -> dict[str, Any]:
        return {"kind": "phantom", "cysts": 9, "metastases": 9, "haemangiomas": 9, "seed": seed}

    data = {"source": cohort(0), "external": {"source": cohort(1)}, "spatial_size": 16, "positive": ["metastasis"],
            "classes": ["cyst", "metastasis", "haemangioma"], "crop": {"around": "mask", "size_mm": 48}}  # fmt: skip
    places, dataset = ran(tmp_path, validate_experiment({"name": "t", "data": data}, "t"))
    assert len(folds.split_ids(places["split"], 0, "external")) == 27
    assert len(dataset.images) == 54
    assert dataset.scaling.unit == "HU"
