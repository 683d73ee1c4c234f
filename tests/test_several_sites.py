"""Several sources, a site each: nothing collides, and a shortcut can be drawn from them cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_external import ran, write_site

from flows import validate
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment, require_data, validate_experiment
from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.data import ingest
from pipeline.data.batches.dataset import read_table
from pipeline.data.cohort import folds, split
from pipeline.data.cohort.several import own_ids
from pipeline.report.sharing import config_without_paths

CLASSES = ["normal", "disease"]
NAMES = {"healthy": "normal", "sick": "disease", "other": ""}


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """160 images in `a`, and in `b` 240 of the same patients' numbers, a third of them of no class of ours."""
    monkeypatch.setenv("RADAUG_DATA", str(tmp_path))
    write_site(tmp_path / "a", [CLASSES[n // 2 % 2] for n in range(160)], "SECRET", 0)
    write_site(tmp_path / "b", [["healthy", "sick", "other"][n // 2 % 3] for n in range(240)], "SECRET", 1)
    return tmp_path


def experiment(**data: Any) -> Experiment:
    both = {
        "adults": {"source": {"kind": "csv", "path": "a/labels.csv"}},
        "children": {"source": {"kind": "csv", "path": "b/labels.csv"}, "labels": NAMES},
    }
    plain = {"sources": both, "classes": CLASSES, "positive": ["disease"], "spatial_size": 16}
    return validate_experiment({"name": "t", "data": plain | data}, "t")


def test_images_and_patients_keep_their_site_and_never_collide(sites: Path) -> None:
    """Both tables name the files 0.png … and the patients SECRET0 …"""
    places, dataset = ran(sites, experiment())
    manifest = read_table(places["split"] / "manifest.csv").set_index("image_id")
    assert len(manifest) == len(dataset.images) == 160 + 160
    assert manifest["patient_id"].nunique() == 80 + 80
    ours = [number for number in range(240) if number // 2 % 3 < 2]
    for name, folder, used in (("adults", "a", list(range(160))), ("children", "b", ours)):
        ids = [f"{name}-{number}" for number in used]
        own = manifest.loc[ids]
        assert set(own["site"]) == {name}
        assert list(own["patient_id"]) == [f"{name}-SECRET{number // 2}" for number in used]
        raw = np.stack([np.asarray(Image.open(sites / folder / f"{number}.png")) for number in used])
        np.testing.assert_array_equal(dataset.images[dataset.rows(ids), 0], raw)
    assert list(manifest.loc["children-2":"children-3", "label"]) == ["disease", "disease"]
    bare = own_ids(manifest.reset_index())
    assert bare is not None and set(bare["patient_id"]) == {f"SECRET{number}" for number in range(120)} & {
        text.partition("-")[2] for text in manifest["patient_id"]
    }


def test_every_side_has_its_share_of_every_cell(sites: Path) -> None:
    places, _ = ran(sites, experiment(split={"val": 0.25, "test": 0.25}))
    manifest = read_table(places["split"] / "manifest.csv")
    counts = pd.crosstab([manifest["site"], manifest["label"]], manifest["split"])
    assert (counts["train"] == 40).all() and (counts["val"] == 20).all() and (counts["test"] == 20).all()


CELLS = {"adults": {"normal": 20, "disease": 2}, "children": {"normal": 2, "disease": 20}}


def test_a_shortcut_is_drawn_by_cells_and_the_test_set_stays_whole(sites: Path) -> None:
    asked = experiment(correlation=CELLS, split={"val": 0.2, "test": 0.3, "draws": 2}, surplus="unlabelled")
    places, _ = ran(sites, asked)
    plain, _ = ran(sites / "plain", experiment(split={"val": 0.2, "test": 0.3}))
    manifest = read_table(places["split"] / "manifest.csv").set_index("image_id")
    drawn = []
    for fold in (0, 1):
        parts = {part: folds.split_ids(places["split"], fold, part) for part in ("train", "val", "test", "unlabelled")}
        own = {part: manifest.loc[ids] for part, ids in parts.items()}
        counts = pd.crosstab(own["train"]["site"], own["train"]["label"])
        assert counts.to_dict() == {"disease": {"adults": 2, "children": 20}, "normal": {"adults": 20, "children": 2}}
        # of each cell 16 images are in val: 16 / 20 of the asked numbers, rounded up
        val = pd.crosstab(own["val"]["site"], own["val"]["label"])
        assert val.to_dict() == {"disease": {"adults": 2, "children": 16}, "normal": {"adults": 16, "children": 2}}
        assert sorted(parts["test"]) == sorted(folds.split_ids(plain["split"], 0, "test"))
        train = folds.split_ids(plain["split"], 0, "train")
        assert set(parts["train"]) | set(parts["unlabelled"]) == set(train)
        drawn.append(set(own["train"]["patient_id"]))
    assert not drawn[0] & drawn[1], "two draws share no patient"


@pytest.mark.parametrize("labelled", [None, 0, 5])
def test_of_an_unlabelled_site_training_sees_images_and_no_label_but_those_asked_for(
    sites: Path, labelled: int | None
) -> None:
    """Validation, by which thresholds are fixed, has labelled sites only; the test set is that of two labelled ones."""
    plain, _ = ran(sites / "plain", experiment())
    cells = {"adults": {"normal": 20, "disease": 20}, "children": dict.fromkeys(CLASSES, labelled)}
    asked = experiment(correlation=None if labelled is None else cells)
    hidden = asked.model_dump(mode="json")["data"]
    hidden["sources"]["children"]["unlabelled"] = True
    config = validate_experiment({"name": "t", "data": hidden}, "t")
    places, _ = ran(sites, config)
    parts, before = (
        {side: folds.split_ids(where["split"], 0, side) for side in ("train", "val", "test", "unlabelled")}
        for where in (places, plain)
    )
    assert parts["test"] == before["test"] and not before["unlabelled"]
    assert {name.partition("-")[0] for name in parts["val"]} == {"adults"}
    own = {name for name in (*before["train"], *before["val"]) if name.startswith("children-")}
    told = {name for name in parts["train"] if name.startswith("children-")}
    assert len(told) == 2 * (labelled or 0) and set(parts["unlabelled"]) == own - told
    (said,) = validate._what_sites_tell(config, validate._members(places["split"], "site"))
    assert f"Without labels: {len(own - told)} of children." in said and ("tells the class" in said) == bool(told)
    known = folds.open_fold(places["prepare"], places["split"], 0)
    assert set(known.manifest["label"].iloc[known.rows(parts["unlabelled"])]) == {""}
    assert set(read_table(places["split"] / "manifest.csv")["label"]) == set(CLASSES), "they are hidden, not lost"
    splits = read_table(places["split"] / "splits.csv")
    leaked = splits["image_id"] == next(name for name in parts["test"] if name.startswith("children-"))
    splits.assign(split=splits["split"].mask(leaked, "unlabelled")).to_csv(places["split"] / "splits.csv", index=False)
    with pytest.raises(LeakageError, match=r"1 patient\(s\) and 0 identical"):
        folds.open_fold(places["prepare"], places["split"], 0)


def test_cells_that_are_not_there_are_said_with_their_numbers(sites: Path) -> None:
    few = {"adults": {"normal": 200, "disease": 2}, "children": {"normal": 2, "disease": 20}}
    with pytest.raises(DataError, match=r"data\.correlation asks for .* only 40 of normal of adults"):
        ran(sites, experiment(correlation=few))
    with pytest.raises(DataError, match=r"suffice for 2 at data\.correlation"):
        ran(sites / "again", experiment(correlation=CELLS, split={"draws": 3}))


def test_a_site_may_have_one_class_but_no_class_may_be_nowhere(sites: Path) -> None:
    write_site(sites / "b", ["sick"] * 40, "SECRET", 1)
    places, _ = ran(sites, experiment())
    manifest = read_table(places["split"] / "manifest.csv")
    assert set(manifest["label"][manifest["site"] == "children"]) == {"disease"}
    write_site(sites / "a", ["disease"] * 40, "SECRET", 0)
    with pytest.raises(DataError, match="no image is labelled normal"):
        ran(sites / "again", experiment())


def test_a_copy_at_another_site_that_lies_on_another_side_is_a_leak(sites: Path) -> None:
    for folder, given in (("a", "train"), ("b", "test")):
        table = read_table(sites / folder / "labels.csv")
        part = [given if number < 4 else ("train", "val", "test")[number // 4 % 3] for number in range(len(table))]
        table.assign(split=part).to_csv(sites / folder / "labels.csv", index=False)
    (sites / "b" / "0.png").write_bytes((sites / "a" / "1.png").read_bytes())
    with pytest.raises(LeakageError, match="1 images occur, pixel for pixel, in more than one"):
        ran(sites, experiment(split={"kind": "column"}))
    (sites / "again").mkdir()
    places, _ = ran(sites / "again", experiment(split={"kind": "column"}, duplicates="drop"))
    fates = read_table(places["split"] / "manifest.csv").set_index("image_id")["fate"]
    assert (fates["adults-1"], fates["children-0"]) == ("duplicate", "used"), "the test image stays"


def test_units_that_one_window_cannot_serve_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    random = np.random.default_rng(0)
    for number, image in enumerate(random.integers(-1000, 1000, (12, 16, 16)).astype(np.int16)):
        np.save(tmp_path / "ct" / f"{number}.npy", image)
    rows = {"path": [f"{n}.npy" for n in range(12)], "label": [CLASSES[n % 2] for n in range(12)]}
    table = pd.DataFrame(rows | {"patient_id": [f"p{n}" for n in range(12)]})
    table.to_csv(tmp_path / "ct" / "labels.csv", index=False)
    write_site(tmp_path / "a", [CLASSES[n // 2 % 2] for n in range(24)], "SECRET", 0)
    ct = {"kind": "csv", "path": str(tmp_path / "ct" / "labels.csv"), "unit_of_values": "HU"}
    grey = {"kind": "csv", "path": str(tmp_path / "a" / "labels.csv")}
    with pytest.raises(DataError, match="images of one are in HU and images of two are not"):
        ran(tmp_path, experiment(sources={"one": {"source": ct}, "two": {"source": grey}}))


def test_a_change_at_one_site_is_seen(sites: Path) -> None:
    config = ingest.ingest_config(experiment())
    before = ingest.source_digest(config)
    (sites / "b" / "0.png").write_bytes((sites / "b" / "1.png").read_bytes())
    assert ingest.source_digest(config) != before


def test_phantoms_of_two_seeds_are_two_sites(tmp_path: Path) -> None:
    def cohort(seed: int) -> dict[str, Any]:
        return {"source": {"kind": "phantom", "cysts": 9, "metastases": 9, "haemangiomas": 9, "seed": seed}}

    data = {"sources": {"one": cohort(0), "two": cohort(1)}, "spatial_size": 16, "positive": ["metastasis"],
            "classes": ["cyst", "metastasis", "haemangioma"], "crop": {"around": "mask", "size_mm": 48}}  # fmt: skip
    places, dataset = ran(tmp_path, validate_experiment({"name": "t", "data": data}, "t"))
    assert len(dataset.images) == 54 and dataset.scaling.unit == "HU"
    patients = read_table(places["split"] / "manifest.csv").groupby("site")["patient_id"].unique()
    assert not set(patients["one"]) & set(patients["two"])
    assert {text.partition("-")[2] for text in patients["one"]} & {text.partition("-")[2] for text in patients["two"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sources": {}}, "give one of them"),
        ({"source": {"kind": "phantom"}}, "give one of them"),
        ({"sources": {"a": {"source": {"kind": "phantom"}}}}, "two sites at least"),
        ({"sources": {n: {"source": {"kind": "phantom"}} for n in ("a", "external")}}, "cannot be a site's name"),
        ({"sources": {n: {"source": {"kind": "phantom"}} for n in ("a", "../b")}}, "cannot be a site's name"),
        ({"sources": {n: {"source": {"kind": "phantom"}, "labels": {"x": "ill"}} for n in "ab"}}, "labels must lead"),
        ({"correlation": {"adults": CELLS["adults"]}}, "must name each of the sites"),
        ({"correlation": {**CELLS, "adults": {"normal": 3}}}, "correlation.adults must name each of"),
        ({"correlation": {n: {"normal": 5, "disease": 0} for n in CELLS}}, "fewer than two training images of disease"),
        ({"correlation": CELLS, "train_per_class": 5}, "give one of them"),
    ],
)
def test_configurations_that_cannot_be_meant_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        experiment(**changes)


def test_correlation_needs_a_column_of_the_site() -> None:
    plain = {"source": {"kind": "csv", "path": "a.csv"}, "sources": {}, "correlation": {"A": CELLS["adults"], "B": {
        "normal": 3, "disease": 4}}}  # fmt: skip
    with pytest.raises(ConfigError, match="name the column of the site in site"):
        experiment(**plain)
    assert experiment(**plain, site="hospital").data.correlation is not None


def test_paths_of_sites_start_beside_the_configuration_and_are_withheld(sites: Path) -> None:
    config = sites / "t.yaml"
    config.write_text(
        "data:\n  sources:\n    a: {source: {kind: csv, path: a/labels.csv}}\n"
        "    b: {source: {kind: csv, path: nowhere.csv}}\n  classes: [normal, disease]\n  positive: [disease]\n"
    )
    with pytest.raises(ConfigError, match=r"data\.sources\.b\.source\.path: nowhere\.csv is neither in"):
        require_data(load_experiment(config), config)
    found = load_experiment(config, ["data.sources.b.source.path=b/labels.csv"])
    assert found.data.kind_words == "a (csv), b (csv)"
    assert "labels.csv" not in config_without_paths(found)


def test_split_needs_no_site_where_there_is_none(sites: Path) -> None:
    single = experiment(sources={}, source={"kind": "csv", "path": "a/labels.csv"})
    assert split.split_config(single).site == "" and single.data.site_column == ""
