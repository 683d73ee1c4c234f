"""The low-data curve: real images alone, and synthetic ones beside them, at several numbers of real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.arms import REFERENCE_ARM
from pipeline.core.metrics import MetricRow
from pipeline.measures.paired import holm
from pipeline.verdict.comparison import units
from pipeline.verdict.decide import VerdictPlan, checked, decide
from pipeline.verdict.fits import figures_of_fits
from pipeline.verdict.gate import gated, looks_of
from pipeline.verdict.strata import judged_images

POINT_COLUMNS = ("size", "draw", "arm", "value")
CURVE_COLUMNS = (
    "size", "draws", "train_patients", "without_patient", "n_patients", "arm", "reference", "endpoint",
    "reference_mean", "arm_mean", "difference", "ci_low", "ci_high", "p", "p_holm", "decision", "generators",
    "same_as", "same_as_low", "same_as_high", "no_interval",
)  # fmt: skip
_FROM_EVIDENCE = (
    "n_patients", "arm", "reference", "endpoint", "reference_mean", "arm_mean", "difference", "ci_low", "ci_high", "p",
    "no_interval",
)  # fmt: skip


def size_row(
    predictions: pd.DataFrame, plan: VerdictPlan, size: int, metrics: Sequence[MetricRow] = ()
) -> dict[str, Any]:
    """What `decide` and the gate say of `plan.arm` against `real+classical` at one number of real images a class.

    Args:
        predictions: of the classifiers at this size; folds are the labelled draws.
        metrics: rows of the stage `quality` of the draws' generators.

    Returns:
        A row of the curve; `generators` is passed, failed or not judged.

    Raises:
        DataError, LeakageError: as `decide`.
    """
    ruled = decide(predictions, plan)
    verdict = gated(ruled, looks_of(ruled, predictions, metrics))
    facts = verdict.evidence
    kept = {name: facts[name] for name in _FROM_EVIDENCE}
    return {
        "size": size,
        "draws": facts["n_folds"],
        "decision": verdict.decision,
        "generators": facts["generators"]["state"],
        **kept,
    }


def size_points(predictions: pd.DataFrame, plan: VerdictPlan, size: int) -> list[dict[str, Any]]:
    """The endpoint of both arms in every draw, means over its fits: rows of `POINT_COLUMNS`."""
    table, positive, tests = judged_images(
        checked(predictions), plan.positive, plan.unit, plan.stratum, draws=1, seed=plan.seed
    )
    both = table[table["arm"].isin([plan.arm, REFERENCE_ARM])]
    fits = figures_of_fits(both, positive, tests, (plan.endpoint,), plan.threshold)
    return [
        {"size": size, "draw": draw, "arm": arm, "value": float(units(here, plan.endpoint)[:, 0].mean())}
        for draw in tests
        for arm in (REFERENCE_ARM, plan.arm)
        if (here := [fit for fit in fits if fit.fold == draw and fit.arm == arm])
    ]


def curve_table(rows: Sequence[dict[str, Any]], alpha: float) -> pd.DataFrame:
    """The rows of all sizes, ascending, as one family of comparisons and on one curve.

    `p_holm` is adjusted over the sizes, and a `helps` or `harms` that does not survive it becomes `inconclusive`.
    `same_as` is the number of real images a class with which `real+classical` does what the arm does at this size, on
    the curve of `real+classical` over the logarithm of the number, made never to fall (isotonic regression). Its bounds
    are those numbers at both ends of the difference's interval; the curve's own scatter is not in them. At the ends of
    the curve a number means "so many or fewer" and "so many or more".
    """
    table = pd.DataFrame(list(rows)).sort_values("size", ignore_index=True)
    table["p_holm"] = holm(table["p"].astype(float).fillna(1.0).tolist())
    lost = table["decision"].isin(["helps", "harms"]) & (table["p_holm"] >= alpha)
    table.loc[lost, "decision"] = "inconclusive"
    sizes, curve = table["size"].to_numpy(dtype=float), table["reference_mean"].to_numpy(dtype=float)
    for column, gap in (("same_as", "difference"), ("same_as_low", "ci_low"), ("same_as_high", "ci_high")):
        reached = curve + table[gap].astype(float).to_numpy()
        table[column] = [number_reaching(sizes, curve, value) for value in reached]
    return table.reindex(columns=list(CURVE_COLUMNS))


def number_reaching(sizes: np.ndarray, curve: np.ndarray, value: float) -> float:
    """The number of images at which `curve` reaches `value`, at least the first of `sizes` and at most the last.

    Args:
        sizes: [n] ascending numbers of images.
        curve: [n] the endpoint with so many real images.
    """
    if not np.isfinite(value):
        return float("nan")
    from sklearn.isotonic import IsotonicRegression  # here, because it is slow to load

    smooth = IsotonicRegression().fit_transform(np.log(sizes), curve)
    if value <= smooth[0] or value > smooth[-1]:
        return float(sizes[0] if value <= smooth[0] else sizes[-1])
    rising, first = np.unique(smooth, return_index=True)
    return float(np.exp(np.interp(value, rising, np.log(sizes)[first])))


def curve_plan(plan: VerdictPlan, arm: str) -> VerdictPlan:
    """The plan of every size: `arm` against `real+classical`, with no other planned pair."""
    return replace(plan, arm=arm, comparisons=())
