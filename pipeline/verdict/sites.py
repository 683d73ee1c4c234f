"""Across sites: every arm within each site, over cells that count the same, and whether the site is a shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from pipeline.core.errors import DataError
from pipeline.core.metrics import MetricRow, as_text
from pipeline.data.batches.dataset import DataSet
from pipeline.measures.resampling import Interval
from pipeline.verdict.decide import VerdictPlan
from pipeline.verdict.fits import TestSet, figures_of_fits
from pipeline.verdict.probe import FROM_COLUMN, FROM_IMAGE, FROM_SCORE, WARNING, probe_rows
from pipeline.verdict.strata import BALANCED, REVERSED, WORST_CELL, judged_images, patients_by_cell, told_by_site
from pipeline.verdict.subgroups import METRICS, Scope, arm_rows, group_rows

STAGE = "sites"
CELLS = "cells"
REMEDY = "real+classical+cellbalanced"


def site_rows(predictions: pd.DataFrame, plan: VerdictPlan) -> list[MetricRow]:
    """Rows of metrics.csv of the stage `sites`: every arm's mean, and its difference from `real+classical`.

    The subgroups are `site = NAME`, `cells = balanced`, `cells = reversed` (where a cell is rare in training) and
    `cells = worst`, whose metric is `worst_cell`. Thresholds are those of all val images. Intervals are those of the
    verdict; none is given where a cell that counts has fewer than 10 patients of a side.

    Args:
        predictions: with the columns `site` and `cell`; text keys.
    """
    table = predictions[predictions["split"].isin(["val", "test"])]
    tested = table[table["split"] == "test"].drop_duplicates("image_id")
    sites = {str(name): set(rows["image_id"]) for name, rows in tested.groupby("site", sort=True)}
    rows = group_rows(table, sites, "site", plan)
    for stratum in (BALANCED, REVERSED):
        rows += _stratum_rows(table, stratum, plan)
    rows += _stratum_rows(table, "", plan)
    return [replace(row, stage=STAGE) for row in rows]


def _stratum_rows(table: pd.DataFrame, stratum: str, plan: VerdictPlan) -> list[MetricRow]:
    """Of one stratum, or with an empty name of the worst cell; none where it has no test image."""
    try:
        part, positive, tests = judged_images(table, plan.positive, plan.unit, stratum, plan.bootstrap, plan.seed)
    except DataError:
        if stratum == REVERSED:
            return []
        raise
    part = part[part["fold"].isin(tests)]
    metrics: Sequence[str] = METRICS if stratum else (WORST_CELL,)
    fits = figures_of_fits(part, positive, tests, metrics, plan.threshold)
    return arm_rows(fits, metrics, _scope(part, positive, stratum or "worst", tests), tests, plan)


def _scope(part: pd.DataFrame, positive: Sequence[str], name: str, tests: dict[str, TestSet]) -> Scope:
    """Whose sides are as small as their smallest cells."""
    counts = patients_by_cell(part, positive)
    diseased, healthy = (min(counts[side].values(), default=0) for side in (True, False))
    patients = len(set().union(*(test.patients for test in tests.values())))
    images = len(set().union(*(test.image_ids for test in tests.values())))
    return Scope(f"{CELLS} = {name}", diseased, healthy, patients, images)


def shortcut_rows(
    dataset: DataSet, manifest: pd.DataFrame, predictions: pd.DataFrame, site: str, trained: set[str],
    plan: VerdictPlan, classes: Sequence[str],
) -> list[MetricRow]:  # fmt: skip
    """The confounder probe of the site: read off training images, and telling the class among them, with intervals.

    A `probe_warning` says so in words where the site is a shortcut: it can be read off the images, and it goes with the
    class or is heard by a classifier.

    Args:
        site: the manifest's column.
        trained: ids of the images that train in any fold.
    """
    named = manifest[["image_id", "patient_id", "label", "split"]].assign(**{site: site + " " + manifest[site]})
    rows = probe_rows(dataset, named, predictions, (site,), plan, classes, trained)
    learnt = named[named["image_id"].isin(trained)]
    told = told_by_site(learnt, site, classes, plan.seed, plan.bootstrap, plan.alpha)
    found = {row.metric: row for row in rows}
    if FROM_COLUMN in found:
        detail = f"of training images; {found[FROM_COLUMN].detail}"
        exact = replace(
            found[FROM_COLUMN], value=as_text(told.value), ci_low=as_text(told.low), ci_high=as_text(told.high),
            detail=detail,
        )  # fmt: skip
        rows = [exact if row.metric == FROM_COLUMN else row for row in rows]
    words = _shortcut(site, told, rows, classes)
    return [replace(row, detail=words) if row.metric == WARNING else row for row in rows]


def _shortcut(site: str, told: Interval, rows: Sequence[MetricRow], classes: Sequence[str]) -> str:
    read = next((row for row in rows if row.metric == FROM_IMAGE), None)
    heard = [row for row in rows if row.metric == FROM_SCORE and row.ci_low]
    arms = list(dict.fromkeys(row.arm for row in heard if not float(row.ci_low) <= 0.5 <= float(row.ci_high)))
    text = f"Shortcut: {site} alone tells the class in {_percent(told)} of training images (guessing "
    text += f"{1 / len(classes):.0%})"
    if read is not None and read.value:
        seen = Interval(float(read.value), *(float(bound) if bound else None for bound in (read.ci_low, read.ci_high)))
        text += f" and can be read off them (AUROC {_figure(seen)} among images of one class)"
    text += f"; the disease score tells it within a class ({', '.join(arms)})" if arms else ""
    return (
        f"{text}. A classifier may read {site} instead of the disease: look at the arms across sites, judge by "
        f"verdict.stratum: balanced or reversed, and compare with {REMEDY}."
    )


def _percent(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.0%}"
    return f"{100 * found.value:.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _figure(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
