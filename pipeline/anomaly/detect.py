"""Stage `detect`: fit one detector on the normal training patients of a fold, and score validation and test images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from pipeline.adversarial.weights import has_net, read_description
from pipeline.anomaly.cohort import Cohort, cohort_of
from pipeline.anomaly.detector import NOTHING_MIXED, Detector, ImageSet, Setting
from pipeline.anomaly.detectors import DETECTORS
from pipeline.anomaly.files import save_detector
from pipeline.anomaly.frozen import FEWEST
from pipeline.anomaly.overlays import map_scale
from pipeline.anomaly.pixel_rows import write_pixel_rows
from pipeline.anomaly.worklist import write_worklist
from pipeline.config.anomaly import AnomalyConfig, named, normal_classes
from pipeline.config.loading import data_root
from pipeline.config.section import Section
from pipeline.core.compute import Hardware, resolve_hardware
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.files import digest_file
from pipeline.core.layout import ANOMALY_SCORES
from pipeline.core.patients import patient_units
from pipeline.core.progress import Progress
from pipeline.core.records import Record
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.dataset import write_table
from pipeline.data.cohort.normals import normal_rows
from pipeline.measures.conformal import conformal_p_values
from pipeline.nets.sizes import ImageShape

if TYPE_CHECKING:
    from pipeline.config.experiment import Experiment

COLUMNS = (
    "detector", "fold", "gan_seed", "seed", "split", "image_id", "patient_id", "label", "normal", "anomaly_score",
    "p_value",
)  # fmt: skip
SAW_DISEASE = "trained on patients of every class: not a detector of what was never shown"


class DetectConfig(Section):
    """What one detector of one fold depends on.

    Attributes:
        detector: as the configuration names it.
        anomaly: the section, without what concerns other detectors.
        features: path of the user's network for feature maps, resolved; empty where none is named.
        features_digest: of that file.
    """

    detector: str
    anomaly: AnomalyConfig
    classes: tuple[str, ...]
    positive: tuple[str, ...]
    normal: tuple[str, ...]
    fold: int
    gan_seed: int | None
    seed: int
    device: str
    precision: str
    features: str = ""
    features_digest: str = ""


def detect_config(experiment: Experiment, detector: str, fold: int, gan_seed: int | None) -> DetectConfig:
    """The stage's section of `experiment`.

    Raises:
        ConfigError: the detector does not work in so many dimensions, the file of features is not there, or a class
            that is said to be normal is none of the classes, or all are.
    """
    facts, data, asked = DETECTORS[named(detector).name], experiment.data, experiment.anomaly
    if data.spatial_dims not in facts.dimensions:
        raise ConfigError(
            f"anomaly.detectors: {detector} works in {facts.dimensions[0]} dimensions; the images have "
            f"{data.spatial_dims}. Leave it out."
        )
    weights = (data_root() / asked.features).resolve() if asked.features else None
    if weights is not None and not weights.is_file():
        raise ConfigError(f"anomaly.features: {weights} is not there. Relative paths start in the data folder.")
    hardware = resolve_hardware(experiment.compute.device, experiment.compute.precision)
    return DetectConfig(
        detector=detector,
        anomaly=asked.model_copy(update={"detectors": (), "ensembles": {}, "normal": (), "features": ""}),
        classes=data.classes,
        positive=data.positive,
        normal=normal_classes(asked, data.classes, data.positive),
        fold=fold,
        gan_seed=gan_seed,
        seed=derive_seed(experiment.seed, "detect", detector, fold, *([] if gan_seed is None else [gan_seed])),
        device=hardware.device,
        precision=hardware.precision,
        features="" if weights is None else str(weights),
        features_digest="" if weights is None else digest_file(weights),
    )


def run(config: DetectConfig, inputs: Mapping[str, Path], out_dir: Path) -> Record:
    """Write anomaly.csv (one row an image and fit), the first fit as files, and its worklist.

    Where there are too few normal patients, or a GAN has no discriminator, there are no scores: the table stays empty,
    and the record says why.

    Raises:
        LeakageError: a patient, or an image pixel for pixel, is on more than one side of the fold.
    """
    cohort = cohort_of(inputs["prepare"], inputs["split"], config.fold, config.normal)
    lacking = _lacking(config, cohort, inputs.get("gan"))
    if lacking:
        write_table(out_dir / ANOMALY_SCORES, pd.DataFrame(columns=list(COLUMNS)))
        return Record(kind="detect", figures={"fits": 0}, notes=(f"{config.detector}: skipped. {lacking}",))
    tables, figures = [], dict[str, Any]()
    for seed in range(config.anomaly.seeds):
        detector = DETECTORS[named(config.detector).name].make(_setting(config, cohort, inputs.get("gan"), seed))
        found = detector.fit(cohort.normals)
        detector.eval()
        table = _scored(config, detector, cohort, seed)
        tables.append(table)
        if seed == 0:
            figures = found
            scale = map_scale(detector, cohort.normals.val)
            further = _further(config, cohort, table) | {"map_scale": scale.as_json() if scale else None}
            save_detector(out_dir, named(config.detector).name, detector, further)
            if config.anomaly.worklist and "test" in cohort.tried:
                write_worklist(out_dir, table, cohort.tried["test"], detector, scale, config.anomaly.worklist)
            write_pixel_rows(
                out_dir, detector, cohort, named=config.detector, fold=config.fold, gan_seed=config.gan_seed
            )
    write_table(out_dir / ANOMALY_SCORES, pd.concat(tables, ignore_index=True))
    normals = cohort.normals
    counts = {"train_images": len(normals.train), "val_normals": len(normals.val), "fits": config.anomaly.seeds}
    notes = (f"{config.detector}: {SAW_DISEASE}",) if named(config.detector).gan else ()
    return Record(kind="detect", figures=counts | figures, notes=notes)


def _lacking(config: DetectConfig, cohort: Cohort, gan: Path | None) -> str:
    """What this detector needs and has not, in a sentence; empty where nothing lacks."""
    if gan is not None and not has_net(gan, "discriminator"):
        family = read_description(gan)["gan"]["family"]
        return f"The family {family} has no discriminator, so there is nothing to look through."
    train, val = cohort.normals.train, cohort.normals.val
    if len(train) < FEWEST or not len(val):
        return (
            f"Fold {config.fold} has {len(train)} training and {len(val)} validation images of patients whose images "
            f"are all {' or '.join(config.normal)}; {FEWEST} and 1 are needed. Say who is normal by anomaly.normal."
        )
    if DETECTORS[named(config.detector).name].needs_mixed and cohort.normals.nothing_mixed:
        return f"Fold {config.fold}: {NOTHING_MIXED}"
    return ""


def _setting(config: DetectConfig, cohort: Cohort, gan: Path | None, seed: int) -> Setting:
    dataset = cohort.normals.train.dataset
    shape = ImageShape(
        tuple(dataset.images.shape[2:]),
        dataset.images.shape[1],
        len(config.classes),
        positive=tuple(map(config.classes.index, config.positive)),
    )
    return Setting(
        config=config.anomaly,
        shape=shape,
        normal=config.normal,
        hardware=Hardware(config.device, config.precision),
        seed=derive_seed(config.seed, seed),
        gan=gan,
        features=Path(config.features) if config.features else None,
    )


def scores_of(detector: Detector, images: ImageSet, what: str) -> np.ndarray:
    """Scores [N] to six digits, so that they do not depend on how images are cut into blocks.

    Raises:
        DataError: a score is not a finite number.
    """
    progress, found = Progress(what, len(images), "images"), list[torch.Tensor]()
    with torch.inference_mode():
        for block in images.blocks():
            found.append(detector.score(block))
            progress.update(sum(map(len, found)))
    scores = np.array([float(f"{score:.6g}") for part in found for score in part.tolist()])
    if not np.isfinite(scores).all():
        raise DataError(f"{what}: {(~np.isfinite(scores)).sum()} scores are no finite numbers; nothing can be ranked.")
    return scores


def _scored(config: DetectConfig, detector: Detector, cohort: Cohort, seed: int) -> pd.DataFrame:
    parts = []
    for split, images in cohort.tried.items():
        table = images.dataset.manifest.iloc[images.rows][["image_id", "patient_id", "label"]].reset_index(drop=True)
        normal = normal_rows(images.dataset, config.normal)[images.rows]
        score = scores_of(detector, images, f"{config.detector} on {split} images")
        gan_seed = "" if config.gan_seed is None else str(config.gan_seed)
        table = table.assign(detector=config.detector, fold=config.fold, gan_seed=gan_seed, seed=seed, split=split)
        parts.append(table.assign(normal=normal.astype(int), score=score))
    table = pd.concat(parts, ignore_index=True)
    calibration, patients = calibration_of(table)
    table["p_value"] = conformal_p_values(table["score"].to_numpy(), calibration, patients)
    text = {name: table[name].map("{:.6g}".format) for name in ("score", "p_value")}
    return table.assign(**text).rename(columns={"score": "anomaly_score"})[list(COLUMNS)]


def calibration_of(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the validation normals, and the patient of each."""
    rows = table[(table["split"] == "val") & (table["normal"] == 1)]
    return rows["score"].to_numpy(), patient_units(rows).to_numpy(dtype=str)


def _further(config: DetectConfig, cohort: Cohort, table: pd.DataFrame) -> dict[str, Any]:
    """What scoring new images needs beside the detector. Calibration scores carry a patient's number, not the id."""
    rows = table[(table["split"] == "val") & (table["normal"] == 1)]
    patients = np.unique(patient_units(rows).to_numpy(dtype=str), return_inverse=True)[1]
    return {
        "calibration": {"score": [float(one) for one in rows["anomaly_score"]], "patient": patients.tolist()},
        "scaling": cohort.normals.train.dataset.scaling.as_json(),
        "named": config.detector,
        "false_alarms": config.anomaly.false_alarms,
    }
