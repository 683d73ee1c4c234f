"""CoGAN: two GANs with tied layers, whose pairs of images share what lies deep (Liu & Tuzel, NeurIPS 2016)."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.adversarial.coupling import DOMAINS, CoupledTurn, domain_b
from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import hinge_discriminator, hinge_generator
from pipeline.config.families import CoganConfig
from pipeline.nets.coupled import CoupledDiscriminator, CoupledGenerator


def nets(config: CoganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    size: dict[str, Any] = {
        "spatial_size": shape.spatial_size,
        "channels": shape.channels,
        "num_classes": shape.num_classes,
        "num_attributes": shape.num_attributes,
        "positive": domain_b(shape),
    }
    generator = CoupledGenerator(
        **size, latent_dim=config.latent_dim, embedding_dim=config.embedding_dim, width=config.generator_width
    )
    return {"generator": generator, "discriminator": CoupledDiscriminator(**size, width=config.discriminator_width)}


def recipe(config: CoganConfig) -> Recipe:
    # the weight 2 makes a sum over both domains of a mean over them
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("hinge", hinge_discriminator, 2.0),),
        optimizer=OptimizerSettings(config.discriminator_lr),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(Weighted("hinge", hinge_generator, 2.0),),
        optimizer=OptimizerSettings(config.generator_lr),
    )
    return Recipe(players=(discriminator, generator), turn=CoupledTurn, streams=DOMAINS)


FAMILY = Family(
    name="cogan",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Liu & Tuzel, Coupled Generative Adversarial Networks, NeurIPS 2016, with hinge loss and spectral norm",
    nets=nets,
    recipe=recipe,
    note="It pairs images of two domains; between classes of one domain nothing is tied.",
)
