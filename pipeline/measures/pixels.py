"""Figures of anomaly maps where it is known which voxels are anomalous."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import label

MOST_FALSE_POSITIVES = 0.3
"""Of normal voxels: how far the area under the per-region overlap goes."""


class PixelFigures(NamedTuple):
    """Of maps beside the truth, voxel by voxel; `aupro` region by region."""

    auroc: float
    aupro: float


def pixel_figures(maps: np.ndarray, truth: np.ndarray) -> PixelFigures:
    """AUROC of all voxels, and the area under the per-region overlap up to 30 % false positives.

    The per-region overlap of a threshold is the mean over anomalous regions of the share of a region that is called;
    small regions count as much as large ones. Its curve against the share of normal voxels called is integrated up to
    MOST_FALSE_POSITIVES and divided by that: 1 is perfect, and half of MOST_FALSE_POSITIVES is chance (Bergmann et al.,
    Int. J. Computer Vision 129, 2021). Regions touch across corners too, as in the authors' evaluation. Equal scores
    are called together.

    Args:
        maps: [N, *spatial], large = anomalous.
        truth: [N, *spatial] bool.

    Raises:
        ValueError: there is no anomalous or no normal voxel, or maps and masks differ in size.
    """
    _compatible(maps, truth)
    scores, anomalous = maps.ravel(), truth.ravel().astype(bool)
    if anomalous.all() or not anomalous.any():
        raise ValueError("pixel figures need anomalous and normal voxels")
    overlap = np.concatenate([_region_shares(mask) for mask in truth])
    overlap /= overlap.sum()
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    normal, hit, covered = (
        np.r_[0.0, np.cumsum(values[order], dtype=np.float64)[ends]] for values in (~anomalous, anomalous, overlap)
    )
    false_positives = normal / normal[-1]
    aupro = _area(false_positives, covered, MOST_FALSE_POSITIVES) / MOST_FALSE_POSITIVES
    return PixelFigures(_area(false_positives, hit / hit[-1], 1.0), aupro)


def dice(maps: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    """2 TP / (2 TP + FP + FN) over the voxels of all images, where map >= threshold is called anomalous.

    Dice, Ecology 26 (1945). NaN where nothing is anomalous and nothing is called.
    """
    _compatible(maps, truth)
    called, anomalous = maps.ravel() >= threshold, truth.ravel().astype(bool)
    size = called.sum() + anomalous.sum()
    return float(2 * (called & anomalous).sum() / size) if size else float("nan")


def dice_threshold(maps: np.ndarray, truth: np.ndarray) -> float:
    """The threshold at which `dice` is largest; of equal ones the highest.

    Raises:
        ValueError: nothing is anomalous.
    """
    _compatible(maps, truth)
    scores, anomalous = maps.ravel(), truth.ravel().astype(bool)
    if not anomalous.any():
        raise ValueError("a threshold for Dice needs anomalous voxels")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    found = 2 * np.cumsum(anomalous[order])[ends] / (ends + 1 + anomalous.sum())
    return float(scores[order][ends][found.argmax()])


def _compatible(maps: np.ndarray, truth: np.ndarray) -> None:
    if maps.shape != truth.shape:
        raise ValueError("maps and masks differ in number or size")


def _region_shares(mask: np.ndarray) -> np.ndarray:
    """For each voxel, flat, 1 / the size of its anomalous region; 0 outside."""
    regions, _ = label(mask, structure=np.ones([3] * mask.ndim))
    numbers = regions.ravel()
    sizes = np.bincount(numbers).astype(np.float64)
    shares = 1 / sizes[numbers]
    return np.asarray(np.where(numbers > 0, shares, 0.0))


def _area(along: np.ndarray, height: np.ndarray, limit: float) -> float:
    """Under a curve of straight lines from 0 to `limit`; `along` ascends."""
    inside = along <= limit
    end = np.interp(limit, along, height)
    return float(np.trapezoid(np.r_[height[inside], end], np.r_[along[inside], limit]))
