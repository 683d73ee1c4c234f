"""How an image size is reached by doublings."""

from __future__ import annotations

from collections.abc import Sequence

_SMALLEST_GRID = 4


def doublings(spatial_size: Sequence[int]) -> int:
    """How often the shortest side can be halved before it falls below 4 voxels (at least once)."""
    levels = 1
    while min(spatial_size) >> (levels + 1) >= _SMALLEST_GRID:
        levels += 1
    return levels


def first_grid(spatial_size: Sequence[int]) -> tuple[int, ...]:
    """The grid from which `doublings` reach at least `spatial_size`; what is over is cropped."""
    scale = 2 ** doublings(spatial_size)
    return tuple(-(-side // scale) for side in spatial_size)
