"""Choosing without labels: how well scores tell known normal images from an unlabelled mix."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipeline.anomaly.detector import ImageSet, Normals
from pipeline.measures.classification import weighted_auroc


def aucp(normal: Tensor, mixed: Tensor) -> float:
    """AUROC of a mix of unknown images [n] above normal ones [m].

    If a share s of the mix is abnormal, it is 0.5 + s (AUROC - 0.5) in the mean: whatever has the larger one has the
    larger other. Where abnormal images are rare it is near 0.5 whatever the scores are worth, and chance chooses.
    Menon, van Rooyen, Ong & Williamson, Learning from Corrupted Binary Labels, ICML 2015.
    """
    scores = np.concatenate([normal.numpy(), mixed.numpy()])
    above = np.arange(len(scores)) >= len(normal)
    return float(weighted_auroc(scores, above, np.ones((1, len(scores))))[0])


def some_of(images: ImageSet, most: int, random: np.random.Generator) -> ImageSet:
    """At most so many of them, drawn at random, in their order."""
    return ImageSet(images.dataset, images.rows[np.sort(random.permutation(len(images))[:most])])


def halves(images: ImageSet, random: np.random.Generator) -> tuple[ImageSet, ImageSet]:
    """Two halves, drawn at random: one to learn from and one to compare with the mix."""
    order = random.permutation(len(images))
    middle = len(order) // 2
    first, second = (ImageSet(images.dataset, images.rows[np.sort(part)]) for part in (order[:middle], order[middle:]))
    return first, second


def mix_without(normals: Normals, learned: ImageSet) -> ImageSet | None:
    """The mixed images without those that were learned from; None where all others are known to be normal."""
    mixed = normals.mixed
    if np.isin(mixed.rows, normals.train.rows).all():
        return None
    return ImageSet(mixed.dataset, mixed.rows[~np.isin(mixed.rows, learned.rows)])
