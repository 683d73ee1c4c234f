"""Anomaly detectors on the same patients: what they find, with intervals, alarms, comparisons, seconds and memory.

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/anomaly.py SET [DETECTOR ...] [--look val] [--seeds 1]
     RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/anomaly.py SET judge [--look val]

Each detector is fitted in a process of its own with one thread and added to benchmarks/results/anomaly.csv as it is
finished; rows that are there are not made again. `supervised` is the ceiling: the run's own classifier, trained on the
same patients and those with disease. `judge` writes benchmarks/results/anomaly_figures.csv from the patients' scores,
which lie in runs/anomaly: every figure with its interval over patients and fits, and each detector beside
`discriminator-logit` and beside `discriminator-average`, by the inference of a run. `--look val` (the default) scores
validation patients, on whom settings may be chosen; `--look test` opens the test patients, once, when everything is
settled.

Sets: nih-64, pneumonia-32, adrenal-3d, organs-3d (the vertebra is the organ that was never shown; its units are
patches, of two patients in all), liver (simulated; cysts and haemangiomas are normal, metastases not).
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rows import append

from flows.plan import plan_experiment
from pipeline.anomaly.detectors import DETECTORS
from pipeline.config.anomaly import normal_classes
from pipeline.config.arms import REFERENCE_ARM
from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.cache import execute
from pipeline.core.layout import ANOMALY_SCORES, PREDICTIONS
from pipeline.core.metrics import MetricRow
from pipeline.core.records import load_record
from pipeline.core.threads import use_threads
from pipeline.data.batches.dataset import read_table, write_table
from pipeline.verdict.detectors import DIFFERENCE, SUPERVISED, detector_rows, patient_scores

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "benchmarks" / "results" / "anomaly.csv"
FIGURES = ROOT / "benchmarks" / "results" / "anomaly_figures.csv"
KEPT, CACHE = ROOT / "runs" / "anomaly", ROOT / "runs" / ".cache"
GAN = ["gan.generator_width=16", "gan.discriminator_width=16", "gan.augment_probability=0.5"]
SETTINGS: dict[str, tuple[str, list[str]]] = {
    "nih-64": ("nih-cxr.yaml", [*GAN, "anomaly.gan_images=20000"]),
    "pneumonia-32": ("pneumoniamnist.yaml", ["data.train_per_class=null", *GAN, "anomaly.gan_images=60000"]),
    "adrenal-3d": ("adrenal3d.yaml", ["anomaly.gan_images=6000", "anomaly.steps=400"]),
    "organs-3d": ("ct-organs3d.yaml", ["data.source.patients={}", "anomaly.gan_images=6000", "anomaly.steps=400"]),
    "liver": ("demo.yaml", ["anomaly.gan_images=60000"]),
}
CEILING = "supervised"
REFERENCES = ("discriminator-logit", "discriminator-average")
PREPARED = ("ingest", "split", "prepare")
COLUMNS = [
    "set", "look", "detector", "seed", "auroc", "low", "high", "n_patients", "train_images", "seconds", "gan_seconds",
    "peak_mib", "figures",
]  # fmt: skip
FIGURE_COLUMNS = ["set", "look", "detector", "metric", "value", "low", "high", "n_patients", "detail"]
DRAWS, ALPHA, FALSE_ALARMS = 2000, 0.05, 0.05


def experiment_of(name: str, detector: str, seed: int, extra: list[str]) -> Experiment:
    config, changes = SETTINGS[name]
    asked = f"anomaly.detectors=[{detector if detector != CEILING else 'pca'}]"
    own = [f"arms=[{REFERENCE_ARM}]", asked, f"seed={seed}"]
    return load_experiment(ROOT / "configs" / config, [*changes, *extra, *own])


def scores_of(name: str, detector: str, seed: int) -> Path:
    """The file of a fit's patients and their scores."""
    return KEPT / f"{name}-{detector}-{seed}.csv"


def fit(name: str, detector: str, look: str, seed: int, extra: list[str]) -> None:
    """Fit one detector and add its row."""
    use_threads(1)
    experiment = experiment_of(name, detector, seed, extra)
    last = "downstream" if detector == CEILING else "detect"
    places: dict[str, Path] = {}
    took: dict[str, float] = {}
    for step in plan_experiment(experiment):
        if step.kind in (*PREPARED, *(["fit-normals"] if last == "detect" else []), last):
            started = time.monotonic()
            found = execute(step.stage(places), CACHE)
            places[step.name] = found.directory
            took[step.kind] = found.record.wall_s if found.cached else time.monotonic() - started
    place = next(at for name, at in places.items() if name.startswith(last))
    table = _patients(experiment, place, ceiling=detector == CEILING)
    if detector != CEILING:  # which has several fits of its own
        table = table.assign(seed=str(seed))
    KEPT.mkdir(parents=True, exist_ok=True)
    write_table(scores_of(name, detector, seed), table)
    auroc = _judged(table, look, detector if detector != CEILING else SUPERVISED)["auroc"]
    figures = load_record(place).figures
    append(TABLE, [{
        "set": name, "look": look, "detector": detector, "seed": seed, "auroc": auroc.value, "low": auroc.ci_low,
        "high": auroc.ci_high, "n_patients": auroc.n_patients, "train_images": figures.get("train_images"),
        "seconds": f"{took[last]:.1f}", "gan_seconds": f"{took.get('fit-normals', 0.0):.1f}",
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "figures": figures,
    }], COLUMNS)  # fmt: skip


def _patients(experiment: Experiment, place: Path, *, ceiling: bool) -> pd.DataFrame:
    """Scores patient by patient, of the detector or of the supervised classifier."""
    if not ceiling:
        return patient_scores(read_table(place / ANOMALY_SCORES))
    data = experiment.data
    normal = normal_classes(experiment.anomaly, data.classes, data.positive)
    table = read_table(place / PREDICTIONS)
    table = table[table["arm"] == REFERENCE_ARM]
    asked = [f"score_{label}" for label in data.classes if label not in normal]
    return patient_scores(
        table.drop(columns="arm").assign(
            detector=SUPERVISED,
            anomaly_score=table[asked].astype(float).sum(axis=1),
            normal=table["label"].isin(normal).astype(int),
        )
    )


def _judged(table: pd.DataFrame, look: str, *order: str) -> dict[str, MetricRow]:
    """The figures of one detector, metric -> mean over its fits."""
    return {row.metric: row for row in _rows(table, look, order) if row.fold == ""}


def _rows(table: pd.DataFrame, look: str, order: Sequence[str]) -> list[MetricRow]:
    """All rows; validation patients looked at stand in for test ones, and their alarms mean nothing."""
    if look == "val":
        val = table[table["split"] == "val"]
        table = pd.concat([val, val.assign(split="test")], ignore_index=True)
    rows = detector_rows(table, order, FALSE_ALARMS, alpha=ALPHA, bootstrap=DRAWS, seed=0)
    return [row for row in rows if look == "test" or row.metric in ("auroc", "auprc", DIFFERENCE)]


def judge(name: str, look: str) -> None:
    """Every figure of a set, in place of those that stood there."""
    told = pd.read_csv(TABLE, dtype=str).query("set == @name and look == @look")
    found = [
        read_table(scores_of(name, row.detector, int(row.seed)))
        for row in told.itertuples()
        if scores_of(name, str(row.detector), int(str(row.seed))).is_file()
    ]
    table = pd.concat(found, ignore_index=True).assign(score=lambda all_: all_["score"].astype(float))
    rows = []
    for reference in REFERENCES:
        order = sorted(set(table["arm"]) - {SUPERVISED}, key=lambda arm: (arm != reference, arm))
        means = [row for row in _rows(table, look, order) if row.fold == "" and row.metric != "threshold"]
        rows += [row for row in means if reference == REFERENCES[0] or row.metric == DIFFERENCE]
    kept = pd.read_csv(FIGURES, dtype=str).query("not (set == @name and look == @look)") if FIGURES.is_file() else None
    new = pd.DataFrame(
        [
            [name, look, row.arm, row.metric, row.value, row.ci_low, row.ci_high, row.n_patients, row.detail]
            for row in rows
        ],
        columns=FIGURE_COLUMNS,
    )
    write_table(FIGURES, new if kept is None else pd.concat([kept, new], ignore_index=True))
    shown = new[new["metric"].isin(["auroc", DIFFERENCE])]
    print(shown.drop(columns=["set", "look"]).to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=list(SETTINGS))
    parser.add_argument("detectors", nargs="*", default=[CEILING, *DETECTORS], help="all, or `judge`")
    parser.add_argument("--look", choices=["val", "test"], default="val")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--one", type=int, help="fit the one detector in this process, under this seed")
    asked = parser.parse_args()
    if asked.detectors == ["judge"]:
        judge(asked.set, asked.look)
    elif asked.one is not None:
        fit(asked.set, asked.detectors[0], asked.look, asked.one, asked.changes)
    else:
        further = [token for change in asked.changes for token in ("--set", change)]
        for seed in range(asked.seeds):
            for detector in asked.detectors:
                if not _is_there(asked.set, asked.look, detector, seed):
                    command = [sys.executable, __file__, asked.set, detector, "--look", asked.look]
                    subprocess.run([*command, "--one", str(seed), *further], check=False)


def _is_there(name: str, look: str, detector: str, seed: int) -> bool:
    if not TABLE.is_file():
        return False
    with TABLE.open(encoding="utf-8") as handle:
        return any(
            (row["set"], row["look"], row["detector"], row["seed"]) == (name, look, detector, str(seed))
            for row in csv.DictReader(handle)
        )


if __name__ == "__main__":
    main()
