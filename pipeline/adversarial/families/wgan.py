"""Wasserstein GAN with weight clipping and RMSprop (Arjovsky et al., ICML 2017)."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from pipeline.adversarial.family import Family, net_pair, player_pair
from pipeline.adversarial.objectives import WASSERSTEIN
from pipeline.adversarial.recipe import Recipe
from pipeline.adversarial.wasserstein import WassersteinTurn
from pipeline.config.gan import GanConfig, Rate
from pipeline.nets.classic import StridedDiscriminator


class WganConfig(GanConfig):
    """Wasserstein loss with bounded weights (Arjovsky et al., ICML 2017).

    Attributes:
        clip: bound of every discriminator weight.
        discriminator_steps: its moves a generator's move.
    """

    family: Literal["wgan"] = "wgan"
    generator_lr: Rate = 5e-5
    discriminator_lr: Rate = 1e-3
    ema: float = Field(0.995, ge=0, lt=1)
    clip: float = Field(0.03, gt=0)
    discriminator_steps: int = Field(2, ge=1)


nets = net_pair(discriminator=partial(StridedDiscriminator, norm="layer"))


def recipe(config: WganConfig) -> Recipe:
    repeats = config.discriminator_steps
    return Recipe(player_pair(config, WASSERSTEIN, kind="rmsprop", clip=config.clip, repeats=repeats), WassersteinTurn)


FAMILY = Family(
    WganConfig,
    source="Arjovsky et al., Wasserstein GAN, ICML 2017",
    nets=nets,
    recipe=recipe,
    note="Clipped weights make a weak critic: images come slower and softer than with a gradient penalty.",
)
