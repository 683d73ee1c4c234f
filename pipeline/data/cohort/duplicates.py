"""Images that are the same, or look the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

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
_OF_TREE, _DIRECTIONS = 5, 24
"""Directions that the tree sorts by, and those in which a pair must be near before all values are compared."""
_BLOCK, _PAIRS = 256, 2**16
_WITHIN = (2 * (1 - NEAR_CORRELATION)) ** 0.5 + 1e-4
"""How far apart two thumbnails are that correlate so, and a little for rounding."""


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

    Near duplicates are near in every projection too, so a k-d tree over the directions in which the thumbnails
    differ most leaves out no pair, and few pairs are left to compare: with images it takes near-linear time.
    """
    numbers = np.full(len(thumbnails), -1)
    present = np.flatnonzero(np.abs(thumbnails).max(axis=1, initial=0) > 0)  # flat ones are nobody's duplicates
    if len(present) > 1:
        numbers[present] = _numbered(_groups(thumbnails[present]))
    return [int(number) for number in numbers]


def _groups(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """The group [N] of each of the vectors of length 1 [N, D]."""
    telling = np.linalg.eigh(np.cov(vectors, rowvar=False).reshape(2 * vectors.shape[1:]))[1][:, ::-1]
    few = vectors.astype(np.float64) @ telling[:, :_DIRECTIONS]
    groups, waiting = np.arange(len(vectors)), list[NDArray[np.int64]]()
    for pairs in _near_pairs(few[:, :_OF_TREE]):
        pairs = pairs[:, groups[pairs[0]] != groups[pairs[1]]]
        pairs = _those(pairs, lambda one, two: np.linalg.norm(few[one] - few[two], axis=1) <= _WITHIN)
        pairs = _those(pairs, lambda one, two: np.vecdot(vectors[one], vectors[two]) >= NEAR_CORRELATION)
        waiting.append(pairs)
        if sum(part.shape[1] for part in waiting) > len(vectors):
            groups, waiting = _joined(groups, waiting), []
    return _joined(groups, waiting)


def _near_pairs(points: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Positions [2, pairs] of points that are near each other, the first before the second, part by part."""
    tree = KDTree(points)
    for start in range(0, len(points), _BLOCK):
        block = np.asarray(tree.indices)[start : start + _BLOCK]  # in the tree's order: neighbours of each other
        near = KDTree(points[block]).sparse_distance_matrix(tree, _WITHIN, output_type="ndarray")
        pairs = np.stack([block[near["i"]], near["j"]])
        yield pairs[:, pairs[0] < pairs[1]]


def _those(
    pairs: NDArray[np.int64], alike: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
) -> NDArray[np.int64]:
    """Of the pairs those that are alike, looked at in parts."""
    parts = np.array_split(pairs, max(1, pairs.shape[1] // _PAIRS), axis=1)
    return pairs[:, np.concatenate([alike(*part) for part in parts])]


def _numbered(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups counted from 0 in the order of their first members; -1 for a group of one."""
    _, first, place, count = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    numbers, crowded = np.full(len(first), -1), np.flatnonzero(count > 1)
    numbers[crowded[np.argsort(first[crowded])]] = np.arange(len(crowded))
    return np.asarray(numbers[place])


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
