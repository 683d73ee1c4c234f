"""The stages that touch all images, each on made-up inputs of N images: what `growth.py` times."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats  # noqa: F401  stages import these when they need them; here before the clock runs
import statsmodels.stats.contingency_tables
import statsmodels.stats.multitest  # noqa: F401
from scipy.ndimage import gaussian_filter

from flows.ledger import begin_look
from pipeline.config.experiment import Experiment
from pipeline.config.loading import validate_experiment
from pipeline.core.records import Record
from pipeline.data import ingest, prepare
from pipeline.data.batches.dataset import open_dataset, read_table, write_table
from pipeline.data.batches.scaling import Scaling
from pipeline.data.cohort import split
from pipeline.data.cohort.audit import audit_manifest
from pipeline.data.cohort.duplicates import near_groups
from pipeline.data.cohort.identities import with_patients
from pipeline.data.cohort.leakage import assert_no_leakage
from pipeline.data.cohort.manifest import REJECTED_COLUMNS
from pipeline.downstream.train import predictions
from pipeline.measures.coverage import nearest_distances, nearest_others, prdc
from pipeline.measures.frechet import fid
from pipeline.measures.kernel_distance import kid
from pipeline.privacy import memorisation
from pipeline.verdict.decide import VerdictPlan, decide
from pipeline.verdict.stage import VerdictStageConfig, arm_metrics

CLASSES = ("normal", "disease")
ARMS = ("real+classical", "real+classical+oversampling", "real+classical+synthetic@1")
SIDE, FEATURES, SYNTHETIC, MOST = 32, 256, 500, 10_000
Call = Callable[[], object]


def experiment(**data: Any) -> Experiment:
    plain = {"source": {"kind": "npz", "path": "pack.npz"}, "classes": CLASSES, "positive": ["disease"], **data}
    return validate_experiment({"name": "growth", "data": {"spatial_size": SIDE, **plain}}, "growth")


def manifest(number: int) -> pd.DataFrame:
    """Two images a patient, a tenth of them of known scanners; no two alike."""
    random, rows = np.random.default_rng(0), np.arange(number)
    label = np.array(CLASSES)[(rows // 2) % 2]
    table = pd.DataFrame({"image_id": rows, "path": rows, "label": label, "patient_id": rows // 2}).astype(str)
    table["patient_id"] = "p" + table["patient_id"]
    choices = {
        "manufacturer": ["Alder", "Birch", "Cedar"], "model": ["A", "B", "C", "D"], "kernel": ["soft", "sharp"],
        "sex": ["F", "M", ""], "age": [str(age) for age in range(20, 90)], "slice_thickness_mm": ["1", "2.5", "5"],
    }  # fmt: skip
    for name, values in choices.items():
        table[name] = random.choice(values, number)
    table["pixel_digest"] = [f"{row:064x}" for row in rows]
    fixed = {"modality": "CT", "body_part": "CHEST", "size": "32x32", "spacing": "1x1", "near_group": "",
             "values": "uint8", "minimum": "0", "maximum": "255", "header_patient": ""}  # fmt: skip
    return table.assign(**fixed)


def thumbnails(number: int) -> np.ndarray:
    """Smooth random images as the audit sees them, every hundredth a near copy of the one before it."""
    random = np.random.default_rng(0)
    fields = gaussian_filter(random.standard_normal((number, 16, 16)), (0, 2, 2)).reshape(number, -1)
    fields[1::100] = fields[0::100][: len(fields[1::100])] + 1e-3 * random.standard_normal(256)
    fields -= fields.mean(axis=1, keepdims=True)
    return (fields / np.linalg.norm(fields, axis=1, keepdims=True)).astype(np.float32)


def pack(number: int, root: Path) -> None:
    """A MedMNIST file of smooth random images."""
    random = np.random.default_rng(0)
    parts, arrays = {"train": 0.6, "val": 0.2, "test": 0.2}, {}
    for name, share in parts.items():
        count = int(share * number)
        fields = gaussian_filter(random.standard_normal((count, 28, 28), dtype=np.float32), (0, 2, 2))
        arrays[f"{name}_images"] = np.clip(128 + 300 * fields, 0, 255).astype(np.uint8)
        arrays[f"{name}_labels"] = np.arange(count) % 2
    np.savez(root / "pack.npz", **arrays)
    os.environ["RADAUG_DATA"] = str(root)


def folder(root: Path, name: str) -> Path:
    (made := root / name).mkdir()
    return made


def ingested(number: int, root: Path) -> Path:
    """What ingest leaves, as tables."""
    source = folder(root, "ingest")
    write_table(source / "manifest.csv", manifest(number))
    write_table(source / "rejected.csv", pd.DataFrame(columns=list(REJECTED_COLUMNS)))
    write_table(source / "audit.csv", pd.DataFrame(columns=["check", "severity", "count", "detail"]))
    return source


def divided(number: int, root: Path) -> Path:
    out = folder(root, "split")
    split.run(split.split_config(experiment()), {"ingest": ingested(number, root)}, out)
    return out


def stored(root: Path, name: str, table: pd.DataFrame) -> Path:
    """A data set directory of noise images."""
    out = folder(root, name)
    images = np.random.default_rng(len(table)).integers(0, 256, (len(table), 1, SIDE, SIDE), dtype=np.uint8)
    np.save(out / "images.npy", images)
    write_table(out / "manifest.csv", table)
    Record("prepare", extra={"scaling": Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8").as_json()}).save(out)
    return out


def predicted(number: int, seeds: int = 3, arms: int = 3) -> pd.DataFrame:
    """Predictions on the val and test images (half) of a set of `number`, text as in predictions.csv."""
    random = np.random.default_rng(0)
    table = manifest(number)[["image_id", "patient_id", "label"]].iloc[: number // 2]
    table = table.assign(split=np.where(np.arange(len(table)) % 10 < 4, "val", "test"), fold="0", gan_seed="")
    table["split"] = table.groupby("patient_id")["split"].transform("first")
    truth, parts = (table["label"] == "disease").to_numpy(dtype=float), []
    names = [*ARMS, *(f"real+classical+synthetic@{extra}" for extra in range(2, arms))][:arms]
    for arm in names:
        for seed in range(seeds):
            score = 1 / (1 + np.exp(-truth - random.normal(size=len(table))))
            text = {"score_disease": np.char.mod("%.6g", score), "score_normal": np.char.mod("%.6g", 1 - score)}
            parts.append(table.assign(arm=arm, seed=str(seed), **text))
    return pd.concat(parts, ignore_index=True)


def near_duplicates(number: int, root: Path) -> Call:
    made = thumbnails(number)
    return lambda: near_groups(made)


def audit(number: int, root: Path) -> Call:
    table, none = manifest(number), pd.DataFrame(columns=list(REJECTED_COLUMNS))
    return lambda: audit_manifest(with_patients(table, "growth", from_headers=True), none, CLASSES)


def ingest_all(number: int, root: Path) -> Call:
    pack(number, root)
    out = folder(root, "out")
    return lambda: ingest.run(ingest.ingest_config(experiment()), {}, out)


def prepare_all(number: int, root: Path) -> Call:
    pack(number, root)
    source, config = folder(root, "ingest"), experiment(split={"kind": "column"})
    ingest.run(ingest.ingest_config(config), {}, source)
    divisions, out = folder(root, "split"), folder(root, "out")
    split.run(split.split_config(config), {"ingest": source}, divisions)
    return lambda: prepare.run(prepare.prepare_config(config), {"ingest": source, "split": divisions}, out)


def split_all(number: int, root: Path) -> Call:
    source, out = ingested(number, root), folder(root, "out")
    return lambda: split.run(split.split_config(experiment(split={"kind": "kfold"})), {"ingest": source}, out)


def leakage(number: int, root: Path) -> Call:
    made = divided(number, root)
    splits, table = read_table(made / "splits.csv"), read_table(made / "manifest.csv")
    return lambda: assert_no_leakage(splits, table)


def ledger(number: int, root: Path) -> Call:
    made, cache = divided(number, root), folder(root, "cache")
    return lambda: begin_look(cache, made, experiment(), "run", "growth")


def memorisation_check(number: int, root: Path) -> Call:
    made = divided(number, root)
    asked = pd.DataFrame({"image_id": np.arange(SYNTHETIC), "label": "normal", "patient_id": ""})
    inputs = {"split": made, "prepare": stored(root, "prepare", read_table(made / "manifest.csv")),
              "synthesise": stored(root, "synthesise", asked)}  # fmt: skip
    config = memorisation.MemorisationConfig(classes=CLASSES, fold=0, gan_seed=0, seed=0, pool=False)
    out = folder(root, "out")
    return lambda: memorisation.run(config, inputs, out)


def features(number: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    real, fake = (random.standard_normal((number, FEATURES), dtype=np.float32) for _ in range(2))
    return real, fake


def quality(figure: str) -> Callable[[int, Path], Call]:
    """As the stage makes it: of more than 10,000 images, prdc and the nearest are of as many."""

    def of(number: int, root: Path) -> Call:
        real, fake = features(number)
        calls: dict[str, Call] = {
            "fid": lambda: fid(real, fake),
            "kid": lambda: kid(real, fake),
            "prdc": lambda: prdc(real[:MOST], fake[:MOST]),
            "nearest": lambda: nearest_distances(real, fake[:MOST]),
        }
        return calls[figure]

    return of


def curation(number: int, root: Path) -> Call:
    real, fake = features(number)
    measured = np.arange(min(number, 2000))
    return lambda: (nearest_distances(real, fake[:SYNTHETIC]), nearest_others(real, measured))


def verdict(number: int, root: Path) -> Call:
    table = predicted(number)
    return lambda: decide(table, VerdictPlan(positive=("disease",)))


def metrics_table(number: int, root: Path) -> Call:
    table, plan = predicted(number), VerdictPlan(positive=("disease",))
    rule = VerdictStageConfig(verdict=experiment().verdict, classes=CLASSES, positive=("disease",), seed=0)
    return lambda: arm_metrics(table, rule, plan)


def prediction_tables(number: int, root: Path) -> Call:
    """Nine fits' predictions on all images made, written and read."""
    dataset = open_dataset(stored(root, "prepare", manifest(number)))
    scores, rows = np.random.default_rng(0).random((number, 2)), np.arange(number)

    def call() -> None:
        key = {"arm": ARMS[0], "fold": "0", "seed": "0", "gan_seed": "", "split": "test"}
        table = pd.concat([predictions(key, dataset, rows, scores, CLASSES) for _ in range(9)])
        write_table(root / "predictions.csv", table)
        read_table(root / "predictions.csv")

    return call


STAGES: dict[str, Callable[[int, Path], Call]] = {
    "ingest (npz, 28²)": ingest_all,
    "near duplicates": near_duplicates,
    "audit": audit,
    "split (5 folds)": split_all,
    "leakage": leakage,
    "prepare (npz, 28² to 32²)": prepare_all,
    "memorisation (32²)": memorisation_check,
    "fid": quality("fid"),
    "kid": quality("kid"),
    "prdc": quality("prdc"),
    "nearest real": quality("nearest"),
    "curation": curation,
    "prediction tables (9 fits)": prediction_tables,
    "verdict (9 fits)": verdict,
    "metrics table (9 fits)": metrics_table,
    "ledger": ledger,
}


def verdict_of(fits: int, root: Path) -> Call:
    """The verdict of 2,000 images by the number of fits: arms x seeds, 3 seeds an arm."""
    table = predicted(2000, arms=fits // 3)
    return lambda: decide(table, VerdictPlan(positive=("disease",)))
