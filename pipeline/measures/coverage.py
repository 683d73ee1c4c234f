"""Are the synthetic images like real ones, and do they reach all the real ones? Counted among nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import DataError
from pipeline.measures.blocks import on_device, products
from pipeline.measures.frechet import feature_sets

_BLOCK, _PAIRS = 1024, 2**22
"""Rows of a block, and pairs in it, at most: where there are many columns a block has fewer rows."""
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


def prdc(real: np.ndarray, fake: np.ndarray, k: int = 5, device: str = "cpu") -> Coverage:
    """Precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    A point on a ball's edge is outside, as in Naeem et al. All four depend on the numbers of images.
    Time grows with the square of the images, memory does not: above 10,000 images, give a random draw of both sets.

    Args:
        real: [N, D] features.
        fake: [M, D] features.
        k: which neighbour ends a ball.
        device: that computes, in float64.

    Raises:
        DataError: where a set has no more than k rows, the widths differ, or a feature is not finite.
    """
    if k < 1:
        raise DataError(f"k is {k}; a ball needs at least 1 neighbour")
    real, fake = feature_sets(real, fake, fewest=k + 1)
    real, fake = _centred(real, fake)
    real_edge, fake_edge = _edges(real, k, device), _edges(fake, k, device)
    held = torch.zeros(len(fake), dtype=torch.int64, device=real_edge.device)  # by how many real balls
    holds, reached = [], []
    for rows, distances in _squared_distances(real, fake, device):
        in_real = distances < real_edge[rows, None]
        held += in_real.sum(dim=0)
        holds.append(in_real.any(dim=1))
        reached.append((distances < fake_edge).any(dim=1))
    return Coverage(
        precision=float((held > 0).double().mean()),
        recall=float(torch.cat(reached).double().mean()),
        density=float(held.double().mean() / k),
        coverage=float(torch.cat(holds).double().mean()),
    )


def nearest_distances(real: np.ndarray, fake: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Root mean square difference of each fake's features to those of the real image nearest to it, [M]; 0 for a copy.

    Args:
        real: [N, D] features.
        fake: [M, D] features.
        device: that computes, in float64.

    Raises:
        DataError: where a set is empty, the widths differ, or a feature is not finite.
    """
    real, fake = _centred(*feature_sets(real, fake, fewest=1))
    nearest = [distances.amin(dim=1).cpu() for _, distances in _squared_distances(fake, real, device)]
    return np.asarray((torch.cat(nearest) / real.shape[1]).sqrt().numpy())


def nearest_others(features: np.ndarray, rows: np.ndarray, device: str = "cpu") -> np.ndarray:
    """The same for images of one set: to the nearest other one, of those at `rows` [R].

    Args:
        features: [N, D], at least two images.
        rows: [R] places in `features`.

    Raises:
        DataError: as for `nearest_distances`.
    """
    features, chosen = _centred(*feature_sets(features, features[rows], fewest=1))
    nearest = []
    for part, distances in _squared_distances(chosen, features, device):
        own = torch.from_numpy(rows[part]).to(distances.device)
        nearest.append(distances.scatter(1, own[:, None], torch.inf).amin(dim=1).cpu())
    return np.asarray((torch.cat(nearest) / features.shape[1]).sqrt().numpy())


def pairwise_distances(one: np.ndarray, two: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Root mean square difference of every row of `one` [N, D] to every row of `two` [M, D]: [N, M], float64.

    By products around the second set's mean: good to a millionth of the rows' root mean square; 0 for a copy.
    """
    two, one = _centred(two, one)
    squared = [part.cpu() for _, part in _squared_distances(one, two, device)]
    return np.asarray((torch.cat(squared) / two.shape[1]).sqrt().numpy())


def _centred(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets around the real ones' mean, where products of float64 lose least."""
    middle = real.mean(axis=0, dtype=np.float64)
    return real - middle, fake - middle


def _edges(features: np.ndarray, k: int, device: str) -> Tensor:
    """Squared distance to the k-th nearest other image [N], less what rounding may add, so that the edge is outside."""
    blocks = _squared_distances(features, features, device)
    kth = [distances.topk(k + 1, largest=False, sorted=True).values[:, k] for _, distances in blocks]
    return torch.cat(kth) * (1 - 1e-9)


def _squared_distances(one: np.ndarray, two: np.ndarray, device: str) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of the [N, M] squared distances, with their rows; what is no more than rounding error is exactly 0."""
    lengths = [(on_device(part, device) ** 2).sum(dim=1) for part in (one, two)]
    for rows, inner in products(one, two, max(1, min(_BLOCK, _PAIRS // len(two))), device):
        scale = lengths[0][rows, None] + lengths[1]
        distances = scale - 2 * inner
        yield rows, torch.where(distances > _ROUNDING * scale, distances, 0.0)
