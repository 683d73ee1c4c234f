"""SAGAN: self-attention with a learned gate, and spectral norm in both nets (Zhang et al., ICML 2019)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.adversarial.family import Family, Nets
from pipeline.config.gan import GanConfig, Rate
from pipeline.nets.residual import ResidualDiscriminator, ResidualGenerator, residual_width
from pipeline.nets.sizes import ImageShape


class SaganConfig(GanConfig):
    """Self-attention (Zhang et al., ICML 2019).

    Attributes:
        attention_side: self-attention acts where the grid's longest side is at most this.
    """

    family: Literal["sagan"] = "sagan"
    generator_lr: Rate = 1e-4
    discriminator_lr: Rate = 4e-4
    attention_side: int = Field(16, ge=4)


def nets(config: SaganConfig, shape: ImageShape) -> Nets:
    side, width = config.attention_side, residual_width(config.generator_width)
    judging = residual_width(config.discriminator_width)
    return {
        "generator": ResidualGenerator(shape, config.latent_dim, config.embedding_dim, width, attention_side=side),
        "discriminator": ResidualDiscriminator(shape, judging, attention_side=side),
    }


FAMILY = Family(
    SaganConfig, source="Zhang et al., Self-Attention Generative Adversarial Networks, ICML 2019", nets=nets
)
