"""Wasserstein GAN with gradient penalty (Gulrajani et al., NeurIPS 2017)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.penalties import gradient_penalty
from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import wasserstein_discriminator, wasserstein_generator
from pipeline.adversarial.wasserstein import WassersteinTurn
from pipeline.config.families import WganGpConfig
from pipeline.nets.classic import StridedDiscriminator
from pipeline.nets.generators import ConvGenerator


def nets(config: WganGpConfig, shape: ImageShape) -> dict[str, nn.Module]:
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


def recipe(config: WganGpConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(
            Weighted("wasserstein", wasserstein_discriminator),
            Weighted("gradient_penalty", gradient_penalty, config.gradient_penalty),
        ),
        optimizer=OptimizerSettings(config.discriminator_lr),
        repeats=config.discriminator_steps,
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(Weighted("wasserstein", wasserstein_generator),),
        optimizer=OptimizerSettings(config.generator_lr),
    )
    return Recipe(players=(discriminator, generator), turn=WassersteinTurn)


FAMILY = Family(
    name="wgan-gp",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017",
    nets=nets,
    recipe=recipe,
)
