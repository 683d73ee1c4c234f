"""ε, δ and noise against published figures and plain formulas; what a budget allows; what is said to be feasible."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from pipeline.adversarial.private.budget import Budget, BudgetSpent, moves_of, one_look_budget, sampling_budget
from pipeline.adversarial.private.feasibility import feasibility, feasibility_table, require_feasible
from pipeline.config.dp import DpConfig
from pipeline.config.families import validate_gan
from pipeline.config.gan import GanConfig
from pipeline.core.errors import ConfigError, DataError
from pipeline.measures.accounting import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_noise,
    noise_for,
    spent,
    steps_for,
)


def gan(**changes: object) -> GanConfig:
    return validate_gan({"family": "cgan", "batch_size": 64, "num_images": 64_000} | changes)


def plain_rdp(noise: float, rate: float, order: int) -> float:
    """Of one Poisson-sampled Gaussian sum, of a whole order (Mironov et al. 2019, section 3.3)."""
    terms = [
        math.comb(order, k) * (1 - rate) ** (order - k) * rate**k * math.exp(k * (k - 1) / (2 * noise**2))
        for k in range(order + 1)
    ]
    return math.log(math.fsum(terms)) / (order - 1)


def test_rdp_is_that_of_the_published_moments_accountant() -> None:
    """Abadi et al. 2016, section 3.2: q = 0.01, σ = 4, 10,000 steps and δ = 1e-5 cost ε = 1.26, by their conversion."""
    published = min(10_000 * plain_rdp(4, 0.01, order) + math.log(1e5) / (order - 1) for order in range(2, 64))
    assert published == pytest.approx(1.26, abs=0.005)
    # the conversion of Canonne et al. 2020, which Opacus takes, from the same divergences
    orders = range(2, 64)
    newer = min(
        10_000 * plain_rdp(4, 0.01, order) + math.log1p(-1 / order) - math.log(1e-5 * order) / (order - 1)
        for order in orders
    )
    assert spent(4, 0.01, 10_000, 1e-5).rdp == pytest.approx(newer, rel=0.01)


def test_prv_is_the_exact_delta_of_one_sampled_sum() -> None:
    """δ(ε) of one sum in closed form, both ways round: (1 - q) N(0, σ²) + q N(1, σ²) against N(0, σ²)."""
    noise, rate, delta = 0.8, 0.2, 1e-3
    epsilon = spent(noise, rate, 1, delta).prv

    def difference(x: float, sign: int) -> float:
        mixed, plain = (1 - rate) * norm.pdf(x, 0, noise) + rate * norm.pdf(x, 1, noise), norm.pdf(x, 0, noise)
        one, other = (mixed, plain) if sign > 0 else (plain, mixed)
        return max(0.0, one - math.exp(epsilon) * other)

    exact = max(quad(difference, -12, 14, args=(sign,), limit=500, points=[0, 1, 2, 3])[0] for sign in (1, -1))
    assert exact <= delta and exact == pytest.approx(delta, rel=0.05)


def test_the_larger_accountant_is_quoted() -> None:
    found = spent(1.1, 256 / 60_000, 14_040, 1e-5)
    # the MNIST tutorial of TensorFlow Privacy (noise 1.1, 60 epochs): 2.6 by RDP; PRV bounds the same loss more tightly
    assert found.rdp == pytest.approx(2.6, abs=0.02) and 2.2 < found.prv < found.rdp
    assert found.quoted == found.rdp and found.accountant == "RDP"
    assert spent(1.0, 0.1, 0, 1e-5).quoted == 0


def test_noise_is_as_much_as_keeps_the_budget() -> None:
    epsilon = 3.0
    noise = noise_for(epsilon, 1e-4, 0.05, 100)
    assert 0.99 * epsilon < spent(noise, 0.05, 100, 1e-4).quoted <= epsilon
    assert steps_for(epsilon, 1e-4, noise, 0.05, 1_000) in range(100, 103)
    assert steps_for(epsilon, 1e-4, noise, 0.05, 50) == 50


def test_the_analytic_gaussian_is_that_of_the_paper() -> None:
    """Balle & Wang 2018: σ = 3.7306 for ε = 1, δ = 1e-5, where the classical formula asks for 4.84."""
    assert gaussian_noise(1.0, 1e-5) == pytest.approx(3.7306, abs=0.0006)
    assert math.sqrt(2 * math.log(1.25e5)) == pytest.approx(4.84, abs=0.01)
    assert gaussian_epsilon(3.7306, 1e-5) == pytest.approx(1.0, abs=2e-4)
    # by numerical integration of max(0, p - e^ε q)
    exact, _ = quad(lambda x: max(0.0, norm.pdf(x, 1, 2) - math.exp(0.5) * norm.pdf(x, 0, 2)), -30, 30, limit=400)
    assert gaussian_delta(0.5, 2.0) == pytest.approx(exact, rel=1e-6)


def test_a_budget_lasts_for_the_training_and_no_longer() -> None:
    config = gan(dp={"epsilon": 3, "discriminator_steps": 20})
    budget = sampling_budget(config, 5000)
    assert budget.allowed == moves_of(config) == 1000
    assert budget.delta == 1 / 50_000 and budget.rate == 64 / 5000
    for _ in range(1000):
        budget.look()
    assert 2.9 < budget.spent()["epsilon"] <= 3
    with pytest.raises(BudgetSpent, match=r"gan\.dp\.epsilon: 3 is spent"):
        budget.look()
    assert budget.looks == 1000


def test_given_noise_ends_the_training_at_its_budget() -> None:
    config = gan(dp={"epsilon": 2, "noise": 1.0, "delta": 1e-5, "discriminator_steps": 20})
    budget = sampling_budget(config, 5000)
    assert 0 < budget.allowed < 1000 and budget.allowed % 20 == 0
    assert spent(1.0, budget.rate, budget.allowed, 1e-5).quoted <= 2
    assert spent(1.0, budget.rate, budget.allowed + 20, 1e-5).quoted > 2


@pytest.mark.parametrize(
    ("changes", "patients", "named"),
    [
        ({"dp": {"epsilon": 1}}, 100, r"gan\.batch_size: 64 of 100 training patients"),
        ({"dp": {"epsilon": 0.1, "noise": 0.3}}, 5000, r"gan\.dp\.noise: with 0\.3 not one step"),
    ],
)
def test_budgets_that_cannot_be_are_refused_by_name(changes: dict[str, object], patients: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        sampling_budget(gan(**changes), patients)
    with pytest.raises(ConfigError, match=r"gan\.dp\.noise: 0\.1 costs more"):
        one_look_budget(DpConfig(epsilon=1, noise=0.1), patients, 1.0)


def test_one_look_costs_what_the_analytic_gaussian_says() -> None:
    budget = one_look_budget(DpConfig(epsilon=1, delta=1e-5), 5000, 1.0)
    assert budget.noise == pytest.approx(3.7306, abs=0.001) and budget.spent()["epsilon"] == 0
    budget.look()
    found = budget.spent()
    assert found["epsilon"] == pytest.approx(1, abs=1e-3) and found["accountant"] == "analytic Gaussian"


def test_what_is_feasible_goes_by_the_number_of_patients() -> None:
    words = {row["patients"]: [cell.split(" ", 1)[1] for name, cell in row.items() if name != "patients"]
             for row in feasibility_table()}  # fmt: skip
    assert words["60,000"][2] == words["60,000"][1] == "easy"
    assert words["4,700"][2] == "blurred"
    assert words["750"][2] == "only with public pre-training"
    assert set(words["200"]) == {"refused"}


def test_the_least_noise_is_a_floor_of_every_batch_size() -> None:
    """√T σ₁ / N is σ/B of all patients at once; random batches ask for more."""
    least = 10 * gaussian_noise(3.0, 1e-5) / 2000
    for batch in (20, 200, 1000):  # 100 looks at so many patients, with the least noise: it is too little for them
        assert spent(least * batch, batch / 2000, 100, 1e-5).prv > 3
    assert feasibility(3.0, 1e-5, 2000, 10_000).least == pytest.approx(10 * least)


def test_too_few_patients_are_refused_with_the_table() -> None:
    with pytest.raises(DataError, match=r"gan\.dp\.epsilon: 10 with 200 training patients") as refused:
        require_feasible(DpConfig(epsilon=10), 200, 1000)
    assert "patients: 60,000" in str(refused.value) and "dp-merf" in str(refused.value)
    assert require_feasible(DpConfig(epsilon=10), 4700, 1000).word == "blurred"


def test_a_budget_knows_its_own_state() -> None:
    budget = Budget(1.0, 1e-5, 100, 1.0, 2.0, 0.1, 50, looks=7)
    assert budget.fits(budget.state_dict(), 7) and not budget.fits(budget.state_dict(), 8)
    assert not budget.fits(budget.state_dict() | {"noise": 1.0}, 7) and not budget.fits(None, 7)
    assert np.isfinite(budget.spent()["epsilon"])
