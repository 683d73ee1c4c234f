"""VAE: a conditional variational autoencoder whose decoder is the generator (Kingma & Welling, ICLR 2014)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.autoencoding import AutoencodingTurn, divergence, reconstruction
from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.config.families import VaeConfig
from pipeline.nets.encoders import Encoder
from pipeline.nets.generators import ConvGenerator


def nets(config: VaeConfig, shape: ImageShape) -> dict[str, nn.Module]:
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
        width=config.discriminator_width,
    )
    return {"generator": generator, "encoder": encoder}


def recipe(config: VaeConfig) -> Recipe:
    autoencoder = Player(
        "autoencoder",
        trains=("encoder", "generator"),
        terms=(Weighted("reconstruction", reconstruction), Weighted("divergence", divergence, config.kl)),
        optimizer=OptimizerSettings(config.generator_lr, betas=(0.9, 0.999)),
    )
    return Recipe(players=(autoencoder,), turn=AutoencodingTurn)


FAMILY = Family(
    name="vae",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014; Rybkin et al., ICML 2021",
    nets=nets,
    recipe=recipe,
    note=(
        "no discriminator: the anomaly stage says skipped, and gan.augment and gan.discriminator_lr do not act; images "
        "are smoother than a GAN's."
    ),
)
