"""Real trainings in which nothing can help: does the verdict say `helps`?

The "synthetic" images are classical transforms of the training images, so the augmented arm knows nothing that the
reference does not. Each repetition draws its own labelled, validation and test images, trains three classifiers an arm,
and asks the verdict. The false `helps` of all repetitions are counted, beside what an interval over test images alone
would have said.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/real_nulls.py [--repetitions 100] [--part 0/1]

Each repetition adds its row to benchmarks/results/real_nulls.csv; the table is printed from all rows.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from repetitions import repeat
from rows import append
from scipy import stats

from flows.plan import plan_experiment
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import execute
from pipeline.core.compute import Hardware
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.dataset import DataSet, open_dataset
from pipeline.data.batches.draws import Draws
from pipeline.downstream.train import predictions
from pipeline.supervised.batches import Share
from pipeline.supervised.fit import apply_classifier, fit_classifier
from pipeline.verdict import VerdictPlan, decide

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "real_nulls.csv"
REFERENCE, AUGMENTED = "real+classical", "real+classical+synthetic@1"
LABELLED, TESTED, SEEDS, STEPS, COPIES = 10, 100, 3, 60, 4
"""Images a class to train on and to validate on; test images a class; classifiers an arm; steps; transforms."""
HARDWARE = Hardware("cpu", "float32")
FIELDS = ("repetition", "decision", "difference", "ci_low", "ci_high", "bca_low", "bca_high", "delong_p", "auroc")


def all_images() -> tuple[Experiment, DataSet]:
    """The prepared chest X-rays of PneumoniaMNIST."""
    changes = ["data.train_per_class=null", f"classifier.steps={STEPS}"]
    experiment = load_experiment(ROOT / "configs" / "pneumoniamnist.yaml", changes)
    directories: dict[str, Path] = {}
    for step in plan_experiment(experiment)[:3]:
        directories[step.name] = execute(step.stage(directories), ROOT / "runs" / ".cache").directory
    return experiment, open_dataset(directories["prepare"])


def transformed(real: DataSet, rows: np.ndarray, experiment: Experiment, seed: int) -> DataSet:
    """Classical transforms of the images at `rows`, as if a generator had made them."""
    many = np.repeat(rows, COPIES)
    draws = Draws(torch.Generator().manual_seed(seed))
    made = Augmenter(experiment.classifier.augment)(real.tensor(many), draws).numpy()
    stored = np.stack([real.scaling.to_stored(real.scaling.to_physical(image)) for image in made])
    manifest = real.manifest.iloc[many].reset_index(drop=True)
    return DataSet(real.root, manifest, stored, real.scaling)


def repetition(number: int, experiment: Experiment, real: DataSet) -> dict[str, object]:
    random = np.random.default_rng(number)
    parts: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    for name in experiment.data.classes:
        mine = random.permutation(np.flatnonzero(real.manifest["label"] == name))
        bounds = np.cumsum([LABELLED, LABELLED, TESTED])
        for split, rows in zip(parts, np.split(mine[: bounds[-1]], bounds[:-1]), strict=True):
            parts[split].append(rows)
    rows = {split: np.concatenate(found) for split, found in parts.items()}
    fake = transformed(real, rows["train"], experiment, number)
    shares = {REFERENCE: [Share(real, rows["train"])]}
    shares[AUGMENTED] = [*shares[REFERENCE], Share(fake, np.arange(len(fake.images)))]
    classes, tables = experiment.data.classes, []
    for place, (arm, share) in enumerate(shares.items()):
        for seed in range(SEEDS):
            start = 1000 * number + 10 * place + seed
            net = fit_classifier(experiment.classifier, share, classes, HARDWARE, classical=True, seed=start)
            for split in ("val", "test"):
                key = {"arm": arm, "fold": "0", "seed": str(seed), "gan_seed": "", "split": split}
                scores = apply_classifier(net, real, rows[split], HARDWARE)
                tables.append(predictions(key, real, rows[split], scores, classes))
    verdict = decide(pd.concat(tables, ignore_index=True), VerdictPlan(positive=experiment.data.positive))
    seen = verdict.evidence
    values = {name: seen[name] for name in FIELDS if name in seen}
    return {
        "repetition": number, **values, "decision": verdict.decision, "delong_p": seen["tests"]["delong_p"],
        "auroc": seen["reference_mean"],
    }  # fmt: skip


def add(row: dict[str, object]) -> None:
    shown = {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()}
    append(TABLE, [shown], FIELDS)


def summary(rows: pd.DataFrame) -> str:
    """Counts of the decisions, with an interval for the false `helps`, and DeLong's test beside it."""
    helps = int((rows["decision"] == "helps").sum())
    low, high = stats.binomtest(helps, len(rows)).proportion_ci(method="wilson")
    naive = int(((rows["delong_p"] < 0.05) & (rows["difference"] > 0)).sum())
    counts = ", ".join(f"{name} {count}" for name, count in rows["decision"].value_counts().items())
    mean, error = 100 * rows["difference"].mean(), 100 * rows["difference"].sem()
    return (
        f"{len(rows)} repetitions (AUROC {rows['auroc'].mean():.3f}): {counts}. False helps {helps} "
        f"({low:.1%} to {high:.1%}); DeLong's test of the averaged scores alone: {naive}. "
        f"Mean difference {mean:+.2f} points (standard error {error:.2f})."
    )


def main() -> None:
    images = functools.cache(all_images)
    repeat(__doc__, TABLE, 100, lambda number: add(repetition(number, *images())), summary)


if __name__ == "__main__":
    main()
