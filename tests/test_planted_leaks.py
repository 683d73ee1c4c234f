"""A leak that was planted behind the split's back: every stage that trains refuses it, and names nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.adversarial import fit
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.errors import LeakageError
from pipeline.core.records import Record
from pipeline.data.batches.dataset import open_dataset
from pipeline.downstream import train

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
PLACE = {"classes": CLASSES, "fold": 0, "seed": 3, "device": "cpu", "precision": "float32"}


def fit_gan(inputs: dict[str, Path], out: Path) -> None:
    gan = SnganConfig(num_images=8, batch_size=4, generator_width=4, discriminator_width=4, latent_dim=4, snapshots=1)
    config = fit.FitConfig(gan=gan, positive=("disease",), gan_seed=0, deterministic=False, **PLACE)
    fit.run(config, inputs, out)


def fit_classifiers(inputs: dict[str, Path], out: Path, *arms: str, gan_seed: int | None = None) -> None:
    classifier = ClassifierConfig(steps=2, seeds=1, batch_size=8)
    config = train.DownstreamConfig(classifier=classifier, arms=arms or ("real",), gan_seed=gan_seed, **PLACE)
    train.run(config, inputs, out)


STAGES = {"fit-gan": fit_gan, "downstream": fit_classifiers}


@pytest.mark.parametrize("stage", list(STAGES))
@pytest.mark.parametrize("column", ["patient_id", "pixel_digest"])
@pytest.mark.parametrize("side", ["val", "test"])
def test_a_held_out_patient_or_copy_among_the_training_images(
    noise_inputs: MakeInputs, tmp_path: Path, stage: str, column: str, side: str
) -> None:
    inputs = noise_inputs()
    clean, leaky = tmp_path / "clean", tmp_path / "leaky"
    clean.mkdir()
    leaky.mkdir()
    STAGES[stage](inputs, clean)
    assert any(clean.iterdir())
    table = pd.read_csv(inputs["split"] / "manifest.csv", dtype=str)
    held_out = table.loc[table["split"] == side, column].iloc[0]
    table.loc[table["split"] == "train", column] = held_out
    table.to_csv(inputs["split"] / "manifest.csv", index=False)
    with pytest.raises(LeakageError) as error:
        STAGES[stage](inputs, leaky)
    assert error.value.exit_code == 3 and held_out not in str(error.value)
    assert not any(path.is_file() for path in leaky.rglob("*"))


def test_images_of_another_folds_generator(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs()
    synthetic = tmp_path / "synthesise"
    synthetic.mkdir()
    real = open_dataset(inputs["prepare"])
    np.save(synthetic / "images.npy", np.asarray(real.images))
    Record(kind="synthesise", extra={"scaling": real.scaling.as_json()}).save(synthetic)
    for fold, ends in (("0", False), ("1", True)):
        table = real.manifest.assign(patient_id="", fold=fold)
        table.to_csv(synthetic / "manifest.csv", index=False)
        out = tmp_path / f"of-{fold}"
        out.mkdir()
        both = inputs | {"synthesise": synthetic}
        if ends:
            with pytest.raises(LeakageError, match="a generator of fold 1"):
                fit_classifiers(both, out, "real+classical+synthetic@1", gan_seed=0)
        else:
            fit_classifiers(both, out, "real+classical+synthetic@1", gan_seed=0)
