"""Anomaly detectors as arms: figures patient by patient, thresholds from validation normals alone, and comparisons.

A patient's score is the mean of the images', as for classifiers. Whatever can be compared with a detector on the same
patients stands in the same table: the supervised classifier, trained on both sides, is its ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.arms import REFERENCE_ARM
from pipeline.core.layout import ANOMALY_SCORES
from pipeline.core.metrics import MetricRow, as_text
from pipeline.core.patients import patient_units
from pipeline.core.records import records_of
from pipeline.data.batches.dataset import read_table
from pipeline.measures.classification import choose_threshold, weighted_auprc, weighted_auroc, weighted_rate
from pipeline.measures.conformal import alarm_threshold
from pipeline.measures.paired import holm
from pipeline.measures.resampling import Interval, wilson_interval
from pipeline.verdict.comparison import arm_interval, combine
from pipeline.verdict.fits import FIT_KEY, Fit, TestSet, draw_test_sets

STAGE, KIND = "anomaly", "detect"
SUPERVISED = f"{REFERENCE_ARM} (supervised)"
SPECIFICITIES = (0.9, 0.95)
DIFFERENCE = "auroc_difference"


def detector_table(inputs: Mapping[str, Path], predictions: pd.DataFrame, normal: Sequence[str]) -> pd.DataFrame:
    """One row a patient, fit and split, of every detector and of the supervised classifier.

    Returns:
        The columns of FIT_KEY, split, image_id (the patient), patient_id, label (`normal` or `abnormal`) and score.
        Empty where no detector gave a score.
    """
    found = [read_table(directory / ANOMALY_SCORES) for _, directory in records_of(inputs.values(), KIND)]
    scores = pd.concat([one for one in found if len(one)] or [pd.DataFrame()], ignore_index=True)
    if scores.empty:
        return scores
    scores = _numbers(scores)
    abnormal_units = set(patient_units(scores)[scores["abnormal"]])
    supervised = predictions[(predictions["arm"] == REFERENCE_ARM) & predictions["split"].isin(["val", "test"])]
    healthy = [f"score_{name}" for name in normal]
    asked = [name for name in map(str, predictions) if name.startswith("score_") and name not in healthy]
    supervised = supervised.assign(
        arm=SUPERVISED,
        score=supervised[asked].astype(float).sum(axis=1),
        abnormal=patient_units(supervised).isin(abnormal_units),
    )
    table = pd.concat([scores, supervised], ignore_index=True)
    return _by_patient(table[table["split"].isin(["val", "test"])])


def patient_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """A detector's anomaly.csv in the form of `detector_table`, with all its splits."""
    return _by_patient(_numbers(scores))


def _numbers(scores: pd.DataFrame) -> pd.DataFrame:
    abnormal = scores["normal"].astype(int) == 0
    return scores.rename(columns={"detector": "arm"}).assign(
        score=scores["anomaly_score"].astype(float), abnormal=abnormal
    )


def _by_patient(table: pd.DataFrame) -> pd.DataFrame:
    rows = table.assign(unit=patient_units(table)).groupby([*FIT_KEY, "split", "unit"], sort=True)
    found = rows.agg(abnormal=("abnormal", "any"), score=("score", "mean")).reset_index()
    label = np.where(found["abnormal"], "abnormal", "normal")
    return found.rename(columns={"unit": "image_id"}).assign(patient_id=lambda all_: all_["image_id"], label=label)


def detector_rows(
    table: pd.DataFrame, order: Sequence[str], false_alarms: float, *, alpha: float, bootstrap: int, seed: int
) -> list[MetricRow]:
    """The rows of metrics.csv that `detector_table` comes down to.

    Args:
        order: the detectors as the configuration names them; all others are compared with the first.
        false_alarms: share of normal patients for whom an alarm may be raised.
    """
    if table.empty or one_sided(table):
        return []
    tests = draw_test_sets(table, bootstrap, seed)
    fits = _fits(table, tests, false_alarms)
    arms = [arm for arm in (*order, SUPERVISED) if any(fit.arm == arm for fit in fits)]
    rows = [row for fit in fits for row in _fit_rows(fit, tests[fit.fold])]
    known = table[table["split"] == "test"].drop_duplicates("image_id")["label"]
    sides = {side: int((known == side).sum()) for side in ("normal", "abnormal")}
    for arm in arms:
        rows += _mean_rows(arm, [fit for fit in fits if fit.arm == arm], tests, sides, alpha)
    return [*rows, *_comparisons(arms, fits, tests, alpha)]


def _fits(table: pd.DataFrame, tests: dict[str, TestSet], false_alarms: float) -> list[Fit]:
    found = []
    for key, group in table.groupby(FIT_KEY, sort=True):
        arm, fold, gan_seed, seed = map(str, key)
        val, test = group[group["split"] == "val"], group[group["split"] == "test"]
        test = test.iloc[pd.Index(test["image_id"]).get_indexer(tests[fold].image_ids)]
        score, abnormal = test["score"].to_numpy(), (test["label"] == "abnormal").to_numpy()
        weights = tests[fold].weights
        healthy = val[val["label"] == "normal"]
        calibration = healthy["score"].to_numpy(), healthy["image_id"].to_numpy(dtype=str)
        values = {
            "auroc": weighted_auroc(score, abnormal, weights),
            "auprc": weighted_auprc(score, abnormal, weights),
        }
        for specificity in SPECIFICITIES:
            called = score >= alarm_threshold(*calibration, 1 - specificity)
            values[f"sensitivity@{specificity}"] = weighted_rate(called, abnormal, weights)
        cut = alarm_threshold(*calibration, false_alarms)
        values["false_alarms"] = weighted_rate(score >= cut, ~abnormal, weights)
        if (val["label"] == "abnormal").any() and len(healthy):
            tuned = choose_threshold(
                "youden-smoothed", val["score"].to_numpy(), (val["label"] == "abnormal").to_numpy()
            )
            values["sensitivity"] = weighted_rate(score >= tuned, abnormal, weights)
            values["specificity"] = weighted_rate(score < tuned, ~abnormal, weights)
        found.append(Fit(arm, fold, gan_seed, seed, cut, values))
    return found


_RATES = {
    "false_alarms": "normal",
    "specificity": "normal",
    "sensitivity": "abnormal",
    **{f"sensitivity@{one}": "abnormal" for one in SPECIFICITIES},
}
"""Metrics that are shares of the patients of one side."""
_SEES_LABELS = "threshold by the Youden index of validation patients of both sides"
_DETAILS = {
    "auprc": "prevalence is that of the test patients",
    **{f"sensitivity@{one}": "threshold from validation normals alone" for one in SPECIFICITIES},
    "sensitivity": _SEES_LABELS,
    "specificity": _SEES_LABELS,
}


def _fit_rows(fit: Fit, test: TestSet) -> list[MetricRow]:
    key = {"stage": STAGE, "arm": fit.arm, "fold": fit.fold, "seed": fit.seed, "gan_seed": fit.gan_seed}
    rows = [
        MetricRow(**key, split="test", metric=metric, value=as_text(values[0]), n_patients=str(test.num_patients))
        for metric, values in fit.values.items()
    ]
    if np.isfinite(fit.threshold):
        rows.append(MetricRow(**key, split="val", metric="threshold", value=as_text(fit.threshold)))
    return rows


def _mean_rows(
    arm: str, fits: Sequence[Fit], tests: dict[str, TestSet], sides: Mapping[str, int], alpha: float
) -> list[MetricRow]:
    patients = str(len(set().union(*(test.patients for test in tests.values()))))
    rows = []
    for metric in fits[0].values:
        if any(metric not in fit.values for fit in fits):
            continue
        found = arm_interval(fits, metric, tests, alpha)
        if metric in _RATES and found.low is not None and found.low == found.high:
            found = _of_all_alike(found.value, sides[_RATES[metric]], alpha)
        detail = "; ".join(filter(None, [f"mean of {len(fits)} fits", _DETAILS.get(metric, "")]))
        rows.append(
            MetricRow(
                stage=STAGE, arm=arm, split="test", metric=metric, value=as_text(found.value),
                ci_low=as_text(found.low), ci_high=as_text(found.high), n_patients=patients, detail=detail,
            )
        )  # fmt: skip
    return rows


def _of_all_alike(rate: float, patients: int, alpha: float) -> Interval:
    """The interval of a rate of 0 or 1, whose draws do not scatter: Wilson's, as if there were one fit."""
    return Interval(rate, *wilson_interval(round(rate * patients), patients, alpha))


def _comparisons(arms: Sequence[str], fits: Sequence[Fit], tests: dict[str, TestSet], alpha: float) -> list[MetricRow]:
    """Each detector's AUROC minus the first one's, with Holm's rule over all of them; the ceiling is not among them."""
    reference, *others = [arm for arm in arms if arm != SUPERVISED] or [""]
    own = {arm: [fit for fit in fits if fit.arm == arm] for arm in arms}
    means = [combine([(1.0, own[arm]), (-1.0, own[reference])], "auroc", tests, alpha) for arm in others]
    adjusted = holm([mean.estimate.p_value() if mean.estimate else 1.0 for mean in means])
    rows = []
    for arm, mean, p_value in zip(others, means, adjusted, strict=True):
        found = mean.interval(alpha)
        decision = "not told apart from" if p_value >= alpha else "better than" if mean.value > 0 else "worse than"
        rows.append(
            MetricRow(
                stage=STAGE, arm=arm, split="test", metric=DIFFERENCE, value=as_text(found.value),
                ci_low=as_text(found.low), ci_high=as_text(found.high), n_patients=str(mean.patients),
                detail=f"{decision} {reference} (p = {p_value:.3g} by Holm's rule over {len(others)})",
            )
        )  # fmt: skip
    return rows


def one_sided(table: pd.DataFrame) -> str:
    """Why detectors cannot be judged on a `detector_table`, in a sentence; empty where they can."""
    test = table[table["split"] == "test"]
    lacking = [str(fold) for fold, rows in test.groupby("fold") if rows["label"].nunique() < 2]
    if not lacking and len(test):
        return ""
    return (
        f"Anomaly detectors were not judged: fold {', '.join(lacking)} has no test patient whose images are all "
        "normal, or none who has an abnormal one."
    )


def detector_warnings(table: pd.DataFrame, rows: Sequence[MetricRow], false_alarms: float) -> tuple[str, ...]:
    """Why no detector was judged; or which ones cannot raise an alarm for want of validation normals."""
    if table.empty:
        return ()
    if reason := one_sided(table):
        return (reason,)
    judged, loud = ({row.arm for row in rows if row.metric == metric} for metric in ("false_alarms", "threshold"))
    needed = int(np.ceil(1 / false_alarms)) - 1
    silent = ", ".join(sorted(judged - loud))
    if not silent:
        return ()
    return (
        f"Anomaly detectors: no alarm can be raised at a rate of {false_alarms:g} by {silent}: that takes {needed} "
        "normal validation patients.",
    )
