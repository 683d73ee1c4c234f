"""Figures over readers and images: variances by the mean squares of a two-way table, intervals by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from statsmodels.formula.api import ols
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from pipeline.measures.crossed import crossed, difference_interval, images_needed, roc_parts, share_interval
from pipeline.reader_study.agreement import agreement


def answers(readers: int, images: int, mean: float, bias: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Right or wrong [readers, images] by a probit model: images are hard or easy for everybody (deviation 0.6)."""
    hard = random.normal(0, 0.6, images)
    return (mean + bias[:, None] + hard + random.normal(0, 1, (readers, images)) > 0).astype(float)


def test_the_variance_is_that_of_a_two_way_table() -> None:
    said = answers(4, 40, 0.3, np.array([-0.5, 0.0, 0.4, 0.9]), np.random.default_rng(1))
    long = pd.DataFrame(
        [(one, two, said[one, two]) for one in range(4) for two in range(40)], columns=["reader", "image", "right"]
    )
    table = sm.stats.anova_lm(ols("right ~ C(reader) + C(image)", long).fit())["mean_sq"]
    expected = (table["C(reader)"] + table["C(image)"] - table["Residual"]) / (4 * 40)
    found = crossed([(1.0, said)])
    assert found.value == pytest.approx(said.mean())
    assert found.estimate().error ** 2 == pytest.approx(expected)
    assert found.expected(4, 1.0).error ** 2 == pytest.approx(expected)
    assert found.between_readers == pytest.approx((table["C(reader)"] - table["Residual"]) / 40)


def test_a_bias_towards_one_kind_is_no_scatter_of_images() -> None:
    """Whoever calls everything synthetic is right in half of the images, whatever the images."""
    found = crossed([(0.5, np.ones((3, 20))), (0.5, np.zeros((3, 20)))])
    assert found.value == 0.5 and found.estimate().error == 0


def test_readers_without_a_fault_have_the_interval_of_their_images() -> None:
    found = share_interval(crossed([(1.0, np.ones((5, 40)))]), 0.05)
    assert (found.low, found.high) == pytest.approx(proportion_confint(40, 40, method="wilson"))


def test_one_reader_has_the_interval_of_the_images() -> None:
    """Its variance is that of a mean, n / (n - 1) of the binomial one, and its quantile that of t."""
    said = np.repeat([1.0, 0.0], [300, 100])[None]
    found = share_interval(crossed([(1.0, said)]), 0.05)
    assert (found.low, found.high) == pytest.approx(proportion_confint(300, 400, method="wilson"), abs=0.001)


@pytest.mark.parametrize(("readers", "mean", "spread"), [(5, 0.0, 0.0), (3, 0.8, 0.3), (5, 2.5, 0.3)])
def test_intervals_hold_the_truth_as_often_as_they_say(readers: int, mean: float, spread: float) -> None:
    """At chance, in between, near perfect; new readers and new images each time. Of 300 intervals of 95 % fewer than
    273 hold the truth once in a thousand times."""
    random, images, studies = np.random.default_rng(7), 30, 300
    truth = norm.cdf(mean / np.sqrt(1 + 0.6**2 + spread**2))
    held = np.zeros(3)
    for _ in range(studies):
        bias = random.normal(0, spread, readers)  # towards one kind, so against the other
        first, second = (answers(readers, images, mean, sign * bias, random) for sign in (1, -1))
        both, one, other = crossed([(0.5, first), (0.5, second)]), crossed([(1.0, first)]), crossed([(1.0, second)])
        found = [share_interval(both, 0.05), share_interval(one, 0.05), difference_interval(one, other, 0.05)]
        held += [interval.low <= true <= interval.high for interval, true in zip(found, (truth, truth, 0), strict=True)]
    assert (held >= 273).all(), held


def test_the_auroc_is_the_mean_of_the_readers_own() -> None:
    random = np.random.default_rng(3)
    positive = np.arange(40) % 2 == 0
    score = np.rint(random.normal(0, 1.5, (3, 40)) + positive)
    found = crossed(roc_parts(score, positive))
    assert found.by_reader == pytest.approx([roc_auc_score(positive, one) for one in score])


def test_the_auroc_of_one_reader_has_delongs_error() -> None:
    """Against the variance of the two placements written out (DeLong et al. 1988, for one curve)."""
    random = np.random.default_rng(4)
    positive = np.arange(60) % 3 == 0
    score = random.normal(0, 1, 60) + positive
    ten = [np.mean([(a > b) + 0.5 * (a == b) for b in score[~positive]]) for a in score[positive]]
    one = [np.mean([(a > b) + 0.5 * (a == b) for a in score[positive]]) for b in score[~positive]]
    expected = np.var(ten, ddof=1) / 20 + np.var(one, ddof=1) / 40
    assert crossed(roc_parts(score[None], positive)).estimate().error ** 2 == pytest.approx(expected)


def test_so_many_images_as_are_said_to_be_needed_show_the_difference() -> None:
    random = np.random.default_rng(5)
    bias = random.normal(0, 0.05, 6)
    found = crossed([(0.5, answers(6, 200, 0.2, bias, random)), (0.5, answers(6, 200, 0.2, -bias, random))])
    needed = {readers: images_needed(found, readers, 0.1, 0.05) for readers in (3, 6, 12)}
    assert needed[3] > needed[6] > needed[12] > 4  # type: ignore[operator]
    shown = found.expected(6, needed[6] / 400)  # type: ignore[operator]
    # a two-sided test of level 0.05 by t has power 0.8 where the difference is 2.8 to 3 errors
    assert 2.8 < 0.1 / shown.error < 3.0
    assert images_needed(found, 2, 0.0001, 0.05) is None
    # answers at chance scatter more than those of readers who are often right: 0.25 against p (1 - p)
    wider = found.at_share(0.5)
    assert wider.kinds[0].rest / found.kinds[0].rest == pytest.approx(0.25 / (found.value * (1 - found.value)))


def test_kappas_are_those_of_the_worked_examples() -> None:
    # Fleiss (1971) as in the common example: 10 subjects, 14 raters, 5 categories
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    said = np.array([np.repeat(list("abcde"), row) for row in counts]).T
    found, how = agreement(said, 0.05)
    assert found.value == pytest.approx(0.210, abs=0.0005) and how.startswith("Fleiss")
    assert found.low < 0.210 < found.high  # type: ignore[operator]
    # its variance: jackknives over readers and over images, by statsmodels' kappa
    numbers = np.array([[" abcde".index(answer) for answer in reader] for reader in said])

    def without(axis: int) -> float:
        left = [np.delete(numbers, one, axis) for one in range(numbers.shape[axis])]
        kappas = [fleiss_kappa(aggregate_raters(part.T, 6)[0]) for part in left]
        return float(np.var(kappas) * (len(kappas) - 1))

    readers, images = without(0), without(1)
    freedom = (readers + images) ** 2 / (readers**2 / 13 + images**2 / 9)  # Satterthwaite
    half = stats.t.ppf(0.975, freedom) * np.sqrt(readers + images)
    assert found.high - found.low == pytest.approx(2 * half, rel=1e-6)  # type: ignore[operator]
    # two readers of 50 grant proposals: 20 and 15 agreed, 5 and 10 not
    two = np.array([["y"] * 25 + ["n"] * 25, ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15])
    found, how = agreement(two, 0.05)
    assert found.value == pytest.approx(0.4) and how.startswith("Cohen")
    alike, _ = agreement(np.full((3, 8), "real"), 0.05)
    assert np.isnan(alike.value) and alike.low is None
