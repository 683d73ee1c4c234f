"""Wasserstein GAN with weight clipping and RMSprop (Arjovsky et al., ICML 2017)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import wasserstein_discriminator, wasserstein_generator
from pipeline.adversarial.wasserstein import WassersteinTurn
from pipeline.config.families import WganConfig
from pipeline.nets.classic import StridedDiscriminator
from pipeline.nets.generators import ConvGenerator


def nets(config: WganConfig, shape: ImageShape) -> dict[str, nn.Module]:
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
    )
    return {"generator": generator, "discriminator": discriminator}


def recipe(config: WganConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("wasserstein", wasserstein_discriminator),),
        optimizer=OptimizerSettings(config.discriminator_lr, kind="rmsprop", clip=config.clip),
        repeats=config.discriminator_steps,
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(Weighted("wasserstein", wasserstein_generator),),
        optimizer=OptimizerSettings(config.generator_lr, kind="rmsprop"),
    )
    return Recipe(players=(discriminator, generator), turn=WassersteinTurn)


FAMILY = Family(
    name="wgan",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Arjovsky et al., Wasserstein GAN, ICML 2017",
    nets=nets,
    recipe=recipe,
    note="Clipped weights make a weak critic: images come slower and softer than with a gradient penalty.",
)
