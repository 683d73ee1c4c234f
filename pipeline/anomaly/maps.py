"""Anomaly maps: from a network's grid to the image's, smoothed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_CUT_AT = 4.0
"""Standard deviations at which a Gaussian kernel ends, as in `scipy.ndimage`."""


def spread_over(grid: Tensor, spatial_size: Sequence[int]) -> Tensor:
    """Values on a grid [B, *grid] interpolated linearly over images: [B, *spatial_size]."""
    mode = "bilinear" if len(spatial_size) == 2 else "trilinear"
    return F.interpolate(grid[:, None], tuple(spatial_size), mode=mode, align_corners=False)[:, 0]


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Maps [B, *spatial] under a Gaussian of `sigma` voxels in each of the last two axes; edges are reflected."""
    radius = min(math.ceil(_CUT_AT * sigma), *(side - 1 for side in maps.shape[-2:]))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps)
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    planes = F.conv2d(F.pad(planes, (0, 0, radius, radius), mode="reflect"), kernel.view(1, 1, -1, 1))
    planes = F.conv2d(F.pad(planes, (radius, radius, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    return planes.view(maps.shape)
