"""CoGAN: two GANs with tied layers, whose pairs of images share what lies deep (Liu & Tuzel, NeurIPS 2016)."""

from __future__ import annotations

from typing import Literal

from pipeline.adversarial.coupling import DOMAINS, CoupledTurn, two_domains
from pipeline.adversarial.family import Family, Nets, player_pair
from pipeline.adversarial.objectives import HINGE
from pipeline.adversarial.recipe import Recipe
from pipeline.config.gan import GanConfig
from pipeline.nets.coupled import CoupledDiscriminator, CoupledGenerator
from pipeline.nets.sizes import ImageShape


class CoganConfig(GanConfig):
    """Two GANs with tied weights, one a domain (Liu & Tuzel, NeurIPS 2016)."""

    family: Literal["cogan"] = "cogan"


def nets(config: CoganConfig, shape: ImageShape) -> Nets:
    shape = two_domains(shape)
    return {
        "generator": CoupledGenerator(shape, config.latent_dim, config.embedding_dim, config.generator_width),
        "discriminator": CoupledDiscriminator(shape, config.discriminator_width),
    }


def recipe(config: CoganConfig) -> Recipe:
    # the weight 2 makes a sum over both domains of a mean over them
    return Recipe(player_pair(config, HINGE.weighted(2.0, 2.0)), CoupledTurn, streams=DOMAINS)


FAMILY = Family(
    CoganConfig,
    source="Liu & Tuzel, Coupled Generative Adversarial Networks, NeurIPS 2016, with hinge loss and spectral norm",
    nets=nets,
    recipe=recipe,
    note="It pairs images of two domains; between classes of one domain nothing is tied.",
)
