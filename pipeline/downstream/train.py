"""Stage `downstream`: train the classifiers of one fold's arms and write what they say of held-out images."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.arms import REFERENCE_ARM, uses_synthetic
from pipeline.config.experiment import ClassifierConfig, Experiment
from pipeline.config.section import Section
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.core.progress import Progress
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed
from pipeline.data.dataset import DataSet, open_dataset, read_table, write_table
from pipeline.data.split import split_ids
from pipeline.downstream.arms import Arm, parse_arm
from pipeline.supervised.fit import Share, apply_classifier, fit_classifier

PREDICTIONS = "predictions.csv"


class DownstreamConfig(Section):
    """The arms of one fold: those with synthetic images of one generator, or (gan_seed null) those without."""

    classifier: ClassifierConfig
    arms: tuple[str, ...]
    classes: tuple[str, ...]
    fold: int
    gan_seed: int | None
    seed: int
    device: str
    precision: str


def downstream_config(experiment: Experiment, fold: int, gan_seed: int | None) -> DownstreamConfig:
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    arms = [arm for arm in experiment.arms if uses_synthetic(arm) == (gan_seed is not None)]
    if gan_seed is not None:
        arms.append(REFERENCE_ARM)  # fitted on real images only; here for the reverse check
    return DownstreamConfig(
        classifier=experiment.classifier,
        arms=tuple(arms),
        classes=experiment.data.classes,
        fold=fold,
        gan_seed=gan_seed,
        seed=derive_seed(experiment.seed, "downstream", fold),
        device=hardware.device,
        precision=hardware.precision,
    )


def run(config: DownstreamConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Fit `classifier.seeds` classifiers an arm; write class probabilities on val and test.

    With synthetic images at hand, the reference arm's first classifier is fitted too and applied to them (the reverse
    check: what one that never saw a synthetic image says of them). A killed run keeps its finished classifiers.
    """
    real = open_dataset(inputs["prepare"])
    synthetic = open_dataset(inputs["synthesise"]) if config.gan_seed is not None else None
    rows = {split: real.rows(split_ids(inputs["split"], config.fold, split)) for split in ("train", "val", "test")}
    fits = [
        (arm, seed)
        for arm in map(parse_arm, config.arms)
        for seed in range(config.classifier.seeds if arm.synthetic or synthetic is None else 1)
    ]
    what = f"classifiers of fold {config.fold}" + ("" if config.gan_seed is None else f", GAN seed {config.gan_seed}")
    progress = Progress(what, len(fits), "fits")
    parts = out_dir / "parts"
    parts.mkdir(exist_ok=True)
    for number, (arm, seed) in enumerate(fits, start=1):
        part = parts / f"{arm.name}-{seed}.csv"
        if not part.is_file():
            write_table(part, _fit_and_apply(config, arm, seed, real, synthetic, rows))
        progress.update(number)
    table = pd.concat([read_table(parts / f"{arm.name}-{seed}.csv") for arm, seed in fits], ignore_index=True)
    write_table(out_dir / PREDICTIONS, table)
    shutil.rmtree(parts)
    return Record(stage="downstream", figures={"classifiers": len(fits), "train_images": len(rows["train"])})


def _fit_and_apply(
    config: DownstreamConfig,
    arm: Arm,
    seed: int,
    real: DataSet,
    synthetic: DataSet | None,
    rows: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    hardware = Hardware(config.device, config.precision)
    shares = [Share(real, rows["train"], arm.real)] if arm.real else []
    if arm.synthetic and synthetic is not None:
        shares.append(Share(synthetic, np.arange(len(synthetic.images)), arm.synthetic))
    gan = "" if config.gan_seed is None or not arm.synthetic else str(config.gan_seed)
    net = fit_classifier(
        config.classifier, shares, config.classes, hardware,
        classical=arm.classical, seed=derive_seed(config.seed, "classifier", arm.name, gan, seed),
    )  # fmt: skip
    if synthetic is not None and not arm.synthetic:  # the reverse check
        everything = np.arange(len(synthetic.images))
        targets = [("synthetic", synthetic, everything)]
        gan = str(config.gan_seed)
    else:
        targets = [(split, real, rows[split]) for split in ("val", "test")]
    key = {"arm": arm.name, "fold": str(config.fold), "seed": str(seed), "gan_seed": gan}
    tables = [
        predictions(key | {"split": split}, data, at, apply_classifier(net, data, at, hardware), config.classes)
        for split, data, at in targets
    ]
    return pd.concat(tables, ignore_index=True)


def predictions(
    key: Mapping[str, str], dataset: DataSet, rows: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Rows of `predictions.csv`: `key`, then image_id, patient_id, label and a score a class."""
    table = dataset.manifest.iloc[rows][["image_id", "patient_id", "label"]].reset_index(drop=True)
    for position, (name, value) in enumerate(key.items()):
        table.insert(position, name, value)
    for number, name in enumerate(classes):
        table[f"score_{name}"] = [f"{score:.6g}" for score in scores[:, number]]
    return table
