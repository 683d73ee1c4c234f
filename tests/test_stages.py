"""Classifiers, synthesis and memorisation on tiny prepared data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

from pipeline.adversarial import fit
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.config.experiment import ClassifierConfig
from pipeline.core.compute import Hardware
from pipeline.core.metrics import read_metrics
from pipeline.core.records import Record
from pipeline.data.batches.dataset import open_dataset
from pipeline.downstream import train
from pipeline.privacy import memorisation, near_search
from pipeline.supervised import fit as supervised
from pipeline.supervised.fit import Share, apply_classifier, batch_sizes, fit_classifier
from pipeline.synthesis import synthesise
from pipeline.synthesis.generate import TrainedGenerator

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
CPU = Hardware("cpu", "float32")


def fitted(inputs: dict[str, Path], root: Path, num_images: int = 64) -> dict[str, Path]:
    """Inputs with a barely trained GAN and 8 synthetic images a class."""
    gan = SnganConfig(
        num_images=num_images, batch_size=8, generator_width=4, discriminator_width=4, latent_dim=6, snapshots=1,
        checkpoints=1,
    )  # fmt: skip
    config = fit.FitConfig(
        gan=gan,
        classes=CLASSES,
        positive=("disease",),
        fold=0,
        gan_seed=0,
        seed=3,
        device="cpu",
        precision="float32",
        deterministic=False,
    )
    found = inputs | {"fit-gan": root / "fit-gan", "synthesise": root / "synthesise"}
    for name in ("fit-gan", "synthesise"):
        found[name].mkdir()
    fit.run(config, inputs, found["fit-gan"])
    settings = synthesise.SynthesiseConfig(
        samples_per_class=8, truncation_psi=1.0, fold=0, gan_seed=0, seed=1, device="cpu"
    )
    synthesise.run(settings, found, found["synthesise"]).save(found["synthesise"])
    return found


def downstream_config(arms: tuple[str, ...], gan_seed: int | None) -> train.DownstreamConfig:
    return train.DownstreamConfig(
        classifier=ClassifierConfig(steps=4, seeds=2, batch_size=8), arms=arms, classes=CLASSES, fold=0,
        gan_seed=gan_seed, seed=1, device="cpu", precision="float32",
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8)])
def test_a_classifier_learns_what_can_be_seen_and_repeats(noise_inputs: MakeInputs, shape: tuple[int, ...]) -> None:
    data = open_dataset(noise_inputs(shape, num=40)["prepare"])
    config = ClassifierConfig(steps=40, batch_size=8)
    train_rows, test_rows = np.arange(20), np.arange(20, 40)
    shares = [Share(data, train_rows)]
    scores = [
        apply_classifier(fit_classifier(config, shares, CLASSES, CPU, classical=True, seed=5), data, test_rows, CPU)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_allclose(scores[0].sum(axis=1), 1, atol=1e-5)
    right = scores[0].argmax(axis=1) == data.labels(test_rows, CLASSES).numpy()
    assert right.mean() > 0.9


@pytest.mark.parametrize("network", ["densenet121", "resnet18"])
@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 32)])
def test_monais_networks_fit_in_2d_and_3d(noise_inputs: MakeInputs, network: str, shape: tuple[int, ...]) -> None:
    data = open_dataset(noise_inputs(shape, num=8)["prepare"])
    config = ClassifierConfig(network=network, steps=1, batch_size=4)
    net = fit_classifier(config, [Share(data, np.arange(8))], CLASSES, CPU, classical=False, seed=0)
    assert apply_classifier(net, data, np.arange(8), CPU).shape == (8, 2)


def test_batches_are_divided_by_the_arms_ratio(noise_inputs: MakeInputs) -> None:
    data = open_dataset(noise_inputs()["prepare"])

    def sizes(*weights: float) -> list[int]:
        return batch_sizes(32, [Share(data, np.arange(2), weight) for weight in weights])

    assert sizes(1) == [32]
    assert sizes(1, 1) == [16, 16]
    assert sizes(1, 3) == [8, 24]
    assert sizes(1, 1000) == [1, 31]
    assert sizes(1000, 1) == [31, 1]


def test_downstream_writes_val_and_test_of_every_fit_and_the_reverse_check(
    noise_inputs: MakeInputs, tmp_path: Path
) -> None:
    inputs = fitted(noise_inputs(), tmp_path)
    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    plain.mkdir()
    mixed.mkdir()
    train.run(downstream_config(("real", "real+classical"), None), inputs, plain)
    table = pd.read_csv(plain / "predictions.csv", dtype=str, keep_default_na=False)
    assert table.groupby(["arm", "seed", "split"]).size().to_dict() == {
        (arm, seed, split): 6 for arm in ("real", "real+classical") for seed in "01" for split in ("val", "test")
    }
    assert set(table["gan_seed"]) == {""}
    arms = ("real+classical+synthetic@1", "synthetic+classical", "real+classical")
    train.run(downstream_config(arms, 0), inputs, mixed)
    table = pd.read_csv(mixed / "predictions.csv", dtype=str, keep_default_na=False)
    reverse = table[table["split"] == "synthetic"]
    assert reverse.groupby(["arm", "seed"]).size().to_dict() == {
        ("real+classical", "0"): 16, **{(arm, seed): 16 for arm in arms[:2] for seed in "01"}
    }  # fmt: skip
    assert set(reverse["patient_id"]) == {""}
    assert set(table.loc[table["split"] == "test", "arm"]) == set(arms[:2])
    assert not (mixed / "parts").exists()


def test_a_killed_downstream_stage_keeps_its_finished_classifiers(
    noise_inputs: MakeInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, out, whole = noise_inputs(), tmp_path / "out", tmp_path / "whole"
    out.mkdir()
    whole.mkdir()
    config = downstream_config(("real", "real+classical"), None)
    train.run(config, inputs, whole)
    calls: list[int] = []

    def dies_third(*args: object, **kwargs: object) -> torch.nn.Module:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return supervised.fit(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "fit", dies_third)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, inputs, out)
    train.run(config, inputs, out)
    assert len(calls) == 3 + 2
    assert (out / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()


def test_synthesis_is_balanced_nameless_and_repeatable(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = fitted(noise_inputs(), tmp_path)
    made = open_dataset(inputs["synthesise"])
    assert made.manifest["label"].value_counts().to_dict() == {"normal": 8, "disease": 8}
    assert set(made.manifest["patient_id"]) == {""}
    assert made.images.dtype == np.uint8 and made.images.shape == (16, 1, 12, 12)
    seed = int(made.manifest["sample_seed"].iloc[3])
    generator = TrainedGenerator(inputs["fit-gan"], inputs)
    again = dict(generator.images("normal", 8, 1))[seed]
    stored = made.scaling.to_stored(made.scaling.to_physical(again))
    np.testing.assert_array_equal(stored, made.images[3])


def test_truncation_brings_images_nearer_together(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = fitted(noise_inputs(), tmp_path)
    generator = TrainedGenerator(inputs["fit-gan"], inputs)

    def spread(psi: float) -> float:
        return float(np.stack([image for _, image in generator.images("normal", 16, 0, psi)]).std(axis=0).mean())

    assert spread(0.3) < 0.6 * spread(1.0)


def memorisation_rates(inputs: dict[str, Path], tmp_path: Path, images: np.ndarray) -> Record:
    """Run the memorisation check with `images` put in the synthetic set's place."""
    synthetic = tmp_path / "planted"
    synthetic.mkdir()
    np.save(synthetic / "images.npy", images)
    ids = [f"s{number}" for number in range(len(images))]
    pd.DataFrame({"image_id": ids, "label": "normal", "patient_id": ""}).to_csv(synthetic / "manifest.csv", index=False)
    Record(kind="synthesise", extra={"scaling": open_dataset(inputs["prepare"]).scaling.as_json()}).save(synthetic)
    out = tmp_path / "privacy"
    out.mkdir()
    config = memorisation.MemorisationConfig(classes=CLASSES, fold=0, gan_seed=0, seed=0, pool=False)
    return memorisation.run(config, inputs | {"synthesise": synthetic}, out)


def test_copies_of_training_images_are_found(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs(num=120)
    copies = open_dataset(inputs["prepare"]).images[:60]
    record = memorisation_rates(inputs, tmp_path, np.array(copies))
    assert record.figures["nearer_to_training_rate"] > 0.65  # half the training images are drawn at a time
    nearest = pd.read_csv(tmp_path / "privacy" / "memorisation.csv")
    assert (nearest["nearest_train_distance"] == 0).all()
    assert (record.figures["near_copies"], record.figures["near_copies_control"]) == (1, 0)
    assert record.figures["near_copies_low"] == pytest.approx(60 / (60 + 1.96**2), abs=1e-3)  # Wilson for 60 of 60
    assert record.notes == (
        "60 of 60 synthetic images are copies of a training image, and 60 are near copies (0 % of unseen real images "
        "are that near to one).",
    )
    counts = [record.figures[name] for name in ("near_patients", "near_patients_of", "near_unseen", "near_unseen_of")]
    assert counts == [60, 60, 0, 60]
    rows = {row.metric: row for row in read_metrics(tmp_path / "privacy")}
    assert (rows["near_copies"].value, rows["near_copies"].n_images, rows["near_copies"].split) == (
        "1.0", "60", "synthetic",
    )  # fmt: skip
    assert (rows["near_copies_control"].value, rows["near_copies_control"].n_images) == ("0.0", "60")
    assert (tmp_path / "privacy" / "closest_pairs.png").stat().st_size > 500


def test_of_many_images_some_are_looked_at(
    noise_inputs: MakeInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest images are those of all pairs, whatever is held at a time; some validation images are drawn."""
    monkeypatch.setattr(memorisation, "_LOOKED_AT", 20)
    monkeypatch.setattr(near_search, "_VALUES", 1000)  # of 144 voxels an image
    inputs = noise_inputs(num=120)
    prepared = open_dataset(inputs["prepare"])
    images = np.roll(np.array(prepared.images[:30]), 1, axis=-1)
    memorisation_rates(inputs, tmp_path, images)
    nearest = pd.read_csv(tmp_path / "privacy" / "memorisation.csv")
    made = prepared.scaling.to_model(torch.from_numpy(images)).flatten(1).numpy()
    splits = pd.read_csv(inputs["split"] / "splits.csv").set_index("image_id")["split"]
    for split, column in (("train", "nearest_train_distance"), ("test", "nearest_heldout_distance")):
        rows = prepared.rows(list(splits.index[splits == split]))
        expected = cdist(made, prepared.tensor(rows).flatten(1).numpy()).min(axis=1) / 12
        places = nearest["image_id"].str[1:].astype(int)
        np.testing.assert_allclose(nearest[column], expected[places], rtol=1e-5)
    rows = {row.metric: row.n_images for row in read_metrics(tmp_path / "privacy")}
    assert (rows["near_copies"], rows["near_copies_control"]) == ("30", "60")  # synthetic images up to ten thousand


def test_fresh_draws_are_as_near_to_held_out_images(noise_inputs: MakeInputs, tmp_path: Path) -> None:
    inputs = noise_inputs(num=120)
    random = np.random.default_rng(9)
    fresh = random.integers(0, 120, (200, 1, 12, 12)) + 100 * (np.arange(200) % 2).reshape(-1, 1, 1, 1)
    record = memorisation_rates(inputs, tmp_path, fresh.astype(np.uint8))
    assert record.figures["rate_low"] < 0.5 < record.figures["rate_high"]
    assert record.figures["control_rate"] == pytest.approx(0.5, abs=0.15)
    assert record.figures["near_copies"] == 0 and record.notes == ()


def test_noisy_and_darker_copies_are_near_copies_and_means_of_two_are_not(
    noise_inputs: MakeInputs, tmp_path: Path
) -> None:
    """Noise of 3 of 255 grey levels, or a twentieth off each, hides no copy; means of two are none."""
    inputs = noise_inputs(num=120)
    train = np.array(open_dataset(inputs["prepare"]).images[:40]).astype(float)
    grain = train + 3 * np.random.default_rng(0).standard_normal(train.shape)
    planted = np.concatenate([grain, 0.95 * train, (train + np.roll(train, 2, axis=0)) / 2])
    record = memorisation_rates(inputs, tmp_path, np.rint(planted.clip(0, 255)).astype(np.uint8))
    assert record.figures["near_copies"] == pytest.approx(2 / 3, abs=1e-4)
