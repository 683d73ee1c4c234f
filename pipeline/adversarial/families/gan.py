"""The first GAN: multilayer perceptrons and the logistic loss, by class (Goodfellow et al., NeurIPS 2014)."""

from __future__ import annotations

from typing import Literal

from pipeline.adversarial.family import Family, Nets, player_pair
from pipeline.adversarial.objectives import NON_SATURATING
from pipeline.adversarial.recipe import Recipe
from pipeline.config.gan import GanConfig, Rate
from pipeline.nets.perceptrons import PerceptronDiscriminator, PerceptronGenerator
from pipeline.nets.sizes import ImageShape


class MlpGanConfig(GanConfig):
    """The first GAN (Goodfellow et al. 2014): multilayer perceptrons."""

    family: Literal["gan"] = "gan"
    generator_lr: Rate = 5e-5
    discriminator_lr: Rate = 4e-4


def nets(config: MlpGanConfig, shape: ImageShape) -> Nets:
    return {
        "generator": PerceptronGenerator(shape, config.latent_dim, config.embedding_dim, config.generator_width),
        "discriminator": PerceptronDiscriminator(shape, config.embedding_dim, config.discriminator_width),
    }


def recipe(config: MlpGanConfig) -> Recipe:
    return Recipe(player_pair(config, NON_SATURATING, betas=(0.5, 0.999)))


FAMILY = Family(
    MlpGanConfig,
    source="Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014; Mirza & Osindero 2014",
    nets=nets,
    recipe=recipe,
    private="discriminator",
    note="Perceptrons know nothing of neighbourhood: images stay grainy, and above 8,192 voxels the hidden layers are "
    "narrowed to keep the memory below 1 GB.",
)
