"""BigGAN: a shared condition code, z in every block, orthogonality, truncation (Brock et al., ICLR 2019)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.orthogonality import orthogonality
from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import hinge_discriminator, hinge_generator
from pipeline.adversarial.turns import NoiseTurn
from pipeline.config.families import BigganConfig
from pipeline.nets.residual import ResidualDiscriminator, TruncatingGenerator, residual_width


def nets(config: BigganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    generator = TruncatingGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=residual_width(config.generator_width),
        attention_side=config.attention_side,
        skip_z=True,
    )
    discriminator = ResidualDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        width=residual_width(config.discriminator_width),
        attention_side=config.attention_side,
    )
    return {"generator": generator, "discriminator": discriminator}


def recipe(config: BigganConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("hinge", hinge_discriminator),),
        optimizer=OptimizerSettings(config.discriminator_lr),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(
            Weighted("hinge", hinge_generator),
            Weighted("orthogonality", orthogonality, config.orthogonal),
        ),
        optimizer=OptimizerSettings(config.generator_lr),
    )
    return Recipe(players=(discriminator, generator), turn=NoiseTurn)


FAMILY = Family(
    name="biggan",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR 2019",
    nets=nets,
    recipe=recipe,
)
