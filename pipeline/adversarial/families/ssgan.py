"""SSGAN: a discriminator of K + 1 classes, labelled and unlabelled images, feature matching (Salimans et al. 2016)."""

from __future__ import annotations

from typing import Literal

from pipeline.adversarial.family import Family, net_pair, player_pair
from pipeline.adversarial.objectives import NON_SATURATING
from pipeline.adversarial.recipe import Recipe, Weighted
from pipeline.adversarial.semi_supervision import POOL, SemiSupervisedTurn, class_of_labelled, feature_matching
from pipeline.adversarial.terms import class_of_fake
from pipeline.config.gan import GanConfig, Weight
from pipeline.nets.semi_supervised import ClassifyingDiscriminator


class SsganConfig(GanConfig):
    """A discriminator with a class for fakes (Salimans et al., NeurIPS 2016). Weights are of the generator's terms.

    Attributes:
        feature_matching: of the likeness of mean features.
        asked_class: of the fakes' cross-entropy under the class that was asked for.
    """

    family: Literal["ssgan"] = "ssgan"
    feature_matching: Weight = 1.0
    asked_class: Weight = 0.1


def recipe(config: SsganConfig) -> Recipe:
    """The paper's generator knows no classes and has feature matching alone, which collapses within a class on small
    data; here it is asked for a class, answers to the discriminator's classes, and has the adversarial loss beside."""
    matching = Weighted("feature_matching", feature_matching, config.feature_matching)
    asked = Weighted("class", class_of_fake, config.asked_class)
    players = player_pair(config, NON_SATURATING, [Weighted("class", class_of_labelled)], [matching, asked])
    return Recipe(players, SemiSupervisedTurn, streams=POOL)


FAMILY = Family(
    SsganConfig,
    source="Salimans et al., Improved Techniques for Training GANs, NeurIPS 2016, section 5",
    nets=net_pair(discriminator=ClassifyingDiscriminator),
    recipe=recipe,
    conditions=("class",),
    note="beside the paper's feature matching there are an adversarial loss, for variety, and a class loss on fakes.",
)
