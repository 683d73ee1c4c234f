"""Separable resampling onto an even grid along the array's own axes: area means down, linear interpolation up.

Down-sampling weighs every input voxel by its overlap with the output voxel, so nothing aliases; what lies outside the
image counts as zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class AxisGrid:
    """`count` output voxels along one axis; number j has its centre at input index `start + j * step`."""

    start: float
    step: float
    count: int

    @classmethod
    def centred(cls, centre: float, step: float, count: int) -> AxisGrid:
        return cls(centre - step * (count - 1) / 2, step, count)

    @classmethod
    def whole(cls, size: int, count: int) -> AxisGrid:
        """The full extent of `size` input voxels as `count` output voxels."""
        return cls.centred((size - 1) / 2, size / count, count)

    def centres(self) -> Floats:
        return self.start + self.step * np.arange(self.count)

    def weights(self, size: int) -> Floats:
        """Matrix [count, size] from input to output values."""
        return self._overlaps(size) if self.step > 1 else self._between(size)

    def nearest(self, size: int) -> NDArray[np.int64]:
        """Input index nearest to each output voxel [count]; -1 outside the image."""
        index = np.floor(self.centres() + 0.5).astype(np.int64)
        return np.where((index >= 0) & (index < size), index, -1)

    def _overlaps(self, size: int) -> Floats:
        low, edges = self.centres()[:, None] - self.step / 2, np.arange(size)[None] - 0.5
        overlap = np.minimum(low + self.step, edges + 1) - np.maximum(low, edges)
        return np.clip(overlap, 0, None) / self.step

    def _between(self, size: int) -> Floats:
        centres = self.centres()
        inside = (centres >= -0.5) & (centres <= size - 0.5)
        clamped = np.clip(centres, 0, size - 1)
        return np.clip(1 - np.abs(clamped[:, None] - np.arange(size)[None]), 0, None) * inside[:, None]


def resample(array: Floats, grids: Sequence[AxisGrid]) -> NDArray[np.float32]:
    """Values [C, *spatial] on `grids`, one a spatial axis; zero outside the image."""
    out = np.asarray(array, dtype=np.float32)
    for axis, grid in enumerate(grids, start=1):
        matrix = _matrix(grid, out.shape[axis])
        first = np.moveaxis(out, axis, 0)
        mixed = matrix @ np.ascontiguousarray(first).reshape(len(first), -1)
        out = np.moveaxis(mixed.reshape(grid.count, *first.shape[1:]), 0, axis)
    return np.ascontiguousarray(out)


@lru_cache(maxsize=64)
def _matrix(grid: AxisGrid, size: int) -> csr_array:
    """The grid's weights; images of a cohort often share them."""
    return csr_array(grid.weights(size).astype(np.float32))


def resample_nearest(array: NDArray[np.generic], grids: Sequence[AxisGrid]) -> NDArray[np.generic]:
    """Labels [C, *spatial] on `grids`: the nearest voxel's, zero outside the image."""
    out = array
    for axis, grid in enumerate(grids, start=1):
        index = grid.nearest(out.shape[axis])
        shape = [-1 if place == axis else 1 for place in range(out.ndim)]
        out = np.where((index >= 0).reshape(shape), np.take(out, np.maximum(index, 0), axis=axis), 0)
    return out
