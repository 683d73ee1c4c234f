"""A GAN of healthy phantoms, trained by the stage that trains a run's GAN of normal patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.adversarial.fit import FitConfig, run
from pipeline.config.families import validate_gan
from pipeline.core.layout import MODEL
from pipeline.core.records import Record
from pipeline.data.batches.dataset import write_table
from pipeline.data.batches.scaling import Scaling

GAN = {"family": "sngan", "num_images": 20_000, "generator_width": 16, "discriminator_width": 16,
       "augment_probability": 0.5}  # fmt: skip


def gan_of(place: Path, images: np.ndarray, val: np.ndarray, scaling: Scaling, seed: int) -> Path:
    """The directory of a GAN of images [N, 1, *spatial], trained once and kept at `place`; a killed training goes on.

    Args:
        val: images that its watch compares with, and that it is not trained on.
    """
    out = place / "gan"
    if not (out / MODEL).is_file():
        out.mkdir(parents=True, exist_ok=True)
        config = FitConfig(
            gan=validate_gan(GAN), classes=("healthy",), positive=(), fold=0, gan_seed=0, seed=seed, device="cpu",
            precision="float32", deterministic=False, normals_only=True,
        )  # fmt: skip
        run(config, _prepared(place, images, val, scaling), out)
    return out


def _prepared(place: Path, images: np.ndarray, val: np.ndarray, scaling: Scaling) -> dict[str, Path]:
    """A prepared data set and its split, as the stages before leave them."""
    inputs = {kind: place / kind for kind in ("prepare", "split")}
    for folder in inputs.values():
        folder.mkdir(parents=True, exist_ok=True)
    np.save(inputs["prepare"] / "images.npy", np.concatenate([images, val]))
    ids = [f"healthy-{number}" for number in range(len(images) + len(val))]
    table = pd.DataFrame({"image_id": ids, "label": "healthy", "patient_id": ids})
    write_table(inputs["prepare"] / "manifest.csv", table)
    Record(kind="prepare", extra={"scaling": scaling.as_json()}).save(inputs["prepare"])
    parts = ["train"] * len(images) + ["val"] * len(val)
    further = table.assign(split=parts, fold="0", fate="used", pixel_digest=ids)
    write_table(inputs["split"] / "manifest.csv", further)
    write_table(inputs["split"] / "splits.csv", further[["fold", "image_id", "split"]])
    return inputs
