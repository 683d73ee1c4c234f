"""Is an image a near copy of a training image, and is it more than chance? One definition for the whole program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from pipeline.measures.resampling import wilson_interval

NEAR = 0.25
"""An image is a near copy within this share of the median distance of unseen real images to the nearest training
image."""
COPY = 0.5
"""A near copy is a copy within this share of the smallest distance of any of the images to an unseen patient's.

Where images fall near to patients by chance, the share of them within r goes with r to some power k, the number of ways
in which images differ. The smallest distance to members is then less than x times that to as many unseen ones with
chance x^k / (1 + x^k): for x = 0.5 that is 1.5 % at k = 6 and 0.1 % at k = 10, however many images are looked at."""


@dataclass(frozen=True)
class NearCopies:
    """Which images are near copies.

    Attributes:
        near: [N] bool, the image is a near copy.
        copies: [N] bool, and no chance: it is a copy.
        low, high: interval of the share of near copies, which takes images as independent.
        control: the same share of unseen real images, which are nobody's copies.
        patients: training patients of whom some image is a near copy, and all.
        unseen: unseen patients to whom some image is as near, and all; without those whose own image is a near copy of
            a training image.
    """

    near: np.ndarray
    copies: np.ndarray
    low: float
    high: float
    control: float
    patients: tuple[int, int]
    unseen: tuple[int, int]

    @property
    def share(self) -> float:
        return float(self.near.mean())


@dataclass(frozen=True)
class Nearness:
    """How near some images come to some patients.

    Attributes:
        distance: [N] of each image to the nearest image of these patients; any unit.
        which: [N] that one's patient, a number or a name.
        patients: how many there are.
    """

    distance: np.ndarray
    which: np.ndarray
    patients: int


def near_copies(to_members: Nearness, to_unseen: Nearness, usual: np.ndarray, alpha: float = 0.05) -> NearCopies:
    """Judge images by their distance to the nearest training image, unseen real images being the measure.

    Args:
        to_members: of the images to training patients.
        to_unseen: of the same images to patients whom no generator saw. Unseen images that are themselves near copies
            of training images (the same picture twice) do not belong there: a copy would be as near to them.
        usual: [M] of the unseen real images, the distance to the nearest training image.

    Raises:
        ValueError: there are no images to judge, or none to judge by.
    """
    if not len(to_members.distance) or not len(usual):
        raise ValueError("near copies need images to judge and unseen images to judge them by")
    threshold = near_limit(usual)
    near, near_unseen = to_members.distance < threshold, to_unseen.distance < threshold
    limit = min(threshold, COPY * float(to_unseen.distance.min(initial=np.inf)))
    low, high = wilson_interval(int(near.sum()), len(near), alpha)
    return NearCopies(
        near=near,
        copies=to_members.distance < limit,
        low=low,
        high=high,
        control=float(np.mean(usual < threshold)),
        patients=(len(np.unique(to_members.which[near])), to_members.patients),
        unseen=(len(np.unique(to_unseen.which[near_unseen])), to_unseen.patients),
    )


def near_limit(usual: np.ndarray) -> float:
    """The distance below which an image is a near copy, by the distances [M] of unseen real images."""
    return NEAR * float(np.median(usual))


def chance_of_near(patients: tuple[int, int], unseen: tuple[int, int]) -> float:
    """Chance of so many training patients or more among those with a near copy, were they like unseen ones.

    Fisher's exact test, one-sided.

    Args:
        patients: training patients of whom some image is a near copy, and all; `unseen` the same of unseen ones.
    """
    return float(hypergeom.sf(patients[0] - 1, patients[1] + unseen[1], patients[1], patients[0] + unseen[0]))
