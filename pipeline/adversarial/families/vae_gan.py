"""VAE-GAN: an autoencoder that compares images by a discriminator's features (Larsen et al., ICML 2016)."""

from __future__ import annotations

from typing import Literal

from pipeline.adversarial.autoencoding import (
    FeatureAutoencodingTurn,
    divergence,
    logistic_discriminator_of_two,
    non_saturating_generator_of_two,
    reconstruction,
)
from pipeline.adversarial.family import Family, Nets, conv_generator, player_pair
from pipeline.adversarial.objectives import Objective
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.config.gan import GanConfig, Rate, Weight
from pipeline.nets.encoders import Encoder, FeatureDiscriminator
from pipeline.nets.sizes import ImageShape


class VaeGanConfig(GanConfig):
    """An autoencoder judged by a discriminator's features (Larsen et al., ICML 2016).

    Attributes:
        encoder_lr: learning rate of the encoder.
        kl: weight of the divergence from the prior.
        reconstruction: weight of the likeness of features beside the adversarial loss, of the generator.
    """

    family: Literal["vae-gan"] = "vae-gan"
    generator_lr: Rate = 2e-4
    encoder_lr: Rate = 5e-4
    kl: Weight = 1.0
    reconstruction: Weight = 1.0


def nets(config: VaeGanConfig, shape: ImageShape) -> Nets:
    width = max(4, config.discriminator_width // 2)
    return {
        "generator": conv_generator(config, shape),
        "encoder": Encoder(shape, config.latent_dim, config.embedding_dim, width),
        "discriminator": FeatureDiscriminator(shape, config.discriminator_width),
    }


def recipe(config: VaeGanConfig) -> Recipe:
    of_two = Objective(
        Weighted("logistic", logistic_discriminator_of_two), Weighted("logistic", non_saturating_generator_of_two)
    )
    like = Weighted("reconstruction", reconstruction, config.reconstruction)
    near = Weighted("reconstruction", reconstruction), Weighted("divergence", divergence, config.kl)
    discriminator, generator = player_pair(config, of_two, generator=[like])
    encoder = Player("encoder", ("encoder",), near, OptimizerSettings(config.encoder_lr))
    return Recipe((discriminator, encoder, generator), FeatureAutoencodingTurn)


FAMILY = Family(
    VaeGanConfig,
    source="Larsen et al., Autoencoding beyond pixels using a learned similarity metric, ICML 2016",
    nets=nets,
    recipe=recipe,
)
