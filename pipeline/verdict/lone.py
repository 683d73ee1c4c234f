"""The utility verdict on predictions alone: anyone's table, or a run's own with the plan that the run had."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from pipeline.config.experiment import Experiment
from pipeline.verdict.decide import VerdictPlan, checked, disease_side
from pipeline.verdict.gate import gated
from pipeline.verdict.rule import Verdict
from pipeline.verdict.stage import plan_of_run, utility_of


def judge_alone(predictions: pd.DataFrame, experiment: Experiment | None) -> Verdict:
    """What `decide` says of `predictions` by the plan of `experiment`, or by the defaults, which the reasons then name.

    With a run's own predictions and experiment, every number is that of the run's verdict.json. No generator is looked
    at, and a reason says so.

    Raises:
        DataError, LeakageError: as `decide`.
    """
    if experiment is not None:
        return gated(utility_of(predictions, plan_of_run(experiment)), ())
    plan = VerdictPlan()
    found = gated(utility_of(predictions, plan), ())
    side = ", ".join(disease_side(checked(predictions)))
    return replace(found, reasons=(*found.reasons, _defaults_words(plan, side)))


def _defaults_words(plan: VerdictPlan, side: str) -> str:
    return (
        f"No plan was given, so the defaults were used: endpoint {plan.endpoint}, disease side {side}, margin "
        f"{100 * plan.margin:g} points, alpha {plan.alpha:g}, {plan.bootstrap} draws of patients, seed {plan.seed}, "
        f"threshold {plan.threshold}, unit {plan.unit}, the arm that is best on validation. A run draws with a seed of "
        "its own: with --plan RUN its bounds come out again to the last digit."
    )
