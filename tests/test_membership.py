"""Figures of membership attacks, by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
import torch
from scipy.ndimage import shift as scipy_shift
from scipy.stats import norm

from pipeline.measures.classification import weighted_auroc
from pipeline.measures.membership import (
    advantage,
    by_patient,
    enough_for,
    matched_weights,
    standardised,
    standing_out,
    standing_out_p,
    tpr_at_fpr,
)
from pipeline.privacy.outcome import Outcome, Rate, outcome_of, separation_of
from pipeline.privacy.registered import registered_distances
from pipeline.verdict.release import as_advantage, tolerated_auroc

SCORE = np.array([9.0, 7.0, 4.0, 1.0, 8.0, 5.0, 3.0, 2.0])
MEMBER = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
ONCE = np.ones((1, 8))


def test_rates_by_hand() -> None:
    """Members 9 7 4 1, others 8 5 3 2. Pairs won: 4 + 3 + 2 + 0 of 16. At the threshold 7: TPR 2/4, FPR 1/4; at 9: 1/4,
    0; at 4: 3/4, 2/4."""
    assert weighted_auroc(SCORE, MEMBER, ONCE)[0] == pytest.approx(9 / 16)
    assert advantage(SCORE, MEMBER, ONCE)[0] == pytest.approx(0.25)
    rates = {fpr: tpr_at_fpr(SCORE, MEMBER, ONCE, fpr)[0] for fpr in (0.0, 0.2, 0.25, 0.5, 1.0)}
    assert rates == {0.0: 0.25, 0.2: 0.25, 0.25: 0.5, 0.5: 0.75, 1.0: 1.0}
    assert advantage(-SCORE, MEMBER, ONCE)[0] == pytest.approx(0.25)  # 1 < 2: the lowest is a member


def test_tied_scores_are_one_threshold() -> None:
    tied = np.zeros(8)
    assert advantage(tied, MEMBER, ONCE)[0] == 0
    assert tpr_at_fpr(tied, MEMBER, ONCE, 0.5)[0] == 0  # the one threshold lets all or none through


def test_weights_count_cases() -> None:
    """The member 9 twice and the other 8 not at all: TPR 3/5 at 7 with no false positive."""
    weights = np.array([[2.0, 1, 1, 1, 0, 1, 1, 1]])
    assert tpr_at_fpr(SCORE, MEMBER, weights, 0.0)[0] == pytest.approx(0.6)
    assert advantage(SCORE, MEMBER, weights)[0] == pytest.approx(0.6)


def test_a_rate_needs_non_members_enough() -> None:
    assert enough_for(0.01, 100) and not enough_for(0.01, 99)
    assert enough_for(0.001, 1000) and not enough_for(0.001, 999)


def test_non_members_count_by_the_members_classes() -> None:
    """Two members of a, one of b; one other of a, three of b, one of c: weights 2, 1/3 each, and 0."""
    member = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    label = np.array(list("aababbbc"))
    np.testing.assert_allclose(matched_weights(member, label), [1, 1, 1, 2, 1 / 3, 1 / 3, 1 / 3, 0])


def test_scores_are_brought_to_one_scale_within_a_class() -> None:
    """Of 1 2 3 4 100 the median is 3 and the median distance from it 1."""
    score = np.array([1.0, 2, 3, 4, 100, 7, 7, 7])
    found = standardised(score, np.array(list("aaaaabbb")))
    np.testing.assert_allclose(found, [*(np.array([-2, -1, 0, 1, 97]) / 1.4826), 0, 0, 0])


def test_a_patient_is_the_largest_of_its_images() -> None:
    score, patient = np.array([1.0, 5, 2, 3, 4]), np.array([7, 7, 7, 2, 2])
    highest, joined, label = by_patient(score, np.array([1, 1, 1, 0, 0], dtype=bool), np.array(list("aabbb")), patient)
    assert (list(highest), list(joined), list(label)) == ([4, 5], [False, True], ["b", "a"])


@pytest.mark.parametrize(("members", "others", "out"), [(10, 10, 3), (6, 12, 2), (15, 5, 4)])
def test_standing_out_is_as_likely_as_combinatorics_say(members: int, others: int, out: int) -> None:
    score = np.concatenate([np.arange(members - out), 100.0 + np.arange(out), 50 + np.arange(others)])
    member = np.arange(members + others) < members
    expected = comb(members, out) / comb(members + others, out)
    found = standing_out_p(score, member, np.zeros(len(score)), np.random.default_rng(0), draws=20_000)
    assert standing_out(score, member) == out
    assert found == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 20_000) ** 0.5 + 1e-4)


def test_standing_out_is_above_every_non_member() -> None:
    assert standing_out(SCORE, MEMBER) == 1  # 9 alone is above 8
    assert standing_out(np.where(SCORE == 9, 8.0, SCORE), MEMBER) == 0  # as high is not above
    assert standing_out_p(-SCORE, ~MEMBER, np.zeros(8), np.random.default_rng(0)) == 1.0


def test_standing_out_is_permuted_within_classes() -> None:
    """Three members of class a lead; a has no non-member, so that any permutation leaves them where they are."""
    score, label = np.array([9.0, 8, 7, 1, 2, 3]), np.array(list("aaabbb"))
    member = np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    assert standing_out_p(score, member, label, np.random.default_rng(0), draws=500) == 1.0


def test_tolerated_advantage_is_that_of_normal_scores() -> None:
    """Means 0.507 apart: TPR - FPR is at most 2 Φ(0.2533) - 1 = 0.2, AUROC Φ(0.3583) = 0.640."""
    assert tolerated_auroc(0.2) == pytest.approx(0.1399, abs=1e-4)
    apart = 2 * norm.ppf(0.6)
    grid = np.linspace(-6, 6, 20_001)
    assert (norm.sf(grid, apart) - norm.sf(grid)).max() == pytest.approx(0.2, abs=1e-6)
    assert as_advantage(tolerated_auroc(0.37)) == pytest.approx(0.37)
    assert as_advantage(-0.1) == pytest.approx(0)


def _outcome(score: np.ndarray, member: np.ndarray, patient: np.ndarray | None = None) -> Outcome:
    patient = np.arange(len(score)) if patient is None else patient
    return outcome_of(score, member, np.zeros(len(score)), patient, np.random.default_rng(1))


def test_a_difference_covers_what_patients_say() -> None:
    """The error by patients of one image is that of the AUROC of normal scores (Hanley & McNeil, Radiology 143 (1982)),
    and members against members are told apart by chance alone."""
    random, member = np.random.default_rng(5), np.arange(400) < 200
    found = _outcome(random.normal(size=400) + 0.5 * member, member)
    rate = found.rate("auroc", "patient")
    a = float(rate.value or 0)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + 199 * (q1 - a * a) + 199 * (q2 - a * a)) / 200**2
    assert rate.error == pytest.approx(variance**0.5, rel=0.1)
    assert rate.control == pytest.approx(0.5, abs=0.02)
    assert rate.difference == pytest.approx(a - 0.5, abs=0.03)
    low, high = rate.interval(0.05)
    assert (high - low) / 2 == pytest.approx(1.972 * rate.error, rel=1e-3)  # t with 199 degrees of freedom
    assert [one.unit for one in found.rates] == ["patient"] * 4


def test_images_of_a_patient_do_not_count_as_many_patients() -> None:
    """Each of 40 patients ten times over: the error is that of 40 cases, not of 400."""
    random = np.random.default_rng(2)
    one, member = random.normal(size=40), np.arange(40) < 20
    many = _outcome(np.repeat(one, 10), np.repeat(member, 10), np.repeat(np.arange(40), 10))
    by_image, by_head = many.rate("auroc", "image"), many.rate("auroc", "patient")
    assert by_image.value == pytest.approx(by_head.value)
    assert by_image.error == pytest.approx(by_head.error, rel=0.15)
    assert by_image.freedom == by_head.freedom == 19
    assert (many.images, many.patients) == ((200, 200), (20, 20))


def test_a_class_without_non_members_adds_no_certainty() -> None:
    """The error stays that of 20 against 20, whatever the 200 of another class score."""
    random = np.random.default_rng(3)
    score, member = random.normal(size=240), np.arange(240) >= 20
    label = (np.arange(240) >= 40).astype(int)
    both = outcome_of(score, member, label, np.arange(240), np.random.default_rng(0), "auroc").rates[0]
    alone = outcome_of(score[:40], member[:40], label[:40], np.arange(40), np.random.default_rng(0), "auroc").rates[0]
    assert both.value == pytest.approx(alone.value)
    assert both.error == pytest.approx(alone.error, rel=0.12)


def test_few_non_members_refuse_a_low_rate() -> None:
    found = _outcome(np.arange(60.0), np.arange(60) % 2 == 0)
    rate = found.rate("tpr_at_fpr_0.01", "patient")
    assert rate.value is None
    assert rate.refused == "30 unseen, and 100 are needed for one false positive in as many"


def test_images_that_were_not_tried_do_not_count() -> None:
    score = np.where(np.arange(80) < 40, np.nan, np.arange(80.0))
    assert _outcome(score, np.arange(80) % 2 == 0).images == (20, 20)


def test_an_outcome_comes_back_from_json() -> None:
    found = _outcome(np.arange(60.0), np.arange(60) % 3 == 0)
    assert Outcome.from_json(found.as_json()) == found


def test_the_planted_leaks_separation_is_the_auroc() -> None:
    member = np.arange(8) < 4
    rate = separation_of(SCORE, member, np.zeros(8), np.arange(8), np.random.default_rng(0))
    assert isinstance(rate, Rate) and rate.value == pytest.approx(9 / 16)


def _textured(number: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(number, 1, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("shape", [(16, 16), (12, 12, 12)])
def test_registration_undoes_shift_flip_and_contrast(shape: tuple[int, ...]) -> None:
    real, other = _textured(5, shape), _textured(5, shape, seed=1)
    steps = [0] * (len(shape) - 1) + [1]
    moved = torch.from_numpy(np.stack([scipy_shift(one[0].numpy(), steps, order=0)[None] for one in real]))
    for changed in (real, moved, real.flip(-1), 0.3 * real + 0.2, -0.5 + 0.1 * real.flip(2)):
        distances = registered_distances([changed], [real])
        np.testing.assert_allclose(np.diag(distances), 0, atol=2e-3)
        assert registered_distances([changed], [other]).min() > 0.5


def test_a_registered_distance_is_that_of_the_correlation() -> None:
    """Without room to move, sqrt(2 - 2 r) of the better of the image and its mirror."""
    one, two = _textured(1, (4, 1)), _textured(1, (4, 1), seed=3)
    ways = [np.corrcoef(way.flatten(), two.flatten())[0, 1] for way in (one, one.flip(2))]
    assert registered_distances([one], [two]).item() == pytest.approx((2 - 2 * max(ways)) ** 0.5, abs=1e-5)


def test_flat_images_are_like_nothing() -> None:
    flat = torch.full((1, 1, 8, 8), 0.3)
    np.testing.assert_allclose(registered_distances([flat], [flat]), 2**0.5, atol=1e-6)
