"""DCGAN: transposed and strided convolutions, batch norm (Radford et al., ICLR 2016), one-sided label smoothing."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import non_saturating_generator, smoothed_logistic_discriminator
from pipeline.adversarial.turns import NoiseTurn
from pipeline.config.families import DcganConfig
from pipeline.nets.classic import StridedDiscriminator, TransposedGenerator

_BETAS = (0.5, 0.999)


def nets(config: DcganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    generator = TransposedGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=config.generator_width * 3 // 2,  # a transposed convolution is cheap: the work of the other families
    )
    discriminator = StridedDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        width=config.discriminator_width,
        norm="batch",
    )
    return {"generator": generator, "discriminator": discriminator}


def recipe(config: DcganConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("logistic", smoothed_logistic_discriminator(config.real_target)),),
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
    name="dcgan",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Radford et al., DCGAN, ICLR 2016; Salimans et al., Improved Techniques for Training GANs, NeurIPS 2016",
    nets=nets,
    recipe=recipe,
    note="Transposed convolutions can leave a faint lattice in small images.",
)
