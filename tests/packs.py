"""Material for release packs without a run, and a finished run that its audit releases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from audits import CLASSES, audited, fresh, shown, write_stages
from noise_data import write_noise
from safetensors.numpy import save_file

from pipeline.config.loading import dump_experiment, validate_experiment
from pipeline.core.decisions import Decision
from pipeline.core.files import digest_file, digest_tree, write_json
from pipeline.core.records import Record, load_record
from pipeline.data.batches.dataset import open_dataset
from pipeline.data.batches.scaling import Scaling
from pipeline.release.leaks import Secrets, secrets_of
from pipeline.release.material import Material
from pipeline.verdict.release import release_verdict

CT = Scaling(1.0, 0.0, "HU", (-1000.0, 1000.0), "int16")
GREY = Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8")
OUTCOME = {
    "rates": [{"name": "auroc", "unit": "patient", "value": 0.51, "control": 0.5}], "worst": 2.5, "worst_control": 2.7,
    "standing_out": 0, "standing_out_p": 1.0, "patients": [60, 60], "images": [60, 60], "planted": None, "blind": False,
}  # fmt: skip
NOTHING = Secrets({"anywhere": {}, "text": {}, "value": {}})


def released(*attacks: str) -> Decision:
    """What the gate says of a generator that these attacks clear."""
    found: dict[str, Any] = dict.fromkeys(attacks, OUTCOME)
    return {
        "decision": "release",
        "reasons": [
            f"By {', '.join(attacks)}, training patients are told from unseen ones hardly better than members."
        ],
        "evidence": {"tolerated_advantage": 0.2, "attacks": found | {"smallest": {"patients": 7}}},
    }


def write_gan(place: Path, classes: Iterable[str] = CLASSES, **description: Any) -> str:
    """A generator's directory, discriminator and all; gives the digest of its weights."""
    place.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("generator", "discriminator")):
        save_file({"weight": np.full(4, number, np.float32)}, place / f"{name}.safetensors")
    weights = {name: digest_file(place / f"{name}.safetensors") for name in ("generator", "discriminator")}
    described = {"gan": {"family": "sngan", "attributes": []}, "classes": list(classes), "positive": ["disease"],
                 "fold": 0, "gan_seed": 0, "weights": weights}  # fmt: skip
    write_json(place / "model.json", described | description)
    return weights["generator"]


def write_synthetic_set(place: Path, images: np.ndarray, scaling: Scaling, weights: str) -> Path:
    """Images [N, 1, *spatial] as the stage `synthesise` leaves them, half of either class."""
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "images.npy", images)
    half = len(images) // 2
    labels = [CLASSES[number // half] for number in range(2 * half)]
    table = pd.DataFrame({"label": labels, "sample_seed": [str(7001 + one) for one in range(2 * half)]})
    table["image_id"] = [f"synthetic-{label}-{number % half:05d}" for number, label in enumerate(labels)]
    table = table.assign(patient_id="", fold="0", gan_seed="0", truncation_psi="1.0", weights_digest=weights)
    table.to_csv(place / "manifest.csv", index=False)
    Record("synthesise", extra={"scaling": scaling.as_json()}).save(place)
    return place


def material(root: Path, shape: tuple[int, ...] = (12, 10), scaling: Scaling = GREY, **changes: Any) -> Material:
    """Four images of noise with what a pack says of them."""
    random = np.random.default_rng(3)
    low, high = (-1000, 1000) if scaling.unit == "HU" else (0, 256)
    images = random.integers(low, high, (4, 1, *shape)).astype(scaling.dtype)
    weights = write_gan(root / "gan")
    synthetic = open_dataset(write_synthetic_set(root / "synthetic", images, scaling, weights))
    made = Material(
        synthetic=synthetic, rows=np.arange(4), gan=root / "gan",
        description=json.loads((root / "gan" / "model.json").read_text()), spacing=(0.7, 0.8, 2.5)[: len(shape)],
        spacing_known=True, decision=released("distance"),
        near_copies={"left_out": 0, "images": 4, "near": 0.25, "control": 0.0},
        cohort={"train_images": 80, "train_patients": 60, "unseen_patients": 60}, secrets=NOTHING,
    )  # fmt: skip
    return replace(made, **changes)


def secrets(*words: str, **columns: list[str]) -> Secrets:
    """Secrets of a manifest with these columns, and of these words."""
    tables = [pd.DataFrame({name: cells}) for name, cells in columns.items()]
    return secrets_of(tables, dict.fromkeys(words, "folder"), CLASSES)


def released_run(root: Path, images: np.ndarray | None = None, **config: Any) -> Path:
    """A finished run on noise whose generator shows `images` (fresh noise unless given), audited."""
    run = root / "run"
    inputs = write_noise(root / "data", num=300)
    gan, synthesised = run / "checkpoints" / "fold-0-gan-0", run / "stages" / "synthesise-fold-0-gan-0"
    weights = write_gan(gan)
    pixels = fresh(200) if images is None else images
    (root / "audit").mkdir()
    records = audited(shown(inputs, root / "audit", pixels), root / "audit")
    write_synthetic_set(synthesised, pixels, open_dataset(inputs["prepare"]).scaling, weights)
    outputs = {name: found for name, found in digest_tree(synthesised).items() if name != "record.json"}
    made = replace(load_record(synthesised), fold=0, gan_seed=0, digest="y", outputs=outputs)
    made.save(synthesised)
    write_stages(run, records, inputs, weights)
    shutil.copy(inputs["split"] / "manifest.csv", run / "manifest.csv")
    data = {"source": {"kind": "csv", "path": "ward/labels.csv"}, "classes": [*CLASSES], "positive": ["disease"]}
    experiment = validate_experiment({"name": "t", "data": data, **config}, "t")
    (run / "config.yaml").write_text(dump_experiment(experiment), encoding="utf-8")
    (run / "run.lock").touch()
    assert (
        release_verdict(records, experiment.release, experiment.privacy)["decision"] == "release" or images is not None
    )
    return run
