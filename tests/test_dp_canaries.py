"""Canaries show no more than the stated ε, and more than that as soon as there is a mistake in noise or clipping."""

from __future__ import annotations

import numpy as np
import pytest
from canaries import DELTA, PLANTED, dp_merf, dp_sgd

from pipeline.measures.canaries import lower_bound, p_value

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")
STATED = 1.0


@pytest.mark.parametrize("seed", range(3))
def test_canaries_do_not_refute_the_stated_epsilon(seed: int) -> None:
    assert lower_bound(*dp_sgd("none", STATED, seed), DELTA) <= STATED
    assert lower_bound(*dp_merf("none", STATED, seed), DELTA) <= STATED


@pytest.mark.parametrize("planted", [name for name in PLANTED if name != "none"])
def test_every_planted_mistake_of_dp_sgd_is_seen(planted: str) -> None:
    assert lower_bound(*dp_sgd(planted, STATED, 0), DELTA) > 2 * STATED


@pytest.mark.parametrize("planted", ["no noise", "no clipping"])
def test_every_planted_mistake_of_dp_merf_is_seen(planted: str) -> None:
    assert lower_bound(*dp_merf(planted, STATED, 0), DELTA) > 2 * STATED


def test_the_audit_sees_a_part_of_a_large_epsilon() -> None:
    """It can fail: of ε = 8 it shows more than that of ε = 1."""
    assert STATED < lower_bound(*dp_sgd("none", 8.0, 0), DELTA) <= 8.0


def test_the_bound_is_the_papers() -> None:
    """Without δ a binomial tail; 100 of 100 guesses right of 100 canaries refute ε up to log(0.05^(1/100)) odds."""
    assert p_value(100, 100, 100, 3.0, 0.0) == pytest.approx((np.e**3 / (1 + np.e**3)) ** 100)
    share = 0.05 ** (1 / 100)
    assert p_value(100, 100, 100, np.log(share / (1 - share)), 0.0) == pytest.approx(0.05)
    # randomised response at ε = 1: a canary's answer is right with e / (1 + e); δ only adds
    assert p_value(60, 100, 100, 1.0, 1e-3) > p_value(60, 100, 100, 1.0, 0.0) > 0.99


def test_the_bound_holds_for_randomised_response() -> None:
    """Over 40 runs it exceeds the true ε no more often than one in twenty, and it is not idle."""
    random, epsilon, found = np.random.default_rng(0), 1.0, []
    for _ in range(40):
        included = random.random(1000) < 0.5
        right = random.random(1000) < np.e**epsilon / (1 + np.e**epsilon)
        score = np.where(right == included, 1.0, 0.0) + 1e-6 * random.random(1000)
        found.append(lower_bound(score, included, 0.0))
    assert np.mean(np.array(found) > epsilon) <= 0.125 and np.median(found) > 0.6
