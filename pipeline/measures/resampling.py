"""Intervals that cover patients and repeated fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MIN_PATIENTS = 10


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; `low` and `high` are None where none may be given."""

    value: float
    low: float | None
    high: float | None


def patient_weights(patients: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """How often each case is in each bootstrap draw of whole patients: [draws, n] (Efron & Tibshirani 1993)."""
    names, index = np.unique(patients, return_inverse=True)
    counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, index].astype(np.float64)


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


def interval(value: float, spreads: Sequence[Spread], alpha: float) -> Interval:
    """t interval for a mean whose variance is the sum of independent parts, degrees of freedom by Satterthwaite.

    With three or four fits an arm the t quantile matters: a normal or percentile interval would be too narrow.
    Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    variance = sum(part.variance for part in spreads)
    if variance <= 0:
        return Interval(value, value, value)
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in spreads if part.variance > 0)
    half = float(stats.t.ppf(1 - alpha / 2, max(freedom, 1.0))) * variance**0.5
    return Interval(value, value - half, value + half)
