"""Small images with planted squares, a GAN to look through, and what detectors are told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.adversarial.families import FAMILIES
from pipeline.adversarial.weights import save_nets
from pipeline.anomaly.detector import ImageSet, Normals, Setting
from pipeline.config.anomaly import AnomalyConfig
from pipeline.config.families import validate_gan
from pipeline.core.compute import Hardware
from pipeline.core.layout import SNAPSHOTS
from pipeline.data.batches.dataset import DataSet
from pipeline.data.batches.scaling import Scaling
from pipeline.nets.sizes import ImageShape

CPU = Hardware("cpu", "float32")
SHAPES = {2: (16, 16), 3: (8, 8, 8)}
BUDGET = AnomalyConfig(detectors=(), steps=8, batch_size=8, latent_dim=4, width=4, gan_images=32)
SCALING = Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8")


def smooth_images(num: int, shape: tuple[int, ...], seed: int, *, planted: bool = False) -> np.ndarray:
    """Images [num, 1, *shape] uint8: a slope with noise; `planted` ones have a bright square in one corner."""
    random = np.random.default_rng(seed)
    slope = np.linspace(60, 120, shape[-1])
    images = slope + random.normal(0, 6, (num, 1, *shape)) + random.normal(0, 8, (num, *[1] * (len(shape) + 1)))
    if planted:
        corner = (slice(None), slice(None), *(slice(1, 1 + side // 3) for side in shape))
        images[corner] += 90
    return np.clip(images, 0, 255).astype(np.uint8)


def data_set(images: np.ndarray, labels: list[str] | None = None, patients: list[str] | None = None) -> DataSet:
    ids = [f"image-{number}" for number in range(len(images))]
    table = pd.DataFrame(
        {
            "image_id": ids,
            "label": labels or ["normal"] * len(ids),
            "patient_id": patients or [f"p{one}" for one in ids],
        }
    )
    return DataSet(Path("noise"), table, images, SCALING)


def normals_of(dims: int, num: int = 24) -> Normals:
    """Normal training images, a third as many for validation, and a mix of the training ones and as many unknown ones,
    of which every second has a square."""
    shape = SHAPES[dims]
    train, val, unknown = (smooth_images(count, shape, seed) for count, seed in ((num, 1), (num // 3, 2), (num, 3)))
    unknown[::2] = smooth_images(len(unknown[::2]), shape, 4, planted=True)
    images = np.concatenate([train, val, unknown])
    rows = np.arange(len(images))
    known, mixed = rows[: num + len(val)], np.concatenate([rows[:num], rows[num + len(val) :]])
    dataset = data_set(images)
    return Normals(*(ImageSet(dataset, some) for some in (known[:num], known[num:], mixed)))


def setting_of(dims: int, gan: Path | None = None, config: AnomalyConfig = BUDGET, seed: int = 5) -> Setting:
    shape = ImageShape(SHAPES[dims], 1, 2)
    return Setting(config, shape, ("normal",), CPU, seed, gan)


def tiny_gan(folder: Path, dims: int, family: str = "sngan", **changes: Any) -> Path:
    """The directory of an untrained GAN of two classes, as fit-normals leaves it with two snapshots."""
    gan = validate_gan(
        {"family": family, "latent_dim": 6, "embedding_dim": 4, "generator_width": 4, "discriminator_width": 4}
        | changes
    )
    shape = ImageShape(SHAPES[dims], 1, 2, num_attributes=len(gan.attributes))
    for seed, place in enumerate((folder, folder / SNAPSHOTS / "000000008", folder / SNAPSHOTS / "000000016")):
        place.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            nets, _ = FAMILIES[family].build(gan, shape)
        save_nets(place, nets, {
            "gan": gan.model_dump(mode="json"), "classes": ["normal", "disease"], "positive": ["disease"],
            "spatial_size": list(SHAPES[dims]), "channels": 1, "scaling": SCALING.as_json(), "fold": 0, "gan_seed": 0,
            "train_images": 24,
        })  # fmt: skip
    return folder


def planted_tensor(dims: int, num: int = 6) -> torch.Tensor:
    """Images [num, 1, *shape] in [-1, 1] with the square."""
    images = smooth_images(num, SHAPES[dims], 9, planted=True)
    return data_set(images).tensor(np.arange(num))


def normal_tensor(dims: int, num: int = 6) -> torch.Tensor:
    images = smooth_images(num, SHAPES[dims], 8)
    return data_set(images).tensor(np.arange(num))
