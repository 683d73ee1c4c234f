"""Images that are the same, or look the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from pipeline.data.resampling import AxisGrid, resample

NEAR_CORRELATION = 0.995
"""Two thumbnails correlating this well are near duplicates. On 5,856 chest X-rays of 28 x 28 only the exact copies
reach it (the next pair is below 0.985), and no two of 1,000 larger ones but an exact copy."""
_THUMBNAIL = {2: 16, 3: 8}
_DIRECTIONS = 5
_BLOCK, _PAIRS = 256, 2**16
_ROUNDING = 1e-4


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
    """A number for each of the [N, D] thumbnails: equal for near duplicates, also over several steps; -1 = alone.

    Near duplicates are near in every projection too, so a k-d tree over the few directions in which the thumbnails
    differ most leaves out no pair, and few pairs are left to compare: with images it takes near-linear time.
    """
    groups = np.arange(len(thumbnails))
    waiting: list[NDArray[np.int64]] = []
    for pairs in _near_pairs(thumbnails):
        fresh = pairs[:, groups[pairs[0]] != groups[pairs[1]]]
        waiting.append(fresh[:, _alike(thumbnails, fresh)])
        if sum(part.shape[1] for part in waiting) > len(thumbnails):
            groups, waiting = _joined(groups, waiting), []
    groups = _joined(groups, waiting)
    _, first, place, count = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    numbers = np.full(len(first), -1)
    crowded = np.flatnonzero(count > 1)
    numbers[crowded[np.argsort(first[crowded])]] = np.arange(len(crowded))
    return [int(number) for number in numbers[place]]


def _near_pairs(thumbnails: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
    """Positions [2, pairs] of thumbnails that may be near duplicates, the first before the second, part by part."""
    present = np.flatnonzero(np.abs(thumbnails).max(axis=1, initial=0) > 0)  # flat ones are nobody's duplicates
    if len(present) < 2:
        return
    spread = np.cov(thumbnails[present], rowvar=False).reshape(2 * thumbnails.shape[1:])
    flat = thumbnails[present].astype(np.float64) @ np.linalg.eigh(spread)[1][:, -_DIRECTIONS:]
    tree = KDTree(flat)
    within = np.sqrt(2 * (1 - NEAR_CORRELATION)) + _ROUNDING
    for start in range(0, len(flat), _BLOCK):
        block = np.asarray(tree.indices)[start : start + _BLOCK]  # in the tree's order: neighbours of each other
        found = KDTree(flat[block]).sparse_distance_matrix(tree, within, output_type="ndarray")
        pairs = np.stack([present[block[found["i"]]], present[found["j"]]])
        yield pairs[:, pairs[0] < pairs[1]]


def _alike(thumbnails: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the pairs correlate well enough."""
    parts = np.array_split(pairs, max(1, pairs.shape[1] // _PAIRS), axis=1)
    products = [np.einsum("nd,nd->n", thumbnails[one], thumbnails[two]) for one, two in parts]
    return np.concatenate(products) >= NEAR_CORRELATION


def _joined(groups: NDArray[np.int64], pairs: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The groups [N] when the members of each pair are in one."""
    first, second = groups[np.concatenate([np.empty((2, 0), np.int64), *pairs], axis=1)]
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(groups), len(groups)))
    return np.asarray(connected_components(graph, directed=False)[1][groups], dtype=np.int64)


def repeats(keys: Sequence[str] | Iterable[str]) -> list[list[int]]:
    """Positions of each key that occurs more than once; empty keys never count."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key:
            places[key].append(place)
    return [found for found in places.values() if len(found) > 1]
