"""Figures against scikit-learn, worked examples and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from pipeline.measures.classification import choose_threshold, weighted_auroc, weighted_rate, youden_threshold
from pipeline.measures.resampling import Spread, interval, patient_weights, spread_of_fits
from pipeline.verdict.power import hanley_mcneil_variance


def cases(seed: int, n: int = 60, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.4
    score = random.normal(size=n) + positive
    return (np.round(score) if ties else score), positive


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_auroc_equals_scikit_learn(ties: bool) -> None:
    score, positive = cases(0, ties=ties)
    weights = np.random.default_rng(1).integers(0, 4, (20, 60)).astype(float)
    ours = weighted_auroc(score, positive, weights)
    theirs = [roc_auc_score(positive, score, sample_weight=row) for row in weights]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_auroc_of_one_side_is_not_a_number() -> None:
    weights = np.array([[1.0, 1.0, 0.0, 0.0]])
    assert np.isnan(weighted_auroc(np.arange(4.0), np.array([True, True, False, False]), weights)[0])


def test_weighted_rate_equals_scikit_learns_recall() -> None:
    score, positive = cases(2)
    weights = np.random.default_rng(1).integers(0, 4, (10, 60)).astype(float)
    ours = weighted_rate(score > 0.5, positive, weights)
    theirs = [recall_score(positive, score > 0.5, sample_weight=row) for row in weights]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_youden_threshold_is_the_best_of_all_thresholds(seed: int) -> None:
    score, positive = cases(seed, ties=seed % 2 == 0)
    best = max(balanced_accuracy_score(positive, score >= cut) for cut in [*np.unique(score), np.inf])
    found = balanced_accuracy_score(positive, score >= youden_threshold(score, positive))
    assert found == pytest.approx(best)


def test_youden_threshold_lies_between_images() -> None:
    assert youden_threshold(np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True])) == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(4))
def test_smoothed_youden_threshold_equals_scipys_kernel_estimate(seed: int) -> None:
    random = np.random.default_rng(seed)
    positive = np.arange(70) >= 40
    score = random.normal(1.2 * positive, 1.0 + 0.5 * positive)
    found = choose_threshold("youden-smoothed", score, positive)
    kernels = []
    for side in (score[~positive], score[positive]):
        width = 0.9 * min(side.std(ddof=1), stats.iqr(side) / 1.34) * len(side) ** -0.2
        kernels.append(stats.gaussian_kde(side, bw_method=width / side.std(ddof=1)))
    order = np.sort(score)
    cuts = (order[1:] + order[:-1]) / 2
    gain = [np.subtract(*(kernel.integrate_box_1d(-np.inf, cut) for kernel in kernels)) for cut in cuts]
    assert found == pytest.approx(cuts[int(np.argmax(gain))])


def test_smoothed_youden_threshold_finds_the_crossing_of_two_normal_distributions() -> None:
    # N(0, 1) and N(1.5, 1) cross at 0.75, where the Youden index is largest (Fluss et al. 2005, equation 5)
    random = np.random.default_rng(0)
    positive = np.arange(4000) >= 2000
    logits = random.normal(1.5 * positive, 1.0)
    assert choose_threshold("youden-smoothed", logits, positive) == pytest.approx(0.75, abs=0.1)
    assert choose_threshold("youden-smoothed", expit(logits), positive) == pytest.approx(expit(0.75), abs=0.025)


def test_smoothed_youden_threshold_with_few_cases_or_ties() -> None:
    score, positive = np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True])
    assert choose_threshold("youden-smoothed", score, positive) == pytest.approx(0.4)
    assert choose_threshold("youden-smoothed", score[1:3], positive[1:3]) == pytest.approx(0.4)
    tied = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert choose_threshold("youden-smoothed", tied, tied > 0.5) == pytest.approx(0.5)
    same = np.full(4, 0.5)
    assert np.isfinite(choose_threshold("youden-smoothed", same, positive))


def test_patients_are_drawn_whole() -> None:
    patients = np.array(["a", "b", "a", "c", "c", "c"])
    weights = patient_weights(patients, 500, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()


def test_interval_of_one_source_is_the_t_interval_of_the_mean() -> None:
    values = np.array([1.0, 2.0, 4.0, 7.0])
    ours = interval(float(values.mean()), [spread_of_fits(values)], alpha=0.05)
    low, high = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert (ours.low, ours.high) == (pytest.approx(low), pytest.approx(high))


def test_interval_of_two_sources_is_welchs() -> None:
    first, second = np.array([3.0, 5.0, 4.5, 6.0]), np.array([1.0, 1.2, 0.7])
    ours = interval(first.mean() - second.mean(), [spread_of_fits(first), spread_of_fits(second)], alpha=0.05)
    welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (ours.low, ours.high) == (pytest.approx(welch.low), pytest.approx(welch.high))


def test_no_spread_is_a_point() -> None:
    assert interval(0.5, [Spread(0.0, 3)], 0.05).low == 0.5


def test_hanley_mcneil_matches_their_paper() -> None:
    """Hanley & McNeil 1982, their worked example: AUROC 0.893 of 51 abnormal and 58 normal cases, SE 0.032."""
    assert hanley_mcneil_variance(0.893, 51, 58) ** 0.5 == pytest.approx(0.032, abs=0.001)
