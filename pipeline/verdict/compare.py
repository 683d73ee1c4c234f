"""Finished runs side by side: the same arm of two runs, paired where both tested the same patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.config.loading import load_experiment
from pipeline.core.errors import UserError
from pipeline.core.patients import patient_units
from pipeline.data.batches.dataset import read_table
from pipeline.measures.resampling import Interval, Spread, estimate
from pipeline.verdict.comparison import Mean, combine
from pipeline.verdict.decide import checked
from pipeline.verdict.figures import Fit, TestSet, draw_test_sets, figures_of_fits

COLUMNS = ("arm", "run", "value", "ci_low", "ci_high", "against", "difference", "low", "high", "pairing")


@dataclass(frozen=True)
class _Judged:
    name: str
    experiment: Experiment
    fits: list[Fit]
    tests: dict[str, TestSet]
    tested: frozenset[tuple[str, str, str]]


def compare_runs(runs: Sequence[Path]) -> pd.DataFrame:
    """The endpoint of every arm in every run, and its difference from the first run that has this arm.

    The difference is paired on the patients where both runs tested the same images in the same folds, else its error is
    the sum of both runs'. Intervals cover patients and fits; they are not adjusted for the number of comparisons.

    Returns:
        A table with `COLUMNS`, as numbers and text; `pairing` is `paired`, `unpaired` or empty.

    Raises:
        UserError: fewer than two runs, a file is missing, or the runs have different endpoints or disease sides.
    """
    if len(runs) < 2:
        raise UserError("compare needs two runs at least.")
    judged = [_judged(run) for run in runs]
    facts = {(one.experiment.verdict.endpoint, one.experiment.data.positive) for one in judged}
    if len(facts) > 1:
        raise UserError("the runs differ in verdict.endpoint or data.positive: their figures do not compare.")
    rows = []
    for arm in dict.fromkeys(fit.arm for one in judged for fit in one.fits):
        having = [one for one in judged if any(fit.arm == arm for fit in one.fits)]
        rows += [_row(arm, one, having[0]) for one in having]
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["value", "ci_low", "ci_high", "difference", "low", "high"]
    return found.astype(dict.fromkeys(numbers, float))


def _judged(run: Path) -> _Judged:
    for name in ("config.yaml", "predictions.csv", "manifest.csv"):
        if not (run / name).is_file():
            raise UserError(f"{run}: has no {name}. Give finished runs, such as runs/demo.")
    experiment = load_experiment(run / "config.yaml")
    table = checked(read_table(run / "predictions.csv"))
    digests = read_table(run / "manifest.csv").set_index("image_id")["pixel_digest"]
    table["image_id"] = table["image_id"].map(digests)
    tests = draw_test_sets(table, experiment.verdict.bootstrap, 0)
    verdict = experiment.verdict
    fits = figures_of_fits(table, experiment.data.positive, tests, (verdict.endpoint,), verdict.threshold)
    tested = frozenset(zip(table["fold"], patient_units(table), table["image_id"], strict=True))
    return _Judged(run.name, experiment, fits, tests, tested)


def _row(arm: str, one: _Judged, first: _Judged) -> tuple[object, ...]:
    verdict = one.experiment.verdict
    mine, theirs = ([fit for fit in run.fits if fit.arm == arm] for run in (one, first))
    own = combine([(1.0, mine)], verdict.endpoint, one.tests)
    bounds = own.interval(verdict.alpha)
    key = (arm, one.name, bounds.value, bounds.low, bounds.high)
    if one is first:
        return (*key, "", np.nan, None, None, "")
    if one.tested == first.tested:
        gap = combine([(1.0, mine), (-1.0, theirs)], verdict.endpoint, one.tests).interval(verdict.alpha)
        return (*key, first.name, gap.value, gap.low, gap.high, "paired")
    gap = _unpaired(own, combine([(1.0, theirs)], verdict.endpoint, first.tests), verdict.alpha)
    return (*key, first.name, gap.value, gap.low, gap.high, "unpaired")


def _unpaired(one: Mean, other: Mean, alpha: float) -> Interval:
    value = one.value - other.value
    if one.estimate is None or other.estimate is None:
        return Interval(value, None, None)
    parts = [Spread(part.error**2, part.freedom) for part in (one.estimate, other.estimate)]
    return estimate(value, parts).interval(alpha)
