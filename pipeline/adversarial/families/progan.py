"""ProGAN: nets that grow, equalised weights, WGAN-GP (Karras et al., ICLR 2018)."""

from __future__ import annotations

from torch import nn

from pipeline.adversarial.growth import Growth, drift
from pipeline.adversarial.penalties import gradient_penalty
from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import wasserstein_discriminator, wasserstein_generator
from pipeline.adversarial.wasserstein import WassersteinTurn
from pipeline.config.families import ProganConfig
from pipeline.nets.growing import GrowingDiscriminator, GrowingGenerator

_BETAS = (0.0, 0.99)
_DRIFT = 1e-3


def nets(config: ProganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    generator = GrowingGenerator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        latent_dim=config.latent_dim,
        embedding_dim=config.embedding_dim,
        width=_inner(config.generator_width),
    )
    discriminator = GrowingDiscriminator(
        spatial_size=shape.spatial_size,
        channels=shape.channels,
        num_classes=shape.num_classes,
        num_attributes=shape.num_attributes,
        width=_inner(config.discriminator_width),
    )
    return {"generator": generator, "discriminator": discriminator}


def _inner(width: int) -> int:
    """Channels that cost what the default family's `width` costs: there are two layers a grid, and one grid more."""
    return max(4, width * 9 // 32)


def recipe(config: ProganConfig) -> Recipe:
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(
            Weighted("wasserstein", wasserstein_discriminator),
            Weighted("gradient_penalty", gradient_penalty, config.gradient_penalty),
            Weighted("drift", drift, _DRIFT),
        ),
        optimizer=OptimizerSettings(config.discriminator_lr, _BETAS),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(Weighted("wasserstein", wasserstein_generator),),
        optimizer=OptimizerSettings(config.generator_lr, _BETAS),
    )
    return Recipe((discriminator, generator), WassersteinTurn, schedules=(Growth(config.growing),))


FAMILY = Family(
    name="progan",
    dimensions=(2, 3),
    conditions=("class", "attributes"),
    source="Karras et al., Progressive Growing of GANs for Improved Quality, Stability, and Variation, ICLR 2018",
    nets=nets,
    recipe=recipe,
    note="Growing saves no time here: all levels are computed from the first step on.",
)
