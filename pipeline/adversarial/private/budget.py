"""The privacy budget of a training: what a move costs, how many there may be, and how many there were."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipeline.config.dp import DpConfig
from pipeline.config.gan import GanConfig
from pipeline.core.errors import ConfigError, RefusedError
from pipeline.measures.accounting import gaussian_epsilon, gaussian_noise, noise_for, spent, steps_for

_MOST_RATE = 0.5
"""Accountants of random batches need batches that leave patients out."""


class BudgetSpent(RefusedError):
    """One more look at the patients would cost more than was allowed."""


@dataclass
class Budget:
    """What is spent of (ε, δ), look by look.

    Attributes:
        patients: N, which counts as public.
        noise: noise multiplier of a look.
        rate: the chance with which a patient is in a look; 1 = all of them are (one look at all, no sampling).
        allowed: looks at most.
        looks: so far.
    """

    epsilon: float
    delta: float
    patients: int
    clip: float
    noise: float
    rate: float
    allowed: int
    looks: int = 0

    def look(self) -> None:
        """Count a look that is about to be made.

        Raises:
            BudgetSpent: there may be none.
        """
        if self.looks >= self.allowed:
            raise BudgetSpent(
                f"gan.dp.epsilon: {self.epsilon:g} is spent after {self.looks:,} looks at the patients; one more was "
                "asked for. This is a fault of radaug: the training should have ended."
            )
        self.looks += 1

    def spent(self) -> dict[str, Any]:
        """ε of the looks that were made, with the accountant whose figure it is and those of all."""
        if self.rate == 1:
            exact = gaussian_epsilon(self.noise, self.delta) if self.looks else 0.0
            return {"epsilon": exact, "accountant": "analytic Gaussian", "accountants": {"analytic Gaussian": exact}}
        found = spent(self.noise, self.rate, self.looks, self.delta)
        return {
            "epsilon": found.quoted,
            "accountant": found.accountant,
            "accountants": {"RDP": found.rdp, "PRV": found.prv},
        }

    def state_dict(self) -> dict[str, Any]:
        return {"looks": self.looks, "noise": self.noise, "rate": self.rate, "delta": self.delta, "clip": self.clip}

    def fits(self, state: Any, looks: int) -> bool:
        """Whether `state` is of such a training that has looked so often."""
        return isinstance(state, dict) and state == self.state_dict() | {"looks": looks}


def delta_of(dp: DpConfig, patients: int) -> float:
    """The configured δ, or a tenth of 1 / patients: the chance of failing one of them is then below a tenth."""
    return dp.delta if dp.delta is not None else 1 / (10 * patients)


def moves_of(gan: GanConfig) -> int:
    """Moves of the discriminator in a training of `gan.num_images`."""
    assert gan.dp is not None
    repeats = gan.dp.whole_step
    return math.ceil(gan.num_images / (gan.batch_size * repeats)) * repeats


def sampling_budget(gan: GanConfig, patients: int) -> Budget:
    """Of a discriminator that looks at random batches of patients (DP-SGD, Abadi et al., CCS 2016).

    Raises:
        ConfigError: batches are too large for so few patients, or no noise keeps the budget.
    """
    dp = gan.dp
    assert dp is not None
    rate, delta, moves = gan.batch_size / patients, delta_of(dp, patients), moves_of(gan)
    if rate > _MOST_RATE:
        raise ConfigError(
            f"gan.batch_size: {gan.batch_size} of {patients} training patients is more than half of them, and "
            f"differential privacy needs batches that leave patients out. Use {max(2, patients // 2)} or fewer."
        )
    if dp.noise is None:
        noise, allowed = _found_noise(dp.epsilon, delta, rate, moves), moves
    else:
        noise, repeats = dp.noise, dp.whole_step
        allowed = steps_for(dp.epsilon, delta, noise, rate, moves) // repeats * repeats
    if not allowed:
        raise ConfigError(
            f"gan.dp.noise: with {noise:g} not one step of {dp.whole_step} moves stays within "
            f"gan.dp.epsilon: {dp.epsilon:g}. Leave gan.dp.noise out, and as much is taken as is needed."
        )
    return Budget(dp.epsilon, delta, patients, dp.clip, noise, rate, allowed)


def _found_noise(epsilon: float, delta: float, rate: float, moves: int) -> float:
    try:
        return noise_for(epsilon, delta, rate, moves)
    except ValueError:
        raise ConfigError(f"gan.dp.epsilon: {epsilon:g} is too small: no noise keeps it for {moves:,} moves.") from None


def one_look_budget(dp: DpConfig, patients: int, length: float) -> Budget:
    """Of ONE noisy sum over all patients, each of whom adds a vector of `length` at most."""
    delta = delta_of(dp, patients)
    noise = dp.noise if dp.noise is not None else gaussian_noise(dp.epsilon, delta)
    if gaussian_epsilon(noise, delta) > dp.epsilon * 1.001:
        raise ConfigError(f"gan.dp.noise: {noise:g} costs more than gan.dp.epsilon: {dp.epsilon:g}. Leave it out.")
    return Budget(dp.epsilon, delta, patients, length, noise, 1.0, 1)
