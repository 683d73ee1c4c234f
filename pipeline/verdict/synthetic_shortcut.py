"""The guard against synthetic shortcuts: has "is synthetic" become a sign of the disease to a classifier?

An image's being synthetic says nothing of the disease. Where synthetic images fill up a class (or, at each site, the
class that is rare there) it does in training, and a classifier that has learnt it scores synthetic images higher, or
lower, than real ones of the same class. It does so in both classes alike. That tells it from a classifier that is
merely surer of the synthetic images, since it was trained on them: that one scores the ill higher and the well lower.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from pipeline.config.arms import REFERENCE_ARM
from pipeline.core.guard import FROM_IMAGE, FROM_SCORE, GAP, STAGE, WARNING
from pipeline.core.metrics import MetricRow, as_text
from pipeline.core.patients import patient_units
from pipeline.measures.classification import weighted_auroc
from pipeline.measures.resampling import MIN_PATIENTS, Interval
from pipeline.verdict.comparison import combine
from pipeline.verdict.decide import VerdictPlan
from pipeline.verdict.fits import Fit, TestSet, disease_score, draw_test_sets

ALPHA = 0.01
LARGE = 0.1
"""A gap of disease scores that deserves a warning, by itself and beside the reference's own."""
_CLASS, _SITE = "gap in ", "site = "


def guard_rows(predictions: pd.DataFrame, others: Sequence[MetricRow], plan: VerdictPlan) -> list[MetricRow]:
    """Rows of metrics.csv, of every arm that was applied to synthetic images, the reference's first classifier too.

    `synthetic_from_score`: AUROC of telling synthetic from real test images by the disease score, pairs of one class
    (and one site) only; 0.5 = the score does not tell. `synthetic_score_gap`: the mean disease score of synthetic less
    that of real test images of each class, and, in rows without a label, its mean over the classes, which is 0 where
    the classifier is only surer of synthetic images. Of each site by itself where the synthetic images have sites.
    A row `probe_warning` says so in words where the images can be told apart (p below 0.01) and an arm's mean gap lies
    beyond 0.1, with an interval without 0, and beyond the reference's by as much.

    Args:
        predictions: text keys; synthetic images are of the split `synthetic`.
        others: what stages wrote themselves, the guard's `synthetic_from_image` among them.
    """
    made = predictions[predictions["split"] == "synthetic"]
    if made.empty:
        return []
    test = predictions[predictions["split"] == "test"]
    tests = draw_test_sets(test, plan.bootstrap, plan.seed)
    sites = sorted(set(made["site"]) - {""}) if "site" in made else []
    rows: list[MetricRow] = []
    for arm in dict.fromkeys(made["arm"]):
        for site in sites or [""]:
            own = [table[(table["arm"] == arm) & (table["site"] == site if site else True)] for table in (made, test)]
            rows += _arm_rows(str(arm), site, own[0], own[1], tests, plan)
    return rows + list(_warnings(rows, others))


def _arm_rows(
    arm: str, site: str, made: pd.DataFrame, test: pd.DataFrame, tests: dict[str, TestSet], plan: VerdictPlan
) -> Iterator[MetricRow]:
    of_fold = {str(fold): own for fold, own in test.groupby("fold")}
    fits = []
    for (fold, gan_seed, seed), rows in made.groupby(["fold", "gan_seed", "seed"], sort=True):
        real = of_fold.get(str(fold), test.iloc[:0])
        real = real[(real["seed"] == seed) & real["gan_seed"].isin({str(gan_seed), ""})]
        if len(real):
            values = _looks(rows, real, tests[str(fold)], plan.positive)
            fits.append(Fit(arm, str(fold), str(gan_seed), str(seed), float("nan"), values))
    shared = set.intersection(*(set(fit.values) for fit in fits)) if fits else set()
    folds = {fold: one for fold, one in tests.items() if any(fit.fold == fold for fit in fits)}
    images = test.drop_duplicates("image_id")
    few = min((patient_units(rows).nunique() for _, rows in images.groupby("label")), default=0) < MIN_PATIENTS
    for metric in sorted(shared):
        found = combine([(1.0, fits)], metric, folds, plan.alpha).interval(plan.alpha)
        found = found if metric == FROM_SCORE else _from_share(found)
        found = Interval(found.value, None, None) if few else found
        yield MetricRow(
            stage=STAGE, arm=arm, split="synthetic", label=metric.removeprefix(_CLASS) if _CLASS in metric else "",
            subgroup=f"{_SITE}{site}" if site else "", metric=GAP if _CLASS in metric else metric,
            value=as_text(found.value), ci_low=as_text(found.low), ci_high=as_text(found.high),
            n_patients=str(patient_units(images).nunique()), n_images=str(len(images) + made["image_id"].nunique()),
            detail="disease scores of synthetic and of real test images of one class; interval over test patients",
        )  # fmt: skip


def _looks(made: pd.DataFrame, real: pd.DataFrame, test: TestSet, positive: Sequence[str]) -> dict[str, np.ndarray]:
    """Of one fit, each a value a row of the test set's weights: the AUROC, the gap of each class, and their mean."""
    place = test.image_ids.get_indexer(pd.Index(real["image_id"]))
    weights, scores = test.weights[:, place], disease_score(real, positive)
    won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    found: dict[str, np.ndarray] = {}
    for label in sorted(set(made["label"]) & set(real["label"])):
        own, other = (real["label"] == label).to_numpy(), disease_score(made[made["label"] == label], positive)
        ones = np.ones((len(weights), len(other)))
        both, which = np.concatenate([scores[own], other]), np.arange(own.sum() + len(other)) >= own.sum()
        count = weights[:, own].sum(axis=1) * len(other)
        won += np.nan_to_num(weighted_auroc(both, which, np.hstack([weights[:, own], ones]))) * count
        pairs += count
        total = weights[:, own].sum(axis=1)
        mean = np.divide(weights[:, own] @ scores[own], total, out=np.full(len(total), np.nan), where=total > 0)
        found[_CLASS + label] = _as_share(other.mean() - mean)
    if not found:
        return {}
    found[GAP] = np.mean(list(found.values()), axis=0)
    found[FROM_SCORE] = np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
    return found


def _as_share(gap: np.ndarray) -> np.ndarray:
    """A gap in [-1, 1] as a share, since an arm's mean and its interval are kept within [0, 1]."""
    return (1 + gap) / 2


def _from_share(found: Interval) -> Interval:
    value, low, high = (None if one is None else 2 * one - 1 for one in (found.value, found.low, found.high))
    assert value is not None
    return Interval(value, low, high)


def _warnings(rows: Sequence[MetricRow], others: Sequence[MetricRow]) -> Iterator[MetricRow]:
    told = [row for row in others if row.stage == STAGE and row.metric == FROM_IMAGE and row.value]
    seen = [row for row in told if (found := re.search(r"p = ([\d.]+)", row.detail)) and float(found[1]) < ALPHA]
    if not seen:
        return
    clearest = max(seen, key=lambda row: float(row.value))
    gaps = {(row.arm, row.subgroup): row for row in rows if row.metric == GAP and not row.label}
    for (arm, subgroup), row in gaps.items():
        plain = gaps.get((REFERENCE_ARM, subgroup))
        baseline = float(plain.value) if plain is not None and plain.value else 0.0
        if arm == REFERENCE_ARM or not row.ci_low or float(row.ci_low) <= 0 <= float(row.ci_high):
            continue
        if min(abs(float(row.value)), abs(float(row.value) - baseline)) <= LARGE:
            continue
        way = "higher" if float(row.value) > 0 else "lower"
        of_site = f" of {subgroup.removeprefix(_SITE)}" if subgroup else ""
        text = (
            f"Synthetic shortcut: {arm} scores synthetic images{of_site} {abs(float(row.value)):.2f} {way} for the "
            f"disease than real test images of the same class (interval {float(row.ci_low):+.2f} to "
            f"{float(row.ci_high):+.2f}; a classifier that never saw a synthetic image: {baseline:+.2f}), and they can "
            f"be told from real ones (AUROC {float(clearest.value):.2f}). Being synthetic has become a sign of "
            f"{'the disease' if way == 'higher' else 'health'} there: such images teach it in place of the disease. Do "
            "not let them fill a class or a cell; pre-train on them and fine-tune on real images instead."
        )
        yield MetricRow(stage=STAGE, arm=arm, subgroup=subgroup, metric=WARNING, detail=text)
