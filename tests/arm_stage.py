"""A tiny stage downstream: a fold with a pool and a generator, and arms fitted on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.adversarial import fit as gan_stage
from pipeline.adversarial.families.s3gan import S3ganConfig
from pipeline.config.arms import ARMS, arm_facts
from pipeline.config.experiment import ClassifierConfig
from pipeline.config.gan import WatchConfig
from pipeline.core.compute import Hardware
from pipeline.core.records import Record
from pipeline.data.batches.dataset import open_dataset
from pipeline.downstream import train
from pipeline.downstream.features import TrunkConfig
from pipeline.downstream.material import Material

MakeInputs = Callable[..., dict[str, Path]]
CLASSES = ("normal", "disease")
CPU = Hardware("cpu", "float32")
TRUNK = TrunkConfig(width=4, steps=2, batch_size=4, latent_dim=3)
STEPPED = tuple(name for name, facts in ARMS.items() if facts.trunk is None and facts.representation is None)
EVERY_ARM = tuple(f"{name}@1" if facts.ratio else name for name, facts in ARMS.items() if not facts.blind_translator)
"""But those whose images go through a translator: tests/test_archive_translation.py."""
SLOW_ARM = "pretrained+classical"
TOLD, POOL = 10, 6
"""Of 24 training images: 7 normal and 3 of the disease are told, 6 are the pool, the others are not used."""


def with_pool(inputs: dict[str, Path]) -> dict[str, Path]:
    """Fewer and unequal labelled training images, and a pool; the manifest still holds the pool's labels."""
    table = pd.read_csv(inputs["split"] / "splits.csv", dtype=str)
    ids = table["image_id"][table["split"] == "train"].tolist()
    normal, disease = ids[::2], ids[1::2]
    told, pool = [*normal[:7], *disease[:3]], [*normal[7:10], *disease[3:6]]
    split = table["split"].where(~table["image_id"].isin(ids), "unused")
    split = split.where(~table["image_id"].isin(told), "train")
    table["split"] = split.where(~table["image_id"].isin(pool), "unlabelled")
    table.to_csv(inputs["split"] / "splits.csv", index=False)
    return inputs


def with_generator(inputs: dict[str, Path], root: Path, samples: int = 12) -> dict[str, Path]:
    """A barely trained s3gan, and in its images' place fresh noise with a bright class, as a good GAN would make."""
    gan = S3ganConfig(
        num_images=8, batch_size=4, generator_width=4, discriminator_width=4, latent_dim=4, snapshots=1, checkpoints=1,
        watch=WatchConfig(checks=0),
    )  # fmt: skip
    config = gan_stage.FitConfig(
        gan=gan, classes=CLASSES, positive=("disease",), fold=0, gan_seed=0, seed=3, device="cpu",
        precision="float32", deterministic=False,
    )  # fmt: skip
    found = inputs | {"fit-gan": root / "fit-gan", "synthesise": root / "synthesise"}
    for name in ("fit-gan", "synthesise"):
        found[name].mkdir()
    gan_stage.run(config, inputs, found["fit-gan"])
    real = open_dataset(inputs["prepare"])
    label = np.repeat([0, 1], samples)
    noise = np.random.default_rng(7).integers(0, 120, (2 * samples, *real.images.shape[1:]))
    bright = 100 * label.reshape(-1, *[1] * (noise.ndim - 1))
    np.save(found["synthesise"] / "images.npy", (noise + bright).astype(np.uint8))
    ids = [f"synthetic-{number}" for number in range(2 * samples)]
    table = pd.DataFrame({"image_id": ids, "label": np.array(CLASSES)[label], "patient_id": "", "fold": "0"})
    table = table.assign(site=np.array(["A", "B"])[np.arange(2 * samples) % 2])
    table = table.assign(source_image=sources(inputs, table))
    table.to_csv(found["synthesise"] / "manifest.csv", index=False)
    Record(kind="synthesise", extra={"scaling": real.scaling.as_json()}).save(found["synthesise"])
    return found


def sources(inputs: dict[str, Path], made: pd.DataFrame) -> list[str]:
    """For each synthetic image a training image of its class and the other site, in turn."""
    known, split = (pd.read_csv(inputs["split"] / f"{name}.csv", dtype=str) for name in ("manifest", "splits"))
    train = known[known["image_id"].isin(split["image_id"][split["split"] == "train"])]
    found = []
    for site, label in zip(made["site"], made["label"], strict=True):
        able = train["image_id"][(train["label"] == label) & (train["hospital"] != site)].tolist()
        earlier = sum(1 for one in found if one in able)
        found.append(able[earlier % len(able)])
    return found


def settings(steps: int = 3, seeds: int = 1) -> ClassifierConfig:
    return ClassifierConfig(steps=steps, seeds=seeds, batch_size=8)


def material_of(
    inputs: dict[str, Path], parts: Path, config: ClassifierConfig | None = None, *, planted: bool = True
) -> Material:
    """With `planted`, an ensemble that agrees with the classes asked for: one of so few steps agrees with nobody."""
    parts.mkdir(exist_ok=True)
    if planted and not (parts / "ensemble-synthetic.npz").exists():
        np.savez(parts / "ensemble-synthetic.npz", scores=np.repeat([[0.9, 0.1], [0.2, 0.8]], 12, axis=0))
    return Material(config or settings(), CLASSES, 0, inputs, parts, CPU, seed=1, site="hospital", archives=("A",))


def stage(arms: tuple[str, ...], config: ClassifierConfig | None = None) -> train.DownstreamConfig:
    facts = [arm_facts(arm) for arm in arms]
    return train.DownstreamConfig(
        classifier=config or settings(), arms=arms, classes=CLASSES, fold=0, gan_seed=0, seed=1, device="cpu",
        precision="float32", trunk=TRUNK, needs_pool=any(fact is not None and fact.pool for fact in facts),
    )  # fmt: skip


def fitted_arms(arms: tuple[str, ...], inputs: dict[str, Path], out: Path) -> pd.DataFrame:
    """val and test predictions of one fit of each arm, whatever stage it belongs to."""
    material = material_of(inputs, out)
    tables = []
    for arm in arms:
        facts = arm_facts(arm)
        assert facts is not None
        seen = material.seen_as(facts.look)
        predict, _ = train.fit_arm(arm, stage(arms), seen, seed=5)
        for split in ("val", "test"):
            rows = seen.rows(split)
            scores = predict(seen.dataset, rows)
            tables.append(train.predictions({"arm": arm, "split": split}, seen.dataset, rows, scores, CLASSES))
    return pd.concat(tables, ignore_index=True)
