"""How many noisy moves a discriminator gets for each of the generator, by how many fakes it tells.

Bie, Kamath & Zhang, "Private GANs, Revisited", TMLR 2023, section 4, with the constants of their experiments. Nothing
here looks at a patient: the share is of fakes, which the generator makes of classes that are drawn without the
patients, and the discriminator that judges them has been paid for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.adversarial.recipe import ScheduledTraining

PACE, TOLD = "pace", "fakes_told"
RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Moves of the discriminator for each of the generator, in the order in which they are tried."""
ENOUGH = 0.6
"""Share of the fakes that a discriminator should tell."""
_GRACE, _GRACE_SHARE, _LEAST_GRACE = 200, 1 / 200, 4
"""Moves of the generator at each rate: the paper's, of trainings of 40,000 moves of the discriminator and more.
Shorter ones give each rate a 200th of their moves, so that 50 is reached within a fifth of any training."""


class Pace(nn.Module):
    """What the rule remembers.

    Attributes:
        place: in `RATES`, of the rate.
        moves: of the discriminator in this step: the rate, or what is left of the training.
        since: moves of the generator since the rate was changed.
        told: running mean of the share of fakes that the discriminator tells when the generator moves.
    """

    place: Tensor
    moves: Tensor
    since: Tensor
    told: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("place", "since"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        self.register_buffer("moves", torch.ones((), dtype=torch.int64))
        self.register_buffer("told", torch.ones(()))


class PaceSchedule:
    """Goes to the next rate where the discriminator tells too few fakes, and has had time to learn at this one.

    Args:
        moves: of the discriminator in the whole training.
        batch_size: expected number of patients a move.
    """

    def __init__(self, moves: int, batch_size: int) -> None:
        self.grace = max(_LEAST_GRACE, min(_GRACE, int(moves * _GRACE_SHARE)))
        self.keeps = 1 - 2 / self.grace
        self.batch_size = batch_size

    def __call__(self, training: ScheduledTraining) -> None:
        state = training.context.states[PACE]
        assert isinstance(state, Pace)
        if training.step and TOLD in training.figures:
            self._judge(state, training.figures[TOLD], first=training.step == 1)
        left = math.ceil((training.total_images - training.num_images) / self.batch_size)
        state.moves.fill_(max(1, min(RATES[int(state.place)], left)))

    def _judge(self, state: Pace, told: Tensor, *, first: bool) -> None:
        """Take the last step's share into the mean, and go to the next rate where it is time."""
        state.told.lerp_(told.to(state.told), 1.0 if first else 1 - self.keeps)
        state.since.add_(1)
        if int(state.since) >= self.grace and float(state.told) <= ENOUGH:
            state.place.fill_(min(int(state.place) + 1, len(RATES) - 1))
            state.since.zero_()
