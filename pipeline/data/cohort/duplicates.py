"""Images that are the same, or look the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.resampling import AxisGrid, resample

NEAR_CORRELATION = 0.995
"""Two thumbnails correlating this well are near duplicates. On 5,856 chest X-rays of 28 x 28 only the exact copies
reach it (the next pair is below 0.985), and no two of 1,000 larger ones but an exact copy."""
_THUMBNAIL = {2: 16, 3: 8}
_BLOCK = 1024


def pixel_digest(array: NDArray[np.float32]) -> str:
    """sha256 over an image's shape and values."""
    contiguous = np.ascontiguousarray(array, dtype="<f4")
    digest = hashlib.sha256(repr(contiguous.shape).encode())
    digest.update(contiguous.data.cast("B"))
    return digest.hexdigest()


def thumbnail(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Area means of [C, *spatial] on a 16 x 16 (8 x 8 x 8) grid, minus their mean, of length 1 (or 0)."""
    side = _THUMBNAIL[array.ndim - 1]
    small = resample(array[:1], [AxisGrid.whole(size, side) for size in array.shape[1:]]).ravel().astype(np.float64)
    centred = small - small.mean()
    length = np.linalg.norm(centred)
    return (centred / length if length > 1e-6 * max(1.0, np.abs(small).max()) else 0 * centred).astype(np.float32)


def near_groups(thumbnails: NDArray[np.float32]) -> list[int]:
    """A number for each of the [N, D] thumbnails: equal for near duplicates, also over several steps; -1 = alone."""
    joined = Groups(len(thumbnails))
    for low in range(0, len(thumbnails), _BLOCK):
        block = thumbnails[low : low + _BLOCK]
        alike = block @ thumbnails[low:].T >= NEAR_CORRELATION
        for first, second in np.argwhere(np.triu(alike, k=1)):
            joined.join(low + int(first), low + int(second))
    roots = [joined.root(index) for index in range(len(thumbnails))]
    crowded = {root for root, count in zip(*np.unique(roots, return_counts=True), strict=True) if count > 1}
    numbers = {root: number for number, root in enumerate(sorted(crowded))}
    return [numbers.get(root, -1) for root in roots]


def repeats(keys: Sequence[str] | Iterable[str]) -> list[list[int]]:
    """Positions of each key that occurs more than once; empty keys never count."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key:
            places[key].append(place)
    return [found for found in places.values() if len(found) > 1]


class Groups:
    """Disjoint sets of 0 .. n - 1."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, index: int) -> int:
        while self._parents[index] != index:
            self._parents[index] = self._parents[self._parents[index]]
            index = self._parents[index]
        return index

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.root(first), self.root(second)))
        self._parents[high] = low
