"""StyleGAN2: styles, modulated convolutions, lazy R1 and path length (Karras et al., CVPR 2020)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.penalties import r1_penalty
from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.styles import PathLength, path_length, style_turn
from pipeline.adversarial.terms import logistic_discriminator, non_saturating_generator
from pipeline.config.families import Stylegan2Config
from pipeline.nets.style import StyleDiscriminator, StyleGenerator

_BETAS = (0.0, 0.99)


def nets(config: Stylegan2Config, shape: ImageShape) -> dict[str, nn.Module]:
    generator = StyleGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=max(2, 3 * config.generator_width // 8),  # two convolutions a level cost more than the default's one
        num_layers=config.mapping_layers,
    )
    discriminator = StyleDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        width=max(2, 3 * config.discriminator_width // 8),
    )
    return {"generator": generator, "discriminator": discriminator}


def recipe(config: Stylegan2Config) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=_terms(
            Weighted("logistic", logistic_discriminator),
            Weighted("r1", r1_penalty, config.r1_gamma, config.r1_every),
        ),
        optimizer=OptimizerSettings(config.discriminator_lr, _BETAS),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=_terms(
            Weighted("logistic", non_saturating_generator),
            Weighted("path_length", path_length, config.path_weight, config.path_every),
        ),
        optimizer=OptimizerSettings(config.generator_lr, _BETAS),
    )
    return Recipe(
        players=(discriminator, generator),
        turn=style_turn(config.style_mixing),
        states={"path_length": PathLength()},
    )


def _terms(*terms: Weighted) -> tuple[Weighted, ...]:
    return tuple(term for term in terms if term.weight)


FAMILY = Family(
    name="stylegan2",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020",
    nets=nets,
    recipe=recipe,
)
