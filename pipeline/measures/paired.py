"""Tests of paired comparisons: the same patients, two classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import ndtr

_EXACT_FLIPS = 14
_RANDOM_FLIPS = 20_000


@dataclass(frozen=True)
class Difference:
    """A paired difference with its standard error and two-sided p-value."""

    value: float
    error: float
    p: float


def delong(first: np.ndarray, second: np.ndarray, positive: np.ndarray, units: np.ndarray) -> Difference:
    """AUROC of `first` minus AUROC of `second` on the same cases, with the variance of clustered cases.

    With one case a unit it is the test of DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988); cases of one patient
    are taken together as in Obuchowski, Biometrics 53 (1997).

    Args:
        first, second: [n] scores, large for the disease.
        positive: [n] bool.
        units: [n] patient of each case.

    Raises:
        ValueError: there is no positive or no negative case.
    """
    if positive.all() or not positive.any():
        raise ValueError("DeLong's test needs positive and negative cases")
    components = [_placements(score, positive) for score in (first, second)]
    values = [placement[positive].mean() for placement in components]
    gap = components[0] - components[1]
    value = float(values[0] - values[1])
    centred = (gap - value) / np.where(positive, positive.sum(), (~positive).sum())
    _, index = np.unique(units, return_inverse=True)
    influence = np.bincount(index, weights=centred)
    error = float(np.sqrt(_corrected_square(influence, index, positive)))
    if error == 0:
        return Difference(value, 0.0, 1.0 if value == 0 else 0.0)
    return Difference(value, error, float(2 * ndtr(-abs(value) / error)))


def _placements(score: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """For a positive case the share of negatives below it, for a negative one that of positives above it; ties half."""
    _, level = np.unique(score, return_inverse=True)
    negatives, positives = (np.bincount(level[side], minlength=level.max() + 1) for side in (~positive, positive))
    below = np.cumsum(negatives) - negatives / 2
    above = positives.sum() - np.cumsum(positives) + positives / 2
    return np.where(positive, below[level] / negatives.sum(), above[level] / positives.sum())


def _corrected_square(influence: np.ndarray, index: np.ndarray, positive: np.ndarray) -> float:
    """Σ influence², each unit's part corrected for the number of units that have cases of its side.

    A unit with cases of both sides gets the larger of both corrections.
    """
    sides = [np.unique(index[side]) for side in (positive, ~positive)]
    factor = np.ones(len(influence))
    for members in sides:
        factor[members] = np.maximum(factor[members], len(members) / max(len(members) - 1, 1))
    return float((factor * influence**2).sum())


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> tuple[int, int, float]:
    """Cases that only the first got right, cases that only the second did, and the exact p-value.

    McNemar, Psychometrika 12 (1947), by statsmodels.
    """
    only_first = int((first_right & ~second_right).sum())
    only_second = int((~first_right & second_right).sum())
    both, neither = int((first_right & second_right).sum()), int((~first_right & ~second_right).sum())
    from statsmodels.stats.contingency_tables import mcnemar as contingency_mcnemar  # here, because it is slow to load

    found = contingency_mcnemar([[both, only_first], [only_second, neither]], exact=True)
    return only_first, only_second, float(found.pvalue)


def sign_flip(differences: Sequence[float] | np.ndarray, seed: int = 0) -> float:
    """Two-sided p-value that differences paired on the draw are symmetric about 0: every sign flipped in turn.

    Exact up to 14 draws, else 20,000 random flips with the observed one counted (Good, Permutation Tests, 1994). With
    J draws it cannot fall below 2 / 2^J.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) <= _EXACT_FLIPS:
        flips = np.array(list(product((1.0, -1.0), repeat=len(values))))
        reached = np.abs(flips @ values) >= abs(values.sum()) * (1 - 1e-12)
        return float(reached.mean())
    flips = np.random.default_rng(seed).choice((1.0, -1.0), size=(_RANDOM_FLIPS, len(values)))
    reached = np.abs(flips @ values) >= abs(values.sum()) * (1 - 1e-12)
    return float((reached.sum() + 1) / (_RANDOM_FLIPS + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for the number of comparisons (Holm, Scand. J. Statist. 6 (1979), by statsmodels)."""
    if len(p_values) < 2:
        return list(p_values)
    from statsmodels.stats.multitest import multipletests  # here, because it is slow to load

    return [float(value) for value in multipletests(p_values, method="holm")[1]]
