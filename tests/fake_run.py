"""Run directories built by hand, for tests of the report."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.core.metrics import COLUMNS, MetricRow, write_metrics
from pipeline.core.records import Record

ARMS = ("real", "real+classical", "real+classical+synthetic@1", "synthetic+classical")
EVIDENCE = {
    "endpoint": "auroc", "arm": ARMS[2], "reference": ARMS[1], "difference": 0.0312, "ci_low": 0.0041,
    "ci_high": 0.0587, "margin": 0.02, "alpha": 0.05, "n_patients": 24, "n_images": 36, "n_folds": 1,
    "n_gan_seeds": 1, "n_classifier_seeds": 2,
}  # fmt: skip
SCALING = {"scaling": {"scale": 1.0, "offset": 0.0, "unit": "HU", "window": [-20.0, 180.0], "dtype": "int16"}}
CONFOUNDER = "maker and class are entangled"


@dataclass(frozen=True)
class Case:
    """What kind of run to fake."""

    classes: tuple[str, ...] = ("cyst", "metastasis", "haemangioma")
    positive: tuple[str, ...] = ("metastasis",)
    spatial_dims: int = 2
    folds: int = 1
    gan_seeds: int = 1
    patients: bool = True
    gan: bool = True
    anomaly: bool = True
    decision: str = "helps"
    per_class: int = 24
    release: tuple[int, int] = (0, 0)


def table(path: Path, columns: str, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([columns.split(","), *rows])


def stage(root: Path, kind: str, fold: int | None = None, gan_seed: int | None = None, **fields: Any) -> Path:
    made = {"versions": {"torch": "2.13.0"}, "wall_s": 12.5, "finished": "2025-03-04T05:06:07+00:00"}
    record = Record(kind, fold=fold, gan_seed=gan_seed, **(made | fields))
    folder = root / "stages" / record.name
    folder.mkdir(parents=True)
    record.save(folder)
    return folder


def data_set(folder: Path, case: Case, rows: list[list[str]], seed: int) -> None:
    shape = (len(rows), 1, *(32,) * case.spatial_dims)
    table(folder / "manifest.csv", "image_id,label,patient_id", rows)
    np.save(folder / "images.npy", np.random.default_rng(seed).normal(80, 40, shape).astype(np.int16))


def noise_png(path: Path, size: tuple[int, int], seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, size[::-1], dtype=np.uint8)).save(path)


def build(root: Path, case: Case) -> Path:
    root.mkdir(parents=True)
    data = {
        "source": {"kind": "csv", "path": "secret-ward/labels.csv"}, "spatial_dims": case.spatial_dims,
        "classes": list(case.classes), "positive": list(case.positive),
        "split": {"kind": "kfold", "folds": case.folds} if case.folds > 1 else {"kind": "holdout"},
    }  # fmt: skip
    release = {"fold": case.release[0], "gan_seed": case.release[1]}
    config = {"name": "fake-study", "seed": 3, "data": data, "gan": {"gan_seeds": case.gan_seeds}, "release": release}
    (root / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    images = [
        [f"IMG{number:04d}", case.classes[number % len(case.classes)], f"PAT{number // 2:03d}" if case.patients else ""]
        for number in range(case.per_class * len(case.classes))
    ]
    gans = [(fold, seed) for fold in range(case.folds) for seed in range(case.gan_seeds)] if case.gan else []
    write_data_stages(root, case, images)
    for fold, seed in gans:
        write_gan_stages(root, case, fold, seed, images)
    write_results(root, case, images, gans)
    return root


def leave_out_curves(monkeypatch: pytest.MonkeyPatch, *kept: str) -> None:
    """`all_pictures` draws no curves but those that are `kept`: they take long, and say nothing of the images."""
    for name in ("_difference", "_forest", "_roc", "_reliability", "_training", "_quality", "histogram",
                 "detectors_roc", "_nearest"):  # fmt: skip
        if name not in kept:
            monkeypatch.setattr(f"pipeline.report.pictures.{name}", lambda run: None)


def with_maps(root: Path, case: Case) -> Path:
    """A fake run whose downstream stages kept maps of 12 test images, two classifiers an arm."""
    place = build(root, case)
    lines = (place / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    test = list(dict.fromkeys(line.split(",")[5] for line in lines))[:12]
    for gan_seed, arms in ((None, ARMS[:2]), (0, ARMS[2:3])):
        folder = stage(place, "downstream", 0, gan_seed)
        rows = [[arm, image_id, 2] for arm in arms for image_id in test]
        table(folder / "attention.csv", "arm,image_id,classifiers", rows)
        grid = (8,) * case.spatial_dims
        np.save(folder / "attention.npy", np.random.default_rng(1).integers(0, 256, (len(rows), *grid), dtype=np.uint8))
    return place


def write_data_stages(root: Path, case: Case, images: list[list[str]]) -> None:
    rejected = [["IMG9999", "ward/IMG9999.dcm", "pixel data are cut short", ""]]
    rejected.append(["IMG9998", "ward/series", "slice DOE_JANE.dcm: pixel data are cut short", "DOE_JANE.dcm"])
    table(stage(root, "ingest") / "rejected.csv", "image_id,path,reason,files", rejected)
    split = stage(root, "split", notes=("Only 24 test patients: intervals are wide.",))
    parts = ["train", "train", "train", "val", "test", "test"]
    numbers = product(range(case.folds), range(len(images)))
    rows = [[fold, images[number][0], parts[(number // 6 + fold * 2) % 6]] for fold, number in numbers]
    table(split / "splits.csv", "fold,image_id,split", rows)
    pixels = [[*row, f"{number:016x}"] for number, row in enumerate(images)]
    table(split / "manifest.csv", "image_id,label,patient_id,pixel_digest", pixels)
    near = ["near_duplicates", "warning", 2, "IMG0003 looks like IMG0004"]
    audit = [["duplicates", "info", 0, "none"], near, ["confounder manufacturer", "warning", 1, CONFOUNDER]]
    table(split / "audit.csv", "check,severity,count,detail", audit)
    manifest = [[*row, f"ward/{row[0]}.dcm", "used"] for row in images]
    table(root / "manifest.csv", "image_id,label,patient_id,path,fate", manifest)
    data_set(stage(root, "prepare", extra=SCALING), case, images, seed=1)


def write_gan_stages(root: Path, case: Case, fold: int, seed: int, images: list[list[str]]) -> None:
    gan = stage(root, "fit-gan", fold, seed)
    rng = np.random.default_rng(10 * fold + seed)
    keys = ("num_images", "images_per_s", "discriminator_loss", "generator_loss", "real_logits", "fake_logits")
    values = [(step * 250, *rng.normal([900, 1, 1, 0.5, -0.5], 0.1)) for step in range(1, 400)]
    lines = [json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in values]
    (gan / "stats.jsonl").write_text("".join(lines), encoding="utf-8")
    noise_png(gan / "film_strip.png", (700, 200), seed)
    made = [[f"SYN{number:04d}", label, ""] for label in case.classes for number in range(8)]
    data_set(stage(root, "synthesise", fold, seed, extra=SCALING), case, made, seed=50 + seed)
    rates = {"nearer_to_training_rate": 0.62, "rate_low": 0.55, "rate_high": 0.7, "control_rate": 0.48}
    privacy = stage(root, "privacy", fold, seed, figures=rates | {"baseline_rate": 0.5})
    pairs = [[row[0], images[0][0], *rng.uniform(0.5, 2, 2)] for row in made]
    columns = "image_id,nearest_train_id,nearest_train_distance,nearest_heldout_distance"
    table(privacy / "memorisation.csv", columns, pairs)
    noise_png(privacy / "closest_pairs.png", (300, 200), seed)
    if case.anomaly:
        variant = "discriminator-logit@run"
        found = stage(root, "detect", fold, seed, variant=variant, notes=("Scores by reconstruction.",))
        scores = [
            [
                "test", 0, row[0], row[2], row[1], int(row[1] not in case.positive),
                rng.normal(row[1] in case.positive, 1), round(rng.uniform(0.01, 1), 3),
            ]
            for row in images
        ]  # fmt: skip
        table(found / "anomaly.csv", "split,seed,image_id,patient_id,label,normal,anomaly_score,p_value", scores)
        work = [[rank, row[0], row[1], 3 - 0.1 * rank, 0.02] for rank, row in enumerate(images[:5], start=1)]
        table(found / "worklist.csv", "rank,image_id,label,score,p_value", work)
        noise_png(found / "worklist.png", (500, 300), seed)


def write_results(root: Path, case: Case, images: list[list[str]], gans: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    disease = case.positive[0]
    labels = [disease] if len(case.classes) == 2 else [*case.classes, "macro"]
    metrics: list[list[Any]] = []
    predictions: list[list[Any]] = []
    for arm in ARMS:
        gan_seed = "0" if "synthetic" in arm else ""
        for metric, label in product(("auroc", "sensitivity", "specificity", "balanced_accuracy"), labels):
            value = rng.uniform(0.7, 0.9)
            row = [value, value - 0.07654, value + 0.06789, 24, 36, "bootstrap"]
            metrics.append(["downstream", arm, "", "", "", "test", label, "", metric, *row])
            row = [value + 0.01, "", "", 24, 36, ""]
            metrics.append(["downstream", arm, "0", "0", gan_seed, "test", label, "", metric, *row])
        for fold, seed, (image_id, label, patient) in product(range(case.folds), range(2), images[::2]):
            logits = rng.normal(0, 1, len(case.classes)) + 1.5 * (np.array(case.classes) == label)
            scores = np.exp(logits) / np.exp(logits).sum()
            predictions.append([arm, fold, seed, gan_seed, "test", image_id, patient, label, *scores])
    for seed, value in enumerate((0.9, 0.8)):
        metrics.append(["downstream", "real", 0, seed, 0, "synthetic", disease, "", "auroc", value, "", "", "", 24, ""])
    if case.anomaly:
        row = [0.61234, 0.5, 0.72, 24, 36, "reconstruction"]
        metrics.append(["anomaly", "discriminator-logit@run", "", "", "", "test", "", "", "auroc", *row])
    write_metrics(root, (MetricRow(**dict(zip(COLUMNS, map(str, row), strict=True))) for row in metrics))
    columns = "arm,fold,seed,gan_seed,split,image_id,patient_id,label,"
    table(root / "predictions.csv", columns + ",".join(f"score_{name}" for name in case.classes), predictions)
    utility = {"decision": case.decision, "reasons": ["decided by the interval"], "evidence": EVIDENCE}
    release = {"decision": "not_audited", "reasons": ["no attack was run"], "evidence": {"memorisation": {}}}
    (root / "verdict.json").write_text(json.dumps({"utility": utility, "release": release}), encoding="utf-8")
    looks = [["2025-03-04", "fake-study", "downstream", "0", "test images", "36"]]
    table(root / "ledger.csv", "when,run,stage,fold,what,count", looks)


def build_curve(place: Path) -> Path:
    """What `radaug curve` leaves of three sizes, two of which tell, with fixed representations beside them."""
    build(place, Case(per_class=6))
    shared = {"draws": 3, "train_patients": 20, "without_patient": 0, "n_patients": 24, "reference": ARMS[1],
              "endpoint": "auroc", "no_interval": "", "p_holm": 0.01, "p": 0.003}  # fmt: skip
    found = ((10, "helps", 0.71, 0.09), (25, "no_benefit", 0.78, 0.01), (50, "harms", 0.84, -0.06))
    rows = [
        shared | {"size": size, "decision": decision, "reference_mean": mean, "arm_mean": mean + gap, "difference": gap,
                  "ci_low": gap - 0.02, "ci_high": gap + 0.02, "generators": "passed", "arm": ARMS[2],
                  "same_as": 30, "same_as_low": 12, "same_as_high": 50}
        for size, decision, mean, gap in found
    ]  # fmt: skip
    named = ("effnet-features+svm", "vae-features+logistic")
    represented = [{**row, "arm": arm} for row in rows for arm in named]
    points = [
        {"size": row["size"], "draw": draw, "arm": row[arm], "value": row[f"{arm}_mean"] + 0.01 * draw}
        for row in rows for draw in range(3) for arm in ("reference", "arm")
    ]  # fmt: skip
    left_out = [{"size": 500, "reason": "There are too few patients."}]
    files = {"curve": rows, "representations": represented, "points": points, "left_out": left_out}
    for name, content in files.items():
        table(place / f"{name}.csv", ",".join(content[0]), [list(row.values()) for row in content])
    return place
