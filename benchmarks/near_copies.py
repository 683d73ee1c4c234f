"""How changed may a copy of a training image be, and still be found? By registered pixels, plain ones, and features.

    RADAUG_DATA=DATA .venv/bin/python benchmarks/near_copies.py      # pneumoniamnist-28 in DATA; about 20 s of one core

400 training images, 200 validation images, and 100 of the training images changed in each way.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, rotate, shift

from pipeline.config.loading import data_root
from pipeline.measures.coverage import nearest_distances
from pipeline.measures.near_copies import near_limit
from pipeline.nets.extractors import EffNetLite0
from pipeline.privacy.registered import registered_distances


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
        "shifted by two pixels": np.stack([shift(one, (2, 2), mode="nearest") for one in images]),
        "shifted by four pixels": np.stack([shift(one, (0, 4), mode="nearest") for one in images]),
        "mirrored": images[..., ::-1].copy(),
        "turned by 5 degrees": np.stack([rotate(one, 5, reshape=False, mode="nearest") for one in images]),
        "a tenth less contrast": 0.9 * images,
        "10 grey levels brighter": images + 10 * level,
        "means of two images": (images + np.roll(images, 1, axis=0)) / 2,
    }


def main() -> None:
    random, extractor = np.random.default_rng(0), EffNetLite0()
    pack = np.load(data_root() / "pneumoniamnist-28" / "pneumoniamnist.npz")
    chosen = random.permutation(len(pack["train_images"]))[:400]
    train, val = (images / 127.5 - 1 for images in (pack["train_images"][chosen], pack["val_images"][:200]))

    def tensor(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images.clip(-1, 1).astype(np.float32)[:, None])

    def features(images: np.ndarray) -> np.ndarray:
        return extractor.extract(tensor(images)).numpy()

    known = features(train)

    def nearest(images: np.ndarray) -> list[np.ndarray]:
        plain = (tensor(one).flatten(1).numpy() for one in (train, images))
        registered = registered_distances([tensor(images)], [tensor(train)]).min(axis=1)
        return [registered, nearest_distances(*plain), nearest_distances(known, features(images))]

    def either(found: list[np.ndarray]) -> list[np.ndarray]:
        return [np.minimum(*(one / np.median(two) for one, two in zip(found[:2], usual, strict=False))), *found]

    usual = nearest(val)
    held_out = either(usual)
    print("| training images | near copies | by registered pixels alone | by plain pixels alone | by features |")
    print("|---|---|---|---|---|")
    for name, images in changed(train[:100], random).items():
        pairs = zip(either(nearest(images)), held_out, strict=True)
        print(f"| {name} | {' | '.join(f'{(found < near_limit(unseen)).mean():.0%}' for found, unseen in pairs)} |")
    print(f"validation images: {(held_out[0] < near_limit(held_out[0])).mean():.1%}")


if __name__ == "__main__":
    main()
