"""The way back from a prepared image to its source: values on the source's own voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.geometry import Placed
from pipeline.data.resampling import AxisGrid, Floats, resample


def on_source_grid(prepared: Placed, source: Placed) -> NDArray[np.float32]:
    """Values on the voxels of the image that `geometry` made the prepared one from.

    Axes are swapped and flipped back, then resampled: linear where the source's voxels are finer, area means where they
    are coarser. What the prepared image does not show (outside a crop) is 0.

    Args:
        prepared: values [C, *shape] with the affine that `geometry` gave.
        source: the image as its reader gave it; only its shape and affine count.

    Returns:
        [C, *source.shape], float32.
    """
    dims = len(source.shape)
    link = np.linalg.inv(prepared.affine) @ source.affine  # source index -> prepared index
    axes = np.abs(link[:dims, :dims]).argmax(axis=0).tolist()  # the prepared axis along each of the source's
    grids, backwards = list[AxisGrid](), list[int]()
    for axis, (own, count) in enumerate(zip(axes, source.shape, strict=True)):
        start, step = _start(link, axis, own, source.shape), float(link[own, axis])
        if step < 0:
            backwards.append(axis + 1)
            start, step = start + step * (count - 1), -step
        grids.append(AxisGrid(start, step, count))
    turned = np.transpose(prepared.array, (0, *(own + 1 for own in axes)))
    return np.ascontiguousarray(np.flip(resample(turned, grids), axis=tuple(backwards)))


def _start(link: Floats, axis: int, own: int, shape: tuple[int, ...]) -> float:
    """Where along the prepared axis `own` the source's voxels 0 of `axis` lie: in the middle of the others."""
    middle = [(count - 1) / 2 for count in shape]
    middle[axis] = 0.0
    return float(link[own, : len(shape)] @ middle + link[own, 3])
