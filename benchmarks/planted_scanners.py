"""Two scanners planted into one kind of image, so that what a site lacks can be had by undoing the processing alone.

`chest`: PneumoniaMNIST (28 x 28, X-rays of children), half of the images with their edges enhanced, as vendors do it,
and the other half smoothed; every image is at one of the sites, and its split and label stay:

    edged: x + (x - gaussian(x, 1.5 pixels)), cut to 0 … 255
    soft: gaussian(x, 0.8 pixels)

`fresh`: the same of PneumoniaMNIST's training and validation images alone: 1,200 training images that no arm was ever
tested on are its test set.

`kernels`: CT phantoms of cysts and metastases (32 x 32, 48 mm about the lesion, -60 to 200 HU), each patient
reconstructed with one kernel, `sharp` or `soft`. All of it is simulated; with another seed there are other patients.
`kernels3d`: the same in 3D, the middle alone (16 x 16 x 16, 24 mm).

`adrenal`: AdrenalMNIST3D (28 x 28 x 28, shapes of adrenal glands), half of the glands outlined tightly and half
generously, as two readers or two programs do it, and then sampled at twice the voxel size, with a margin of background:

    tight: gaussian(shape, 0.7 voxels) > 0.6
    generous: gaussian(shape, 0.7 voxels) > 0.2

Run: RADAUG_DATA=/path/to/data .venv/bin/python benchmarks/planted_scanners.py PAIR OUT_DIR [SEED]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter
from site_translation import CYST, METASTASIS, WINDOW, scans

SPLITS = ("train", "val", "test")
CHEST, ADRENAL = "pneumoniamnist-28/pneumoniamnist.npz", "adrenalmnist3d/adrenalmnist3d.npz"
LESIONS = {"train": 600, "val": 120, "test": 300}
"""Of a kernel, half of them cysts."""
Part = tuple[str, str, np.ndarray, np.ndarray]
"""Site, split, images [N, *spatial] uint8, label [N, 1]."""
Processing = dict[str, Callable[[np.ndarray], np.ndarray]]
"""Site -> what it makes of images [N, *spatial]."""


def edged(images: np.ndarray) -> np.ndarray:
    """Unsharp masking of [N, height, width] in 0 … 255."""
    values = images.astype(float)
    return as_stored(2 * values - gaussian_filter(values, (0, 1.5, 1.5)))


def soft(images: np.ndarray) -> np.ndarray:
    """The same, smoothed."""
    return as_stored(gaussian_filter(images.astype(float), (0, 0.8, 0.8)))


def outlined(images: np.ndarray, share: float) -> np.ndarray:
    """Shapes [N, 28, 28, 28] in 0 … 255 outlined where their smoothed copy exceeds `share`, [N, 16, 16, 16]."""
    shapes = gaussian_filter(images / 255.0, (0, 0.7, 0.7, 0.7)) > share
    return as_stored(255 * halved(np.pad(shapes, [(0, 0), *[(2, 2)] * 3])))


def halved(images: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 x 2 voxels, [N, depth, height, width] to [N, depth / 2, height / 2, width / 2]."""
    number, *sides = images.shape
    blocks = images.reshape(number, *(part for side in sides for part in (side // 2, 2)))
    means: np.ndarray = blocks.mean(axis=(2, 4, 6))
    return means


def as_stored(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


def halves(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The site's number, 0 or 1, of every image, classes halved each by itself."""
    side = np.zeros(len(label), dtype=int)
    for number in np.unique(label):
        members = random.permutation(np.flatnonzero(label == number))
        side[members[len(members) // 2 :]] = 1
    return side


def medmnist(file: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A file's images and labels by split."""
    with np.load(Path(os.environ["RADAUG_DATA"]) / file) as arrays:
        return {split: (arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS}


def chest(seed: int) -> Iterator[Part]:
    return at_scanners(medmnist(CHEST), SCANNERS, seed)


def adrenal(seed: int) -> Iterator[Part]:
    return at_scanners(medmnist(ADRENAL), OUTLINES, seed)


def fresh(seed: int) -> Iterator[Part]:
    found = medmnist(CHEST)
    images, label = found["train"]
    order = np.random.default_rng(7).permutation(
        len(images)
    )  # its first 1,200 were tested on while the arms were chosen
    test, train = order[1200:2400], np.concatenate([order[:1200], order[2400:]])
    parts = {"train": (images[train], label[train]), "val": found["val"], "test": (images[test], label[test])}
    return at_scanners(parts, SCANNERS, seed)


def at_scanners(parts: dict[str, tuple[np.ndarray, np.ndarray]], processing: Processing, seed: int) -> Iterator[Part]:
    """Half of the images at each of the two sites."""
    random = np.random.default_rng(seed)
    for split, (images, label) in parts.items():
        side = halves(label[:, 0], random)
        for number, (site, processed) in enumerate(processing.items()):
            yield site, split, processed(images[side == number]), label[side == number]


def kernels(seed: int, dims: Literal[2, 3] = 2) -> Iterator[Part]:
    first = 100_000 * seed
    for split, count in LESIONS.items():
        for site in ("sharp", "soft"):
            found = scans(first, np.array([CYST, METASTASIS] * (count // 2)), dims)
            first += count
            images = found.sharp if site == "sharp" else found.soft
            shares = (images - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
            middle = (slice(None), *[slice(8, 24)] * 3) if dims == 3 else ...
            yield site, split, as_stored(255 * shares[middle]), found.kind[:, None].astype(np.uint8)


SCANNERS: Processing = {"edged": edged, "soft": soft}
OUTLINES: Processing = {"tight": partial(outlined, share=0.6), "generous": partial(outlined, share=0.2)}
PAIRS: dict[str, Callable[[int], Iterator[Part]]] = {
    "chest": chest, "fresh": fresh, "kernels": kernels, "kernels3d": partial(kernels, dims=3), "adrenal": adrenal,
}  # fmt: skip


def plant(pair: str, out: Path, seed: int) -> None:
    """Write SITE.npz in the form of a MedMNIST file for both sites."""
    out.mkdir(parents=True, exist_ok=True)
    made: dict[str, dict[str, np.ndarray]] = {}
    for site, split, images, label in PAIRS[pair](seed):
        made.setdefault(site, {}).update({f"{split}_images": images, f"{split}_labels": label})
    for site, own in made.items():
        np.savez(out / f"{site}.npz", **own)  # type: ignore[arg-type]  # its stub takes an array for `allow_pickle`


if __name__ == "__main__":
    plant(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 7)
