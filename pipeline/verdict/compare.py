"""Finished runs side by side: the same arm of two runs, paired where both tested the same patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.loading import load_experiment
from pipeline.core.errors import UserError
from pipeline.core.files import digest_file
from pipeline.core.layout import CONFIG, MANIFEST, PREDICTIONS, VERDICT
from pipeline.core.patients import patient_units
from pipeline.data.batches.dataset import read_table
from pipeline.measures.resampling import Interval, Spread, estimate
from pipeline.verdict.comparison import TOO_WIDE, Mean, combine
from pipeline.verdict.decide import VerdictPlan, checked
from pipeline.verdict.fits import Fit, TestSet, figures_of_fits
from pipeline.verdict.stage import plan_of_run
from pipeline.verdict.strata import judged_images

COLUMNS = (
    "arm", "run", "endpoint", "value", "ci_low", "ci_high", "against", "difference", "low", "high", "pairing", "note",
)  # fmt: skip
_FILES = (CONFIG, PREDICTIONS, MANIFEST, VERDICT)
_ONE_FIT = "One fit an arm: its scatter is unknown."


@dataclass(frozen=True)
class _Judged:
    """A run as its own plan judges it.

    Attributes:
        shared: its predictions under image ids that another run has too: digests of the pixels.
    """

    name: str
    plan: VerdictPlan
    fits: list[Fit]
    tests: dict[str, TestSet]
    shared: pd.DataFrame

    @property
    def tested(self) -> set[tuple[str, ...]]:
        """Fold, patient, image and label of everything tested."""
        test = self.shared[self.shared["split"] == "test"]
        return set(zip(test["fold"], patient_units(test), test["image_id"], test["label"], strict=True))


def compare_runs(runs: Sequence[Path]) -> pd.DataFrame:
    """The endpoint of every arm in every run, and its difference from the first run that has this arm.

    A value and its interval are those of the run's metrics.csv. The difference is paired on the patients where both
    runs tested the same images in the same folds, else its error is the sum of both runs'. Intervals cover patients and
    fits; they are not adjusted for the number of comparisons.

    Returns:
        A table with `COLUMNS`, as numbers and text; `pairing` is `paired`, `unpaired` or empty, `note` says why there
        is no interval.

    Raises:
        UserError: fewer than two runs, a run is missing, unfinished or given twice, or the runs have different
            endpoints, units, strata or disease sides.
    """
    if len(runs) < 2:
        raise UserError("compare needs two runs at least.")
    _refuse_unfinished(runs)
    _refuse_repeated(runs)
    judged = [_judged(run, name) for run, name in zip(runs, names_of(runs), strict=True)]
    if len({(one.plan.endpoint, one.plan.unit, one.plan.stratum, one.plan.positive) for one in judged}) > 1:
        raise UserError(
            "the runs differ in verdict.endpoint, verdict.unit, verdict.stratum or data.positive: their figures do not "
            "compare."
        )
    rows = []
    for arm in dict.fromkeys(fit.arm for one in judged for fit in one.fits):
        having = [one for one in judged if any(fit.arm == arm for fit in one.fits)]
        rows += [_row(arm, one, having[0]) for one in having]
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["value", "ci_low", "ci_high", "difference", "low", "high"]
    return found.astype(dict.fromkeys(numbers, float))


def _refuse_unfinished(runs: Sequence[Path]) -> None:
    wrong = []
    for run in runs:
        lacking = [name for name in _FILES if not (run / name).is_file()]
        if not run.is_dir():
            wrong.append(f"{run}: there is no such run.")
        elif CONFIG in lacking:
            wrong.append(f"{run}: is not a run directory: it has no config.yaml.")
        elif lacking:
            wrong.append(f"{run}: is not a finished run: it has no {', '.join(lacking)}.")
    if wrong:
        raise UserError(f"{' '.join(wrong)} Give finished runs, such as runs/demo.")


def _refuse_repeated(runs: Sequence[Path]) -> None:
    """A run given twice would show a difference of exactly 0, as if something had been found."""
    places: dict[Path, Path] = {}
    digests: dict[str, Path] = {}
    for run in runs:
        place, digest = run.resolve(), digest_file(run / PREDICTIONS)
        if place in places:
            raise UserError(f"{places[place]} and {run} are the same run. Give each run once.")
        if digest in digests:
            raise UserError(
                f"{digests[digest]} and {run} hold the same predictions to the last byte: they are one result, not two."
            )
        places[place] = digests[digest] = run


def names_of(runs: Sequence[Path]) -> list[str]:
    """What the runs are called: their last names where these are all different, else their paths as given."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def _judged(run: Path, name: str) -> _Judged:
    plan = plan_of_run(load_experiment(run / CONFIG))
    table = checked(read_table(run / PREDICTIONS))
    tests, fits = _figures(table, plan)
    return _Judged(name, plan, fits, tests, table.assign(image_id=table["image_id"].map(_shared_ids(run))))


def _shared_ids(run: Path) -> pd.Series:
    """The digest of every image's pixels, and a number behind it for equal images after the first."""
    digests = read_table(run / MANIFEST).set_index("image_id")["pixel_digest"].sort_index()
    again = digests.groupby(digests).cumcount()
    return digests.where(again == 0, digests + "-" + again.astype(str))


def _figures(
    table: pd.DataFrame, plan: VerdictPlan, tests: dict[str, TestSet] | None = None
) -> tuple[dict[str, TestSet], list[Fit]]:
    """The draws of test patients, unless they are given, and the endpoint of every fit in them."""
    table, positive, drawn = judged_images(table, plan.positive, plan.unit, plan.stratum, plan.bootstrap, plan.seed)
    tests = tests or drawn
    return tests, figures_of_fits(table, positive, tests, (plan.endpoint,), plan.threshold)


def _row(arm: str, one: _Judged, first: _Judged) -> tuple[object, ...]:
    own, bounds = _mean(one, arm), _mean(one, arm).interval(one.plan.alpha)
    key = (arm, one.name, one.plan.endpoint, bounds.value, bounds.low, bounds.high)
    note = _without("interval", own.unbounded_because(one.plan.alpha))
    if one is first:
        return (*key, "", np.nan, None, None, "", note)
    paired = one.tested == first.tested
    gap, reason = _paired(arm, one, first) if paired else _unpaired(arm, one, first)
    found = (first.name, gap.value, gap.low, gap.high, "paired" if paired else "unpaired")
    return (*key, *found, note or _without("interval of the difference", reason))


def _paired(arm: str, one: _Judged, first: _Judged) -> tuple[Interval, str]:
    """The difference in the same draws of the same patients, and why it has no interval."""
    mine, theirs = (run.shared[run.shared["arm"] == arm] for run in (one, first))
    tests, before = _figures(theirs, first.plan)
    _, after = _figures(mine, one.plan, tests)
    gap = combine([(1.0, after), (-1.0, before)], one.plan.endpoint, tests)
    if not gap.paired and _single(arm, one, first):
        return Interval(gap.value, None, None), _ONE_FIT
    return gap.interval(one.plan.alpha), gap.unbounded_because(one.plan.alpha)


def _unpaired(arm: str, one: _Judged, first: _Judged) -> tuple[Interval, str]:
    """The difference of independent runs, and why it has no interval."""
    sides = [_mean(run, arm) for run in (one, first)]
    value = sides[0].value - sides[1].value
    known = [side.estimate for side in sides if side.estimate is not None]
    if len(known) < len(sides):
        why = next(side.unbounded_because(one.plan.alpha) for side in sides if side.estimate is None)
        return Interval(value, None, None), why
    if not all(side.paired for side in sides) and _single(arm, one, first):
        return Interval(value, None, None), _ONE_FIT
    found = estimate(value, [Spread(part.error**2, part.freedom) for part in known]).interval(one.plan.alpha)
    bounds = found.within(-1.0, 1.0)
    return bounds, TOO_WIDE if bounds.low is None else ""


def _single(arm: str, *runs: _Judged) -> bool:
    """Whether one of the runs has one fit of the arm a fold."""
    return min(sum(fit.arm == arm for fit in run.fits) // len(run.tests) for run in runs) < 2


def _mean(run: _Judged, arm: str) -> Mean:
    return combine([(1.0, [fit for fit in run.fits if fit.arm == arm])], run.plan.endpoint, run.tests)


def _without(what: str, why: str) -> str:
    """Such as `no interval: there are 8 test patients`; empty without a reason."""
    return f"no {what}: {why[:1].lower()}{why[1:].rstrip('.')}" if why else ""
