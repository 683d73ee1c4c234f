"""Smooth random images, and sets of them in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from pipeline.config.privacy import PrivacyConfig
from pipeline.core.compute import Hardware
from pipeline.core.records import Record
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.privacy.attack import Images

CPU, PRIVACY = Hardware("cpu", "float32"), PrivacyConfig()
SCALING = Scaling(1.0, 0.0, "none", (-1.0, 1.0), "float32")


def clouds(number: int, seed: int, side: int = 16) -> np.ndarray:
    """Blurred noise [number, 1, side, side], each with a spread of 0.3."""
    noise = np.random.default_rng(seed).standard_normal((number, side, side))
    smooth = gaussian_filter(noise, (0, 1.5, 1.5))
    return (0.3 * smooth / smooth.std(axis=(1, 2), keepdims=True))[:, None].clip(-1, 1).astype(np.float32)


def stored(images: np.ndarray) -> Images:
    """All of them, called by their numbers."""
    table = pd.DataFrame({"image_id": [str(number) for number in range(len(images))], "label": "", "patient_id": ""})
    return Images(DataSet(Path("set"), table, images.astype(np.float32), SCALING), np.arange(len(images)))


def write_images(place: Path, images: np.ndarray) -> None:
    """The directory of a data set."""
    made = stored(images).dataset
    np.save(place / "images.npy", made.images)
    made.manifest.to_csv(place / "manifest.csv", index=False)
    Record("synthesise", extra={"scaling": SCALING.as_json()}).save(place)
