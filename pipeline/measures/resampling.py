"""Intervals that cover patients and repeated fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

MIN_PATIENTS = 10
JACKKNIFE_BLOCKS = 100


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; `low` and `high` are None where none may be given."""

    value: float
    low: float | None
    high: float | None

    def within(self, lowest: float, highest: float) -> Interval:
        """Its ends cut to what is possible; none where it leaves out nothing of that, since it then says nothing."""
        if self.low is None or self.high is None or (self.low <= lowest and self.high >= highest):
            return Interval(self.value, None, None)
        return Interval(self.value, max(self.low, lowest), min(self.high, highest))


def patient_weights(
    patients: np.ndarray, draws: int, random: np.random.Generator, classes: np.ndarray | None = None
) -> np.ndarray:
    """How much each case counts in each bootstrap draw of whole patients: [draws, n].

    Of n patients n - 1 are drawn, each counting n / (n - 1), so that the variance is right for few
    patients too (Rao & Wu, JASA 83 (1988)); a lone patient is always there.

    Args:
        patients: [n] patient of each case.
        classes: [n] class of each case: patients are then drawn class by class, so that draws keep the classes' numbers
            of patients. A patient belongs to the class of most of its cases, of several such to the first in order.
    """
    names, index = np.unique(patients, return_inverse=True)
    stratum = np.zeros(len(names), dtype=int) if classes is None else _mostly(index, classes)
    counts = np.ones((draws, len(names)))
    for number in np.unique(stratum):
        members = np.flatnonzero(stratum == number)
        size = len(members)
        if size > 1:
            drawn = random.multinomial(size - 1, np.full(size, 1 / size), size=draws)
            counts[:, members] = drawn * (size / (size - 1))
    return counts[:, index]


def _mostly(index: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The number of the class of most cases, for each patient number in `index` [n]."""
    names, number = np.unique(classes, return_inverse=True)
    cases = np.zeros((index.max() + 1, len(names)))
    np.add.at(cases, (index, number), 1)
    return cases.argmax(axis=1)


def jackknife_weights(patients: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Weights [blocks, n] that leave one block of patients out in turn; single patients up to 100 of them."""
    names, index = np.unique(patients, return_inverse=True)
    blocks = min(len(names), JACKKNIFE_BLOCKS)
    block = random.permutation(np.arange(len(names)) % blocks)
    return (block[index][None, :] != np.arange(blocks)[:, None]).astype(np.float64)


def fit_weights(fits: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """How much each of `fits` repeats counts in each draw: [draws, fits], rows sum to 1; n - 1 of n are drawn."""
    if fits < 2:
        return np.ones((draws, fits))
    return random.multinomial(fits - 1, np.full(fits, 1 / fits), size=draws) / (fits - 1)


def bca_interval(value: float, draws: np.ndarray, left_out: Sequence[np.ndarray], alpha: float) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (Efron, JASA 82 (1987)).

    Args:
        draws: [B] the figure in each bootstrap draw.
        left_out: for each independent source of scatter, the figure without each one of its units.
    """
    share = (np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws)
    if not 0 < share < 1:
        return float(draws.min()), float(draws.max())
    shift = ndtri(share)
    parts = np.concatenate([(part.mean() - part) * (len(part) - 1) / len(part) for part in left_out])
    squares = float(np.square(parts).sum())
    acceleration = float((parts**3).sum()) / (6 * squares**1.5) if squares else 0.0
    quantiles = [shift + ndtri(level) for level in (alpha / 2, 1 - alpha / 2)]
    levels = [float(ndtr(shift + z / (1 - acceleration * z))) for z in quantiles]
    low, high = np.quantile(draws, levels)
    return float(low), float(high)


def wilson_interval(count: int, number: int, alpha: float) -> tuple[float, float]:
    """Of a share of independent cases, right near 0 and 1 too (Wilson, JASA 22 (1927))."""
    from scipy.stats import binomtest  # here, because it brings much of SciPy

    bounds = binomtest(count, number).proportion_ci(1 - alpha, method="wilson")
    return float(bounds.low), float(bounds.high)


@dataclass(frozen=True)
class Spread:
    """One source of uncertainty: the variance of a mean, and its degrees of freedom."""

    variance: float
    freedom: float


def spread_of_fits(units: np.ndarray) -> Spread:
    """Variance of the mean over independently repeated fits, from their own scatter."""
    if len(units) < 2:
        return Spread(0.0, np.inf)
    return Spread(float(np.var(units, ddof=1)) / len(units), len(units) - 1)


@dataclass(frozen=True)
class Estimate:
    """A mean whose error is the sum of independent parts.

    Attributes:
        freedom: degrees of freedom of its standard error (Satterthwaite, Biometrics Bulletin 2 (1946)).
    """

    value: float
    error: float
    freedom: float

    def interval(self, alpha: float) -> Interval:
        """t interval. With three or four fits an arm the t quantile matters: a normal one would be too narrow."""
        half = float(stdtrit(self.freedom, 1 - alpha / 2)) * self.error if self.error else 0.0
        return Interval(self.value, self.value - half, self.value + half)

    def p_value(self, null: float = 0.0) -> float:
        """Two-sided, that the truth is `null`."""
        if not self.error:
            return float(self.value == null)
        return float(2 * stdtr(self.freedom, -abs(self.value - null) / self.error))


def estimate(value: float, spreads: Sequence[Spread]) -> Estimate:
    variance = sum(part.variance for part in spreads)
    if variance <= 0:
        return Estimate(value, 0.0, 1.0)
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in spreads if part.variance > 0)
    return Estimate(value, variance**0.5, max(freedom, 1.0))


def interval(value: float, spreads: Sequence[Spread], alpha: float) -> Interval:
    """t interval for a mean whose variance is the sum of independent parts."""
    return estimate(value, spreads).interval(alpha)
