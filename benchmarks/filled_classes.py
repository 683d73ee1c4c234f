"""Is it the filling of one class alone that harms? The same synthetic images in the rare class, and in both classes.

The row `adrenal-minority-longer` of the hunt, with its GAN from the cache. AUROC on validation patients, one figure a
classifier seed; test patients are not looked at.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/filled_classes.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from hunt_rows import ROOT, ROWS, arms
from sklearn.metrics import roc_auc_score

from flows.plan import plan_experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import execute
from pipeline.core.records import records_of

CONFIG, CHANGES = ROWS["adrenal-minority-longer"]
ARMS = ["real+classical", "minority-synthetic", "real+classical+synthetic@1"]
DISEASE = "hyperplasia"


def main() -> None:
    torch.set_num_threads(1)
    experiment = load_experiment(ROOT / "configs" / f"{CONFIG}.yaml", [*CHANGES, arms(ARMS)])
    directories: dict[str, Path] = {}
    for step in plan_experiment(experiment):
        if step.kind in ("ingest", "split", "prepare", "fit-gan", "synthesise", "downstream"):
            directories[step.name] = execute(step.stage(directories), ROOT / "runs" / ".cache").directory
    fits = records_of(directories.values(), "downstream")
    table = pd.concat([pd.read_csv(directory / "predictions.csv") for _, directory in fits])
    val = table[table["split"] == "val"]
    for arm in ARMS:
        fits = val[val["arm"] == arm].groupby("seed")
        found = [roc_auc_score(fit["label"] == DISEASE, fit[f"score_{DISEASE}"]) for _, fit in fits]
        print(f"{arm:<28} {' '.join(f'{value:.3f}' for value in sorted(found))}")


if __name__ == "__main__":
    main()
