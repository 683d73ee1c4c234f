"""Means over fits and their differences, with intervals over patients, fits and draws of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.seeds import numpy_generator
from pipeline.measures.resampling import (
    MIN_PATIENTS,
    Estimate,
    Interval,
    Spread,
    bca_interval,
    estimate,
    fit_weights,
    spread_of_fits,
)
from pipeline.verdict.fits import Fit, TestSet

TOO_WIDE = "The fits scatter so much that the interval would leave out no possible value: more fits are needed."
Side = tuple[float, Sequence[Fit]]
"""A sign and an arm's fits: +1 x arm and -1 x reference make a difference."""


@dataclass(frozen=True)
class Mean:
    """A signed sum of arms' means of a figure between 0 and 1.

    Attributes:
        estimate: with the standard error over patients and fits; None below 10 test patients, or where a figure cannot
            be computed in the bootstrap draws.
        reach: the least and the largest value that it can have, such as (-1, 1) of a difference.
        patients: tested in any fold.
        by_fold: its value in every fold.
        bca: the crossed bootstrap's interval; None where `estimate` is.
        paired: whether its scatter over fits was taken from differences paired on the fold (labelled draws).
    """

    value: float
    estimate: Estimate | None
    by_fold: dict[str, float]
    bca: tuple[float, float] | None
    paired: bool
    reach: tuple[float, float]
    patients: int

    def interval(self, alpha: float) -> Interval:
        """Cut to what is possible; without ends where there is no estimate, or where they would leave nothing out."""
        bounds = self.estimate.interval(alpha) if self.estimate else Interval(self.value, None, None)
        return bounds.within(*self.reach)

    def unbounded_because(self, alpha: float) -> str:
        """Why `interval` has no ends, in a sentence; empty where it has."""
        if self.interval(alpha).low is not None:
            return ""
        if self.patients < MIN_PATIENTS:
            return f"There are {self.patients} test patients; below {MIN_PATIENTS} no interval is given."
        if self.estimate is None:
            return "The endpoint cannot be computed in many draws of the test patients: too few of a class."
        return TOO_WIDE


def combine(
    sides: Sequence[Side], metric: str, tests: dict[str, TestSet], alpha: float = 0.05, *, crossed: bool = False
) -> Mean:
    """A signed sum of arms' means with its uncertainty.

    Folds weigh equally and are never pooled. Patients are paired: both arms see the same draws. Fits are unpaired:
    each side adds the scatter of its own independent repeats, which are GAN seeds where an arm has several, else
    classifier seeds. Where the folds are draws of the training set with the same test patients, the scatter is that of
    the folds' own values instead: arms are paired on the draw, and the error covers which patients were labelled.

    Args:
        crossed: also resample patients and fits together (the pigeonhole bootstrap, Owen, Ann. Appl. Stat. 1 (2007))
            for a BCa interval at `alpha`.
    """
    folds = [(fold, [(sign, [fit for fit in fits if fit.fold == fold]) for sign, fits in sides]) for fold in tests]
    by_fold = {fold: _value(here, metric) for fold, here in folds}
    value = float(np.mean(list(by_fold.values())))
    patients = len(set().union(*(test.patients for test in tests.values())))
    rows = np.mean([sum(sign * units(fits, metric).mean(axis=0) for sign, fits in here) for _, here in folds], axis=0)
    drawn = rows[1 : 1 + next(iter(tests.values())).draws]
    usable = drawn[np.isfinite(drawn)]
    paired = len(tests) > 1 and _same_patients(tests)
    signs = [sign for sign, _ in sides]
    reach = (sum(min(sign, 0.0) for sign in signs), sum(max(sign, 0.0) for sign in signs))
    if patients < MIN_PATIENTS or len(usable) < 0.95 * len(drawn):
        return Mean(value, None, by_fold, None, paired, reach, patients)
    spreads = [Spread(float(np.var(usable, ddof=1)), patients - 1), *_scatter(folds, metric, by_fold, paired)]
    bca = _crossed(folds, metric, value, rows, tests, alpha, paired) if crossed else None
    return Mean(value, estimate(value, spreads), by_fold, bca, paired, reach, patients)


def units(fits: Sequence[Fit], metric: str) -> np.ndarray:
    """[repeats, rows] of an arm in one fold: means of GAN seeds where it has several, else single classifiers."""
    if not fits:
        raise ValueError("an arm has no fit in a fold")
    seeds = sorted({fit.gan_seed for fit in fits})
    if len(seeds) > 1:
        return np.array([np.mean([fit.values[metric] for fit in fits if fit.gan_seed == one], axis=0) for one in seeds])
    return np.array([fit.values[metric] for fit in fits])


def _same_patients(tests: dict[str, TestSet]) -> bool:
    first, *others = (frozenset(test.patients) for test in tests.values())
    return all(other == first for other in others)


def _scatter(
    folds: Sequence[tuple[str, Sequence[Side]]], metric: str, by_fold: dict[str, float], paired: bool
) -> list[Spread]:
    if paired:
        return [spread_of_fits(np.array(list(by_fold.values())))]
    parts = [spread_of_fits(units(fits, metric)[:, 0]) for _, here in folds for _, fits in here]
    return [Spread(part.variance / len(folds) ** 2, part.freedom) for part in parts]


def _crossed(
    folds: Sequence[tuple[str, Sequence[Side]]],
    metric: str,
    value: float,
    rows: np.ndarray,
    tests: dict[str, TestSet],
    alpha: float,
    paired: bool,
) -> tuple[float, float]:
    """Patients and repeats resampled together; with labelled draws whole draws are resampled, not the fits in them."""
    random = numpy_generator(0, "fits", metric)
    draws = next(iter(tests.values())).draws
    left_out = [rows[1 + draws :]]
    cells = []
    for _, here in folds:
        total = np.zeros(draws)
        for sign, fits in here:
            table = units(fits, metric)
            weights = np.full((draws, len(table)), 1 / len(table)) if paired else fit_weights(len(table), draws, random)
            total += sign * np.einsum("bu,ub->b", weights, table[:, 1 : 1 + draws])
            if not paired and len(table) > 1:
                left_out.append(sign * _without_each(table[:, 0]) / len(folds))
        cells.append(total)
    drawn = np.array(cells)  # [folds, draws]
    if paired:
        drawn = np.einsum("bf,fb->b", fit_weights(len(folds), draws, random), drawn)
        left_out.append(_without_each(np.array([_value(here, metric) for _, here in folds])))
    else:
        drawn = drawn.mean(axis=0)
    keep = np.isfinite(drawn)
    finite = [part[np.isfinite(part)] for part in left_out]
    return bca_interval(value, drawn[keep], finite, alpha)


def _value(here: Sequence[Side], metric: str) -> float:
    return sum(sign * float(units(fits, metric)[:, 0].mean()) for sign, fits in here)


def _without_each(values: np.ndarray) -> np.ndarray:
    """The mean without each value in turn."""
    return (values.sum() - values) / (len(values) - 1)


def arm_interval(fits: Sequence[Fit], metric: str, tests: dict[str, TestSet], alpha: float) -> Interval:
    """Mean over an arm's fits with an interval over patients and fits."""
    return combine([(1.0, fits)], metric, tests, alpha).interval(alpha)
