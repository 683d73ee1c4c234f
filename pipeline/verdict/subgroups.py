"""Does it help everybody? The arms' figures in each subgroup of patients, and a warning where some pay for others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from pipeline.config.arms import REFERENCE_ARM
from pipeline.config.experiment import SubgroupConfig
from pipeline.core.errors import DataError
from pipeline.core.metrics import MetricRow, as_text
from pipeline.core.patients import patient_units
from pipeline.measures.resampling import MIN_PATIENTS, Interval
from pipeline.verdict.comparison import combine
from pipeline.verdict.decide import VerdictPlan
from pipeline.verdict.fits import Fit, TestSet, figures_of_fits
from pipeline.verdict.strata import judged_images

METRICS = ("auroc", "sensitivity", "specificity")
DIFFERENCE = "_difference"
WARNING = "subgroup_warning"
NOT_STATED = "not stated"
MANY_VALUES = 8
_BANDS = 3
_AGE = re.compile(r"(\d{3})Y")


@dataclass(frozen=True)
class Scope:
    """Who is in a subgroup.

    Attributes:
        name: such as `sex = F`.
        diseased, healthy: its test patients with and without the disease (some may be both).
        patients, images: all that are tested, over all folds.
    """

    name: str
    diseased: int
    healthy: int
    patients: int
    images: int

    def allows_interval(self, metric: str) -> bool:
        """Below 10 patients of a side that the figure is made of, an interval would promise too much."""
        sides = {"sensitivity": (self.diseased,), "specificity": (self.healthy,)}
        return min(sides.get(metric, (self.diseased, self.healthy))) >= MIN_PATIENTS


def subgroup_rows(
    predictions: pd.DataFrame, manifest: pd.DataFrame, columns: Sequence[SubgroupConfig], plan: VerdictPlan
) -> list[MetricRow]:
    """Rows of metrics.csv: every arm's mean, and its difference from `real+classical`, in each subgroup.

    A column of numbers with more than five different ones is cut into bands, by the given edges or into thirds of the
    test patients. Thresholds are those of the whole val set: a subgroup has none of its own. Intervals are those of
    the utility verdict, over patients and fits; none is given below 10 patients of a side. They are not corrected for
    the number of subgroups: a table of many will show a difference somewhere.

    Args:
        predictions: the columns of `predictions.csv`, text keys.
        manifest: image_id and the columns; of images that are tested.
        plan: the verdict's: positive, margin, alpha, bootstrap, seed and rule of the threshold.

    Returns:
        `subgroup` is `COLUMN = VALUE`, `metric` auroc, sensitivity, specificity, each also with `_difference`; and one
        row with the metric `subgroup_warning` (its text in `detail`) a column and arm that deserves one.

    Raises:
        DataError: the manifest has no such column.
    """
    table = predictions[predictions["split"].isin(["val", "test"])]
    rows: list[MetricRow] = []
    for column in columns:
        rows += group_rows(table, _groups(table, manifest, column), column.column, plan)
    return rows


def group_rows(table: pd.DataFrame, groups: dict[str, set[str]], column: str, plan: VerdictPlan) -> list[MetricRow]:
    """The rows of one column.

    Args:
        groups: test images of each of its values.
    """
    rows = [row for value, images in groups.items() for row in _rows(table, images, f"{column} = {value}", plan)]
    return rows + _warnings(rows, column, plan)


def subgroup_warnings(rows: Sequence[MetricRow]) -> tuple[str, ...]:
    """The texts of the warnings among `rows`."""
    return tuple(row.detail for row in rows if row.metric == WARNING)


def banded(values: pd.Series, edges: Sequence[float] = (), bands: int = _BANDS) -> pd.Series:
    """Text values as subgroups: numbers in bands, rare values of many as `others`, an empty cell as `not stated`.

    Args:
        values: text; DICOM's ages (`063Y`) are numbers too.
        edges: ascending; a band reaches from one edge (included) to the next (excluded). Empty = `bands` parts of
            equal size, if there are more than five different numbers.
    """
    texts = values.astype(str).str.strip().replace(_AGE, r"\1", regex=True)
    filled = texts[texts != ""]
    numbers = pd.to_numeric(filled, errors="coerce")
    numeric = len(filled) > 0 and bool(numbers.notna().all())
    if numeric and (edges or numbers.nunique() > 5):
        cuts = np.unique(edges or np.quantile(numbers, np.arange(1, bands) / bands, method="higher"))
        names = _band_names(cuts)
        texts = texts.mask(
            texts != "", pd.Series([names[i] for i in np.searchsorted(cuts, numbers, "right")], filled.index)
        )
    elif edges:
        raise DataError("verdict.subgroups: edges are for a column of numbers, and this one holds text.")
    counts = texts[texts != ""].value_counts()
    if len(counts) > MANY_VALUES:
        texts = texts.mask(texts.isin(counts.index[MANY_VALUES - 1 :]), "others")
    return texts.replace("", NOT_STATED)


def _band_names(cuts: np.ndarray) -> list[str]:
    middle = [f"{low:g} to below {high:g}" for low, high in pairwise(cuts)]
    return [f"below {cuts[0]:g}", *middle, f"{cuts[-1]:g} and above"]


def _groups(table: pd.DataFrame, manifest: pd.DataFrame, column: SubgroupConfig) -> dict[str, set[str]]:
    """Test images of each value of a column, values in order."""
    if column.column not in manifest:
        raise DataError(
            f"verdict.subgroups: the manifest has no column {column.column}. It has: {', '.join(manifest.columns)}."
        )
    tested = manifest[manifest["image_id"].isin(set(table["image_id"][table["split"] == "test"]))]
    found = banded(tested[column.column], column.edges)
    order = sorted(set(found), key=lambda value: (value in (NOT_STATED, "others"), _first_number(value), value))
    return {value: set(tested["image_id"][found == value]) for value in order}


def _first_number(value: str) -> float:
    match = re.search(r"-?\d+(\.\d+)?", value)
    return float("inf") if match is None else float(match[0]) - 0.5 * value.startswith("below")


def _rows(table: pd.DataFrame, images: set[str], name: str, plan: VerdictPlan) -> list[MetricRow]:
    part = table[(table["split"] == "val") | table["image_id"].isin(images)]
    scope = _scope(part, name, plan)
    part, positive, tests = judged_images(part, plan.positive, plan.unit, "", plan.bootstrap, plan.seed)
    part = part[part["fold"].isin(tests)]  # a fold without a patient of the subgroup has nothing to say
    fits = figures_of_fits(part, positive, tests, METRICS, plan.threshold)
    return arm_rows(fits, METRICS, scope, tests, plan)


def arm_rows(
    fits: Sequence[Fit], metrics: Sequence[str], scope: Scope, tests: dict[str, TestSet], plan: VerdictPlan
) -> list[MetricRow]:
    """Every arm's mean of each metric, and its difference from `real+classical`."""
    reference = [fit for fit in fits if fit.arm == REFERENCE_ARM]
    rows = []
    for arm in dict.fromkeys(fit.arm for fit in fits):
        own = [fit for fit in fits if fit.arm == arm]
        for metric in metrics:
            sides: dict[str, list[tuple[float, Sequence[Fit]]]] = {metric: [(1.0, own)]}
            if reference and arm != REFERENCE_ARM:
                sides[metric + DIFFERENCE] = [(1.0, own), (-1.0, reference)]
            rows += [_row(arm, name, side, metric, scope, tests, plan) for name, side in sides.items()]
    return [row for row in rows if row is not None]


def _scope(part: pd.DataFrame, name: str, plan: VerdictPlan) -> Scope:
    images = part[part["split"] == "test"].drop_duplicates("image_id")
    units, disease = patient_units(images), images["label"].isin(plan.positive)
    diseased, healthy = len(set(units[disease])), len(set(units[~disease]))
    return Scope(name, diseased, healthy, patients=len(set(units)), images=len(images))


def _row(
    arm: str,
    name: str,
    sides: list[tuple[float, Sequence[Fit]]],
    metric: str,
    scope: Scope,
    tests: dict[str, TestSet],
    plan: VerdictPlan,
) -> MetricRow | None:
    """One row; None where the figure cannot be made in any fold, such as a sensitivity without a diseased patient."""
    usable = _folds_with(sides, metric, tests)
    if not usable:
        return None
    found = combine(sides, metric, usable, plan.alpha).interval(plan.alpha)
    if not scope.allows_interval(metric):
        found = Interval(found.value, None, None)
    low, high = (as_text(bound) for bound in (found.low, found.high))
    detail = f"minus {REFERENCE_ARM}" if name.endswith(DIFFERENCE) else f"mean of {len(sides[0][1])} fits"
    return MetricRow(
        stage="downstream", arm=arm, split="test", label="+".join(plan.positive), subgroup=scope.name, metric=name,
        value=as_text(found.value), ci_low=low, ci_high=high, n_patients=str(scope.patients),
        n_images=str(scope.images), detail=detail,
    )  # fmt: skip


def _folds_with(
    sides: Sequence[tuple[float, Sequence[Fit]]], metric: str, tests: dict[str, TestSet]
) -> dict[str, TestSet]:
    """Folds in which the subgroup has the patients that the figure needs."""
    lacking = {fit.fold for _, fits in sides for fit in fits if not np.isfinite(fit.values[metric][0])}
    return {fold: test for fold, test in tests.items() if fold not in lacking}


def _warnings(rows: Sequence[MetricRow], column: str, plan: VerdictPlan) -> list[MetricRow]:
    """An arm that gains in one subgroup and loses in another, or surely loses more than the margin in one."""
    found = []
    differences = [row for row in rows if row.metric.endswith(DIFFERENCE)]
    for arm, metric in dict.fromkeys((row.arm, row.metric) for row in differences):
        own = [row for row in differences if (row.arm, row.metric) == (arm, metric)]
        gains = [row for row in own if row.ci_low and float(row.ci_low) > 0]
        surely = [row for row in own if row.ci_high and float(row.ci_high) < 0]
        drops = [row for row in own if row.ci_low and float(row.value) < -plan.margin]
        losses = [row for row in own if row in surely or (gains and row in drops)]
        if losses and (gains or any(row in drops for row in surely)):
            known = all(row in surely for row in losses)
            text = f"{arm}: {metric.removesuffix(DIFFERENCE)} {'falls' if known else 'may fall'} in {_spelled(losses)}"
            cost = f"one subgroup {'gains' if known else 'may gain'} at another's cost"
            text += f", while it rises in {_spelled(gains)}: {cost}." if gains else "."
            label = "+".join(plan.positive)
            row = MetricRow(stage="downstream", arm=arm, split="test", label=label, metric=WARNING, detail=text)
            found.append(replace(row, subgroup=column))
    return found


def _spelled(rows: Sequence[MetricRow]) -> str:
    points = [[f"{100 * float(getattr(row, name)):+.1f}" for name in ("value", "ci_low", "ci_high")] for row in rows]
    shown = [f"{value} [{low}, {high}] points" for value, low, high in points]
    return ", ".join(f"{row.subgroup} ({one})" for row, one in zip(rows, shown, strict=True))
