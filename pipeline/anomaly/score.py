"""Stage `anomaly`: the discriminator's output on held-out images, normal against abnormal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline.adversarial.weights import has_net, load_net, read_description
from pipeline.config.section import Section
from pipeline.core.compute import resolve_hardware
from pipeline.core.layout import ANOMALY_SCORES
from pipeline.core.metrics import MetricRow, as_text, write_metrics
from pipeline.core.patients import patient_units
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed, numpy_generator
from pipeline.data.batches.dataset import DataSet, open_dataset, write_table
from pipeline.data.cohort.folds import split_ids
from pipeline.measures.classification import weighted_auroc
from pipeline.measures.resampling import MIN_PATIENTS, Spread, interval, patient_weights
from pipeline.nets.conditions import Condition

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

NOTE = "this discriminator saw abnormal patients in training: its score is a by-product, not an anomaly detector's"
_BATCH = 128


class AnomalyConfig(Section):
    classes: tuple[str, ...]
    positive: tuple[str, ...]
    fold: int
    gan_seed: int
    alpha: float
    bootstrap: int
    seed: int
    device: str


def anomaly_config(experiment: Experiment, fold: int, gan_seed: int) -> AnomalyConfig:
    return AnomalyConfig(
        classes=experiment.data.classes,
        positive=experiment.data.positive,
        fold=fold,
        gan_seed=gan_seed,
        alpha=experiment.verdict.alpha,
        bootstrap=experiment.verdict.bootstrap,
        seed=derive_seed(experiment.seed, "anomaly", fold, gan_seed),
        device=resolve_hardware(experiment.compute.device).device,
    )


def run(config: AnomalyConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Score the fold's test images; write anomaly.csv and the AUROC of abnormal against normal.

    A family without a discriminator gives no scores: the tables stay empty, and the record says so.
    """
    if not has_net(inputs["fit-gan"], "discriminator"):
        return _skipped(inputs["fit-gan"], out_dir)
    dataset = open_dataset(inputs["prepare"])
    rows = dataset.rows(split_ids(inputs["split"], config.fold, "test"))
    net, description = load_net(inputs["fit-gan"], "discriminator")
    normal = [number for number, name in enumerate(config.classes) if name not in config.positive]
    attributes = len(description["gan"]["attributes"])
    scores = anomaly_scores(net.to(config.device), dataset, rows, normal, attributes, config.device)
    table = dataset.manifest.iloc[rows][["image_id", "patient_id", "label"]].reset_index(drop=True)
    table.insert(0, "split", "test")
    table.insert(0, "gan_seed", str(config.gan_seed))
    table.insert(0, "fold", str(config.fold))
    table["anomaly_score"] = [f"{score:.6g}" for score in scores]
    write_table(out_dir / ANOMALY_SCORES, table)
    row = _auroc(config, table, scores)
    write_metrics(out_dir, [row])
    return Record(kind="anomaly", figures={"auroc": float(row.value)}, notes=(NOTE,))


@torch.no_grad()
def anomaly_scores(
    net: nn.Module, dataset: DataSet, rows: np.ndarray, normal: Sequence[int], attributes: int, device: str
) -> np.ndarray:
    """Minus the discriminator's logit under the normal class, [len(rows)]; large = unlike a normal image.

    Every image is judged under the same condition, and with mean attributes: under its own label the score would know
    the answer. With several normal classes the one that fits best counts. A discriminator that judges an image beside
    its mask is shown the image's own; one that judges patches gives their mean.
    """
    found = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        images = dataset.tensor(part).to(device)
        shared = Condition(
            mask=None if dataset.masks is None else torch.from_numpy(dataset.masks[part].astype(np.float32)).to(device),
            attributes=torch.zeros(len(part), attributes, device=device) if attributes else None,
        )
        conditions = [replace(shared, label=torch.full((len(part),), one, device=device)) for one in normal]
        logits = [net(images, condition).logits.reshape(len(part), -1) for condition in conditions]
        found.append(-torch.stack([one.mean(dim=1) for one in logits]).amax(dim=0).float().cpu())
    return torch.cat(found).numpy()


def _skipped(fitted: Path, out_dir: Path) -> Record:
    columns = ["fold", "gan_seed", "split", "image_id", "patient_id", "label", "anomaly_score"]
    write_table(out_dir / ANOMALY_SCORES, pd.DataFrame(columns=columns))
    write_metrics(out_dir, [])
    family = read_description(fitted)["gan"]["family"]
    note = f"Skipped: the family {family} has no discriminator, so there is nothing to score anomalies by."
    return Record(kind="anomaly", figures={"auroc": "skipped"}, notes=(note,))


def _auroc(config: AnomalyConfig, table: pd.DataFrame, scores: np.ndarray) -> MetricRow:
    abnormal = table["label"].isin(config.positive).to_numpy()
    units = patient_units(table).to_numpy(dtype=str)
    weights = patient_weights(units, config.bootstrap, numpy_generator(config.seed, "patients"))
    value = float(weighted_auroc(scores, abnormal, np.ones((1, len(scores))))[0])
    draws = weighted_auroc(scores, abnormal, weights)
    patients = len(np.unique(units))
    low, high = None, None
    if patients >= MIN_PATIENTS and np.isfinite(draws).mean() >= 0.95:
        bounds = interval(value, [Spread(float(np.nanvar(draws, ddof=1)), patients - 1)], config.alpha).within(0.0, 1.0)
        low, high = bounds.low, bounds.high
    return MetricRow(
        stage="anomaly", fold=str(config.fold), gan_seed=str(config.gan_seed), split="test",
        label="+".join(config.positive), metric="auroc", value=as_text(value), ci_low=as_text(low),
        ci_high=as_text(high), n_patients=str(patients), n_images=str(len(scores)), detail=NOTE,
    )  # fmt: skip
