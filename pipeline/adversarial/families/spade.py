"""SPADE: an image in the style of z, with the mask in every norm (Park et al., CVPR 2019)."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Literal

from pipeline.adversarial.family import Family, net_pair, player_pair
from pipeline.adversarial.objectives import HINGE
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.translation import MaskTurn, feature_matching
from pipeline.config.gan import GanConfig, Weight
from pipeline.nets.spade import SpadeGenerator
from pipeline.nets.translators import PatchDiscriminator


class SpadeConfig(GanConfig):
    """Masks to images by spatially adaptive normalisation (Park et al., CVPR 2019).

    Attributes:
        feature_matching: weight of the likeness of the discriminator's features.
    """

    family: Literal["spade"] = "spade"
    feature_matching: Weight = 10.0


def recipe(config: SpadeConfig) -> Recipe:
    matching = Weighted("feature_matching", feature_matching, config.feature_matching)
    return Recipe(player_pair(config, HINGE, generator=[matching]), MaskTurn)


FAMILY = Family(
    SpadeConfig,
    source="Park et al., Semantic Image Synthesis with Spatially-Adaptive Normalization, CVPR 2019",
    nets=net_pair(SpadeGenerator, partial(PatchDiscriminator, masked=True), generator_share=Fraction(3, 4)),
    recipe=recipe,
    conditions=("class", "attributes", "mask"),
    needs=("mask",),
    note="New images take the masks of training images.",
)
