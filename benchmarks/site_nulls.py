"""Real trainings across two sites in which nothing can help: do the arms of a shortcut say `helps`?

Site and class go together as 50 to 50, and the "synthetic" images are classical transforms of the training images, so
that no arm with them knows what its controls do not: it is the null of a generator that has learnt nothing new, and no
GAN is trained. Site b differs from site a in brightness and contrast. Each repetition draws its own training,
validation and test images, trains two classifiers an arm by the arm's own entry, and asks the verdict about each
candidate beside its controls, on two endpoints. False `helps` of all repetitions are counted.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/site_nulls.py [mixed] [--repetitions 60] [--part 0/1]

Each repetition adds its rows to benchmarks/results/site_nulls.csv (`mixed`, of the arm that mixes translations across
sites: site_nulls_mixed.csv); the table is printed from all rows.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from repetitions import repeat
from rows import append
from scipy import stats

from flows.plan import plan_experiment
from pipeline.config.arms import known_arm
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import execute
from pipeline.core.compute import Hardware
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.draws import Draws
from pipeline.downstream.regimens import regimen_of
from pipeline.downstream.train import predictions
from pipeline.supervised.batches import Share
from pipeline.supervised.fit import apply_classifier, fit
from pipeline.verdict import VerdictPlan, decide

ROOT = Path(__file__).resolve().parents[1]
MIXED = sys.argv[1:2] == ["mixed"]
TABLE = ROOT / "benchmarks" / "results" / ("site_nulls_mixed.csv" if MIXED else "site_nulls.csv")
CANDIDATES = (
    ("translated-crosssitemixup",)
    if MIXED
    else ("real+classical+synthetic@1", "cells-synthetic-pretrained", "translated-consistency")
)
ENDPOINTS = (("auroc", "balanced"), ("worst_cell", ""))
TRAINED, TESTED, SEEDS, STEPS, BATCH, COPIES, SIDE = 10, 50, 2, 30, 16, 4, 16
"""Images a cell to train on and to validate on; test images a cell; classifiers an arm; their steps and batch;
transforms of an image; voxels a side."""
HARDWARE = Hardware("cpu", "float32")
FIELDS = ("repetition", "arm", "endpoint", "stratum", "decision", "difference", "ci_low", "ci_high", "reference_mean")


def all_images() -> tuple[Experiment, DataSet]:
    """The prepared chest X-rays of PneumoniaMNIST."""
    changes = ["data.train_per_class=null", f"classifier.steps={STEPS}", f"data.spatial_size={SIDE}"]
    changes.append(f"classifier.batch_size={BATCH}")
    experiment = load_experiment(ROOT / "configs" / "pneumoniamnist.yaml", changes)
    directories: dict[str, Path] = {}
    for step in plan_experiment(experiment)[:3]:
        directories[step.name] = execute(step.stage(directories), ROOT / "runs" / ".cache").directory
    return experiment, open_dataset(directories["prepare"])


def arms() -> tuple[str, ...]:
    """The candidates behind the controls that they must beat."""
    controls = dict.fromkeys(control for arm in CANDIDATES for control in known_arm(arm).controls)
    return (*controls, *CANDIDATES)


def drawn(number: int, experiment: Experiment, real: DataSet) -> tuple[DataSet, dict[str, np.ndarray]]:
    """A data set of two sites, and who trains, validates and tests: equally many of every cell."""
    random, parts = np.random.default_rng(number), {"train": TRAINED, "val": TRAINED, "test": TESTED}
    rows, tables, places = [], [], {name: [] for name in parts}  # type: ignore[var-annotated]
    for name in experiment.data.classes:
        mine = random.permutation(np.flatnonzero(real.manifest["label"] == name))
        for site in ("a", "b"):
            for part, size in parts.items():
                start = sum(map(len, rows))
                places[part].append(np.arange(start, start + size))
                rows.append(mine[:size])
                mine = mine[size:]
                tables.append(real.manifest.iloc[rows[-1]].assign(site=site, cell="common"))
    table = pd.concat(tables, ignore_index=True)
    stored = np.asarray(real.images[np.concatenate(rows)])
    other = (table["site"] == "b").to_numpy().reshape(-1, *[1] * (stored.ndim - 1))
    stored = np.where(other, 40 + 0.7 * stored, stored).astype(stored.dtype)
    return replace(real, manifest=table, images=stored), {name: np.concatenate(found) for name, found in places.items()}


def material(dataset: DataSet, rows: np.ndarray, experiment: Experiment, seed: int) -> Any:
    """What arms are trained on: the images, and transforms of these as if a generator had made them."""
    many = np.repeat(rows, COPIES)
    made = Augmenter(experiment.classifier.augment)(dataset.tensor(many), Draws(torch.Generator().manual_seed(seed)))
    stored = np.stack([dataset.scaling.to_stored(dataset.scaling.to_physical(image)) for image in made.numpy()])
    fake = replace(dataset, manifest=dataset.manifest.iloc[many].reset_index(drop=True), images=stored)

    def groups(found: DataSet, places: np.ndarray) -> np.ndarray:
        table = found.manifest.iloc[places]
        return np.asarray(pd.factorize(table["site"] + table["label"], sort=True)[0], dtype=np.int64)

    def domains(found: DataSet, places: np.ndarray) -> np.ndarray:
        return (found.manifest["site"].to_numpy()[places] == "b").astype(np.int64)

    everything, first = np.arange(len(fake.images)), COPIES * np.arange(len(rows))
    cells = Share(dataset, rows, groups=groups(dataset, rows), domains=domains(dataset, rows))
    made_cells = Share(fake, everything, groups=groups(fake, everything), domains=domains(fake, everything))
    return SimpleNamespace(
        archives=(), real=Share(dataset, rows), cells=cells, synthetic=Share(fake, everything),
        synthetic_cells=made_cells, dataset=dataset, classes=experiment.data.classes,
        domains=functools.partial(domains, dataset),
        cells_twice=replace(cells, beside=(dataset, rows)), cells_translated=replace(cells, beside=(fake, first)),
    )  # fmt: skip


def repetition(number: int, experiment: Experiment, real: DataSet) -> list[dict[str, object]]:
    dataset, rows = drawn(number, experiment, real)
    ours, classes, tables = material(dataset, rows["train"], experiment, number), experiment.data.classes, []
    for place, arm in enumerate(arms()):
        regimen = regimen_of(arm, experiment.classifier, ours)
        for seed in range(SEEDS):
            net = fit(experiment.classifier, regimen, classes, HARDWARE, seed=1000 * number + 10 * place + seed)
            for split in ("val", "test"):
                key = {"arm": arm, "fold": "0", "seed": str(seed), "gan_seed": "", "split": split}
                scores = apply_classifier(net, dataset, rows[split], HARDWARE)
                told = predictions(key, dataset, rows[split], scores, classes)
                known = dataset.manifest.iloc[rows[split]][["site", "cell"]].reset_index(drop=True)
                tables.append(told.join(known))
    table = pd.concat(tables, ignore_index=True)
    return [
        judged(number, table, arm, endpoint, stratum, experiment.data.positive)
        for arm in CANDIDATES
        for endpoint, stratum in ENDPOINTS
    ]


def judged(
    number: int, table: pd.DataFrame, arm: str, endpoint: str, stratum: str, positive: tuple[str, ...]
) -> dict[str, object]:
    """The verdict on one candidate beside its controls."""
    compared = table[table["arm"].isin([arm, *known_arm(arm).controls])]
    plan = VerdictPlan(positive=positive, arm=arm, endpoint=endpoint, stratum=stratum, bootstrap=500)  # type: ignore[arg-type]
    verdict = decide(compared, plan)
    values = {name: verdict.evidence[name] for name in FIELDS if name in verdict.evidence}
    return values | {
        "repetition": number, "arm": arm, "endpoint": endpoint, "stratum": stratum, "decision": verdict.decision,
    }  # fmt: skip


def add(rows: list[dict[str, object]]) -> None:
    shown = [
        {name: f"{row[name]:.5g}" if isinstance(row.get(name), float) else row.get(name, "") for name in FIELDS}
        for row in rows
    ]
    append(TABLE, shown, FIELDS)


def summary(rows: pd.DataFrame) -> str:
    """Decisions of each candidate and endpoint, with an interval for the false `helps`."""
    lines = []
    for (arm, endpoint, stratum), part in rows.fillna("").groupby(["arm", "endpoint", "stratum"], sort=False):
        helps = int((part["decision"] == "helps").sum())
        low, high = stats.binomtest(helps, len(part)).proportion_ci(method="wilson")
        counts = ", ".join(f"{name} {count}" for name, count in part["decision"].value_counts().items())
        lines.append(
            f"{arm}, {endpoint} {stratum or '(all)'} ({part['reference_mean'].mean():.3f}): {len(part)} repetitions, "
            f"{counts}; mean difference {100 * part['difference'].mean():+.2f} points. False helps {helps} "
            f"({low:.1%} to {high:.1%})."
        )
    return "\n".join(lines)


def main() -> None:
    if MIXED:
        del sys.argv[1]
    images = functools.cache(all_images)
    repeat(__doc__, TABLE, 60, lambda number: add(repetition(number, *images())), summary)


if __name__ == "__main__":
    main()
