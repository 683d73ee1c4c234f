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
_TIE = 1e-12


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
    """Test whether `new` comes from the distribution of `reference`: kernel two-sample test by permutation.

    Figures are standardised by median and median absolute deviation of both groups together. The statistic is the
    squared maximum mean discrepancy with a Gaussian kernel, as wide as the median distance between two patients
    (Gretton et al., JMLR 13, 2012). Patients are dealt out to the groups at random again and again, and
    p = (1 + deals with a statistic as large) / (1 + deals): under the null hypothesis p <= a has probability a at most,
    whatever the distribution (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010). Each figure alone is tested by
    the difference of mean ranks under the same deals.

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
    alone = tuple(_p_value(column) for column in np.abs(moved).T)
    return TwoSample(_p_value(apart), alone, tuple(moved[0].tolist()))


def least_p(num_reference: int, num_new: int, permutations: int = PERMUTATIONS) -> float:
    """The smallest p-value that `two_sample_test` can be expected to give to so many patients."""
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


def _p_value(statistics: np.ndarray) -> float:
    """Of the first of the statistics among all of them; equal ones count as large."""
    return float((statistics >= statistics[0] - _TIE).mean())
