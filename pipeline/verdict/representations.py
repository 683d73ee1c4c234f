"""Arms on fixed representations beside the reference: the verdict's inference, in a family of comparisons of their own.

They are no part of the question whether GAN augmentation helps, so they share no alpha with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from pipeline.config.arms import REFERENCE_ARM, representation_of
from pipeline.core.metrics import MetricRow, as_text
from pipeline.measures.paired import holm
from pipeline.verdict.comparison import combine
from pipeline.verdict.decide import VerdictPlan, checked, compare_pairs, disease_side
from pipeline.verdict.fits import figures_of_fits
from pipeline.verdict.rule import Compared
from pipeline.verdict.strata import judged_images

COLUMNS = (
    "size", "draws", "n_patients", "arm", "reference", "endpoint", "reference_mean", "arm_mean", "difference",
    "ci_low", "ci_high", "p", "p_holm", "decision", "no_interval",
)  # fmt: skip
WORDS = {
    "helps": "better than",
    "harms": "worse than",
    "no_benefit": "not better than",
    "inconclusive": "not told apart from",
}
"""The rule's decisions on a pair, where nothing is a help or a harm."""


def representation_rows(predictions: pd.DataFrame, plan: VerdictPlan, label: str) -> list[MetricRow]:
    """The difference of each such arm from `real+classical` in rows of metrics.csv, `ENDPOINT_difference`.

    Args:
        label: of the rows.
    """
    compared = [one for one, _ in _compared(predictions, plan)]
    return [
        MetricRow(
            stage="downstream", arm=one.arm, split="test", label=label, metric=f"{one.endpoint}_difference",
            value=as_text(one.bounds.value), ci_low=as_text(one.bounds.low), ci_high=as_text(one.bounds.high),
            n_patients=str(one.difference.patients), detail=_detail(one, len(compared)),
        )
        for one in compared
    ]  # fmt: skip


def _detail(one: Compared, family: int) -> str:
    if one.no_interval:
        return one.no_interval
    return f"{WORDS[one.decision]} {one.reference} (p = {one.p_holm:.3g} by Holm's rule over {family})"


def size_representations(predictions: pd.DataFrame, plan: VerdictPlan, size: int) -> list[dict[str, Any]]:
    """Rows of `COLUMNS` at one number of real images a class, each pair by itself; `p_holm` comes with the others.

    Raises:
        DataError, LeakageError: as `decide`.
    """
    return [
        {"size": size, **means, **{name: value for name, value in facts.items() if name in COLUMNS}}
        for one, means in _compared(predictions, plan)
        for facts in [replace(one, p_holm=None).as_json()]
    ]


def representation_table(rows: Sequence[dict[str, Any]], alpha: float) -> pd.DataFrame:
    """The rows of all sizes as one family of comparisons.

    `p_holm` is adjusted over all sizes and arms, and a `helps` or `harms` that does not survive it becomes
    `inconclusive`.
    """
    table = pd.DataFrame(list(rows)).sort_values("size", kind="stable", ignore_index=True)
    table["p_holm"] = holm(table["p"].astype(float).fillna(1.0).tolist())
    lost = table["decision"].isin(["helps", "harms"]) & (table["p_holm"] >= alpha)
    table.loc[lost, "decision"] = "inconclusive"
    return table.reindex(columns=list(COLUMNS))


def _compared(predictions: pd.DataFrame, plan: VerdictPlan) -> list[tuple[Compared, dict[str, Any]]]:
    """Every arm on a representation against `real+classical`, with both means; empty where there is none."""
    table = checked(predictions)
    arms = [arm for arm in table["arm"].unique() if representation_of(arm)]
    if not arms:
        return []
    plan = replace(plan, positive=plan.positive or disease_side(table))
    table = table[table["arm"].isin([*arms, REFERENCE_ARM])]
    table, positive, tests = judged_images(table, plan.positive, plan.unit, plan.stratum, plan.bootstrap, plan.seed)
    plan = replace(plan, positive=positive)
    fits = figures_of_fits(table, plan.positive, tests, (plan.endpoint,), plan.threshold)
    means = {
        arm: combine([(1.0, [fit for fit in fits if fit.arm == arm])], plan.endpoint, tests).value
        for arm in (REFERENCE_ARM, *arms)
    }
    pairs = tuple((arm, REFERENCE_ARM) for arm in arms)
    shared = {"draws": len(tests), "reference_mean": means[REFERENCE_ARM]}
    return [
        (one, shared | {"n_patients": one.difference.patients, "arm_mean": means[one.arm]})
        for one in compare_pairs(pairs, fits, tests, replace(plan, comparisons=pairs))
    ]
