"""Conditional GAN: the condition beside z and beside the image (Mirza & Osindero 2014), or two later ways."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pipeline.adversarial.family import Family, Nets, net_pair, player_pair, usual_generator
from pipeline.adversarial.objectives import NON_SATURATING
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.terms import class_of_fake, class_of_real
from pipeline.config.gan import GanConfig
from pipeline.nets.classic import StridedDiscriminator
from pipeline.nets.sizes import ImageShape


class CganConfig(GanConfig):
    """A conditional GAN (Mirza & Osindero 2014; Miyato & Koyama, ICLR 2018; Odena et al., ICML 2017).

    Attributes:
        conditioning: how the discriminator learns what the image shall be: beside the image, by projection, or by a
            classifier of its own.
    """

    family: Literal["cgan"] = "cgan"
    conditioning: Literal["concat", "projection", "auxiliary"] = "concat"


def nets(config: CganConfig, shape: ImageShape) -> Nets:
    judge = partial(StridedDiscriminator, norm="layer", conditioning=config.conditioning)
    return net_pair(usual_generator(config), judge)(config, shape)


def recipe(config: CganConfig) -> Recipe:
    if config.conditioning != "auxiliary":
        return Recipe(player_pair(config, NON_SATURATING))
    real, fake = Weighted("class_of_real", class_of_real), Weighted("class_of_fake", class_of_fake)
    return Recipe(player_pair(config, NON_SATURATING, [real, fake], [fake]))


FAMILY = Family(
    CganConfig,
    source="Mirza & Osindero, Conditional GANs, 2014; Miyato & Koyama, ICLR 2018; Odena et al., AC-GAN, ICML 2017",
    nets=nets,
    recipe=recipe,
    private="discriminator",
)
