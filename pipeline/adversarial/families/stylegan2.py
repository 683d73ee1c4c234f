"""StyleGAN2: styles, modulated convolutions, lazy R1 and path length (Karras et al., CVPR 2020)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.adversarial.family import Family, Nets, player_pair
from pipeline.adversarial.objectives import LOGISTIC
from pipeline.adversarial.penalties import r1_penalty
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.styles import PathLength, path_length, style_turn
from pipeline.config.gan import GanConfig, Rate, Weight
from pipeline.nets.sizes import ImageShape
from pipeline.nets.style import StyleDiscriminator, StyleGenerator


class Stylegan2Config(GanConfig):
    """Styles, lazy R1 and path length (Karras et al., CVPR 2020).

    At equal learning rates the generator outruns a discriminator that sees augmented images.

    Attributes:
        mapping_layers: from the latent to the style.
        style_mixing: share of images that are made from two styles.
        r1_gamma, path_weight: weight of R1, and of the path length; 0 leaves it out.
        r1_every, path_every: moves from one to the next.
    """

    family: Literal["stylegan2"] = "stylegan2"
    generator_lr: Rate = 1e-3
    discriminator_lr: Rate = 4e-3
    mapping_layers: int = Field(4, ge=1)
    style_mixing: float = Field(0.9, ge=0, le=1)
    r1_gamma: Weight = 0.01
    r1_every: int = Field(16, ge=1)
    path_weight: Weight = 2.0
    path_every: int = Field(4, ge=1)


def nets(config: Stylegan2Config, shape: ImageShape) -> Nets:
    width, judging = (max(2, 3 * width // 8) for width in (config.generator_width, config.discriminator_width))
    latent_dim, layers = config.latent_dim, config.mapping_layers
    return {  # two convolutions a level cost more than the default's one
        "generator": StyleGenerator(shape, latent_dim, config.embedding_dim, width, num_layers=layers),
        "discriminator": StyleDiscriminator(shape, judging),
    }


def recipe(config: Stylegan2Config) -> Recipe:
    r1 = Weighted("r1", r1_penalty, config.r1_gamma, config.r1_every)
    path = Weighted("path_length", path_length, config.path_weight, config.path_every)
    lazy = ([term] if term.weight else [] for term in (r1, path))
    players = player_pair(config, LOGISTIC, *lazy, betas=(0.0, 0.99))
    return Recipe(players, style_turn(config.style_mixing), states={"path_length": PathLength()})


FAMILY = Family(
    Stylegan2Config,
    source="Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020",
    nets=nets,
    recipe=recipe,
)
