"""Canaries in a private training: patients each of whom has a direction of the gradient to himself.

A discriminator of one linear layer, without a bias, has as a gradient the fake less the image. The generator draws
nothing, so that a canary's image, which is one bright pixel, is his gradient. Who holds every noisy sum (which is what
DP-SGD promises to keep private) reads from it, pixel by pixel, who is in the training.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.adversarial.private.budget import Budget
from pipeline.adversarial.private.stepping import PrivateStepper, PrivateTurn, clipped_sums, private_recipe
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import wasserstein_discriminator
from pipeline.adversarial.turns import Context
from pipeline.config.augment import AugmentConfig
from pipeline.config.dp import DpConfig
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.patients import PatientStream
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.measures.accounting import _rdp, _rdp_epsilon, gaussian_noise, smallest
from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.fourier import NoisyEmbedding

DELTA, CLIP = 1e-5, 0.1
STILL = Augmenter(AugmentConfig(brightness=0, contrast=0, shift=0, rotate_degrees=0, scale=0, noise=0))


class Nothing(nn.Module):
    """A generator of empty images."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.latent_dim, self.side = 1, side
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        return torch.zeros(len(z), 1, self.side, self.side)


class Linear(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.score = nn.Linear(side * side, 1, bias=False)

    def forward(self, images: Tensor, condition: Condition) -> Judgement:
        return Judgement(self.score(images.flatten(1)).squeeze(1))


def unclipped(weights: list[Tensor], gradients: list[Tensor], clip: float) -> list[Tensor]:
    return [gradient.sum(dim=0) for gradient in gradients]


def of_the_mean(stepper: PrivateStepper, summed: Tensor) -> Tensor:
    """Noise that is put on the sum as if it were the mean: too small by the size of a batch."""
    noise = torch.randn(summed.shape, generator=stepper.random)
    return summed + stepper.budget.noise * stepper.budget.clip / stepper.batch_size * noise


def taken_back(stepper: PrivateStepper, summed: Tensor) -> Tensor:
    """A sign error: the noise of a move is drawn twice from one state, and the second time taken away."""
    state = stepper.random.get_state()
    noisy = kept(stepper, summed)
    stepper.random.set_state(state)
    return noisy - (kept(stepper, summed) - summed)


def none(stepper: PrivateStepper, summed: Tensor) -> Tensor:
    return summed


kept = PrivateStepper._noisy
PLANTED: dict[str, dict[str, Any]] = {
    "none": {},
    "no noise": {"noisy": none},
    "noise of the mean": {"noisy": of_the_mean},
    "sign": {"noisy": taken_back},
    "no clipping": {"clip": unclipped},
}
"""Errors by name."""


def dp_sgd(planted: str, epsilon: float, seed: int, side: int = 20, moves: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Scores of side² canaries, and who was included, of a training that is said to cost `epsilon`.

    Everybody is drawn with a chance of 1/4 a move; the moves' noisy sums are added up.
    """
    error = PLANTED[planted]
    random = torch.Generator().manual_seed(seed)
    included = torch.rand(side * side, generator=random) < 0.5
    canaries = torch.eye(side * side).view(-1, 1, side, side)[included]
    number = len(canaries)
    batch = number // 4
    images = StoredImages(canaries, torch.zeros(number, dtype=torch.int64), _PLAIN, patient=torch.arange(number))
    # by RDP alone, whose ε is the larger one: PRV takes its time
    noise = smallest(lambda one: _rdp_epsilon(_rdp(one, batch / number), moves, DELTA) <= epsilon)
    budget = Budget(epsilon, DELTA, number, CLIP, noise, batch / number, moves)
    nets = {"generator": Nothing(side), "discriminator": Linear(side)}
    player = Player("discriminator", ("discriminator",), (Weighted("score", wasserstein_discriminator),),
                    OptimizerSettings(1e-3))  # fmt: skip
    recipe = private_recipe(Recipe((player,)), DpConfig(epsilon=epsilon, discriminator_steps=1))
    draws = Draws(torch.Generator().manual_seed(seed + 1))
    context = Context(nets, STILL, draws, torch.autocast("cpu", enabled=False))
    stepper = PrivateStepper(nets, recipe, budget, batch, torch.Generator().manual_seed(seed + 2))
    stream = PatientStream(images, batch, 1, torch.Generator().manual_seed(seed + 3))
    total = torch.zeros(side * side)
    with (
        mock.patch.object(PrivateStepper, "_noisy", error.get("noisy", kept)),
        mock.patch("pipeline.adversarial.private.stepping.clipped_sums", error.get("clip", clipped_sums)),
    ):
        for step in range(moves):
            turn = PrivateTurn(context, {"patients": stream.next()}, ("discriminator",))
            stepper.move(recipe.players[0], [turn], 1, step)
            total -= nets["discriminator"].score.weight.grad[0]
    return total.numpy(), included.numpy()


def dp_merf(planted: str, epsilon: float, seed: int, canaries: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """The same of DP-MERF's one sum: canaries are images of noise, whose embeddings are nearly at right angles."""
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = NoisyEmbedding((1, 16, 16), 1, 4000, (0.1,))
    images = torch.randint(0, 2, (canaries, 1, 16, 16), generator=random) * 2.0 - 1
    included = torch.rand(canaries, generator=random) < 0.5
    number = int(included.sum())
    share = 10.0 if planted == "no clipping" else 1.0
    net.add(images[included], torch.zeros(number, dtype=torch.int64), torch.full((number,), share))
    net.disturb(0.0 if planted == "no noise" else gaussian_noise(epsilon, DELTA), random)
    with torch.no_grad():
        return (net(images) @ net.sums[0]).numpy(), included.numpy()


_PLAIN = Scaling(1.0, 0.0, "none", (-1.0, 1.0), "float32")
