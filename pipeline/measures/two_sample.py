"""Do two groups of patients come from one distribution? A permutation test, and which figures moved."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

PERMUTATIONS = 1999
_MOST = 500
"""Patients of a group that are looked at; of more, so many at random."""
_DECIMALS = 12
"""Statistics that differ by less are equal."""


@dataclass(frozen=True)
class TwoSample:
    """What `two_sample_test` found.

    Attributes:
        p: that both groups come from one distribution.
        p_values: the same for each figure alone, not adjusted for their number.
        directions: of each figure, its mean rank in the new group less that in the reference, as a share of the
            patients: above 0 where the figure is larger in the new group.
    """

    p: float
    p_values: tuple[float, ...]
    directions: tuple[float, ...]


def two_sample_test(
    reference: np.ndarray, new: np.ndarray, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> TwoSample:
    """Test by permutation whether `new` comes from the distribution of `reference`.

    Patients are dealt out to the groups at random again and again. Two kinds of statistics are looked at in each deal:
    the squared maximum mean discrepancy of all figures together, with a Gaussian kernel as wide as the median distance
    between two patients (Gretton et al., JMLR 13, 2012), after standardising by the median and the median absolute
    deviation of both groups together; and of each figure alone the difference of mean ranks, which finds what moves
    one figure a little. A statistic's p-value is the share of deals, the true one among them, in which it is as large.
    The smallest p-value of a deal is the statistic of the whole test (Westfall & Young, Resampling-Based Multiple
    Testing, 1993), so that under the null hypothesis p <= a has probability a at most, whatever the distribution.

    Args:
        reference: [n, S], a row a patient.
        new: [m, S].

    Raises:
        ValueError: a group is empty, or a figure is not finite.
    """
    if not (len(reference) and len(new)):
        raise ValueError("a two-sample test needs a patient in each group")
    random = np.random.default_rng(seed)
    groups = [each[np.sort(random.permutation(len(each))[:_MOST])] for each in (reference, new)]
    values = np.concatenate(groups).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a two-sample test needs finite figures")
    n, m = map(len, groups)
    deals = np.argsort(random.random((permutations + 1, n + m)), axis=1)
    deals[0] = np.arange(n + m)  # as they are
    weights = np.where(deals >= n, 1 / m, -1 / n)
    kernel = _gaussian_kernel(_standardised(values))
    apart = ((weights @ kernel) * weights).sum(axis=1)
    ranks = rankdata(values, axis=0) / (n + m)
    moved = weights @ ranks
    p_values = _shares_as_large(np.column_stack([apart, np.abs(moved)]))
    whole = _shares_as_large(-p_values.min(axis=1, keepdims=True))[0, 0]
    return TwoSample(float(whole), tuple(p_values[0, 1:].tolist()), tuple(moved[0].tolist()))


def least_p(num_reference: int, num_new: int, permutations: int = PERMUTATIONS) -> float:
    """No p-value of `two_sample_test` for so many patients is expected to be smaller."""
    n, m = min(num_reference, _MOST), min(num_new, _MOST)
    mirrored = 2 if n == m else 1  # groups of one size, exchanged, are as far apart
    return max(mirrored / math.comb(n + m, m), 1 / (permutations + 1))


def patient_means(values: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The mean over each patient's images: [N, S] and the patient [N] of each image -> [P, S], patients sorted."""
    names, index = np.unique(patients, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, index, values)
    return sums / np.bincount(index)[:, None]


def _standardised(values: np.ndarray) -> np.ndarray:
    centred = values - np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(centred), axis=0)
    spread = np.where(spread > 0, spread, centred.std(axis=0))
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


def _gaussian_kernel(values: np.ndarray) -> np.ndarray:
    squares = pdist(values, "sqeuclidean")
    width = float(np.median(squares)) or float(squares.mean()) or 1.0
    return np.asarray(np.exp(-squareform(squares) / (2 * width)))


def _shares_as_large(statistics: np.ndarray) -> np.ndarray:
    """For each row of each column of [deals, K] the share of rows in which the column is as large: [deals, K]."""
    return np.asarray(rankdata(-np.round(statistics, _DECIMALS), method="max", axis=0) / len(statistics))
