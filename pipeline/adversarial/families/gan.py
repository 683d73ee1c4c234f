"""The first GAN: multilayer perceptrons and the logistic loss, by class (Goodfellow et al., NeurIPS 2014)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import logistic_discriminator, non_saturating_generator
from pipeline.adversarial.turns import NoiseTurn
from pipeline.config.families import MlpGanConfig
from pipeline.nets.perceptrons import PerceptronDiscriminator, PerceptronGenerator

_BETAS = (0.5, 0.999)


def nets(config: MlpGanConfig, shape: ImageShape) -> dict[str, nn.Module]:
    generator = PerceptronGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=config.generator_width,
    )
    discriminator = PerceptronDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        embedding_dim=config.embedding_dim,
        width=config.discriminator_width,
    )
    return {"generator": generator, "discriminator": discriminator}


def recipe(config: MlpGanConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("logistic", logistic_discriminator),),
        optimizer=OptimizerSettings(config.discriminator_lr, _BETAS),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(Weighted("non_saturating", non_saturating_generator),),
        optimizer=OptimizerSettings(config.generator_lr, _BETAS),
    )
    return Recipe(players=(discriminator, generator), turn=NoiseTurn)


FAMILY = Family(
    name="gan",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014; Mirza & Osindero 2014",
    nets=nets,
    recipe=recipe,
    note=(
        "Perceptrons know nothing of neighbourhood: images stay grainy, and above 8,192 voxels the hidden layers are "
        "narrowed to keep the memory below 1 GB."
    ),
)
