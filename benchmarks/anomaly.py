"""Anomaly detectors on the same patients: AUROC with intervals, alarms, seconds and memory, one row a detector and set.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/anomaly.py SET [DETECTOR ...] [--look val] [--set key=value]

Each detector is fitted in a process of its own and added to benchmarks/results/anomaly.csv as it is finished; rows that
are there are not made again. `--look val` (the default) scores validation patients, on whom settings may be chosen;
`--look test` opens the test patients, once, when everything is settled. Sets: nih-64, pneumonia-32, adrenal-3d,
organs-3d (the vertebra is the organ that was never shown), liver (cysts and haemangiomas are normal, metastases not).
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rows import append

from flows.plan import plan_experiment
from pipeline.anomaly.detectors import DETECTORS
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import execute
from pipeline.core.layout import ANOMALY_SCORES
from pipeline.core.patients import patient_units
from pipeline.core.records import load_record
from pipeline.core.seeds import numpy_generator
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import read_table
from pipeline.measures.classification import weighted_auroc
from pipeline.measures.resampling import Spread, interval, patient_weights
from pipeline.verdict.detectors import patient_scores

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "anomaly.csv"
CACHE = ROOT / "runs" / ".cache"
GAN = ["gan.generator_width=16", "gan.discriminator_width=16", "gan.augment_probability=0.5"]
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "nih-64": ("nih-cxr.yaml", [*GAN, "anomaly.gan_images=20000"]),
    "pneumonia-32": ("pneumoniamnist.yaml", ["data.train_per_class=null", *GAN, "anomaly.gan_images=60000"]),
    "adrenal-3d": ("adrenal3d.yaml", ["anomaly.gan_images=6000", "anomaly.steps=400"]),
    "organs-3d": ("ct-organs3d.yaml", ["anomaly.gan_images=6000", "anomaly.steps=400"]),
    "liver": ("demo.yaml", ["anomaly.gan_images=60000"]),
}
COLUMNS = [
    "set", "look", "detector", "auroc", "low", "high", "n_patients", "train_images", "seconds", "gan_seconds",
    "peak_mib", "figures",
]  # fmt: skip
DRAWS, ALPHA = 2000, 0.05


def experiment_of(name: str, detector: str, extra: list[str]) -> Experiment:
    config, changes = SETTINGS[name]
    return load_experiment(ROOT / "configs" / config, [*changes, *extra, f"anomaly.detectors=[{detector}]"])


def fit(name: str, detector: str, look: str, extra: list[str]) -> None:
    """Fit one detector and add its row."""
    use_threads(1)
    directories: dict[str, Path] = {}
    took: dict[str, float] = {}
    for step in plan_experiment(experiment_of(name, detector, extra)):
        if step.kind in ("ingest", "split", "prepare", "fit-normals", "detect"):
            started = time.monotonic()
            found = execute(step.stage(directories), CACHE)
            directories[step.name] = found.directory
            took[step.kind] = found.record.wall_s if found.cached else time.monotonic() - started
    place = next(at for name, at in directories.items() if name.startswith("detect-"))
    table = patient_scores(read_table(place / ANOMALY_SCORES))
    table = table[table["split"] == look]
    score, abnormal = table["score"].to_numpy(), (table["label"] == "abnormal").to_numpy()
    units = patient_units(table).to_numpy(dtype=str)
    weights = patient_weights(units, DRAWS, numpy_generator(0, "patients"), table["label"].to_numpy())
    value = float(weighted_auroc(score, abnormal, np.ones((1, len(score))))[0])
    spread = Spread(float(np.var(weighted_auroc(score, abnormal, weights), ddof=1)), len(units) - 1)
    bounds = interval(value, [spread], ALPHA).within(0.0, 1.0)
    figures = load_record(place).figures
    append(TABLE, [{
        "set": name, "look": look, "detector": detector, "auroc": f"{value:.4f}",
        "low": "" if bounds.low is None else f"{bounds.low:.4f}",
        "high": "" if bounds.high is None else f"{bounds.high:.4f}", "n_patients": len(units),
        "train_images": figures.get("train_images"), "seconds": f"{took['detect']:.1f}",
        "gan_seconds": f"{took.get('fit-normals', 0.0):.1f}",
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "figures": figures,
    }], COLUMNS)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=list(SETTINGS))
    parser.add_argument("detectors", nargs="*", default=list(DETECTORS))
    parser.add_argument("--look", choices=["val", "test"], default="val")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--one", action="store_true", help="fit the one detector in this process")
    asked = parser.parse_args()
    if asked.one:
        fit(asked.set, asked.detectors[0], asked.look, asked.changes)
        return
    for detector in asked.detectors:
        if not _is_there(asked.set, asked.look, detector):
            further = [token for change in asked.changes for token in ("--set", change)]
            subprocess.run(
                [sys.executable, __file__, asked.set, detector, "--look", asked.look, "--one", *further], check=False
            )
    if TABLE.is_file():
        table = pd.read_csv(TABLE)
        own = table[(table["set"] == asked.set) & (table["look"] == asked.look)]
        print(own.drop(columns=["set", "figures"]).sort_values("auroc", ascending=False).to_string(index=False))


def _is_there(name: str, look: str, detector: str) -> bool:
    if not TABLE.is_file():
        return False
    with TABLE.open(encoding="utf-8") as handle:
        return any(
            (row["set"], row["look"], row["detector"]) == (name, look, detector) for row in csv.DictReader(handle)
        )


if __name__ == "__main__":
    main()
