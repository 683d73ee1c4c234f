"""Conditional GAN: the condition beside z and beside the image (Mirza & Osindero 2014), or two later ways."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import class_of_fake, class_of_real, logistic_discriminator, non_saturating_generator
from pipeline.adversarial.turns import NoiseTurn
from pipeline.config.families import CganConfig
from pipeline.nets.classic import StridedDiscriminator
from pipeline.nets.generators import ConvGenerator

_BETAS = (0.0, 0.9)


def nets(config: CganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    generator = ConvGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=config.generator_width,
    )
    discriminator = StridedDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        width=config.discriminator_width,
        norm="layer",
        conditioning=config.conditioning,
    )
    return {"generator": generator, "discriminator": discriminator}


def recipe(config: CganConfig) -> Recipe:
    real, fake = Weighted("class_of_real", class_of_real), Weighted("class_of_fake", class_of_fake)
    auxiliary = config.conditioning == "auxiliary"
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("logistic", logistic_discriminator), *((real, fake) if auxiliary else ())),
        optimizer=OptimizerSettings(config.discriminator_lr, _BETAS),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(Weighted("non_saturating", non_saturating_generator), *((fake,) if auxiliary else ())),
        optimizer=OptimizerSettings(config.generator_lr, _BETAS),
    )
    return Recipe(players=(discriminator, generator), turn=NoiseTurn)


FAMILY = Family(
    name="cgan",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Mirza & Osindero, Conditional GANs, 2014; Miyato & Koyama, ICLR 2018; Odena et al., AC-GAN, ICML 2017",
    nets=nets,
    recipe=recipe,
)
