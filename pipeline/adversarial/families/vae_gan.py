"""VAE-GAN: an autoencoder that compares images by a discriminator's features (Larsen et al., ICML 2016)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.autoencoding import (
    FeatureAutoencodingTurn,
    divergence,
    logistic_discriminator_of_two,
    non_saturating_generator_of_two,
    reconstruction,
)
from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.config.families import VaeGanConfig
from pipeline.nets.encoders import Encoder, FeatureDiscriminator
from pipeline.nets.generators import ConvGenerator


def nets(config: VaeGanConfig, shape: ImageShape) -> dict[str, nn.Module]:
    generator = ConvGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=config.generator_width,
    )
    encoder = Encoder(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=max(4, config.discriminator_width // 2),
    )
    discriminator = FeatureDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        width=config.discriminator_width,
    )
    return {"generator": generator, "encoder": encoder, "discriminator": discriminator}


def recipe(config: VaeGanConfig) -> Recipe:
    like = Weighted("reconstruction", reconstruction)
    discriminator, encoder, generator = (
        Player(name, trains=(name,), terms=terms, optimizer=OptimizerSettings(lr))
        for name, lr, terms in (
            ("discriminator", config.discriminator_lr, (Weighted("logistic", logistic_discriminator_of_two),)),
            ("encoder", config.encoder_lr, (like, Weighted("divergence", divergence, config.kl))),
            (
                "generator",
                config.generator_lr,
                (
                    Weighted("logistic", non_saturating_generator_of_two),
                    Weighted("reconstruction", reconstruction, config.reconstruction),
                ),
            ),
        )
    )
    return Recipe(players=(discriminator, encoder, generator), turn=FeatureAutoencodingTurn)


FAMILY = Family(
    name="vae-gan",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Larsen et al., Autoencoding beyond pixels using a learned similarity metric, ICML 2016",
    nets=nets,
    recipe=recipe,
)
