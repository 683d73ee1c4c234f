"""pix2pix: an image drawn on a mask, near to the real one and real in its patches (Isola et al., CVPR 2017)."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Literal

from pipeline.adversarial.family import Family, net_pair, player_pair
from pipeline.adversarial.objectives import LOGISTIC
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.translation import MaskTurn, pixel_error
from pipeline.config.gan import GanConfig, Rate, Weight
from pipeline.nets.translators import PatchDiscriminator, UNetGenerator


class Pix2pixConfig(GanConfig):
    """Masks to images in pairs (Isola et al., CVPR 2017).

    Attributes:
        l1: weight of the absolute difference from the mask's own image.
    """

    family: Literal["pix2pix"] = "pix2pix"
    generator_lr: Rate = 2e-4
    discriminator_lr: Rate = 2e-4
    l1: Weight = 100.0


def recipe(config: Pix2pixConfig) -> Recipe:
    l1 = Weighted("l1", pixel_error, config.l1)
    return Recipe(player_pair(config, LOGISTIC.weighted(0.5, 1.0), generator=[l1], betas=(0.5, 0.999)), MaskTurn)


FAMILY = Family(
    Pix2pixConfig,
    source="Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017",
    nets=net_pair(UNetGenerator, partial(PatchDiscriminator, masked=True), generator_share=Fraction(5, 16)),
    recipe=recipe,
    conditions=("class", "attributes", "mask"),
    needs=("mask",),
    note="Images of one mask differ little, since the L1 term draws them all to one; new images take training masks.",
)
