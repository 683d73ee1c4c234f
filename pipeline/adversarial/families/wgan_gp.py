"""Wasserstein GAN with gradient penalty (Gulrajani et al., NeurIPS 2017)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.adversarial.families import wgan
from pipeline.adversarial.family import Family, player_pair
from pipeline.adversarial.objectives import WASSERSTEIN
from pipeline.adversarial.penalties import gradient_penalty
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.wasserstein import WassersteinTurn
from pipeline.config.gan import GanConfig, Rate, Weight


class WganGpConfig(GanConfig):
    """Wasserstein loss with a gradient penalty (Gulrajani et al., NeurIPS 2017).

    Attributes:
        gradient_penalty: its weight.
        discriminator_steps: the discriminator's moves a generator's move.
    """

    family: Literal["wgan-gp"] = "wgan-gp"
    generator_lr: Rate = 5e-5
    discriminator_lr: Rate = 8e-4
    ema: float = Field(0.995, ge=0, lt=1)
    gradient_penalty: Weight = 10.0
    discriminator_steps: int = Field(2, ge=1)


def recipe(config: WganGpConfig) -> Recipe:
    penalty = Weighted("gradient_penalty", gradient_penalty, config.gradient_penalty)
    return Recipe(player_pair(config, WASSERSTEIN, [penalty], repeats=config.discriminator_steps), WassersteinTurn)


FAMILY = Family(
    WganGpConfig,
    source="Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017",
    nets=wgan.nets,
    recipe=recipe,
)
