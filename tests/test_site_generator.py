"""A generator that is asked by site and class, and the arm that learns from its images before the real ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from arm_stage import CLASSES, MakeInputs, material_of, settings, with_generator

from pipeline.adversarial import fit as gan_stage
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.config.experiment import Experiment
from pipeline.config.gan import WatchConfig
from pipeline.config.loading import validate_experiment
from pipeline.core.errors import ConfigError, DataError, LeakageError
from pipeline.data.batches import streams
from pipeline.data.batches.dataset import open_dataset, read_table, write_table
from pipeline.data.cohort.split import split_config
from pipeline.downstream.regimens import regimen_of
from pipeline.supervised.batches import Batches
from pipeline.synthesis import synthesise

ARM, CONTROL = "cells-synthetic-pretrained", "cells-pretrained"
PAIRS = [(site, label) for site in ("A", "B") for label in CLASSES]
CELLS = {f"{label} of {site}": (site, label) for site, label in PAIRS}


def config(**changes: Any) -> gan_stage.FitConfig:
    gan = SnganConfig(
        num_images=16, batch_size=8, generator_width=4, discriminator_width=4, latent_dim=4, snapshots=1,
        checkpoints=1, watch=WatchConfig(checks=1, images=8), by_site=True,
    )  # fmt: skip
    values = {"gan": gan, "classes": tuple(CELLS), "positive": ("disease of A", "disease of B"), "cells": CELLS,
              "site": "hospital", "fold": 0, "gan_seed": 0, "seed": 3, "device": "cpu", "precision": "float32",
              "deterministic": False}  # fmt: skip
    return gan_stage.FitConfig(**(values | changes))


def fitted(inputs: dict[str, Path], root: Path, **changes: Any) -> dict[str, Path]:
    found = inputs | {"fit-gan": root / "fit-gan", "synthesise": root / "synthesise"}
    for name in ("fit-gan", "synthesise"):
        found[name].mkdir(parents=True)
    gan_stage.run(config(**changes), inputs, found["fit-gan"])
    return found


def test_it_learns_cells_of_training_images_and_its_images_have_both_names(
    noise_inputs: MakeInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, asked = noise_inputs(num=48), []
    plain = streams.stored_images

    def spied(dataset: Any, rows: Any, classes: Any, *more: Any) -> Any:
        asked.append([(dataset.manifest["image_id"].iloc[row], dataset.manifest["label"].iloc[row]) for row in rows])
        return plain(dataset, rows, classes, *more)

    monkeypatch.setattr(gan_stage, "stored_images", spied)
    found = fitted(inputs, tmp_path)
    known = read_table(inputs["split"] / "manifest.csv").set_index("image_id")
    (seen,) = asked
    assert {image for image, _ in seen} == set(known.index[known["split"] == "train"])
    for image, label in seen:
        assert CELLS[label] == tuple(known.loc[image, ["hospital", "label"]])
    stage = synthesise.SynthesiseConfig(
        samples_per_class=6, truncation_psi=1.0, fold=0, gan_seed=0, seed=1, device="cpu"
    )
    synthesise.run(stage, found, found["synthesise"]).save(found["synthesise"])
    table = open_dataset(found["synthesise"]).manifest
    assert Counter(zip(table["site"], table["label"], strict=True)) == dict.fromkeys(PAIRS, 3)
    assert table["image_id"].is_unique and table["image_id"].iloc[0] == "synthetic-A-normal-00000"


def test_a_cell_without_training_images_is_refused(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs(num=48)
    table = read_table(inputs["prepare"] / "manifest.csv")
    write_table(inputs["prepare"] / "manifest.csv", table.assign(
        hospital=table["hospital"].mask(table["label"] == "disease", "B")))  # fmt: skip
    with pytest.raises(DataError, match="fold 0 has no training image of disease of A"):
        fitted(inputs, tmp_path)


@pytest.mark.parametrize("column", ["pixel_digest", "patient_id"])
def test_a_test_image_in_its_stream_is_a_leak(noise_inputs: MakeInputs, tmp_path: Path, column: str) -> None:
    """The same image, or another one of the same patient, on two sides of the fold."""
    inputs = noise_inputs(num=48)
    table = read_table(inputs["split"] / "manifest.csv")
    table.loc[0, column] = table[column].iloc[-1]
    write_table(inputs["split"] / "manifest.csv", table)
    with pytest.raises(LeakageError, match="are in more than one of train, val, test"):
        fitted(inputs, tmp_path)


def test_the_arm_never_mixes_real_and_synthetic_images_and_its_control_takes_as_long(
    noise_inputs: MakeInputs, tmp_path: Path
) -> None:
    material = material_of(with_generator(noise_inputs(num=48), tmp_path), tmp_path / "parts")
    first, second = regimen_of(ARM, settings(steps=10), material).phases
    assert [phase.steps for phase in (first, second)] == [10, 10] and second.head == "fresh"
    (made,), (real,) = first.shares, second.shares
    assert made.dataset is material.generated and set(real.rows) == set(material.rows("train"))
    cells = list(zip(made.dataset.manifest["site"], made.dataset.manifest["label"], strict=True))
    assert made.groups is not None
    names = dict(zip(made.groups, cells, strict=True))
    for phase in (first, second):
        batch = Batches(phase.shares, 8, CLASSES, "cpu", seed=0).next()
        assert sorted(Counter(batch.group.tolist()).values()) == [2, 2, 2, 2]
    batch = Batches(first.shares, 8, CLASSES, "cpu", seed=0).next()
    assert [CLASSES[number] for number in batch.target.argmax(1)] == [names[n][1] for n in batch.group.tolist()]
    control = regimen_of(CONTROL, settings(steps=10), material).phases
    assert [phase.steps for phase in control] == [10, 10]
    assert all(share.dataset is material.dataset for phase in control for share in phase.shares)


def experiment(**changes: Any) -> Experiment:
    source = {"kind": "csv", "path": "a.csv"}
    data = {"source": source, "classes": ["well", "ill"], "positive": ["ill"], "site": "hospital",
            "correlation": {site: {"well": 5, "ill": 5} for site in ("A", "B")}}  # fmt: skip
    plain = {"name": "t", "data": data | changes.pop("data", {}), "gan": {"by_site": True},
             "anomaly": {"detectors": []}, "arms": ["real+classical", ARM]}  # fmt: skip
    return validate_experiment(plain | changes, "t")


def test_configurations_that_cannot_be_meant_are_refused() -> None:
    found = gan_stage.fit_config(experiment(), 0, 0)
    assert found.classes == ("well of A", "ill of A", "well of B", "ill of B")
    assert found.positive == ("ill of A", "ill of B") and found.site == "hospital"
    assert gan_stage.fit_config(experiment(gan={}, arms=["real+classical"]), 0, 0).cells == {}
    with pytest.raises(ConfigError, match=r"set gan\.by_site"):
        experiment(gan={})
    with pytest.raises(ConfigError, match="needs the names of the sites"):
        experiment(data={"correlation": None})
    named = {"correlation": None, "site_names": ["A", "B"]}
    assert gan_stage.fit_config(experiment(data=named), 0, 0).cells == found.cells
    assert split_config(experiment(data=named)).site_names == ("A", "B")
    for wrong, said in (
        ({"site_names": ["A", "B"]}, "name the sites already"),
        (named | {"site": ""}, "name that column too"),
        (named | {"site_names": ["A", "A"]}, "two different names"),
    ):
        with pytest.raises(ConfigError, match=said):
            experiment(data=wrong)
    with pytest.raises(ConfigError, match="gan-features look through a GAN by class alone"):
        experiment(arms=["real+classical", "gan-features"])
    with pytest.raises(ConfigError, match="discriminator-features@run look through"):
        experiment(anomaly={})
    with pytest.raises(ConfigError, match="lira look through"):
        experiment(privacy={"attacks": ["lira"]})
