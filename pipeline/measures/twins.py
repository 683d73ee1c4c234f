"""Do samples come in near-equal pairs? Counted on coarse pixels, which noise and texture do not move."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEAR = 0.25
"""Two samples are twins within this share of the median distance from a real image to its nearest neighbour."""
_SIDE = 8


def low_resolution(images: Tensor) -> Tensor:
    """Images [N, C, *spatial] averaged down to at most 8 voxels a side: cheap features [N, D], float64."""
    sides = tuple(min(size, _SIDE) for size in images.shape[2:])
    smaller: Tensor = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[len(sides)](sides)(images)
    return smaller.flatten(1).double()


def near_distance(real: Tensor) -> float:
    """Within it two samples are twins; 0 where half of the real images are exact copies of another one.

    Args:
        real: [N, D] features of real images; fewer than two have no such distance, and give 0.
    """
    return NEAR * float(_to_nearest(real).median()) if len(real) > 1 else 0.0


def twins(samples: Tensor, near: float) -> Tensor:
    """Which of the samples' features [N, D] have another one nearer than `near`: [N] of true and false."""
    return _to_nearest(samples) < near


def _to_nearest(features: Tensor) -> Tensor:
    """Distance of each row to the nearest other one [N]."""
    apart = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.fill_diagonal_(torch.inf).amin(1)
