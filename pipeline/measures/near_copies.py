"""Is an image a near copy of a training image? One definition for the whole program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.measures.resampling import wilson_interval

NEAR = 0.25
"""An image is a near copy within this share of the median distance of held-out real images to the nearest training
image."""


@dataclass(frozen=True)
class NearCopies:
    """How many images are near copies.

    Attributes:
        threshold: the distance below which an image is one.
        share: of the images that are near copies.
        low, high: its interval, which takes images as independent.
        control: the same share of the held-out real images, which are nobody's copies.
    """

    threshold: float
    share: float
    low: float
    high: float
    control: float

    @property
    def beyond_chance(self) -> bool:
        """Whether more images are near copies than held-out real images are, beyond the interval."""
        return self.low > self.control


def near_copies(nearest: np.ndarray, held_out: np.ndarray, alpha: float = 0.05) -> NearCopies:
    """Judge images by their distance to the nearest training image, held-out real images being the measure.

    Args:
        nearest: [N] each image's distance to the training image nearest to it; any unit.
        held_out: [M] the same for real images that no generator saw.

    Raises:
        ValueError: one of the two is empty.
    """
    if not len(nearest) or not len(held_out):
        raise ValueError("near copies need images to judge and held-out images to judge them by")
    threshold = NEAR * float(np.median(held_out))
    copies = int((nearest < threshold).sum())
    low, high = wilson_interval(copies, len(nearest), alpha)
    return NearCopies(threshold, copies / len(nearest), low, high, control=float(np.mean(held_out < threshold)))
