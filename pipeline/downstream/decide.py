"""The utility verdict: does augmentation help? Public, and usable on anyone's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.arms import REFERENCE_ARM
from pipeline.core.errors import DataError
from pipeline.downstream.arms import is_augmented
from pipeline.downstream.figures import (
    Fit,
    TestSet,
    combine,
    disease_score,
    draw_test_sets,
    figures_of_fits,
    independent_units,
)
from pipeline.measures.classification import weighted_auroc
from pipeline.measures.resampling import MIN_PATIENTS, Interval

REQUIRED = ("arm", "fold", "seed", "gan_seed", "split", "image_id", "patient_id", "label")


@dataclass(frozen=True)
class VerdictPlan:
    """The decision rule, fixed before the run.

    Attributes:
        positive: the disease side.
        endpoint: auroc, sensitivity or specificity (disease against the rest; thresholds fixed on val).
        margin: a gain below it does not matter.
        alpha: the interval covers 1 - alpha.
        bootstrap: draws of patients.
    """

    positive: tuple[str, ...]
    endpoint: str = "auroc"
    margin: float = 0.02
    alpha: float = 0.05
    bootstrap: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Verdict:
    decision: str
    reasons: tuple[str, ...]
    evidence: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"reasons": list(self.reasons)}


def decide(predictions: pd.DataFrame, plan: VerdictPlan) -> Verdict:
    """Compare the augmented arm that is best on val with `real+classical`, on the test patients.

    `helps` when the paired interval of the endpoint's difference lies above 0, `harms` below 0, `no_benefit` when it
    includes 0 and lies below the margin, else `inconclusive`. The interval covers patients and fits.

    Args:
        predictions: the columns of `predictions.csv`, a score_<class> column a class.

    Raises:
        DataError: a column, an arm or a split is missing.
    """
    table = checked(predictions, plan)
    arms = [arm for arm in table["arm"].unique() if is_augmented(arm)]
    if not arms:
        return Verdict("inconclusive", ("No arm added synthetic images to real ones: nothing was compared.",), {})
    tests = draw_test_sets(table, plan.bootstrap, plan.seed)
    arm = best_on_val(table, arms, plan)
    chosen = table[table["arm"].isin([arm, REFERENCE_ARM])]
    fits = figures_of_fits(chosen, plan.positive, tests, (plan.endpoint,))
    candidate = [fit for fit in fits if fit.arm == arm]
    reference = [fit for fit in fits if fit.arm == REFERENCE_ARM]
    difference = combine([(1.0, candidate), (-1.0, reference)], plan.endpoint, tests, plan.alpha)
    evidence = _evidence(arm, candidate, reference, difference, tests, plan)
    decision, reasons = _rule(difference, candidate, reference, evidence, plan)
    return Verdict(decision, reasons, evidence)


def checked(predictions: pd.DataFrame, plan: VerdictPlan) -> pd.DataFrame:
    """Predictions with text keys and only val and test rows.

    Raises:
        DataError: something the verdict needs is missing; the message names it.
    """
    needed = [*REQUIRED, *(f"score_{name}" for name in plan.positive)]
    missing = [name for name in needed if name not in predictions.columns]
    if missing:
        raise DataError(f"predictions: the columns {missing} are missing; there are {list(predictions.columns)}.")
    table = predictions[predictions["split"].isin(["val", "test"])].copy()
    for name in REQUIRED:
        table[name] = table[name].fillna("").astype(str)
    if REFERENCE_ARM not in set(table["arm"]):
        raise DataError(f"predictions: the arm {REFERENCE_ARM} is missing: there is nothing to compare with.")
    scores = [name for name in table.columns if name.startswith("score_")]
    if not np.isfinite(table[scores].astype(float).to_numpy()).all():
        raise DataError("predictions: some scores are empty or not finite.")
    return table


def best_on_val(table: pd.DataFrame, arms: Sequence[str], plan: VerdictPlan) -> str:
    """The arm with the highest mean AUROC on validation images; the test set has no say."""
    if len(arms) == 1:
        return arms[0]
    return max(arms, key=lambda arm: _val_auroc(table[(table["arm"] == arm) & (table["split"] == "val")], plan))


def _val_auroc(val: pd.DataFrame, plan: VerdictPlan) -> float:
    values = [
        weighted_auroc(
            disease_score(rows, plan.positive), rows["label"].isin(plan.positive).to_numpy(), np.ones((1, len(rows)))
        )[0]
        for _, rows in val.groupby(["fold", "gan_seed", "seed"])
    ]
    return float(np.mean(values))


def _rule(
    difference: Interval,
    candidate: Sequence[Fit],
    reference: Sequence[Fit],
    evidence: dict[str, Any],
    plan: VerdictPlan,
) -> tuple[str, tuple[str, ...]]:
    points = f"{100 * difference.value:+.1f} points of {plan.endpoint}"
    if difference.low is None or difference.high is None:
        few = f"There are {evidence['n_patients']} test patients; below {MIN_PATIENTS} no interval is given."
        return "inconclusive", (f"The difference is {points}, without an interval.", few)
    if min(len(candidate), len(reference)) < 2 * len({fit.fold for fit in candidate}):
        return "inconclusive", (f"The difference is {points}.", "One classifier an arm: their scatter is unknown.")
    span = f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    seen = f"The difference is {points}, {100 * (1 - plan.alpha):.0f} % interval {span}, over patients and fits."
    margin = f"{100 * plan.margin:.1f} points"
    if difference.low > 0:
        decision, why = "helps", "The interval lies above 0."
    elif difference.high < 0:
        decision, why = "harms", "The interval lies below 0."
    elif difference.high < plan.margin:
        decision, why = "no_benefit", f"The interval includes 0 and excludes a gain of {margin}."
    else:
        decision, why = (
            "inconclusive",
            f"The interval includes both 0 and a gain of {margin}: more patients are needed.",
        )
    scope = () if evidence["n_gan_seeds"] > 1 else ("One GAN was trained a fold: this holds for this generator only.",)
    return decision, (seen, why, *scope)


def _evidence(
    arm: str,
    candidate: Sequence[Fit],
    reference: Sequence[Fit],
    difference: Interval,
    tests: dict[str, TestSet],
    plan: VerdictPlan,
) -> dict[str, Any]:
    return {
        "endpoint": plan.endpoint,
        "arm": arm,
        "reference": REFERENCE_ARM,
        "arm_mean": float(np.mean(independent_units(candidate, plan.endpoint))),
        "reference_mean": float(np.mean(independent_units(reference, plan.endpoint))),
        "difference": difference.value,
        "ci_low": difference.low,
        "ci_high": difference.high,
        "margin": plan.margin,
        "alpha": plan.alpha,
        "n_patients": sum(test.num_patients for test in tests.values()),
        "n_images": sum(len(test.image_ids) for test in tests.values()),
        "n_folds": len(tests),
        "n_gan_seeds": len({fit.gan_seed for fit in candidate}),
        "n_classifier_seeds": len({fit.seed for fit in candidate}),
    }
