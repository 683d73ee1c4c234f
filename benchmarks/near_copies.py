"""How changed may a copy of a training image be, and still be found? Distances of pixels against those of features.

    RADAUG_DATA=DATA .venv/bin/python benchmarks/near_copies.py      # pneumoniamnist-28 in DATA; about 20 s of one core

400 training images, 200 validation images, and 100 of the training images changed in each way.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, shift

from pipeline.config.loading import data_root
from pipeline.measures.coverage import nearest_distances
from pipeline.measures.near_copies import near_copies
from pipeline.nets.extractors import EffNetLite0


def changed(images: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Images [N, H, W] in [-1, 1], changed in each way; a grey level is 1 of 255."""
    level = 2 / 255
    return {
        "as they are": images,
        "noise, 5 grey levels": images + 5 * level * random.standard_normal(images.shape),
        "noise, 15 grey levels": images + 15 * level * random.standard_normal(images.shape),
        "blurred, 0.7 pixels": np.stack([gaussian_filter(one, 0.7) for one in images]),
        "blurred, 1.2 pixels": np.stack([gaussian_filter(one, 1.2) for one in images]),
        "shifted by a pixel": np.stack([shift(one, (0, 1), mode="nearest") for one in images]),
        "a tenth less contrast": 0.9 * images,
        "10 grey levels brighter": images + 10 * level,
        "means of two images": (images + np.roll(images, 1, axis=0)) / 2,
    }


def main() -> None:
    random, extractor = np.random.default_rng(0), EffNetLite0()
    pack = np.load(data_root() / "pneumoniamnist-28" / "pneumoniamnist.npz")
    chosen = random.permutation(len(pack["train_images"]))[:400]
    train, val = (images / 127.5 - 1 for images in (pack["train_images"][chosen], pack["val_images"][:200]))

    def spaces(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        clipped = images.clip(-1, 1).astype(np.float32)
        return clipped.reshape(len(images), -1), extractor.extract(torch.from_numpy(clipped[:, None])).numpy()

    known, unseen = spaces(train), spaces(val)
    held_out = [nearest_distances(*pair) for pair in zip(known, unseen, strict=True)]
    print("| training images | near copies by pixels | by features |")
    print("|---|---|---|")
    for name, images in changed(train[:100], random).items():
        nearest = [nearest_distances(*pair) for pair in zip(known, spaces(images), strict=True)]
        shares = [near_copies(one, other).share for one, other in zip(nearest, held_out, strict=True)]
        print(f"| {name} | {shares[0]:.0%} | {shares[1]:.0%} |")
    print(f"validation images: {near_copies(held_out[0], held_out[0]).control:.1%} by pixels")


if __name__ == "__main__":
    main()
