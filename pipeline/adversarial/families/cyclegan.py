"""CycleGAN: unpaired translation between two domains, held together by cycles (Zhu et al., ICCV 2017)."""

from __future__ import annotations

from typing import Any

from torch import nn

from pipeline.adversarial.coupling import DOMAINS, domain_b
from pipeline.adversarial.recipe import Family, ImageShape, OptimizerSettings, Player, Recipe, Weighted
from pipeline.adversarial.terms import least_squares_discriminator, least_squares_generator
from pipeline.adversarial.translation import CycleTurn, ImageBuffer, cycle_error, identity_error
from pipeline.config.families import CycleganConfig
from pipeline.nets.translators import DomainDiscriminators, DomainTranslators, PatchDiscriminator, ResidualTranslator


def nets(config: CycleganConfig, shape: ImageShape) -> dict[str, nn.Module]:
    positive = domain_b(shape)
    size: dict[str, Any] = {
        "spatial_size": shape.spatial_size,
        "channels": shape.channels,
        "num_classes": shape.num_classes,
    }

    def translator() -> ResidualTranslator:
        width = max(4, config.generator_width // 4)
        return ResidualTranslator(**size, embedding_dim=config.embedding_dim, width=width)

    def discriminator() -> PatchDiscriminator:
        return PatchDiscriminator(**size, width=config.discriminator_width)

    return {
        "generator": DomainTranslators(translator(), translator(), positive, config.latent_dim),
        "discriminator": DomainDiscriminators(discriminator(), discriminator(), positive),
    }


def recipe(config: CycleganConfig) -> Recipe:
    # the weights 2 and 4 make sums over both domains of terms that are means over them, and undo the generator's half
    discriminator = Player(
        "discriminator",
        trains=("discriminator",),
        terms=(Weighted("least_squares", least_squares_discriminator, 2.0),),
        optimizer=OptimizerSettings(config.discriminator_lr, betas=(0.5, 0.999)),
    )
    generator = Player(
        "generator",
        trains=("generator",),
        terms=(
            Weighted("least_squares", least_squares_generator, 4.0),
            Weighted("cycle", cycle_error, config.cycle),
            Weighted("identity", identity_error, config.identity),
        ),
        optimizer=OptimizerSettings(config.generator_lr, betas=(0.5, 0.999)),
    )
    buffers = {name: ImageBuffer(config.buffer) for name in ("buffer_a", "buffer_b")}
    return Recipe(players=(discriminator, generator), turn=CycleTurn, streams=DOMAINS, states=buffers)


FAMILY = Family(
    name="cyclegan",
    dimensions=(2, 3),
    conditions=("class", "source"),
    source="Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017",
    nets=nets,
    recipe=recipe,
    needs=("source",),
    note="It changes training images of the other domain, makes none from noise, and takes no attributes.",
)
