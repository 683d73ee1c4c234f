"""Kernel distance between two sets of features: unbiased, so that small sets compare with large ones."""

from __future__ import annotations

import numpy as np
from scipy import stats

from pipeline.measures.frechet import feature_sets

_BLOCK = 1024


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Squared maximum mean discrepancy with the kernel (x·y / D + 1)³, unbiased, over all pairs of images.

    Bińkowski et al., ICLR 2018. All pairs are used rather than the mean over random subsets: the expectation is the
    same, the variance smaller, and there is no subset size to report. Its expectation is 0 for two sets from one
    distribution, so that half of such figures are negative.

    Args:
        real: [N, D] features.
        fake: [M, D] features.

    Raises:
        DataError: where a set has fewer than 2 rows, the widths differ, or a feature is not finite.
    """
    real, fake = feature_sets(real, fake, fewest=2)
    return float(_mmd(*_sums(real, fake)))


def kid_interval(real: np.ndarray, fake: np.ndarray, alpha: float = 0.05) -> tuple[float, float]:
    """Interval for the expectation of `kid`, by the jackknife: each image of either set is left out once.

    The sums of each image's kernel values give every leave-one-out figure exactly, so nothing is drawn at random. The
    variances of the two sets add; the quantile is Student's with min(N, M) - 1 degrees of freedom. The jackknife
    variance of a U-statistic is never too small in expectation (Efron & Stein, Annals of Statistics 9, 1981); where
    both sets come from one distribution the interval is up to √2 too wide.

    It covers which images were drawn, taken to be independent: not the GAN's seed, and not several images of one
    patient (then it is too narrow).

    Args:
        real: [N, D] features.
        fake: [M, D] features.
        alpha: 1 - the share of repetitions that the interval covers.

    Raises:
        DataError: as for `kid`, where a set has fewer than 3 rows.
    """
    real, fake = feature_sets(real, fake, fewest=3)
    within_real, within_fake, to_fake, to_real = _sums(real, fake)
    n, m = len(real), len(fake)
    cross = to_fake.sum()
    without_real = (
        (within_real.sum() - 2 * within_real) / ((n - 1) * (n - 2))
        + within_fake.sum() / (m * (m - 1))
        - 2 * (cross - to_fake) / ((n - 1) * m)
    )
    without_fake = (
        within_real.sum() / (n * (n - 1))
        + (within_fake.sum() - 2 * within_fake) / ((m - 1) * (m - 2))
        - 2 * (cross - to_real) / (n * (m - 1))
    )
    variance = (n - 1) * np.var(without_real) + (m - 1) * np.var(without_fake)
    margin = float(variance**0.5 * stats.t.ppf(1 - alpha / 2, min(n, m) - 1))
    distance = float(_mmd(within_real, within_fake, to_fake, to_real))
    return distance - margin, distance + margin


def _mmd(within_real: np.ndarray, within_fake: np.ndarray, to_fake: np.ndarray, to_real: np.ndarray) -> np.floating:
    n, m = len(within_real), len(within_fake)
    return within_real.sum() / (n * (n - 1)) + within_fake.sum() / (m * (m - 1)) - 2 * to_fake.sum() / (n * m)


def _sums(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each image's kernel values added up: real to other real [N], fake to other fake [M], real to fake [N], fake to
    real [M]."""
    to_real = np.zeros(len(fake))
    to_fake = np.zeros(len(real))
    for start in range(0, len(real), _BLOCK):
        block = _kernel(real[start : start + _BLOCK], fake)
        to_fake[start : start + _BLOCK] = block.sum(axis=1)
        to_real += block.sum(axis=0)
    return _sums_within(real), _sums_within(fake), to_fake, to_real


def _sums_within(features: np.ndarray) -> np.ndarray:
    blocks = [features[start : start + _BLOCK] for start in range(0, len(features), _BLOCK)]
    itself = ((features**2).sum(axis=1) / features.shape[1] + 1) ** 3
    return np.concatenate([_kernel(block, features).sum(axis=1) for block in blocks]) - itself


def _kernel(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return (one @ two.T / one.shape[1] + 1) ** 3
