"""DCGAN: transposed and strided convolutions, batch norm (Radford et al., ICLR 2016), one-sided label smoothing."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Literal

from pydantic import Field

from pipeline.adversarial.family import Family, Nets, net_pair, player_pair
from pipeline.adversarial.objectives import NON_SATURATING
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.terms import smoothed_logistic_discriminator
from pipeline.config.gan import GanConfig, Rate
from pipeline.nets.classic import StridedDiscriminator, TransposedGenerator
from pipeline.nets.sizes import ImageShape


class DcganConfig(GanConfig):
    """Strided convolutions and batch norm (Radford et al., ICLR 2016).

    Attributes:
        real_target: what the discriminator shall say of real images: one-sided label smoothing (Salimans et al. 2016).
    """

    family: Literal["dcgan"] = "dcgan"
    generator_lr: Rate = 1e-4
    discriminator_lr: Rate = 1e-4
    real_target: float = Field(0.9, gt=0, le=1)


def nets(config: DcganConfig, shape: ImageShape) -> Nets:
    # a transposed convolution is cheap: with 3 / 2 of the channels it does the work of the other families
    draw = partial(TransposedGenerator, norm="group" if config.norms_alone else "batch")
    judge = partial(StridedDiscriminator, norm="layer" if config.norms_alone else "batch")
    return net_pair(draw, judge, generator_share=Fraction(3, 2))(config, shape)


def recipe(config: DcganConfig) -> Recipe:
    real = Weighted("logistic", smoothed_logistic_discriminator(config.real_target))
    return Recipe(player_pair(config, replace(NON_SATURATING, discriminator=real), betas=(0.5, 0.999)))


FAMILY = Family(
    DcganConfig,
    source="Radford et al., DCGAN, ICLR 2016; Salimans et al., Improved Techniques for Training GANs, NeurIPS 2016",
    nets=nets,
    recipe=recipe,
    private="discriminator",
    note="Transposed convolutions can leave a faint lattice in small images.",
)
