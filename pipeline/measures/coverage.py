"""Are the synthetic images like real ones, and do they reach all the real ones? Counted among nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.core.errors import DataError
from pipeline.measures.frechet import feature_sets

_BLOCK = 1024
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Coverage:
    """Shares from 0 to 1, but for `density`, which is about 1 for two sets from one distribution and may exceed it.

    `precision`: fakes that lie in some real image's ball. `recall`: real images that lie in some fake's ball.
    `density`: how many real balls hold a fake, over k. `coverage`: real images whose ball holds a fake.
    A ball ends at the image's k-th nearest neighbour within its own set. One real outlier has a ball so wide that even
    blank images lie in it, which is a `precision` of 1: read `density` and `coverage` beside it.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: np.ndarray, fake: np.ndarray, k: int = 5) -> Coverage:
    """Precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    A point on a ball's edge is outside, as in Naeem et al. All four depend on the numbers of images.

    Args:
        real: [N, D] features.
        fake: [M, D] features.
        k: which neighbour ends a ball.

    Raises:
        DataError: where a set has no more than k rows, the widths differ, or a feature is not finite.
    """
    if k < 1:
        raise DataError(f"k is {k}; a ball needs at least 1 neighbour")
    real, fake = feature_sets(real, fake, fewest=k + 1)
    middle = real.mean(axis=0)
    real, fake = real - middle, fake - middle
    real_edge, fake_edge = _edges(real, k), _edges(fake, k)
    held = np.zeros(len(fake), dtype=np.int64)  # by how many real balls
    holds, reached = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    for rows, distances in _squared_distances(real, fake):
        in_real = distances < real_edge[rows, None]
        held += in_real.sum(axis=0)
        holds[rows] = in_real.any(axis=1)
        reached[rows] = (distances < fake_edge).any(axis=1)
    return Coverage(
        precision=float(np.mean(held > 0)),
        recall=float(np.mean(reached)),
        density=float(np.mean(held) / k),
        coverage=float(np.mean(holds)),
    )


def _edges(features: np.ndarray, k: int) -> np.ndarray:
    """Squared distance to the k-th nearest other image [N], less what rounding may add, so that the edge is outside."""
    kth = [np.partition(distances, k, axis=1)[:, k] for _, distances in _squared_distances(features, features)]
    return np.concatenate(kth) * (1 - 1e-9)


def _squared_distances(one: np.ndarray, two: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of the [N, M] squared distances, with their rows; what is no more than rounding error is exactly 0."""
    lengths = (one**2).sum(axis=1), (two**2).sum(axis=1)
    for start in range(0, len(one), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(one)))
        scale = lengths[0][rows, None] + lengths[1]
        distances = scale - 2 * one[rows] @ two.T
        yield rows, np.where(distances > _ROUNDING * scale, distances, 0.0)
