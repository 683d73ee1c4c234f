"""ProGAN: nets that grow, equalised weights, WGAN-GP (Karras et al., ICLR 2018)."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from pydantic import Field

from pipeline.adversarial.family import Family, net_pair, player_pair
from pipeline.adversarial.growth import Growth, drift
from pipeline.adversarial.objectives import WASSERSTEIN
from pipeline.adversarial.penalties import gradient_penalty
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.wasserstein import WassersteinTurn
from pipeline.config.gan import GanConfig, Rate, Weight
from pipeline.nets.growing import GrowingDiscriminator, GrowingGenerator

_DRIFT = 1e-3
_SHARE = Fraction(9, 32)
"""Of the widths: there are two layers a grid where the default has one, and one grid more."""


class ProganConfig(GanConfig):
    """Progressive growing with a Wasserstein loss (Karras et al., ICLR 2018).

    Attributes:
        gradient_penalty: weight of the discriminator's gradient penalty.
        growing: share of the training in which the image grows; the rest is at full size.
    """

    family: Literal["progan"] = "progan"
    generator_lr: Rate = 1e-3
    discriminator_lr: Rate = 4e-3
    gradient_penalty: Weight = 10.0
    growing: float = Field(0.5, ge=0, lt=1)


def recipe(config: ProganConfig) -> Recipe:
    penalty = Weighted("gradient_penalty", gradient_penalty, config.gradient_penalty)
    players = player_pair(config, WASSERSTEIN, [penalty, Weighted("drift", drift, _DRIFT)], betas=(0.0, 0.99))
    return Recipe(players, WassersteinTurn, schedules=(Growth(config.growing),))


FAMILY = Family(
    ProganConfig,
    source="Karras et al., Progressive Growing of GANs for Improved Quality, Stability, and Variation, ICLR 2018",
    nets=net_pair(GrowingGenerator, GrowingDiscriminator, generator_share=_SHARE, discriminator_share=_SHARE),
    recipe=recipe,
    note="Growing saves no time here: all levels are computed from the first step on.",
)
