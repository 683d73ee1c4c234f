"""Images averaged down to a small grid: what methods for tables of numbers are given of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.anomaly.detector import ImageSet
from pipeline.anomaly.frozen import enough

SIDES = {2: 16, 3: 8}
"""Longest sides of a thumbnail by spatial dimensions."""


def grid_of(spatial_size: Sequence[int], longest: int) -> tuple[int, ...]:
    """The sides of an image, each `longest` at most."""
    return tuple(min(side, longest) for side in spatial_size)


def averaged_down(images: Tensor, longest: int) -> Tensor:
    """Images [B, C, *spatial] -> [B, C, *grid], each cell the mean of its voxels; no side is longer than `longest`."""
    grid = grid_of(images.shape[2:], longest)
    if grid == tuple(images.shape[2:]):
        return images
    pool = F.adaptive_avg_pool2d if images.ndim == 4 else F.adaptive_avg_pool3d
    return pool(images, grid)  # type: ignore[arg-type]


def thumbnails(images: Tensor) -> Tensor:
    """Images [B, C, *spatial] -> the cells of their thumbnails, [B, C x cells], float32."""
    return averaged_down(images.float(), SIDES[images.ndim - 2]).flatten(1)


def thumbnails_of(images: ImageSet) -> Tensor:
    """Of all of them, [N, C x cells].

    Raises:
        DataError: there are too few images for any detector.
    """
    return torch.cat([thumbnails(block) for block in enough(images).blocks()])
