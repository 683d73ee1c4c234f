"""SNGAN: spectral norm, hinge loss, class projection, conditional batch norm (Miyato et al., ICLR 2018)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import hinge_discriminator, hinge_generator
from pipeline.adversarial.turns import NoiseTurn
from pipeline.config.families import SnganConfig
from pipeline.nets.discriminators import ProjectionDiscriminator
from pipeline.nets.generators import ConvGenerator


def nets(config: SnganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    generator = ConvGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=config.generator_width,
    )
    discriminator = ProjectionDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        width=config.discriminator_width,
    )
    return {"generator": generator, "discriminator": discriminator}


def recipe(config: SnganConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("hinge", hinge_discriminator),),
        optimizer=OptimizerSettings(config.discriminator_lr),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(Weighted("hinge", hinge_generator),),
        optimizer=OptimizerSettings(config.generator_lr),
    )
    return Recipe(players=(discriminator, generator), turn=NoiseTurn)


FAMILY = Family(
    name="sngan",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Miyato et al., Spectral Normalization for GANs, ICLR 2018; Miyato & Koyama, ICLR 2018",
    nets=nets,
    recipe=recipe,
)
