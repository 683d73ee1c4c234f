"""VAE: a conditional variational autoencoder whose decoder is the generator (Kingma & Welling, ICLR 2014)."""

from __future__ import annotations

from typing import Literal

from pipeline.adversarial.autoencoding import AutoencodingTurn, divergence, reconstruction
from pipeline.adversarial.family import Family, Nets, conv_generator
from pipeline.adversarial.recipe import OptimizerSettings, Player, Recipe, Weighted
from pipeline.config.gan import GanConfig, Rate, Weight
from pipeline.nets.encoders import Encoder
from pipeline.nets.sizes import ImageShape


class VaeConfig(GanConfig):
    """A variational autoencoder (Kingma & Welling, ICLR 2014).

    Attributes:
        kl: weight of the divergence from the prior, of both terms summed over an image and divided by its voxels.
    """

    family: Literal["vae"] = "vae"
    generator_lr: Rate = 1e-3
    kl: Weight = 1.0


def nets(config: VaeConfig, shape: ImageShape) -> Nets:
    return {
        "generator": conv_generator(config, shape),
        "encoder": Encoder(shape, config.latent_dim, config.embedding_dim, config.discriminator_width),
    }


def recipe(config: VaeConfig) -> Recipe:
    terms = Weighted("reconstruction", reconstruction), Weighted("divergence", divergence, config.kl)
    settings = OptimizerSettings(config.generator_lr, betas=(0.9, 0.999))
    return Recipe((Player("autoencoder", ("encoder", "generator"), terms, settings),), AutoencodingTurn)


FAMILY = Family(
    VaeConfig,
    source="Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014; Rybkin et al., ICML 2021",
    nets=nets,
    recipe=recipe,
    note="no discriminator: detectors that look through it say skipped, and gan.augment and gan.discriminator_lr do "
    "not act; images are smoother than a GAN's.",
)
