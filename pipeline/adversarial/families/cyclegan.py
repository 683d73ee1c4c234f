"""CycleGAN: unpaired translation between two domains, held together by cycles (Zhu et al., ICCV 2017)."""

from __future__ import annotations

from typing import Literal

from pipeline.adversarial.coupling import DOMAINS, two_domains
from pipeline.adversarial.family import Family, Nets, player_pair
from pipeline.adversarial.objectives import LEAST_SQUARES
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.translation import cycle_error, identity_error
from pipeline.adversarial.unpaired import UnpairedConfig, buffers, cycle_turn, frozen_judge, semantic_terms
from pipeline.config.augment import AugmentConfig
from pipeline.config.gan import Rate, Weight
from pipeline.nets.sizes import ImageShape
from pipeline.nets.translators import DomainDiscriminators, DomainTranslators


class CycleganConfig(UnpairedConfig):
    """Translation between two unpaired domains (Zhu et al., ICCV 2017).

    `augment` moves images and leaves their intensities alone, which a translation must get right.

    Attributes:
        cycle: weight of the way there and back.
        identity: weight of leaving an image of the target domain as it is.
    """

    family: Literal["cyclegan"] = "cyclegan"
    generator_lr: Rate = 1e-3
    discriminator_lr: Rate = 1e-3
    augment: AugmentConfig = AugmentConfig(brightness=0, contrast=0, shift=0.125, rotate_degrees=0, scale=0, noise=0)
    cycle: Weight = 10.0
    identity: Weight = 5.0


def nets(config: CycleganConfig, shape: ImageShape) -> Nets:
    shape, width = two_domains(shape), max(4, config.generator_width // 4)
    return {
        "generator": DomainTranslators(shape, config.latent_dim, config.embedding_dim, width),
        "discriminator": DomainDiscriminators(shape, config.discriminator_width, config.patch_halvings),
    }


def recipe(config: CycleganConfig) -> Recipe:
    # the weights 2 and 4 make sums over both domains of terms that are means over them, and undo the generator's half
    objective = LEAST_SQUARES.weighted(2.0, 4.0)
    cycles = [Weighted("cycle", cycle_error, config.cycle), Weighted("identity", identity_error, config.identity)]
    cycles += semantic_terms(config)
    players = player_pair(config, objective, generator=cycles, betas=(0.5, 0.999))
    return Recipe(players, cycle_turn(config), streams=DOMAINS, states=buffers(config))


FAMILY = Family(
    CycleganConfig,
    source="Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017",
    nets=nets,
    recipe=recipe,
    states=frozen_judge,
    conditions=("class", "source"),
    needs=("source",),
    note="It changes training images of the other domain (classes, or sites), makes none from noise, and takes no "
    "attributes.",
)
