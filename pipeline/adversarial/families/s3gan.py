"""S3GAN: pseudo-labels and rotations for images without labels (Lucic et al., ICML 2019)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.semi_supervision import RotationTurn, class_of_labelled, rotation_of_fake, rotation_of_real
from pipeline.adversarial.terms import hinge_discriminator, hinge_generator
from pipeline.config.families import S3ganConfig
from pipeline.nets.generators import ConvGenerator
from pipeline.nets.semi_supervised import PseudoLabellingDiscriminator


def nets(config: S3ganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    generator = ConvGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=config.generator_width,
    )
    discriminator = PseudoLabellingDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        width=config.discriminator_width,
    )
    return {"generator": generator, "discriminator": discriminator}


def recipe(config: S3ganConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(
            Weighted("hinge", hinge_discriminator),
            Weighted("class", class_of_labelled, config.labelling),
            Weighted("rotation", rotation_of_real, config.rotation),
        ),
        optimizer=OptimizerSettings(config.discriminator_lr),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(
            Weighted("hinge", hinge_generator),
            Weighted("rotation", rotation_of_fake, config.generator_rotation),
        ),
        optimizer=OptimizerSettings(config.generator_lr),
    )
    return Recipe(players=(discriminator, generator), turn=RotationTurn, streams=("labelled", "unlabelled"))


FAMILY = Family(
    name="s3gan",
    dimensions=(2, 3),
    conditions=("class",),
    source="Lucic et al., High-Fidelity Image Generation With Fewer Labels, ICML 2019; Chen et al., CVPR 2019",
    nets=nets,
    recipe=recipe,
)
