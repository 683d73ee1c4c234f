"""BigGAN: a shared condition code, z in every block, orthogonality, truncation (Brock et al., ICLR 2019)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.adversarial.family import Family, Nets, player_pair
from pipeline.adversarial.objectives import HINGE
from pipeline.adversarial.orthogonality import orthogonality
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.config.gan import GanConfig, Rate, Weight
from pipeline.nets.residual import ResidualDiscriminator, TruncatingGenerator, residual_width
from pipeline.nets.sizes import ImageShape


class BigganConfig(GanConfig):
    """Residual blocks, self-attention, latent skips and orthogonality (Brock et al., ICLR 2019).

    Attributes:
        attention_side: self-attention acts where the grid's longest side is at most this.
        orthogonal: weight of the generator's orthogonality.
    """

    family: Literal["biggan"] = "biggan"
    generator_lr: Rate = 2e-4
    discriminator_lr: Rate = 4e-4
    attention_side: int = Field(16, ge=4)
    orthogonal: Weight = 1e-4


def nets(config: BigganConfig, shape: ImageShape) -> Nets:
    side, latent_dim, width = config.attention_side, config.latent_dim, residual_width(config.generator_width)
    judging = residual_width(config.discriminator_width)
    return {
        "generator": TruncatingGenerator(
            shape, latent_dim, config.embedding_dim, width, attention_side=side, skip_z=True
        ),
        "discriminator": ResidualDiscriminator(shape, judging, attention_side=side),
    }


def recipe(config: BigganConfig) -> Recipe:
    orthogonal = Weighted("orthogonality", orthogonality, config.orthogonal)
    return Recipe(player_pair(config, HINGE, generator=[orthogonal]))


FAMILY = Family(
    BigganConfig,
    source="Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, ICLR 2019",
    nets=nets,
    recipe=recipe,
)
