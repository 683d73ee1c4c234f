"""Paired tests against plain definitions and worked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, recall_score

from pipeline.measures import classification
from pipeline.measures.classification import choose_threshold, weighted_auprc, weighted_brier, weighted_ece
from pipeline.measures.paired import delong, holm, mcnemar, sign_flip
from pipeline.measures.resampling import bca_interval, fit_weights, jackknife_weights, patient_weights


def _delong_by_definition(first: np.ndarray, second: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """DeLong et al. 1988, equations 3 to 7, with loops over all pairs."""

    def components(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = score[positive], score[~positive]
        kernel = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
        return kernel.mean(axis=1), kernel.mean(axis=0)

    (v10, v01), (w10, w01) = components(first), components(second)
    s10, s01 = np.cov(np.stack([v10, w10])), np.cov(np.stack([v01, w01]))
    cover = s10 / len(v10) + s01 / len(v01)
    return float(v10.mean() - w10.mean()), float(np.sqrt(cover[0, 0] + cover[1, 1] - 2 * cover[0, 1]))


def test_delong_equals_its_definition_with_ties() -> None:
    random = np.random.default_rng(0)
    positive = np.arange(50) < 20
    base = random.normal(size=50) + positive
    first, second = np.round(base, 1), np.round(base + random.normal(size=50), 1)
    found = delong(first, second, positive, np.arange(50))
    value, error = _delong_by_definition(first, second, positive)
    assert found.value == pytest.approx(value) and found.error == pytest.approx(error)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(value) / error))


def test_draws_in_parts_are_the_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    positive, score = np.arange(60) % 3 == 0, random.normal(size=60).round(1)
    weights = random.integers(0, 3, (25, 60)).astype(float)
    weights[4, positive] = 0
    aurocs = [_weighted_auroc_by_pairs(score, positive, row) for row in weights]
    auprcs = [
        average_precision_score(positive, score, sample_weight=row) if row[positive].any() else np.nan
        for row in weights
    ]
    for cells in (2**22, 200):
        monkeypatch.setattr(classification, "_CELLS", cells)
        np.testing.assert_allclose(classification.weighted_auroc(score, positive, weights), aurocs)
        np.testing.assert_allclose(weighted_auprc(score, positive, weights), auprcs)
        assert len(classification._parts(weights, 60)) == (1 if cells > 1500 else 8)


def _weighted_auroc_by_pairs(score: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> float:
    pairs = np.outer(weight[positive], weight[~positive])
    gap = score[positive][:, None] - score[~positive]
    return float((pairs * ((gap > 0) + 0.5 * (gap == 0))).sum() / pairs.sum()) if pairs.sum() else np.nan


def test_copied_images_of_a_patient_add_nothing_to_delongs_test() -> None:
    """Obuchowski 1997: with every image there three times, the clustered error stays what it was."""
    random = np.random.default_rng(1)
    positive = np.arange(40) < 20
    scores = random.normal(size=(2, 40)) + positive
    once = delong(scores[0], scores[1], positive, np.arange(40))
    thrice = delong(*np.repeat(scores, 3, axis=1), np.repeat(positive, 3), np.repeat(np.arange(40), 3))
    assert thrice.value == pytest.approx(once.value) and thrice.error == pytest.approx(once.error)
    with pytest.raises(ValueError, match="positive and negative"):
        delong(scores[0], scores[1], np.ones(40, dtype=bool), np.arange(40))


def test_mcnemar_is_the_binomial_test_of_discordant_pairs() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 5)
    second = np.array([False] * 10 + [True] * 2 + [True] * 5)
    only_first, only_second, p = mcnemar(first, second)
    assert (only_first, only_second) == (10, 2)
    assert p == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # P(at most 2 of 12), both sides


def test_sign_flips_by_hand() -> None:
    assert sign_flip([0.1, 0.2, 0.3, 0.1, 0.4]) == pytest.approx(2 / 32)
    assert sign_flip([3.0, -1.0]) == pytest.approx(1.0)  # sums 2, 4, -4, -2: all reach |2|
    assert sign_flip([3.0, 1.0]) == pytest.approx(0.5)
    many = sign_flip(np.random.default_rng(0).normal(0.4, 1, 40))
    t = stats.ttest_1samp(np.random.default_rng(0).normal(0.4, 1, 40), 0).pvalue
    assert many == pytest.approx(t, rel=0.3)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize("ties", [False, True])
def test_auprc_and_brier_equal_scikit_learn(ties: bool) -> None:
    random = np.random.default_rng(2)
    score = np.round(random.random(60), 1) if ties else random.random(60)
    positive = random.random(60) < 0.3
    weights = np.vstack([np.ones(60), random.integers(0, 4, 60).astype(float)])
    for found, weight in zip(weighted_auprc(score, positive, weights), weights, strict=True):
        assert found == pytest.approx(average_precision_score(positive, score, sample_weight=weight))
    for found, weight in zip(weighted_brier(score, positive, weights), weights, strict=True):
        assert found == pytest.approx(brier_score_loss(positive, score, sample_weight=weight))


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.25 four times with one disease is perfect; 0.95 twice with one disease is off by 0.45."""
    score = np.array([0.25, 0.25, 0.25, 0.25, 0.95, 0.95])
    positive = np.array([True, False, False, False, True, False])
    assert weighted_ece(score, positive, np.ones((1, 6)))[0] == pytest.approx(2 / 6 * 0.45)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 1.0])
def test_target_thresholds_reach_the_target_at_the_least_cost(target: float) -> None:
    random = np.random.default_rng(3)
    positive = random.random(80) < 0.4
    score = np.round(random.normal(size=80) + positive, 1)
    found = choose_threshold(f"sensitivity@{target}", score, positive)
    assert recall_score(positive, score >= found) >= target
    higher = [level for level in np.unique(score) if level > found]
    assert all(recall_score(positive, score > level) < target for level in higher)
    found = choose_threshold(f"specificity@{target}", score, positive)
    assert recall_score(~positive, score < found) >= target
    lower = [level for level in np.unique(score) if level < found]
    assert all(recall_score(~positive, score < level) < target for level in lower)


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match="accuracy@1"):
        choose_threshold("accuracy@1", np.array([0.0, 1.0]), np.array([False, True]))


def test_few_patients_are_not_taken_for_fewer() -> None:
    """Rao & Wu: the bootstrap variance of a mean of 4 patients is s² / 4, not the plain bootstrap's 3/4 of it."""
    values = np.array([0.0, 1.0, 3.0, 8.0])
    weights = patient_weights(np.arange(4), 40_000, np.random.default_rng(0))
    means = weights @ values / weights.sum(axis=1)
    assert np.var(means) == pytest.approx(np.var(values, ddof=1) / 4, rel=0.03)
    fits = fit_weights(4, 40_000, np.random.default_rng(1)) @ values
    assert np.var(fits) == pytest.approx(np.var(values, ddof=1) / 4, rel=0.03)


def test_draws_keep_the_strata() -> None:
    patients, strata = np.repeat(np.arange(12), 2), np.repeat([0] * 8 + [1] * 3 + [2], 2)
    weights = patient_weights(patients, 200, np.random.default_rng(0), strata)
    sums = np.stack([weights[:, strata == stratum].sum(axis=1) for stratum in range(3)])
    assert np.allclose(sums, [[16.0], [6.0], [2.0]])
    assert (weights[:, ::2] == weights[:, 1::2]).all()


def test_a_patient_of_two_classes_is_drawn_with_the_class_of_most_of_its_images() -> None:
    """By hand: a, b, c and the tied f are of class x, d and e of y; each class keeps its number of patients."""
    patients, classes = np.array(list("aaabcdeff")), np.array(list("xyxxxyyyx"))
    weights = patient_weights(patients, 300, np.random.default_rng(0), classes)
    a, b, c, d, e, f = (weights[:, list("aaabcdeff").index(one)] for one in "abcdef")
    assert np.allclose(a + b + c + f, 4) and np.allclose(d + e, 2)
    assert len(np.unique(np.stack([a, b, c, f]))) > 2


def test_the_jackknife_leaves_each_patient_out_once() -> None:
    patients = np.repeat(np.arange(30), 2)
    weights = jackknife_weights(patients, np.random.default_rng(0))
    assert weights.shape == (30, 60) and (weights.sum(axis=0) == 29).all()
    many = jackknife_weights(np.arange(1000), np.random.default_rng(0))
    assert len(many) == 100 and (many.sum(axis=0) == 99).all()


def test_bca_equals_scipys_on_a_skewed_mean() -> None:
    values = np.random.default_rng(4).exponential(size=40)
    draws = np.random.default_rng(5).choice(values, size=(100_000, 40)).mean(axis=1)
    without = (values.sum() - values) / 39
    ours = bca_interval(float(values.mean()), draws, [without], 0.05)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=100_000, method="BCa", rng=np.random.default_rng(6))
    assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=0.01)
