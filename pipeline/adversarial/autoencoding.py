"""Turns and terms of families that encode images and decode them again."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pipeline.adversarial.turns import NoiseTurn
from pipeline.nets.conditions import Judgement
from pipeline.nets.encoders import Posterior

_LEAST_VARIANCE = 1e-5
"""Of a likelihood: of voxels in [-1, 1], about the rounding error of 8-bit images; of features, relative."""


class AutoencodingTurn(NoiseTurn):
    """Encodes the batch's images and decodes them. They are not augmented: a decoder draws what its encoder saw."""

    @cached_property
    def posterior(self) -> Posterior:
        with torch.set_grad_enabled("encoder" in self.trains), self.context.autocast:
            posterior: Posterior = self.context.nets["encoder"](self.batch.images, self.condition)
        return posterior.float()

    @cached_property
    def reconstruction(self) -> Tensor:
        """[B, C, *spatial], float32, decoded from a z drawn from the posterior."""
        noise = self.context.draws.randn(self.posterior.mean.shape)
        moving = not {"encoder", "generator"}.isdisjoint(self.trains)
        with torch.set_grad_enabled(moving), self.context.autocast:
            return self.context.generator(self.posterior.draw(noise), self.condition).float()

    @property
    def compared(self) -> tuple[Tensor, Tensor]:
        """What of the reconstructions is compared with what of the images: their voxels."""
        return self.reconstruction, self.batch.images


class FeatureAutoencodingTurn(AutoencodingTurn):
    """Compares images with reconstructions by the discriminator's features, and judges both beside prior samples.

    An image and its reconstruction get one draw of the augmentation, else their features could not be compared.
    """

    @cached_property
    def _pair_seen(self) -> tuple[Tensor, Tensor]:
        pairs = torch.cat([self.batch.images, self.reconstruction], dim=1)
        real, reconstructed = self.augmented(pairs).chunk(2, dim=1)
        return real.detach(), reconstructed

    @cached_property
    def real_seen(self) -> Tensor:
        return self._pair_seen[0]

    @cached_property
    def real_judgement(self) -> Judgement:
        real = self.real_seen  # made beside the reconstruction, so not where graphs are off
        with torch.set_grad_enabled("discriminator" in self.trains):
            return self.judge(real, self.condition)

    @cached_property
    def reconstruction_judgement(self) -> Judgement:
        return self.judge(self._pair_seen[1], self.condition)

    @property
    def compared(self) -> tuple[Tensor, Tensor]:
        """Their features, in units of the real ones' spread: a discriminator is free in how large it makes them."""
        real = self.real_judgement.features[0]
        spread = real.detach().std().clamp(min=1e-12)
        return self.reconstruction_judgement.features[0] / spread, real / spread


def reconstruction(turn: AutoencodingTurn) -> Tensor:
    """Negative log-likelihood a compared number, in nats, of a Gaussian about the reconstruction.

    Its variance is the likeliest one for the batch, the mean squared error: ½ log(2π e MSE). So the weight between
    likelihood and divergence finds itself, and neither blur nor collapse comes from a scale chosen too large (Rybkin
    et al., "Simple and Effective VAE Training with Calibrated Decoders", ICML 2021).
    """
    reconstructed, images = turn.compared
    variance = (reconstructed - images).square().mean().clamp(min=_LEAST_VARIANCE)
    return 0.5 * torch.log(2 * math.pi * math.e * variance)


def divergence(turn: AutoencodingTurn) -> Tensor:
    """KL(posterior || prior) in nats, mean over the batch, divided by the compared numbers of an image.

    Beside `reconstruction` the sum is minus the evidence bound a voxel: a learning rate means the same at every size.
    """
    _, images = turn.compared
    return turn.posterior.divergence().mean() / images[0].numel()


def logistic_discriminator_of_two(turn: FeatureAutoencodingTurn) -> Tensor:
    """The logistic loss where half of the fakes' weight is on prior samples and half on reconstructions."""
    fakes = softplus(turn.fake_logits).mean() + softplus(turn.reconstruction_judgement.logits).mean()
    return softplus(-turn.real_logits).mean() + 0.5 * fakes


def non_saturating_generator_of_two(turn: FeatureAutoencodingTurn) -> Tensor:
    """The non-saturating loss, half on prior samples and half on reconstructions."""
    return 0.5 * (softplus(-turn.fake_logits).mean() + softplus(-turn.reconstruction_judgement.logits).mean())
