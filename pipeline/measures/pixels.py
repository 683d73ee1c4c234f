"""Figures of anomaly maps where it is known which voxels are anomalous."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import label

from pipeline.measures.resampling import MIN_PATIENTS, Interval, Spread, interval, patient_weights

MOST_FALSE_POSITIVES = 0.3
"""Of normal voxels: how far the area under the per-region overlap goes."""
_DRAWS = 500
_BINS = 1000
"""Of scores, equally full, for drawn patients: voxels of one bin count as ties, which moves an area by
0.001 at most."""


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


def pixel_intervals(
    maps: np.ndarray, truth: np.ndarray, patients: np.ndarray, random: np.random.Generator, alpha: float
) -> tuple[Interval, Interval]:
    """`pixel_figures` with t intervals at `alpha` over whole patients, for voxels of one patient are not independent.

    Patients with something anomalous and those without are drawn apart, n - 1 of n, as for figures of patients. No
    ends below MIN_PATIENTS patients.

    Args:
        patients: [N], whose image each is.
    """
    exact = pixel_figures(maps, truth)
    scores = maps.reshape(len(maps), -1)
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = edges.size - np.searchsorted(edges, scores, side="right")  # the highest scores first
    anomalous = truth.reshape(len(truth), -1).astype(bool)
    shares = np.stack([_region_shares(mask) for mask in truth])
    own, drawn = _drawn_patients(patients, anomalous, random)
    number = drawn.shape[1]
    place = (own[:, None] * (edges.size + 1) + bins).ravel()
    size = number * (edges.size + 1)
    counts = [np.bincount(place, values.ravel(), size) for values in (~anomalous, anomalous, shares)]
    normal, hit, covered = (_shares_called(drawn @ table.reshape(number, -1)) for table in counts)
    pairs = list(zip(normal, hit, covered, strict=True))
    limit = MOST_FALSE_POSITIVES
    areas = [_area(along, called, 1.0) for along, called, _ in pairs]
    overlaps = [_area(along, over, limit) / limit for along, _, over in pairs]
    return (
        _over_patients(exact.auroc, np.array(areas), number, alpha),
        _over_patients(exact.aupro, np.array(overlaps), number, alpha),
    )


def dice_interval(
    maps: np.ndarray,
    truth: np.ndarray,
    threshold: float,
    patients: np.ndarray,
    random: np.random.Generator,
    alpha: float,
) -> Interval:
    """`dice` at a fixed threshold with its interval over whole patients, as `pixel_intervals`."""
    called, anomalous = (maps >= threshold).reshape(len(maps), -1), truth.reshape(len(truth), -1).astype(bool)
    own, drawn = _drawn_patients(patients, anomalous, random)
    both = np.bincount(own, (called & anomalous).sum(axis=1))
    size = np.bincount(own, called.sum(axis=1) + anomalous.sum(axis=1))
    return _over_patients(dice(maps, truth, threshold), 2 * (drawn @ both) / (drawn @ size), drawn.shape[1], alpha)


def _drawn_patients(
    patients: np.ndarray, anomalous: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The number of each image's patient [N], and how much each patient counts in each draw [draws, patients].

    Args:
        anomalous: [N, voxels] bool.
    """
    names, own = np.unique(patients, return_inverse=True)
    return own, patient_weights(names, _DRAWS, random, np.bincount(own, anomalous.any(axis=1)) > 0)


def _shares_called(counts: np.ndarray) -> np.ndarray:
    """[draws, bins] -> the share at or above each bin's scores [draws, 1 + bins]."""
    called = np.cumsum(counts, axis=1)
    return np.pad(called / called[:, -1:], ((0, 0), (1, 0)))


def _over_patients(value: float, drawn: np.ndarray, patients: int, alpha: float) -> Interval:
    if patients < MIN_PATIENTS or not np.isfinite(drawn).all():
        return Interval(value, None, None)
    return interval(value, [Spread(float(np.var(drawn, ddof=1)), patients - 1)], alpha).within(0.0, 1.0)


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
