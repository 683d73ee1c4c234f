"""StarGAN: one translator between any number of domains (Choi et al., CVPR 2018)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pipeline.adversarial.family import Family, Nets, player_pair
from pipeline.adversarial.objectives import LEAST_SQUARES
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.star import BUFFER, StarTurn, class_of_real, class_of_translated
from pipeline.adversarial.translation import ImageBuffer, cycle_error, identity_error
from pipeline.adversarial.unpaired import UnpairedConfig, frozen_judge, semantic_terms
from pipeline.config.augment import AugmentConfig
from pipeline.config.gan import Rate, Weight
from pipeline.nets.sizes import ImageShape
from pipeline.nets.translators import StarDiscriminator, StarTranslator


class StarganConfig(UnpairedConfig):
    """Translation between any number of domains by one generator (Choi et al., CVPR 2018).

    Attributes:
        classification: weight of the class that the discriminator's classifier says of real images and translations.
        cycle: weight of the way there and back.
        identity: weight of leaving an image of the class that is asked for as it is. The paper has none; on small
            images without it little was left of the anatomy after 500 steps.
    """

    several_sites: ClassVar[bool] = True

    family: Literal["stargan"] = "stargan"
    generator_lr: Rate = 1e-3
    discriminator_lr: Rate = 1e-3
    augment: AugmentConfig = AugmentConfig(brightness=0, contrast=0, shift=0.125, rotate_degrees=0, scale=0, noise=0)
    classification: Weight = 3.0
    cycle: Weight = 10.0
    identity: Weight = 1.0


def nets(config: StarganConfig, shape: ImageShape) -> Nets:
    step = shape.classes_a_site if config.between == "sites" else 1
    width = max(4, 3 * config.generator_width // 8)
    return {
        "generator": StarTranslator(shape, config.latent_dim, config.embedding_dim, width, step),
        "discriminator": StarDiscriminator(shape, config.discriminator_width, config.patch_halvings),
    }


def recipe(config: StarganConfig) -> Recipe:
    told = [Weighted("class_of_real", class_of_real, config.classification)]
    kept = [Weighted("class_of_translated", class_of_translated, config.classification)]
    kept += [Weighted("cycle", cycle_error, config.cycle), Weighted("identity", identity_error, config.identity)]
    kept += semantic_terms(config)
    objective = LEAST_SQUARES.weighted(1.0, 2.0)  # undoes the generator's half
    players = player_pair(config, objective, told, kept, betas=(0.5, 0.999))
    return Recipe(players, partial(StarTurn, noise=config.cycle_noise), states={BUFFER: ImageBuffer(config.buffer)})


FAMILY = Family(
    StarganConfig,
    source="Choi et al., StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation, "
    "CVPR 2018",
    nets=nets,
    recipe=recipe,
    states=frozen_judge,
    conditions=("class", "source"),
    needs=("source",),
    note="It changes training images of other classes, or of other sites, makes none from noise, and takes no "
    "attributes.",
)
