"""Sites through the stages: from a table's column to predictions, figures and a warning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flows.cli import launch
from pipeline.config.experiment import Experiment
from pipeline.config.loading import dump_experiment, validate_experiment
from pipeline.core.errors import DataError
from pipeline.core.metrics import read_metrics
from pipeline.core.records import Record
from pipeline.data import ingest, prepare
from pipeline.data.batches.dataset import read_table
from pipeline.data.cohort import split
from pipeline.downstream import train
from pipeline.verdict import stage


def write_hospitals(folder: Path) -> Path:
    """40 patients a class and split; A leaves a grid and has 6 of the ill and 34 of the well, B the others."""
    random = np.random.default_rng(0)
    rows = []
    for part in ("train", "val", "test"):
        for label in ("well", "ill"):
            for number in range(40):
                site = "A" if (number < 6) == (label == "ill") else "B"
                pixels = random.integers(0, 120, (16, 16)) + 40 * (label == "ill")
                if site == "A":
                    pixels[::4] = 250
                name = f"{part}-{label}-{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
                rows.append((name, label, f"SECRET{part}{label}{number}", part, site))
    table = pd.DataFrame(rows, columns=["path", "label", "patient_id", "split", "hospital"])
    table.to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def experiment(table: Path, **changes: object) -> Experiment:
    data = {"source": {"kind": "csv", "path": str(table)}, "classes": ["well", "ill"], "positive": ["ill"],
            "spatial_size": 16, "split": {"kind": "column"}, "site": "hospital"}  # fmt: skip
    arms = ["real", "real+classical", "real+classical+mixup"]
    values = {"name": "t", "data": data | changes, "arms": arms, "classifier": {"steps": 3, "seeds": 2}}
    return validate_experiment(values | {"verdict": {"bootstrap": 200, "stratum": "reversed"}}, "t")


def test_a_column_becomes_cells_figures_and_a_warning(tmp_path: Path) -> None:
    config = experiment(write_hospitals(tmp_path))
    places = {name: tmp_path / "out" / name for name in ("ingest", "split", "prepare", "downstream", "verdict")}
    for place in places.values():
        place.mkdir(parents=True)
    ingest.run(ingest.ingest_config(config), {}, places["ingest"])
    split.run(split.split_config(config), places, places["split"]).save(places["split"])
    prepare.run(prepare.prepare_config(config), places, places["prepare"]).save(places["prepare"])
    fitted = train.run(train.downstream_config(config, 0, None), places, places["downstream"])
    Record("downstream", fold=0, figures=fitted.figures).save(places["downstream"])
    inputs = {name: places[name] for name in ("split", "prepare", "downstream")}
    judged = stage.run(stage.verdict_config(config), inputs, places["verdict"])
    table = read_table(places["verdict"] / "predictions.csv")
    known = read_table(tmp_path / "labels.csv").set_index("patient_id")["hospital"]
    assert list(table["site"]) == list(table["patient_id"].map(known))
    assert set(table["split"]) == {"val", "test"}
    rare = (table["site"] == "A") == (table["label"] == "ill")
    assert list(table["cell"]) == ["rare" if one else "common" for one in rare]
    groups = {row.subgroup for row in read_metrics(places["verdict"]) if row.stage == "sites"}
    assert groups == {"site = A", "site = B", "cells = balanced", "cells = reversed", "cells = worst"}
    (warning,) = [
        note for note in judged.notes if note.startswith("Shortcut: hospital alone tells the class in 85 % [")
    ]
    assert "SECRET" not in warning


def test_validate_prints_the_cells_and_what_they_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "t.yaml"
    config.write_text(dump_experiment(experiment(write_hospitals(tmp_path))), encoding="utf-8")
    assert launch(["validate", str(config)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Training images by hospital: A: 6 ill, 34 well; B: 34 ill, 6 well." in shown
    assert "hospital alone tells the class in 85 % [" in shown and "(guessing 50 %)" in shown


def test_validate_refuses_a_generator_of_a_cell_that_has_no_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, config = write_hospitals(tmp_path), tmp_path / "t.yaml"
    table = pd.read_csv(path)
    table["hospital"] = table["hospital"].where((table["label"] == "well") | (table["split"] != "train"), "B")
    table.to_csv(path, index=False)
    sited = [
        "data.site_names=[A, B]",
        "gan={family: sngan, by_site: true}",
        "anomaly.detectors=[]",
        "privacy.attacks=[]",
    ]
    changes = [word for change in sited for word in ("--set", change)]
    config.write_text(dump_experiment(experiment(path)), encoding="utf-8")
    assert launch(["validate", str(config), *changes]) == 2
    assert "fold 0 has no training image of ill of A" in capsys.readouterr().err


def test_patients_of_several_sites_are_refused_at_the_split_where_the_verdict_counts_patients(tmp_path: Path) -> None:
    path = write_hospitals(tmp_path)
    table = pd.read_csv(path)
    table.loc[[5, 6], "patient_id"] = "SECRET"  # of A, and of B
    table.to_csv(path, index=False)
    config = experiment(path)
    by_patient = config.model_copy(update={"verdict": config.verdict.model_copy(update={"unit": "patient"})})
    places = {name: tmp_path / name for name in ("ingest", "split")}
    for place in places.values():
        place.mkdir()
    ingest.run(ingest.ingest_config(config), {}, places["ingest"])
    split.run(split.split_config(config), places, places["split"])
    with pytest.raises(DataError, match="1 of 239 patients have images of several sites") as error:
        split.run(split.split_config(by_patient), places, places["split"])
    assert "SECRET" not in str(error.value)


def test_a_column_that_is_not_there_is_refused_before_anything_trains(tmp_path: Path) -> None:
    config = experiment(write_hospitals(tmp_path), site="clinic")
    (tmp_path / "ingest").mkdir()
    ingest.run(ingest.ingest_config(config), {}, tmp_path / "ingest")
    with pytest.raises(DataError, match=r"data\.site: the manifest has no column clinic"):
        split.run(split.split_config(config), {"ingest": tmp_path / "ingest"}, tmp_path)
