"""A prepared data set of noise with one bright class, and its split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.records import Record


def noise_images(num: int, shape: tuple[int, ...] = (12, 12)) -> np.ndarray:
    """The images [num, 1, *shape] of `write_noise`; every other one is of the brighter class."""
    bright = 100 * (np.arange(num) % 2).reshape(-1, *[1] * (len(shape) + 1))
    return (np.random.default_rng(0).integers(0, 120, (num, 1, *shape)) + bright).astype(np.uint8)


def write_noise(root: Path, shape: tuple[int, ...] = (12, 12), num: int = 24) -> dict[str, Path]:
    """Images [num, 1, *shape] and their split: half for training, a quarter each val and test."""
    prepare, split = root / "prepare", root / "split"
    prepare.mkdir(parents=True)
    split.mkdir()
    label = np.arange(num) % 2
    np.save(prepare / "images.npy", noise_images(num, shape))
    ids = [f"image-{number}" for number in range(num)]
    names = np.array(["normal", "disease"])[label]
    table = pd.DataFrame({"image_id": ids, "label": names, "patient_id": [f"p{i}" for i in range(num)]})
    table = table.assign(hospital=np.where(np.arange(num) % 3 == 0, "A", "B"))
    table.to_csv(prepare / "manifest.csv", index=False)
    scaling = {"scale": 1.0, "offset": 0.0, "unit": "none", "window": [0.0, 255.0], "dtype": "uint8"}
    Record(kind="prepare", extra={"scaling": scaling}).save(prepare)
    parts = ["train"] * (num // 2) + ["val"] * (num // 4) + ["test"] * (num - num // 2 - num // 4)
    table.assign(split=parts, fold="0", fate="used", pixel_digest=ids).to_csv(split / "manifest.csv", index=False)
    pd.DataFrame({"fold": "0", "image_id": ids, "split": parts}).to_csv(split / "splits.csv", index=False)
    return {"prepare": prepare, "split": split}
